"""Does tasks: the same code in this process, in a process beside it, and on a cluster."""

from __future__ import annotations

import time
import traceback
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchbox.contract.attack import Attack
from benchbox.contract.registry import Registry
from benchbox.data.dataset import Dataset
from benchbox.domain import Cell
from benchbox.engine import gradients, transfer
from benchbox.engine.bench import Bench
from benchbox.engine.executors.task import Ended, Failure, Liken, Make, Prepare, Prepared, Task, Work
from benchbox.engine.judge import Judge, slices
from benchbox.engine.unit import Done, Models, Unit, attempt
from benchbox.errors import BenchboxError
from benchbox.store import Adversarials, outcomes
from benchbox.training.artifacts import Training


class Worker:
    """Does tasks about one data set.

    Args:
        bench: Where defences come from.
        attacks: The plug-ins.
        dataset: The images.
        device: Where models run.
    """

    def __init__(self, bench: Bench, attacks: Registry[Attack], dataset: Dataset, device: torch.device) -> None:
        self.bench = bench
        self.attacks = attacks
        self.dataset = dataset
        self.device = device

    def end(self, number: int, task: Task) -> Ended:
        """Do a task; what a plug-in did wrong is a value like any other."""
        start = time.perf_counter()
        value: Any
        try:
            value = self.do(task)
        except BenchboxError as error:
            value = Failure(str(error))
        except Exception as error:  # a bug in one plug-in must not cost the two hundred other cells
            where = traceback.extract_tb(error.__traceback__)[-1]
            value = Failure(f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})", crashed=True)
        return Ended(number, value, time.perf_counter() - start)

    def do(self, task: Task) -> Any:
        """What comes of a task.

        Raises:
            BenchboxError: A plug-in broke its contract, or weights are damaged.
        """
        match task:
            case Make():
                self.bench.workshop.obtain(task.training)
                return None
            case Prepare():
                return self._prepare(task)
            case Liken():
                return self._liken(task)
            case Work():
                return perform(task.unit, self._models(task), first=task.first)

    def _prepare(self, task: Prepare) -> Prepared:
        self.bench.images = task.images
        if task.layout is not None:
            self.bench.know(task.training.digest, task.layout)
        judge = self.bench.judge(task.training)
        return Prepared(judge.layout, self.bench.remarks.get(task.training.digest, {}))

    def _models(self, task: Work) -> Models:
        deployed, attacked = (self._judge(training, task) for training in (task.deployed, task.attacked))
        return Models(attacked, deployed, self._attack(task.unit.cell), self.dataset, self.device)

    def _judge(self, training: Training, task: Work) -> Judge:
        self.bench.know(training.digest, task.layouts[training.digest])
        judge = self.bench.judge(training)
        judge.secret = task.secret
        return judge

    def _attack(self, cell: Cell) -> Attack:
        return self.attacks.get(cell.attack.name).cls(**cell.attack.arguments)

    def _liken(self, task: Liken) -> dict[str, float]:
        models, unit = self._models(task), task.unit
        assert unit.stored is not None
        indices = [unit.cell.samples.indices[p] for p in unit.positions]
        x, y = (t.to(self.device) for t in self.dataset.test.batch(indices))
        x_adv = torch.from_numpy(unit.stored.x).to(self.device)
        record = transfer.describe(models.attacked, models.deployed, x, x_adv, y)
        return record | ({"queries": task.attacked.lesson.queries} if task.attacked.lesson else {})


def packed(ended: Ended) -> Ended:
    """The same, all packed for the store here and not by the one who commits for everybody."""
    return replace(ended, value=[_packed(one) for one in ended.value]) if isinstance(ended.value, list) else ended


def _packed(done: Done) -> Done:
    images = None if done.images is None else done.images.as_packed()
    return replace(done, images=images, encoded=outcomes.encode(done.outcome))


def perform(whole: Unit, models: Models, *, first: bool = False) -> list[Done]:
    """Do the work of a unit, in smaller parts where memory does not suffice.

    Args:
        whole: The images.
        models: What is asked.
        first: Whether a defence that gives none of them a finite gradient is refused.

    Raises:
        AttackError: The attack broke its contract.
        DefenseError: The defence did, or gives none of the first images a finite gradient.
    """
    finished: list[Done] = []
    parts = [whole.positions] if len(whole.positions) else []
    while parts:
        positions = parts.pop(0)
        if not models.attack.pooled and len(positions) > (most := models.attacked.layout.batch):
            parts = [*(positions[at] for at in slices(len(positions), most)), *parts]
            continue
        result = attempt(Unit(whole.cell, positions, _rows(whole, positions)), models)
        if result is None:
            smaller = models.halve(len(positions))
            parts = [*(positions[at] for at in slices(len(positions), smaller)), *parts]
            continue
        if first and not finished:
            gradients.require_some(result, models.attacked, whole.cell)
        finished.append(result)
    return finished


def _rows(whole: Unit, positions: NDArray[np.int64]) -> Adversarials | None:
    """Of the stored images those at some positions."""
    if whole.stored is None or len(positions) == len(whole.positions):
        return whole.stored
    return whole.stored.rows(np.searchsorted(whole.positions, positions))
