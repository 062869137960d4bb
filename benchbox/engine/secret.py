"""The secret that a randomised defence's draws are named under: drawn once a store, kept with the cells.

Drawn when the first defence has been loaded, so that none can bring along what to say to whom. Who knows it, and
gives it again (`--secret`), gets the same outcomes. A deterministic defence is shown no draws that
mean anything, so its outcomes hang on no secret.
"""

from __future__ import annotations

import math
import re
import secrets
from typing import TYPE_CHECKING

from benchbox.domain import Cell
from benchbox.errors import RequestError

if TYPE_CHECKING:
    from benchbox.store import Records, Store

#: Of draws as they were before there were secrets: indices and seeds are the cell's own.
OPEN = ""
#: What it is remembered as, and what its record is attached to a cell as.
KIND = "secret"


def new() -> str:
    """128 random bits, in hexadecimal."""
    return secrets.token_hex(16)


def check(secret: str) -> str:
    """A secret as it was given.

    Raises:
        RequestError: It is not hexadecimal, or too long.
    """
    if not re.fullmatch(r"([0-9a-f]{2}){1,64}", secret):
        raise RequestError(f"--secret {secret!r} is no secret; give 2 to 128 hexadecimal digits, an even number")
    return secret


def of(store: Store) -> str:
    """The secret of a store; two processes that share it draw one."""
    with store.claim(KIND, wait=math.inf):
        if store.recall(KIND) is None:
            store.remember(KIND, new())
    return str(store.recall(KIND))


def settled(store: Store, given: str | None) -> str | None:
    """The secret a run will score under: the one that was given, else the store's; None if none is drawn yet."""
    known = store.recall(KIND) if given is None else given
    return None if known is None else str(known)


def join(store: Store, cell: Cell, other: Cell, secret: str | None) -> bool:
    """Let a cell hang on the secret of another, if it may have what was scored there; says whether it may.

    Args:
        store: Where both lie.
        cell: What was scored in it under another secret than the run's keeps it from any more.
        other: It was scored.
        secret: Of the run, as far as it is settled.
    """
    known = store.attached(other.key, KIND)
    if known is None:  # deterministic, or from before there were secrets
        return True
    own = store.attached(cell.key, KIND)
    if own is None and known["secret"] == secret:
        store.attach(cell.key, KIND, known)
    return bool((own or known)["secret"] == known["secret"] == secret)


def note(store: Store, cell: Cell, secret: str) -> None:
    """Keep the secret with a cell that hangs on it, before the first of its images is scored.

    The record has the `secret`, and how many images were scored `before` there was one.

    Raises:
        RequestError: The cell was begun under another.
    """
    known = store.attached(cell.key, KIND)
    if known is None:
        store.attach(cell.key, KIND, {"secret": secret, "before": len(store.positions(cell))})
    elif known["secret"] != secret:
        raise RequestError(
            f"cell {cell.key[:12]} was begun under another secret; give --secret {known['secret'] or chr(34) * 2} "
            "to go on with it"
        )


def recorded(records: Records, keys: list[str]) -> str:
    """The secret of some cells; `OPEN` where none is recorded.

    Raises:
        RequestError: They have several.
    """
    found = {str((records.attached(key, KIND) or {"secret": OPEN})["secret"]) for key in keys}
    if len(found) > 1:
        raise RequestError("these cells were scored under several secrets; name rows of one store at a time")
    return found.pop() if found else OPEN
