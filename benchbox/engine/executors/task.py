"""What a runner gives to an executor, and what it gets back. Everything here goes from process to process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from benchbox.engine.unit import Unit
from benchbox.training.artifacts import Training
from benchbox.training.layout import Layout
from benchbox.training.loop import Progress


@dataclass(frozen=True)
class _OfOne:
    """Something that is done to one defence."""

    training: Training

    @property
    def trainings(self) -> tuple[Training, ...]:
        """Whose weights it needs, if they are there."""
        return (self.training,)


class Make(_OfOne):
    """Train a defence whose base is made; its weights are kept."""


@dataclass(frozen=True)
class Prepare(_OfOne):
    """Find out how a trained defence is run fastest, and whether it keeps to its contract.

    Attributes:
        training: The defence.
        layout: How it is run, where that is known.
        images: How many will be attacked, for how long measuring may take.
    """

    layout: Layout | None = None
    images: int = 0


@dataclass(frozen=True)
class Prepared:
    """What came of it.

    Attributes:
        layout: How the defence is run.
        remarks: What is no breach of its contract but has to be known.
    """

    layout: Layout
    remarks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """Craft and score some images of a cell; gives a list of `Done`, one for each part that fitted into memory.

    Attributes:
        unit: The images.
        attacked: The model whose view the attack is given.
        deployed: The defence that is scored.
        layouts: How both are run, by digest.
        secret: What the draws of a randomised defence are named under.
        first: Whether nothing of the cell is known before it: then one finite gradient is asked for.
    """

    unit: Unit
    attacked: Training
    deployed: Training
    layouts: Mapping[str, Layout]
    secret: str
    first: bool = False

    @property
    def trainings(self) -> tuple[Training, ...]:
        """Whose weights it needs."""
        return (self.deployed, self.attacked)


@dataclass(frozen=True)
class Liken(Work):
    """Say what a transfer is worth: how good the substitute is, and how like the target, on the whole cell."""


Task = Make | Prepare | Work


def divided(task: Work, parts: int) -> Iterator[Work]:
    """The same work in parts of about one size."""
    for number, rows in enumerate(np.array_split(np.arange(len(task.unit.positions)), parts)):
        stored = None if task.unit.stored is None else task.unit.stored.rows(rows)
        unit = replace(task.unit, positions=task.unit.positions[rows], stored=stored)
        yield replace(task, unit=unit, first=task.first and number == 0)


@dataclass(frozen=True)
class Failure:
    """Why a task ended without a result.

    Attributes:
        message: One line.
        crashed: Whether it was a bug of a plug-in, and not something that its user was told to mend.
    """

    message: str
    crashed: bool = False


@dataclass(frozen=True)
class Ended:
    """A task ended.

    Attributes:
        number: Of the task, as it was submitted.
        value: What came of it, a `Failure` included.
        seconds: It took.
    """

    number: int
    value: Any
    seconds: float = 0.0


@dataclass(frozen=True)
class Lost:
    """Whoever was at work on a task is gone: killed, out of memory, its host switched off."""

    number: int


@dataclass(frozen=True)
class Told:
    """A training moved on."""

    training: Training
    progress: Progress


Event = Ended | Lost | Told


class Executor(Protocol):
    """Where tasks are done: in this process, in others of this machine, on a cluster.

    It knows no store: who submits also claims and commits.

    Attributes:
        workers: How many tasks are worked on at once.
    """

    workers: int

    @property
    def free(self) -> int:
        """How many tasks may be submitted now."""

    def describe(self) -> str:
        """What the tasks are done on, as `benchbox.engine.device.describe` says it."""

    def submit(self, number: int, task: Task) -> None:
        """Have a task done; only where one is free."""

    def next(self, timeout: float) -> Event | None:
        """Wait for something to happen; None if nothing did for so many seconds."""

    def close(self) -> None:
        """Stop everything at once."""
