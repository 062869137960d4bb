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

from benchbox.domain import Access, Cell
from benchbox.engine.executors.task import Task, Work
from benchbox.engine.passes import passes
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
    return training.chain


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
    """A defence is to be trained; of those that share their weights, the first trains them."""

    what = "training"

    @property
    def name(self) -> str:
        """The weights."""
        return f"{self.what}/{self.training.weights}"


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
        work: Passes over an image, about, of all that nobody has begun.
    """

    workers: int = 1
    work: float = 0.0
    _foreseen: dict[Job, float] = field(default_factory=dict)
    _heap: list[tuple[tuple[float, ...], int, Item]] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)
    _parked: dict[str, list[tuple[tuple[float, ...], int, Item]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _elsewhere: list[Item] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._heap)

    def foresee(self, job: Job, images: int) -> None:
        """So many images of a cell will be put here as soon as it is known how."""
        self._foreseen[job] = passes(job.cell) * images
        self.work += self._foreseen[job]

    def forget(self, job: Job) -> None:
        """They are here now, or never will be."""
        self.work -= self._foreseen.pop(job, 0.0)

    def add(self, item: Item, order: int) -> None:
        """Put an item in its place; `order` is that of the first cell that needs it."""
        self._push((self._rank(item, order), next(self._numbers), item))

    def take(self, room: int, held: Mapping[str, object]) -> list[Item]:
        """The next items, as many as there is room for.

        One whose name is at work already is not among them; it waits until the name is free.
        """
        taken: dict[str, Item] = {}
        while self._heap and len(taken) < room:
            entry = heapq.heappop(self._heap)
            item = entry[2]
            self.work -= cost(item)
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
            self._push(entry)

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

    def _push(self, entry: tuple[tuple[float, ...], int, Item]) -> None:
        heapq.heappush(self._heap, entry)
        self.work += cost(entry[2])

    def _rank(self, item: Item, order: int) -> tuple[float, ...]:
        if self.workers == 1:
            return (order,)
        if not isinstance(item, Block):
            return (0, order)
        if item.first:
            return (1, order)
        # A transfer is described when all of it is there: that is waited for as well.
        return (2, -cost(item), item.job.cell.access is not Access.TRANSFER, order)


class Pace:
    """How long blocks take, by what those have in common that take equally long an image."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[float, int]] = {}

    def note(self, item: Item, seconds: float, images: int) -> None:
        """So many images of a block took so long."""
        if isinstance(item, Block) and images:
            spent, count = self._known.get(self._like(item), (0.0, 0))
            self._known[self._like(item)] = spent + seconds, count + images

    def expects(self, item: Item, task: Task) -> float | None:
        """Seconds that a task for an item should take; None if nobody can say."""
        known = self._known.get(self._like(item)) if isinstance(item, Block) else None
        return known[0] / known[1] * len(task.unit.positions) if known and isinstance(task, Work) else None

    def _like(self, block: Block) -> tuple[str, str]:
        return block.job.cell.artifact, block.job.cell.craft_key


def cost(item: Item) -> float:
    """Passes over an image that a block takes, about; what else there is counts for nothing beside them."""
    return passes(item.job.cell) * len(item.positions) if isinstance(item, Block) else 0.0
