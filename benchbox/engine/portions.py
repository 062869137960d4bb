"""How much work is handed out at once: much while there is much, little towards the end, which is waited for."""

from __future__ import annotations

import math
from collections.abc import Iterable

from benchbox.domain import Cell
from benchbox.engine.agenda import Agenda
from benchbox.engine.executors import Work, divided
from benchbox.engine.passes import crafting, passes

#: Images that a pooled attack is given at once.
POOL = 1000
#: Blocks that each of several workers gets at least, if all are as long as the longest.
BLOCKS = 4
#: So many times slower than the others a worker may be without being waited for at the end.
SLOWEST = 3
#: What is cut has at least this part of a batch, or the hardware would be wasted.
FEWEST = 8


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
        most = max(POOL, batch) if is_pooled else batch
        if self.workers == 1:
            return most
        return max(1, batch // FEWEST, int(min(most, self._most / max(1.0, crafting(cell)))))

    def cut(self, task: Work, agenda: Agenda, batch: int) -> list[Work]:
        """A task in parts so small that even a slow worker ends each before the others run out of work."""
        if self.workers == 1:
            return [task]
        left = agenda.work / self.workers / SLOWEST
        unit = task.unit
        image = passes(unit.cell) if unit.stored is None else 2.0 * unit.cell.scoring_draws
        most = max(1, batch // FEWEST, int(left / image))
        return list(divided(task, -(-len(unit.positions) // most)))
