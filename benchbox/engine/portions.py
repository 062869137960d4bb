"""How much work is handed out at once: much while there is much, little towards the end, which is waited for."""

from __future__ import annotations

import math
from collections.abc import Iterable

from benchbox.domain import Cell
from benchbox.engine.agenda import Agenda
from benchbox.engine.executors import Work, divided
from benchbox.engine.passes import crafting, passes

#: Images that a pooled attack is given at once, and of how many calls at most: what still stands is to fill calls.
#: So much is lost with a process that is killed, which on a slow network, with small calls, would be hours.
POOL = 1000
CALLS = 4
#: Blocks that each of several workers gets at least, if all are as long as the longest.
BLOCKS = 4
#: So many times longer than expected work may take without being waited for at the end: on a slow worker, or
#: because its images withstand.
SLOWEST = 8
#: What is cut has at least this part of a batch, or the hardware would be wasted, where that takes no longer than
#: `SHORTEST` seconds; and at most what takes `LONGEST`: so much is lost with a worker.
FEWEST = 8
SHORTEST = 20.0
LONGEST = 1800.0


class Portions:
    """Sizes of blocks, and of the parts they are cut into.

    Args:
        workers: Who share the work.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._most = math.inf  # passes over an image that a block may take

    def plan(self, cells: Iterable[Cell]) -> None:
        """Take note of all that was asked for, stored or not: so that every process comes to the same sizes."""
        whole = sum(len(cell.samples) * passes(cell) for cell in cells)
        self._most = whole / self.workers / BLOCKS

    def block(self, cell: Cell, batch: int, *, is_pooled: bool) -> int:
        """Images of a block, the same for all cells that share them.

        Args:
            cell: The cell.
            batch: Images a call of the model that is attacked.
            is_pooled: Whether the attack splits what it is given itself.
        """
        most = max(batch, min(POOL, CALLS * batch)) if is_pooled else batch
        if self.workers == 1:
            return most
        return max(1, batch // FEWEST, int(min(most, self._most / max(1.0, crafting(cell)))))

    def cut(self, task: Work, agenda: Agenda, batch: int, seconds: float | None = None) -> list[Work]:
        """A task in parts so small that even a slow worker ends each before the others run out of work.

        Args:
            task: Work on some images.
            agenda: What else is to be done.
            batch: Images a call of the model that is attacked.
            seconds: How long all of it should take, if that is known.
        """
        if self.workers == 1:
            return [task]
        n = len(task.unit.positions)
        most, least = agenda.work / self.workers / SLOWEST / needed(task), max(1, batch // FEWEST)
        if seconds:
            most = min(most, LONGEST * n / seconds)
            least = max(1, min(least, int(SHORTEST * n / seconds)))
        return list(divided(task, -(-n // max(least, int(most)))))


def needed(task: Work) -> float:
    """Passes over each image of a task, about."""
    cell = task.unit.cell
    return passes(cell) if task.unit.stored is None else 2.0 * cell.scoring_draws
