"""Gradients that are NaN or infinite: counted by the view, said here, and never taken for robustness."""

from __future__ import annotations

from benchbox.domain import Cell
from benchbox.engine.judge import Judge
from benchbox.engine.unit import Done
from benchbox.errors import DefenseError
from benchbox.store import Store

#: What the record is attached as, to the key of the crafting.
KIND = "gradients"
REMEDY = (
    "mend the operation whose derivative is not finite (a square root, logarithm, norm or division at 0), or give "
    "the defence a stand-in; an attack that needs no gradient says what it is worth meanwhile"
)


def require_some(result: Done, attacked: Judge, cell: Cell) -> None:
    """Refuse the first images of a cell if the attack never got a finite gradient: it did nothing at all.

    Raises:
        DefenseError: It did not; the network is to blame, not the attack.
    """
    if result.blind:
        raise blind(attacked.defense.card.name, cell.view.stand_in)


def blind(name: str, stand_in: str | None = None) -> DefenseError:
    """The error for a network of which no gradient is finite."""
    through = f" through its stand-in {stand_in}" if stand_in else ""
    return DefenseError(f"every gradient of {name}{through} is NaN or infinite; {REMEDY}")


def note(store: Store, cell: Cell, result: Done) -> None:
    """Keep how many gradients of the cell's crafting were broken, added to what is known of its other images."""
    if not result.broken.any():
        return
    before = store.attached(cell.craft_key, KIND) or {"samples": 0, "gradients": 0.0, "asked": 0.0}
    record = {
        "samples": before["samples"] + int((result.broken > 0).sum()),
        "gradients": before["gradients"] + float(result.broken.sum()),
        "asked": before["asked"] + float(result.outcome.backwards.sum()),
    }
    store.attach(cell.craft_key, KIND, record)


def inherit(store: Store, cell: Cell, other: Cell) -> None:
    """Keep what is known of the cell that images are taken over from: it may be true of them."""
    found = store.attached(other.craft_key, KIND)
    if found and store.attached(cell.craft_key, KIND) is None:
        store.attach(cell.craft_key, KIND, found)
