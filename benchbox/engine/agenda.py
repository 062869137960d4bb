"""What is still to be done in a run, and in which order. Plain bookkeeping: no store, no process, no model."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from benchbox.domain import Cell
from benchbox.training.artifacts import Training


@dataclass(eq=False)
class Job:
    """A cell that is open.

    Attributes:
        cell: The cell.
        order: Its place in the plan.
        deployed: The defence that is scored.
        attacked: The model whose view the attack is given.
        stored: Images whose outcomes are in the store.
        left: Blocks that are not finished; -1 before they are known.
        over: Whether it is finished, or failed.
        wanted: (n,) places on the sample list that are asked for; None for all.
    """

    cell: Cell
    order: int
    deployed: Training
    attacked: Training
    stored: int = 0
    left: int = -1
    over: bool = False
    wanted: NDArray[np.int64] | None = None

    @property
    def chains(self) -> tuple[tuple[Training, ...], ...]:
        """What has to be trained for it, the lowest first."""
        return tuple(chain(training) for training in (self.deployed, self.attacked))


def chain(training: Training) -> tuple[Training, ...]:
    """A training and those below it, the lowest first."""
    return (*(chain(training.base) if training.base else ()), training)


@dataclass(frozen=True, eq=False)
class _Ready:
    """Something about a defence has to be had before its cells can be run."""

    training: Training
    what: ClassVar[str]

    @property
    def name(self) -> str:
        """What is claimed for it, if anything is."""
        return f"{self.what}/{self.training.digest}"


class Trained(_Ready):
    """A defence is to be trained."""

    what = "training"


class Known(_Ready):
    """It is to be found out how a defence is run. Not claimed: two that find it out at once find the same."""

    what = "layout"


@dataclass(frozen=True, eq=False)
class Block:
    """Images of a cell that are claimed together.

    Attributes:
        job: The cell.
        name: What is claimed. Cells that share their images share it: each image is crafted once.
        positions: (n,) places on the sample list.
        first: Whether nothing of the cell is known before it.
    """

    job: Job
    name: str
    positions: NDArray[np.int64]
    first: bool = False


@dataclass(frozen=True, eq=False)
class Likeness:
    """It is to be said what the finished transfer of a cell is worth."""

    job: Job

    @property
    def name(self) -> str:
        """Nothing is claimed, as above."""
        return f"transfer/{self.job.cell.key}"


Item = Trained | Known | Block | Likeness


@dataclass
class Agenda:
    """Items in the order they are to be started.

    One worker takes one cell after the other, as they are planned. Several begin with what others wait for
    (trainings), go on with the first images of every cell, so that a mistake shows early, and then take the
    longest first, so that they end together.

    Attributes:
        workers: How many there are.
    """

    workers: int = 1
    _heap: list[tuple[tuple[float, ...], int, Item]] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)
    _parked: dict[str, list[tuple[tuple[float, ...], int, Item]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _elsewhere: list[Item] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, item: Item, order: int) -> None:
        """Put an item in its place; `order` is that of the first cell that needs it."""
        heapq.heappush(self._heap, (self._rank(item, order), next(self._numbers), item))

    def take(self, room: int, held: Mapping[str, object]) -> list[Item]:
        """The next items, as many as there is room for.

        One whose name is at work already is not among them; it waits until the name is free.
        """
        taken: dict[str, Item] = {}
        while self._heap and len(taken) < room:
            entry = heapq.heappop(self._heap)
            item = entry[2]
            if isinstance(item, Block | Likeness) and item.job.over:
                continue
            if item.name in held or item.name in taken:
                self._parked[item.name].append(entry)
            else:
                taken[item.name] = item
        return list(taken.values())

    def free(self, name: str) -> None:
        """What waited for a name may start."""
        for entry in self._parked.pop(name, ()):
            heapq.heappush(self._heap, entry)

    def leave(self, item: Item) -> None:
        """Another process is at work on it."""
        self._elsewhere.append(item)

    def look_again(self) -> None:
        """Try once more what other processes were at work on."""
        for item in self._elsewhere:
            self.add(item, item.job.order if isinstance(item, Block | Likeness) else 0)
        self._elsewhere.clear()

    @property
    def left(self) -> bool:
        """Whether other processes are at work on some of it."""
        return bool(self._elsewhere)

    def _rank(self, item: Item, order: int) -> tuple[float, ...]:
        if self.workers == 1:
            return (order,)
        if not isinstance(item, Block):
            return (0, order)
        return (1, order) if item.first else (2, -passes(item.job.cell) * len(item.positions), order)


class Pace:
    """How long blocks take, by what those have in common that take equally long an image."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[float, int]] = {}

    def note(self, block: Block, seconds: float, images: int) -> None:
        """So many images of a block took so long."""
        spent, count = self._known.get(self._like(block), (0.0, 0))
        self._known[self._like(block)] = spent + seconds, count + images

    def expects(self, item: Item) -> float | None:
        """Seconds that an item should take; None if nobody can say."""
        known = self._known.get(self._like(item)) if isinstance(item, Block) else None
        return known[0] / known[1] * len(item.positions) if known and isinstance(item, Block) else None

    def _like(self, block: Block) -> tuple[str, str]:
        return block.job.cell.artifact, block.job.cell.craft_key


def passes(cell: Cell) -> float:
    """Forward and backward passes an image, about, by what the attack declares of itself."""
    nature = cell.nature
    if nature is None:
        return 1.0
    steps = 2.0 * nature.steps * max(1, nature.restarts) * max(1, nature.targets)
    return (steps * cell.eot + nature.queries) + 2 * cell.scoring_draws
