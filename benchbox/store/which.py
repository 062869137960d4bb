"""Which cells are meant, as the keywords of whatever answers with evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict


class Which(TypedDict, total=False):
    """Of any records; what is left out, or None, stands for all.

    Attributes:
        dataset: Name of the data set.
        defenses: Names of defences.
        keys: Keys of cells.
    """

    dataset: str | None
    defenses: Sequence[str] | None
    keys: Sequence[str] | None


class WhichStored(Which, total=False):
    """Of a store.

    Attributes:
        attacks: Names of attacks.
        access: What the attacker knows.
        status: `done`, `partial` or `failed`.
        run: Number of the run that added them.
        prefix: First characters of a key.
    """

    attacks: Sequence[str] | None
    access: str | None
    status: str | None
    run: int | None
    prefix: str | None
