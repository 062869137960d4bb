"""An executor that does nothing and says at once that it is done; and who hears of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from evidence import images, outcome

from benchbox.domain import Cell
from benchbox.engine.executors import Ended, Liken, Make, Prepare, Prepared, Task, Told, Work
from benchbox.engine.unit import Done
from benchbox.training.layout import Layout
from benchbox.training.loop import Progress


@dataclass(eq=False)
class Hands:
    """Does nothing, and says at once that it is done; writes down what it was asked.

    Attributes:
        made: Weights that are there.
        layout: What a defence is found to run in.
        answer: What a test says in the place of the result; None for the result.
    """

    workers: int = 1
    made: set[str] = field(default_factory=set)
    layout: Layout = field(default_factory=lambda: Layout(batch=4))
    answer: Callable[[Task], Any] = lambda task: None
    asked: list[Task] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)
    ends: deque[Ended] = field(default_factory=deque)
    told: deque[Told] = field(default_factory=deque)

    @property
    def free(self) -> int:
        return self.workers - len(self.ends)

    def describe(self) -> str:
        return "by hand"

    def submit(self, number: int, task: Task) -> None:
        self.asked.append(task)
        self.ends.append(Ended(number, task, 2.0))

    def next(self, timeout: float) -> Ended | Told | None:
        self.timeouts.append(timeout)
        if self.told:
            return self.told.popleft()
        if not self.ends:
            return None
        ended = self.ends.popleft()
        said = self.answer(ended.value)
        return replace(ended, value=self.result(ended.value) if said is None else said)

    def result(self, task: Task) -> Any:
        if isinstance(task, Make):
            self.made.add(task.training.weights)
            return None
        if isinstance(task, Prepare):
            return Prepared(self.layout)
        if isinstance(task, Liken):
            return {"agreement": 0.5}
        cell, places = task.unit.cell, task.unit.positions
        crafted = images(cell.craft_key, places) if task.unit.stored is None else None
        return [Done(outcome(cell, places), crafted, 3.0, 1.0, np.zeros(len(places)), False)]

    def close(self) -> None:
        pass


class Heard:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.trained: list[Any] = []
        self.cells: list[tuple[Any, ...]] = []
        self.errors: list[tuple[str, str]] = []

    def training(self, wanted: Any, progress: Progress) -> None:
        self.trained.append((wanted.seed, progress))

    def cell(self, cell: Cell, done: int, total: int) -> None:
        self.cells.append((cell.access, done, total))

    def failed(self, cell: Cell, error: str) -> None:
        self.errors.append((cell.key, error))


def told(hands: Hands) -> list[tuple[Any, ...]]:
    """What was asked: of a defence its seed, of a block its places and whether it is the first of its cell."""
    found: list[tuple[Any, ...]] = []
    for task in hands.asked:
        match task:
            case Make(training):
                found.append(("make", training.seed))
            case Prepare(training, layout, count):
                found.append(("prepare", training.seed, layout, count))
            case Liken():
                found.append(("liken", len(task.unit.positions)))
            case Work():
                found.append((task.unit.cell.access, task.unit.positions.tolist(), task.first))
    return found
