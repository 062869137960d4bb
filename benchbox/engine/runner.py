"""Runs a plan: craft, check, score, commit; block by block, so that it can be killed at any time.

An executor does the work, here or elsewhere; the runner alone claims, commits and tells. What is attacked is a
view, what is scored is the deployed defence, and their random streams never meet. A cell that fails is a row with
its error; the grid goes on.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchbox.contract.attack import Attack
from benchbox.contract.defense import Defense
from benchbox.contract.registry import Registry
from benchbox.data.dataset import Dataset
from benchbox.domain import Access, Cell
from benchbox.engine import gradients, reuse
from benchbox.engine import secret as secrets
from benchbox.engine.agenda import (
    Agenda,
    Block,
    Item,
    Job,
    Known,
    Likeness,
    Trained,
    chain,
)
from benchbox.engine.executors import (
    Executor,
    Failure,
    Liken,
    Make,
    Prepare,
    Task,
    Told,
    Work,
)
from benchbox.engine.flights import Flights, Landed
from benchbox.engine.observer import Observer, Report
from benchbox.engine.plan import Plan
from benchbox.engine.portions import Portions, needed
from benchbox.engine.readiness import Readiness
from benchbox.engine.unit import Done, Unit
from benchbox.errors import DefenseError, RequestError, StoreError
from benchbox.store import Batch, Progress, Store
from benchbox.training.artifacts import Artifacts, Training
from benchbox.training.layout import Layout

#: Seconds between two looks at what other processes are still at work on.
PAUSE = 0.2


@dataclass(eq=False)
class Runner:
    """Fills the cells of a plan.

    Attributes:
        store: Where outcomes go.
        executor: Where work is done.
        artifacts: Where trained weights lie.
        attacks: The plug-ins.
        dataset: The images.
        observer: Hears of progress.
        defenses: The plug-ins.
        batch_size: Images a call, where it was asked for.
        secret: What the draws of randomised defences are named under; None for the store's own.
        clock: Seconds that pass; a simulation has its own.
        report: What became of the cells.
    """

    store: Store
    executor: Executor
    artifacts: Artifacts
    attacks: Registry[Attack]
    dataset: Dataset
    observer: Observer
    defenses: Registry[Defense]
    batch_size: int | None = None
    secret: str | None = None
    clock: Callable[[], float] = time.monotonic
    report: Report = field(init=False)

    def __post_init__(self) -> None:
        self.report = Report()
        self._agenda = Agenda(self.executor.workers)
        self._open: set[Job] = set()
        self._waiting: dict[str, list[Job]] = defaultdict(list)  # by the digest of what they wait for
        self._asked: set[tuple[str, str]] = set()  # trainings and layouts that are on the agenda, or were
        self._flights = Flights(self.store, self.executor, self.clock)
        self._images = 0
        self._portions = Portions(self.executor.workers)
        self._ready = Readiness(
            self.store, self.executor, self.artifacts, self.defenses, self.batch_size, self.secret
        )

    def run(self, plan: Plan, run: int) -> Report:
        """Run every cell that is not in the store yet.

        Args:
            plan: What to run.
            run: The run's number in the store, for provenance.
        """
        start = time.perf_counter()
        self._portions.plan(plan.cells)
        models = len({cell.view.artifact for cell in plan.cells}) or 1
        self._images = sum(len(cell.samples) for cell in plan.cells) // models
        for order, cell in enumerate(plan.cells):
            cell = self.add(cell, run)
            todo = self._todo(cell)
            if len(todo) == 0 and self._described(cell):
                self.report.reused += 1
                continue
            job = Job(cell, order, plan.trainings[cell.artifact], plan.trainings[cell.view.artifact])
            job.stored = len(cell.samples) - len(todo)
            self.report.kept += job.stored
            self._open.add(job)
            self._agenda.foresee(job, len(todo))
            self._advance(job)
        self._drain()
        self.report.total = time.perf_counter() - start
        return self.report

    def add(self, cell: Cell, run: int) -> Cell:
        """Make a cell known, with what is known of its images from other lists; gives it as the store has it."""
        cell = self.store.add_cell(cell, run)
        reuse.take_over(self.store, cell, self.dataset, secrets.settled(self.store, self.secret))
        return cell

    def some(
        self, cell: Cell, positions: NDArray[np.int64], trainings: Mapping[str, Training], report: Report
    ) -> None:
        """Have some images of a cell in the store; a cell that fails is in the report, and is not tried again."""
        self.report = report
        if cell.key in report.failed or len(np.intersect1d(positions, self._todo(cell))) == 0:
            return
        self._images = self._images or len(cell.samples)
        job = Job(cell, 0, trainings[cell.artifact], trainings[cell.view.artifact], wanted=positions)
        self._open.add(job)
        self._advance(job)
        self._drain()

    def require(self, training: Training, images: int) -> None:
        """Have a defence trained and tried, which will be attacked on so many images.

        Raises:
            DefenseError: It cannot be obtained, or breaks its contract.
        """
        self._images = images
        items: list[Trained | Known] = [Trained(t) for t in chain(training) if not self._ready.is_made(t)]
        for item in (*items, Known(training)):
            self._agenda.add(item, 0)
            self._drain(lambda: bool(self._flights.held) or self._agenda.left or len(self._agenda) > 0)
            if (failure := self._ready.spoiled.get(item.training.digest)) is not None:
                raise DefenseError(failure.message)

    def _drain(self, busy: Callable[[], bool] | None = None) -> None:
        """Work until no cell is open, or nothing is busy."""
        try:
            while busy() if busy else self._open:
                self._start()
                self._hear()
        except BaseException:
            with suppress(StoreError):  # the first error is the one to see
                self._flights.close()
            raise

    def _advance(self, job: Job) -> None:
        """Put on the agenda what comes next for a cell: a training, a layout, its blocks."""
        if job.over:
            return
        for steps in job.chains:
            for training in steps:
                if (spoiled := self._ready.spoiled.get(training.digest)) is not None:
                    self._fail(job, spoiled)
                    return
        needed = [next((t for t in steps if not self._ready.is_made(t)), None) for steps in job.chains]
        missing: list[Item] = [Trained(training) for training in needed if training]
        if not missing:
            missing = [Known(t) for t in (job.deployed, job.attacked) if self._ready.layout(t) is None]
        for item in missing:
            assert isinstance(item, Trained | Known)
            if job not in (waiting := self._waiting[item.training.digest]):
                waiting.append(job)
            if (item.what, item.training.digest) not in self._asked:
                self._asked.add((item.what, item.training.digest))
                self._agenda.add(item, job.order)
        if not missing:
            self._divide(job)

    def _divide(self, job: Job) -> None:
        """Cut what is still to do of a cell into blocks."""
        cell, todo = job.cell, self._todo(job.cell)
        if self._ready.is_randomized(job):
            # Not before the defence was loaded, which may have brought along what to say to whom.
            try:
                secrets.note(self.store, cell, self._ready.secret())
            except RequestError as error:
                self._fail(job, Failure(str(error)))
                return
        batch = self._ready.layouts[job.attacked.digest].batch
        size = self._portions.block(cell, batch, is_pooled=self.attacks.get(cell.attack.name).cls.pooled)
        job.stored = len(cell.samples) - len(todo)
        if job.stored < len(cell.samples):
            self._observe(job)
        if job.wanted is not None:
            todo = np.intersect1d(todo, job.wanted)
        blocks = [(int(start), todo[todo // size == start]) for start in np.unique(todo // size)]
        job.left = len(blocks)
        self._agenda.forget(job)
        for i, (number, positions) in enumerate(blocks):
            name = f"craft/{cell.craft_key}/{size}/{number * size}"
            self._agenda.add(Block(job, name, positions, i == 0 and job.stored == 0), job.order)
        if not blocks:
            self._close(job)

    def _todo(self, cell: Cell) -> NDArray[np.int64]:
        return np.setdiff1d(np.arange(len(cell.samples)), self.store.positions(cell))

    def _described(self, cell: Cell) -> bool:
        return cell.access is not Access.TRANSFER or self.store.attached(cell.key, "transfer") is not None

    def _start(self, done: Sequence[Item] = (), made: Sequence[Batch] = ()) -> None:
        """Give the executor as much as it has room for.

        Args:
            done: Items that are over: what waited for them may start.
            made: What came of them. It is committed together with the claims of what is next.
        """
        after = bool(done)
        while True:
            self._flights.let_go(done)
            for item in done:
                self._agenda.free(item.name)
                self._settle(item)
            self._flights.submit()
            # Where this was the end of the last cell, nobody wants what is left.
            goes_on = bool(self._open) or not after
            items = self._agenda.take(self._flights.room, self._flights.held) if goes_on else []
            if not (items or made or self._flights.owes):
                break
            done, made = self._begin(items, made), ()
        if self.executor.workers > 1:
            self._flights.hurry()

    def _begin(self, items: Sequence[Item], made: Sequence[Batch]) -> list[Item]:
        """Claim items and have them done, unless somebody else does; gives those that somebody else has done."""
        mine, known = self._flights.claim(items, made)
        done = []
        for item in items:
            if item not in mine:
                self._agenda.leave(item)
            elif (task := self._task(item, known)) is None:
                done.append(item)
            else:
                self._flights.start(item, self._parts(item, task))
        return done

    def _task(self, item: Item, known: Mapping[str, Progress]) -> Task | None:
        """What is to be done for an item; None if it is done."""
        match item:
            case Trained(training):
                return None if self._ready.is_made(training) else Make(training)
            case Known(training):
                return Prepare(training, self._ready.layout(training), self._images)
            case Block(job):
                progress = known[job.cell.key]
                return self._work(job, progress.missing(item.positions), progress, Work, first=item.first)
            case Likeness(job):
                return self._work(job, np.arange(len(job.cell.samples)), known[job.cell.key], Liken)

    def _parts(self, item: Item, task: Task) -> Sequence[Task]:
        if not isinstance(item, Block) or not isinstance(task, Work):
            return [task]
        layout = self._ready.layouts[task.attacked.digest]
        return self._portions.cut(task, self._agenda, layout.batch, self._expects(item, task, layout))

    def _expects(self, item: Item, task: Work, layout: Layout) -> float | None:
        """Seconds that work should take: by what the like took, else by the passes that its attack declares."""
        known = self._flights.pace.expects(item, task)
        if known is None and layout.seconds:
            return layout.seconds * needed(task) * len(task.unit.positions)
        return known

    def _work(
        self,
        job: Job,
        positions: NDArray[np.int64],
        known: Progress,
        kind: type[Work],
        *,
        first: bool = False,
    ) -> Work | None:
        if len(positions) == 0:
            return None
        stored = self.store.crafted(job.cell.craft_key, positions) if known.are_crafted(positions) else None
        layouts = {t.digest: self._ready.layouts[t.digest] for t in (job.deployed, job.attacked)}
        secret = self._ready.secret() if self._ready.is_randomized(job) else secrets.OPEN
        return kind(Unit(job.cell, positions, stored), job.attacked, job.deployed, layouts, secret, first)

    def _hear(self) -> None:
        """Wait until something happens, and deal with it."""
        held = self._flights.held
        if not held and self._agenda.left:
            time.sleep(PAUSE)  # all that is left is in the hands of other processes
        if self._agenda.left and not len(self._agenda):
            self._agenda.look_again()
        if not held:
            # A cell that waits for nothing would wait for ever.
            assert not self._open or len(self._agenda) or self._agenda.left, "cells wait for nothing"
            return
        landed = []
        for event in self._flights.hear(PAUSE):
            if isinstance(event, Told):
                self.observer.training(event.training, event.progress)
            else:
                landed.append(event)
        if landed:
            self._keep(landed)

    def _keep(self, landed: Sequence[Landed]) -> None:
        """Keep what came of items, all in one transaction, and go on with the next."""
        done: list[tuple[Block, Done]] = []
        for one in landed:
            item, value = one.item, one.value
            if isinstance(item, Trained | Known):
                self.report.training += one.seconds
                self._ready.keep(item, value)
            elif not item.job.over and isinstance(value, Failure):
                self._fail(item.job, value)
            elif not item.job.over and isinstance(item, Likeness):
                assert isinstance(value, Mapping)
                self.store.attach(item.job.cell.key, "transfer", value)
            elif isinstance(item, Block) and isinstance(value, list):
                done += ((item, result) for result in value)
        # A cell that has just failed stays so: what was found out of it at the same time is dropped.
        made = [self._batch(block, result) for block, result in done if not block.job.over]
        self._start([one.item for one in landed], made)

    def _batch(self, block: Block, result: Done) -> Batch:
        cell, seconds = block.job.cell, result.crafting + result.scoring
        gradients.note(self.store, cell, result)
        self.report.batches += 1
        self.report.scoring += result.scoring
        self.report.crafting += result.crafting
        return Batch(cell, result.outcome, seconds, result.images, result.encoded)

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
        """All images of a cell are stored, or all that were wanted; a transfer is described yet."""
        if self._described(job.cell) or job.stored < len(job.cell.samples):
            self._finish(job)
        else:
            self._agenda.add(Likeness(job), job.order)

    def _finish(self, job: Job) -> None:
        job.over = True
        self._open.discard(job)
        self.report.done += job.wanted is None

    def _fail(self, job: Job, failure: Failure) -> None:
        self._agenda.forget(job)
        job.over = True
        self._open.discard(job)
        self.store.fail(job.cell, failure.message)
        self.observer.failed(job.cell, failure.message)
        self.report.failed[job.cell.key] = failure.message
        self.report.crashed += failure.crashed

    def _observe(self, job: Job) -> None:
        self.observer.cell(job.cell, job.stored, len(job.cell.samples))
