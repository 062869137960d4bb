"""Runs a plan: craft, check, score, commit; batch by batch, so that it can be killed at any time.

What is attacked is a view, what is scored is the deployed defence, and their random streams never meet.
A cell that fails is a row with its error; the grid goes on.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from benchbox.contract.attack import Attack
from benchbox.contract.registry import Registry
from benchbox.data.dataset import Dataset
from benchbox.domain import Access, Cell
from benchbox.engine import gradients, reuse, secret, transfer
from benchbox.engine.bench import Bench
from benchbox.engine.judge import Judge, slices
from benchbox.engine.plan import Plan
from benchbox.engine.unit import Models, Unit, attempt
from benchbox.errors import BenchboxError, StoreError
from benchbox.store import Store
from benchbox.training.artifacts import Training
from benchbox.training.loop import Progress

#: Images that a pooled attack is given at once.
POOL = 1000
#: Seconds between two looks at what other processes are still at work on.
PAUSE = 0.2


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
    """What a run did. Seconds are spent in crafting, in scoring, and in everything else.

    `crashed` of the `failed` cells ended with something other than a `BenchboxError`: a bug in a plug-in.
    """

    done: int = 0
    batches: int = 0
    reused: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    crashed: int = 0
    crafting: float = 0.0
    scoring: float = 0.0
    training: float = 0.0
    total: float = 0.0


class Runner:
    """Fills the cells of a plan.

    Args:
        store: Where outcomes go.
        bench: Where defences come from.
        attacks: The plug-ins.
        dataset: The images.
        device: Where models run.
        observer: Hears of progress.
    """

    def __init__(
        self,
        store: Store,
        bench: Bench,
        attacks: Registry[Attack],
        dataset: Dataset,
        device: torch.device,
        observer: Observer,
    ) -> None:
        self.store = store
        self.bench = bench
        self.attacks = attacks
        self.dataset = dataset
        self.device = device
        self.observer = observer

    def run(self, plan: Plan, run: int) -> Report:
        """Run every cell that is not in the store yet.

        Args:
            plan: What to run.
            run: The run's number in the store, for provenance.
        """
        report = Report()
        start = time.perf_counter()
        waiting = []
        for cell in plan.cells:
            self.add(cell, run)
            if self._is_finished(cell):
                report.reused += 1
            else:
                waiting.append(cell)
        while waiting:
            before = report.batches
            waiting = [cell for cell in waiting if not self._settled(cell, plan.trainings, report)]
            if waiting and report.batches == before:
                time.sleep(PAUSE)  # all that is left is in the hands of other processes
        report.total = time.perf_counter() - start
        return report

    def add(self, cell: Cell, run: int) -> None:
        """Make a cell known, with what is known of its images from other lists."""
        self.store.add_cell(cell, run)
        reuse.take_over(self.store, cell, self.dataset)

    def some(
        self, cell: Cell, positions: NDArray[np.int64], trainings: Mapping[str, Training], report: Report
    ) -> None:
        """Have some images of a cell in the store; a cell that fails is in the report, and is not tried again."""
        while cell.key not in report.failed and len(np.intersect1d(positions, self._todo(cell))):
            before = report.batches
            with self._containing(cell, report):
                self._fill(cell, trainings, report, positions)
            if cell.key not in report.failed and report.batches == before:
                time.sleep(PAUSE)  # another process has them in hand

    def _settled(self, cell: Cell, trainings: Mapping[str, Training], report: Report) -> bool:
        """Do what nobody else has claimed of a cell; whether the cell is finished, or failed."""
        with self._containing(cell, report):
            if not self._is_finished(cell):
                self._fill(cell, trainings, report)
                if not self._is_finished(cell):
                    return False
            report.done += 1
        return True

    @contextmanager
    def _containing(self, cell: Cell, report: Report) -> Iterator[None]:
        """Make a row with its error of a cell that fails."""
        try:
            yield
        except StoreError:
            raise
        except BenchboxError as error:
            self._fail(cell, str(error), report)
        except Exception as error:  # a bug in one plug-in must not cost the two hundred other cells
            report.crashed += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            self._fail(cell, f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})", report)

    def _is_finished(self, cell: Cell) -> bool:
        """Whether every sample is stored, and what describes them; a run may have ended between the two."""
        return len(self._todo(cell)) == 0 and self._described(cell)

    def _todo(self, cell: Cell) -> NDArray[np.int64]:
        return np.setdiff1d(np.arange(len(cell.samples)), self.store.positions(cell))

    def _described(self, cell: Cell) -> bool:
        return cell.access is not Access.TRANSFER or self.store.attached(cell.key, "transfer") is not None

    def _fail(self, cell: Cell, error: str, report: Report) -> None:
        self.store.fail(cell, error)
        self.observer.failed(cell, error)
        report.failed[cell.key] = error

    def _fill(
        self,
        cell: Cell,
        trainings: Mapping[str, Training],
        report: Report,
        wanted: NDArray[np.int64] | None = None,
    ) -> None:
        """Craft and score what is missing of a cell, or those of it that are wanted."""
        start = time.perf_counter()
        deployed = self.bench.judge(trainings[cell.artifact])
        attacked = self.bench.judge(trainings[cell.view.artifact])
        models = Models(attacked, deployed, self._attack(cell), self.dataset, self.device)
        report.training += time.perf_counter() - start
        if attacked.defense.randomized or deployed.defense.randomized:
            secret.note(self.store, cell, deployed.secret)
        self._observe(cell)
        for name, block in self._blocks(cell, models, wanted):
            with self.store.claim(name) as mine:
                if mine:
                    # Somebody may have stored some of it between the last look and the claim.
                    self._perform(Unit(cell, np.intersect1d(block, self._todo(cell))), models, report)
        if cell.access is Access.TRANSFER and len(self._todo(cell)) == 0:
            self.store.attach(cell.key, "transfer", self._transfer(cell, attacked, deployed))

    def _blocks(
        self, cell: Cell, models: Models, wanted: NDArray[np.int64] | None
    ) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """What is claimed at once. Cells that share their images share the claim: each image is crafted once."""
        batch = models.attacked.layout.batch
        # An attack that pools splits what it is given itself; what is not committed is lost when it is killed.
        size = max(POOL, batch) if models.attack.pooled else batch
        for start in range(0, len(cell.samples), size):
            block = np.arange(start, min(start + size, len(cell.samples)))
            if wanted is not None:
                block = np.intersect1d(block, wanted)
            if len(np.intersect1d(block, self._todo(cell))):
                yield f"craft/{cell.craft_key}/{size}/{start}", block

    def _perform(self, whole: Unit, models: Models, report: Report) -> None:
        """Work, commit and tell; with half of the batch where memory does not suffice."""
        cell, parts = whole.cell, [whole.positions] if len(whole.positions) else []
        while parts:
            positions = parts.pop(0)
            stored = self.store.crafted(cell.craft_key, positions)
            result = attempt(Unit(cell, positions, stored), models)
            if result is None:
                smaller = models.halve(len(positions))
                parts = [*(positions[at] for at in slices(len(positions), smaller)), *parts]
                continue
            if len(self.store.positions(cell)) == 0:
                gradients.require_some(result, models.attacked, cell)
            gradients.note(self.store, cell, result)
            seconds = result.crafting + result.scoring
            self.store.commit_batch(cell, result.outcome, seconds=seconds, crafted=result.images)
            report.batches += 1
            report.scoring += result.scoring
            report.crafting += result.crafting
            self._observe(cell)

    def _observe(self, cell: Cell) -> None:
        self.observer.cell(cell, len(cell.samples) - len(self._todo(cell)), len(cell.samples))

    def _transfer(self, cell: Cell, attacked: Judge, deployed: Judge) -> dict[str, float]:
        stored = self.store.crafted(cell.craft_key, np.arange(len(cell.samples)))
        assert stored is not None
        x, y = (t.to(self.device) for t in self.dataset.test.batch(cell.samples.indices))
        return transfer.describe(attacked, deployed, x, torch.from_numpy(stored.x).to(self.device), y)

    def _attack(self, cell: Cell) -> Attack:
        plugin = self.attacks.get(cell.attack.name)
        return plugin.cls(**cell.attack.arguments)
