"""Runs a plan: craft, check, score, commit; block by block, so that it can be killed at any time.

An executor does the work, here or elsewhere; the runner alone claims, commits and tells. What is attacked is a
view, what is scored is the deployed defence, and their random streams never meet. A cell that fails is a row with
its error; the grid goes on.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchbox.contract.attack import Attack
from benchbox.contract.registry import Registry
from benchbox.data.dataset import Dataset
from benchbox.domain import Access, Cell
from benchbox.engine import gradients, reuse
from benchbox.engine.agenda import Agenda, Block, Item, Job, Known, Likeness, Trained
from benchbox.engine.bench import CONTRACT, layout_key
from benchbox.engine.executors import (
    Ended,
    Executor,
    Failure,
    Liken,
    Lost,
    Make,
    Prepare,
    Prepared,
    Task,
    Told,
    Work,
)
from benchbox.engine.plan import Plan
from benchbox.engine.unit import Done, Unit
from benchbox.store import Store
from benchbox.training.artifacts import Artifacts, Training
from benchbox.training.layout import Layout
from benchbox.training.loop import Progress

#: Images that a pooled attack is given at once.
POOL = 1000
#: Seconds between two looks at what other processes are still at work on.
PAUSE = 0.2
#: How often a task may lose its worker before its cell fails.
LOSSES = 3
#: A block that takes so many times as long as the like did is started once more where a worker is idle.
STRAGGLES = 2.0
#: Of every task of this process, whichever run it belongs to: a result that comes late is nobody else's.
_NUMBERS = count()


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
    failed: dict[str, str] = field(default_factory=dict)
    crashed: int = 0
    crafting: float = 0.0
    scoring: float = 0.0
    training: float = 0.0
    total: float = 0.0


@dataclass(eq=False)
class _Flight:
    """An item that is being worked on: its task, the claim that is held meanwhile, and by how many."""

    item: Item
    task: Task
    claim: ExitStack
    since: float
    copies: int = 1
    losses: int = 0


class Runner:
    """Fills the cells of a plan.

    Args:
        store: Where outcomes go.
        executor: Where work is done.
        artifacts: Where trained weights lie.
        attacks: The plug-ins.
        dataset: The images.
        observer: Hears of progress.
        batch_size: Images a call, where it was asked for.
        clock: Seconds that pass; a simulation has its own.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        artifacts: Artifacts,
        attacks: Registry[Attack],
        dataset: Dataset,
        observer: Observer,
        batch_size: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.store = store
        self.executor = executor
        self.artifacts = artifacts
        self.attacks = attacks
        self.dataset = dataset
        self.observer = observer
        self.batch_size = batch_size
        self.report = Report()
        self._agenda = Agenda(executor.workers)
        self._open: set[Job] = set()
        self._waiting: dict[str, list[Job]] = defaultdict(list)  # by the digest of what they wait for
        self._asked: set[str] = set()  # names of the trainings and layouts that are on the agenda, or were
        self._made: set[str] = set()
        self._layouts: dict[str, Layout] = {}
        self._spoiled: dict[str, Failure] = {}
        self._flights: dict[int, _Flight] = {}  # by the number of the task; copies share one
        self._held: dict[str, _Flight] = {}  # by the name of the item
        self._again: list[_Flight] = []  # those whose worker was lost
        self._pace: dict[tuple[str, str], list[float]] = {}  # seconds and images, by defence and crafting
        self._images = 0
        self._looked = 0.0  # when stragglers were looked for
        self._device: str | None = None

    def run(self, plan: Plan, run: int) -> Report:
        """Run every cell that is not in the store yet.

        Args:
            plan: What to run.
            run: The run's number in the store, for provenance.
        """
        start = time.perf_counter()
        models = len({cell.view.artifact for cell in plan.cells}) or 1
        self._images = sum(len(cell.samples) for cell in plan.cells) // models
        for order, cell in enumerate(plan.cells):
            self.store.add_cell(cell, run)
            reuse.take_over(self.store, cell, self.dataset)
            todo = self._todo(cell)
            if len(todo) == 0 and self._described(cell):
                self.report.reused += 1
                continue
            job = Job(cell, order, plan.trainings[cell.artifact], plan.trainings[cell.view.artifact])
            job.stored = len(cell.samples) - len(todo)
            self._open.add(job)
            self._advance(job)
        try:
            while self._open:
                self._start()
                self._hear()
        finally:
            for flight in {*self._flights.values(), *self._again}:
                flight.claim.close()
        self.report.total = time.perf_counter() - start
        return self.report

    # --- what a cell still needs ---

    def _advance(self, job: Job) -> None:
        """Put on the agenda what comes next for a cell: a training, a layout, its blocks."""
        if job.over:
            return
        for chain in job.chains:
            for training in chain:
                if (spoiled := self._spoiled.get(training.digest)) is not None:
                    self._fail(job, spoiled)
                    return
        needed = [next((t for t in chain if not self._is_made(t)), None) for chain in job.chains]
        missing: list[Item] = [Trained(training) for training in needed if training]
        if not missing:
            missing = [Known(t) for t in (job.deployed, job.attacked) if self._layout(t) is None]
        for item in missing:
            assert isinstance(item, Trained | Known)
            if job not in (waiting := self._waiting[item.training.digest]):
                waiting.append(job)
            if item.name not in self._asked:
                self._asked.add(item.name)
                self._agenda.add(item, job.order)
        if not missing:
            self._divide(job)

    def _is_made(self, training: Training) -> bool:
        digest = training.digest
        if digest not in self._made and (training.source is not None or digest in self.artifacts):
            self._made.add(digest)
        return digest in self._made

    def _layout(self, training: Training) -> Layout | None:
        """How a defence is run, if that is known: from this run, or remembered."""
        digest = training.digest
        if digest not in self._layouts:
            self._device = self._device or self.executor.describe()
            found = Layout.from_dict(self.store.recall(layout_key(digest, self._device)))
            if found is not None:
                self._layouts[digest] = replace(found, batch=self.batch_size or found.batch)
        return self._layouts.get(digest)

    def _divide(self, job: Job) -> None:
        """Cut what is still to do of a cell into blocks."""
        cell, todo = job.cell, self._todo(job.cell)
        batch = self._layouts[job.attacked.digest].batch
        size = batch
        if self.attacks.get(cell.attack.name).cls.pooled:
            # It splits what it is given itself. What is not committed is lost when it is killed, and of many
            # workers each should have some.
            size = max(2 * batch, min(POOL, len(cell.samples) // self.executor.workers))
        job.stored = len(cell.samples) - len(todo)
        if job.stored < len(cell.samples):
            self._observe(job)
        blocks = [(int(start), todo[todo // size == start]) for start in np.unique(todo // size)]
        job.left = len(blocks)
        for number, positions in blocks:
            name = f"craft/{cell.craft_key}/{size}/{number * size}"
            self._agenda.add(Block(job, name, positions), job.order)
        if not blocks:
            self._close(job)

    def _todo(self, cell: Cell) -> NDArray[np.int64]:
        return np.setdiff1d(np.arange(len(cell.samples)), self.store.positions(cell), assume_unique=True)

    def _described(self, cell: Cell) -> bool:
        return cell.access is not Access.TRANSFER or self.store.attached(cell.key, "transfer") is not None

    # --- starting ---

    def _start(self) -> None:
        """Give the executor as much as it has room for."""
        while self.executor.free and self._again:
            self._submit(self._again.pop())
        while self.executor.free and (item := self._agenda.pop(self._held)) is not None:
            self._begin(item)
        if self.executor.free and self.executor.workers > 1:
            self._copy()

    def _begin(self, item: Item) -> None:
        """Claim an item and have it done, unless somebody else does or did."""
        with ExitStack() as claim:
            is_claimed = isinstance(item, Block | Trained)
            if is_claimed and not claim.enter_context(self.store.claim(item.name)):
                self._agenda.leave(item)
                return
            # Somebody may have done some of it between the last look and the claim.
            task = self._task(item)
            if task is not None:
                self._submit(_Flight(item, task, claim.pop_all(), self.clock()))
                return
        self._settle(item)

    def _task(self, item: Item) -> Task | None:
        """What is to be done for an item; None if it is done."""
        match item:
            case Trained(training):
                return None if self._is_made(training) else Make(training)
            case Known(training):
                return Prepare(training, None, self._images)
            case Block():
                return self._work(item.job, np.intersect1d(item.positions, self._todo(item.job.cell)), Work)
            case Likeness(job):
                return self._work(job, np.arange(len(job.cell.samples)), Liken)

    def _work(self, job: Job, positions: NDArray[np.int64], kind: type[Work]) -> Work | None:
        if len(positions) == 0:
            return None
        stored = self.store.crafted(job.cell.craft_key, positions)
        layouts = {t.digest: self._layouts[t.digest] for t in (job.deployed, job.attacked)}
        return kind(Unit(job.cell, positions, stored), job.attacked, job.deployed, layouts)

    def _submit(self, flight: _Flight) -> None:
        number = next(_NUMBERS)
        self._flights[number] = self._held[flight.item.name] = flight
        self.executor.submit(number, flight.task)

    def _copy(self) -> None:
        """Start once more what takes far longer than the like did: its host may be slow, or gone."""
        now = self.clock()
        if now - self._looked < 1.0:
            return
        self._looked = now
        for flight in list(self._held.values()):
            usual = self._pace.get(_like(flight.item)) if isinstance(flight.item, Block) else None
            if usual and flight.copies == 1 and isinstance(flight.item, Block):
                expected = usual[0] / usual[1] * len(flight.item.positions)
                if now - flight.since > max(1.0, STRAGGLES * expected) and self.executor.free:
                    flight.copies += 1
                    self._submit(flight)

    # --- hearing ---

    def _hear(self) -> None:
        """Wait for the next event and deal with it."""
        if not self._held and self._agenda.left:
            time.sleep(PAUSE)  # all that is left is in the hands of other processes
        if self._agenda.left and not len(self._agenda):
            self._agenda.look_again()
        if not self._held:
            # A cell that waits for nothing would wait for ever.
            assert not self._open or self._agenda or self._agenda.left, "cells are open and nothing is to be done"
            return
        match self.executor.next(PAUSE):
            case Told(training, progress):
                self.observer.training(training, progress)
            case Lost(number):
                self._lose(self._flights.pop(number, None))
            case Ended(number, value, seconds):
                flight = self._flights.pop(number, None)
                if flight is not None and self._held.get(flight.item.name) is flight:
                    self._end(flight, value, seconds)

    def _lose(self, flight: _Flight | None) -> None:
        if flight is None or self._held.get(flight.item.name) is not flight:
            return
        flight.losses += 1
        flight.copies -= 1
        if flight.losses < LOSSES:
            if flight.copies <= 0:
                flight.copies = 1
                self._again.append(flight)
            return
        error = f"its worker process was killed {LOSSES} times, perhaps for want of memory; try fewer --workers"
        self._end(flight, Failure(error), 0.0)

    def _end(self, flight: _Flight, value: object, seconds: float) -> None:
        """Keep what came of an item, and let go of it."""
        item = flight.item
        try:
            if isinstance(item, Trained | Known):
                self.report.training += seconds
                self._keep(item, value)
            elif not item.job.over and isinstance(value, Failure):
                self._fail(item.job, value)
            elif not item.job.over and isinstance(item, Likeness):
                assert isinstance(value, Mapping)
                self.store.attach(item.job.cell.key, "transfer", value)
            elif not item.job.over and isinstance(item, Block):
                assert isinstance(value, list)
                self._commit(item, value)
        finally:
            flight.claim.close()
            del self._held[item.name]
            self._agenda.free(item.name)
        self._settle(item)

    def _keep(self, item: Trained | Known, value: object) -> None:
        digest = item.training.digest
        if isinstance(value, Failure):
            self._spoiled[digest] = value
        elif isinstance(value, Prepared):
            assert self._device is not None
            self._layouts[digest] = value.layout
            self.store.remember(layout_key(digest, self._device), value.layout.as_dict())
            if value.remarks:
                self.store.attach(digest, CONTRACT, value.remarks)
        else:
            self._made.add(digest)

    def _commit(self, block: Block, results: Iterable[Done]) -> None:
        cell = block.job.cell
        for result in results:
            gradients.note(self.store, cell, result)
            seconds = result.crafting + result.scoring
            self.store.commit_batch(cell, result.outcome, seconds=seconds, crafted=result.images)
            self.report.batches += 1
            self.report.scoring += result.scoring
            self.report.crafting += result.crafting
            pace = self._pace.setdefault(_like(block), [0.0, 0.0])
            pace[0] += seconds
            pace[1] += len(result.outcome)

    def _settle(self, item: Item) -> None:
        """An item is done: go on with what waited for it."""
        match item:
            case Trained(training) | Known(training):
                for job in self._waiting.pop(training.digest, ()):
                    self._advance(job)
            case Block(job, _, positions) if not job.over:
                job.left -= 1
                job.stored += len(positions)
                self._observe(job)
                if job.left == 0:
                    self._close(job)
            case Likeness(job) if not job.over:
                self._finish(job)

    def _close(self, job: Job) -> None:
        """All images of a cell are stored; a transfer is described yet."""
        if self._described(job.cell):
            self._finish(job)
        else:
            self._agenda.add(Likeness(job), job.order)

    def _finish(self, job: Job) -> None:
        job.over = True
        self._open.discard(job)
        self.report.done += 1

    def _fail(self, job: Job, failure: Failure) -> None:
        job.over = True
        self._open.discard(job)
        self.store.fail(job.cell, failure.message)
        self.observer.failed(job.cell, failure.message)
        self.report.failed[job.cell.key] = failure.message
        self.report.crashed += failure.crashed

    def _observe(self, job: Job) -> None:
        self.observer.cell(job.cell, job.stored, len(job.cell.samples))


def _like(item: Block) -> tuple[str, str]:
    """What blocks have in common that take equally long an image."""
    return item.job.cell.artifact, item.job.cell.craft_key
