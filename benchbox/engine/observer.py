"""Who hears what a run does, and what it did in the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from benchbox.domain import Cell

if TYPE_CHECKING:  # what it did is told without torch, too
    from benchbox.training.artifacts import Training
    from benchbox.training.loop import Progress


class Observer(Protocol):
    """Hears of everything that happens; the command line draws it."""

    def training(self, wanted: Training, progress: Progress) -> None:
        """A training moved on."""

    def cell(self, cell: Cell, done: int, total: int) -> None:
        """`done` of `total` samples of a cell are in the store."""

    def failed(self, cell: Cell, error: str) -> None:
        """A cell ended with an error."""


@dataclass
class Report:
    """What a run did. Seconds are spent in crafting, in scoring, and in training, by all workers together.

    `crashed` of the `failed` cells ended with something other than a `BenchboxError`: a bug in a plug-in.
    """

    done: int = 0
    batches: int = 0
    reused: int = 0
    kept: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    crashed: int = 0
    crafting: float = 0.0
    scoring: float = 0.0
    training: float = 0.0
    total: float = 0.0
