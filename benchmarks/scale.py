"""How well many workers share a grid: the real runner, with workers that only say how long they would take.

    python benchmarks/scale.py                  # 256 workers, Tables 1 to 4 of three data sets, 10,000 images each
    python benchmarks/scale.py --driver         # what the runner itself costs a unit, with a real store

Planned by the real planner, shared by the real runner; only the work is simulated. A pass of each network is
timed here and now (in seconds of a core), and a unit takes the passes that its attack declares, times a lognormal
factor that the runner does not know. Some workers are slow for the whole run, some die and come back.
"""

from __future__ import annotations

import argparse
import heapq
import os
import pickle
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchbox.contract import registry
from benchbox.data.catalogue import KNOWN
from benchbox.data.dataset import EPSILON, Dataset, Images
from benchbox.domain import ImageSpec, Outcome
from benchbox.engine import portions, request
from benchbox.engine.agenda import chain
from benchbox.engine.executors import Ended, Liken, Lost, Make, Prepare, Prepared, Work
from benchbox.engine.executors.worker import packed
from benchbox.engine.passes import passes
from benchbox.engine.plan import Plan
from benchbox.engine.runner import Runner
from benchbox.engine.session import Session, Settings
from benchbox.engine.unit import Done
from benchbox.progress import Silent, duration
from benchbox.store import Adversarials, Progress, Store, arrays
from benchbox.store.adversarials import Packed
from benchbox.training.artifacts import Artifacts
from benchbox.training.layout import Layout

GRIDS = Path(__file__).parent.parent / "docs" / "grids"
TABLES = {
    "mnist": ("table1", "table2", "table3", "table4"),
    "cifar10": ("table1-cifar10", "table2", "table3", "table4"),
    "cifar100": ("table1-cifar100", "table2-cifar100", "table3", "table4"),
}
SHAPES = {"mnist": (1, 28, 10), "cifar10": (3, 32, 10), "cifar100": (3, 32, 100)}
#: Seconds between a worker's end and the next task, and those the runner needs for a result: see --driver.
HANDING_OVER = 0.002
#: Seconds of a training: what PSSR took on two cores.
TRAINING = 1800.0


def blank(name: str, n: int) -> Dataset:
    """A data set of the right shape that nobody has to fetch."""
    channels, size, classes = SHAPES[name]
    x, y = torch.zeros(n, channels, size, size, dtype=torch.uint8), torch.arange(n) % classes
    spec = ImageSpec(channels, size, classes, (0.5,) * channels, (0.5,) * channels)
    family = KNOWN[name].family
    return Dataset(name, family, Images(x[:classes], y[:classes]), Images(x, y), spec, EPSILON[family])


@dataclass(frozen=True)
class Pass:
    """What a forward or backward pass over a batch takes: seconds a batch, and seconds an image."""

    batch: float
    image: float

    def of(self, passes: float, images: int) -> float:
        """Seconds for passes over images, in batches of at most 125."""
        return passes * (-(-images // 125) * self.batch + images * self.image)


class Workers:
    """An executor whose clock runs as fast as one likes."""

    def __init__(self, count: int, seconds: Pass, chance: random.Random, trained: bool) -> None:
        self.workers = count
        self.now = 0.0
        self.seconds, self.chance, self.trained = seconds, chance, trained
        # One in fifty is three times slower than the others from beginning to end.
        self.speed = [1 / 3 if chance.random() < 0.02 else 1.0 for _ in range(count)]
        self.idle = list(range(count))
        self.busy: list[tuple[float, int, int, object]] = []
        self.useful = self.lost = self.driver = 0.0
        self.units = 0
        self._done: dict[str, set[int]] = defaultdict(set)

    @property
    def free(self) -> int:
        return len(self.idle)

    def describe(self) -> str:
        return "simulated"

    def close(self) -> None:
        pass

    def clock(self) -> float:
        return self.now

    def cost(self, task: object) -> float:
        """Seconds on a worker of usual speed."""
        if isinstance(task, Make):
            return 0.0 if self.trained else TRAINING
        if isinstance(task, Prepare):
            return self.seconds.of(500, 125)
        unit = task.unit  # type: ignore[attr-defined]
        if isinstance(task, Liken):
            return self.seconds.of(4, len(unit.positions))
        scoring = 2.0 * unit.cell.scoring_draws
        needed = scoring if unit.stored is not None else max(passes(unit.cell), scoring)
        return self.seconds.of(needed, len(unit.positions))

    def submit(self, number: int, task: object) -> None:
        # The runner does one thing at a time: what it submits later starts later.
        self.driver = max(self.driver, self.now) + HANDING_OVER
        worker = self.idle.pop()
        took = self.cost(task) * self.chance.lognormvariate(0, 0.3) / self.speed[worker]
        # Each worker dies once in about a hundred hours of work; it is back at once.
        dies = self.chance.expovariate(1 / 360_000)
        event: object = Lost(number) if dies < took else Ended(number, self.result(task), took)
        heapq.heappush(self.busy, (self.driver + min(took, dies), number, worker, (event, task)))

    def next(self, timeout: float) -> object:
        # What the runner did meanwhile took its time.
        self.now = max(self.now, self.driver)
        if not self.busy or (timeout == 0 and self.busy[0][0] > self.now):
            return None
        if self.busy[0][0] > self.now + 10 and self.idle:
            self.now += 10  # the runner looks whether something straggles
            return None
        at, _, worker, (event, task) = heapq.heappop(self.busy)
        self.now = max(self.now, at)
        self.idle.append(worker)
        if isinstance(event, Lost):
            self.lost += 1
        elif isinstance(task, Work) and not isinstance(task, Liken):
            # What a second copy did helps nobody; what a slow worker needs more is lost as well.
            before = self._done[task.unit.cell.key]
            new = set(task.unit.positions.tolist()) - before
            before |= new
            self.units += bool(new)
            self.useful += event.seconds * self.speed[worker] * len(new) / len(task.unit.positions)
        else:
            self.useful += event.seconds * self.speed[worker]
        return event

    def result(self, task: object) -> object:
        if isinstance(task, Prepare):
            return Prepared(Layout(batch=125))
        if isinstance(task, Make):
            return None
        if isinstance(task, Liken):
            return {}
        done = SimpleNamespace(outcome=task.unit.positions, images=True, broken=np.zeros(1), crafting=1, scoring=1)
        return [done]


class There:
    """Images that another cell has made."""

    def rows(self, rows: object) -> There:
        return self


class Memory:
    """What a runner needs of a store, in dictionaries."""

    def __init__(self) -> None:
        self.committed: dict[str, np.ndarray] = {}
        self.images: dict[str, np.ndarray] = {}
        self.kept: dict[object, object] = defaultdict(lambda: None)

    def add_cell(self, cell, run):
        self.committed.setdefault(cell.key, np.zeros(len(cell.samples), bool))

    def positions(self, cell):
        return np.flatnonzero(self.committed[cell.key])

    def siblings(self, cell):
        return ()

    def take_up(self, names, cells):
        return set(names), self.progress(cells)

    def release(self, names):
        pass

    def progress(self, cells):
        none = np.zeros(0, np.int64)
        there = {cell.key: np.flatnonzero(self.images.get(cell.craft_key, none)) for cell in cells}
        return {key: Progress(np.flatnonzero(self.committed[key]), images) for key, images in there.items()}

    def crafted(self, key, positions):
        return There()

    def commit(self, made, done):
        for batch in made:
            cell = batch.cell
            self.committed[cell.key][batch.outcome] = True
            self.images.setdefault(cell.craft_key, np.zeros(len(cell.samples), bool))[batch.outcome] = True

    def recall(self, key):
        return None

    def remember(self, key, value):
        pass

    def attached(self, subject, kind):
        return self.kept[subject, kind]

    def attach(self, subject, kind, record):
        self.kept[subject, kind] = record

    def fail(self, cell, error):
        raise AssertionError(error)


def timed(session: Session, dataset: Dataset) -> Pass:
    """A pass of the undefended classifier on a core: the best of three, over 15 and over 125 images."""
    asked = request.validated({"defense": "none", "dataset": dataset.name, "attacks": ["fgsm"], "samples": 10})
    (training,) = [t for t in session.trainings(asked.only()).values() if t.base is None]
    plugin = session.defenses.get("none")
    net = plugin.cls(plugin.cls.recipe_type(**training.defense.arguments), dataset.spec, None).eval()
    few, many = (min(_spent(net, dataset, n) for _ in range(3)) for n in (15, 125))
    image = max(0.0, (many - few) / 110)
    return Pass(max(0.0, many - 125 * image), image)


def _spent(net: torch.nn.Module, dataset: Dataset, n: int) -> float:
    x = torch.rand(n, *dataset.spec.shape, requires_grad=True)
    start = time.process_time()
    torch.autograd.grad(net(x).logsumexp(1).sum(), x)
    return (time.process_time() - start) / 2


def critical(plan: Plan, workers: Workers, seconds: Pass) -> float:
    """Seconds of the longest chain: what is trained before a cell, tried, and a small block of it crafted."""
    longest = 0.0
    for cell in plan.cells:
        steps = max(len(chain(plan.trainings[name])) for name in (cell.artifact, cell.view.artifact))
        trainings = 0.0 if workers.trained else steps * TRAINING
        longest = max(longest, trainings + seconds.of(500, 125) + seconds.of(passes(cell), 15))
    return longest


def simulate(options: argparse.Namespace) -> None:
    started = time.perf_counter()
    session = Session(registry.defenses(), registry.attacks(), Settings(device="cpu"))
    busy = total = bounds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name in options.datasets:
            tables = TABLES[name]
            session._datasets[name] = dataset = blank(name, options.images)
            seconds = timed(session, dataset)
            cells, trainings = {}, {}
            for table in tables:
                asked = request.read(GRIDS / f"{table}.toml")
                asked = asked.with_options({"dataset": name, "samples": options.images})
                plan = session.planner().plan(asked.only(), dataset, session.samples(asked.only()))
                cells |= {cell.key: cell for cell in plan.cells}
                trainings |= plan.trainings
            plan = type(plan)(plan.request, tuple(cells.values()), trainings)
            workers = Workers(options.workers, seconds, random.Random(0), options.trained)
            artifacts = Artifacts(Path(folder))
            runner = _runner(Memory(), workers, artifacts, session, dataset)
            before = time.process_time()
            report = runner.run(plan, 1)
            spent = time.process_time() - before
            assert report.done == len(cells)
            speed = sum(workers.speed)
            bound = max(workers.useful / speed, critical(plan, workers, seconds))
            busy, total, bounds = busy + workers.useful, total + speed * workers.now, bounds + speed * bound
            by = "work" if bound == workers.useful / speed else "the longest chain"
            print(
                f"{name}: {len(cells)} cells, {len(trainings)} trainings, {workers.units} units, a pass "
                f"{1e6 * (seconds.image + seconds.batch / 125):.0f} µs an image: {duration(workers.now)} on "
                f"{options.workers} workers, {workers.speed.count(1 / 3)} of them slow, {workers.lost:.0f} "
                f"deaths; efficiency {workers.useful / (speed * workers.now):.3f}, {bound / workers.now:.3f} of "
                f"what {by} allows (scheduling {1e3 * spent / workers.units:.2f} ms of CPU a unit)",
                flush=True,
            )
    print(
        f"all: efficiency {busy / total:.3f}, {bounds / total:.3f} of what work and chains allow; simulated in "
        f"{time.perf_counter() - started:.0f} s"
    )


class Ready(Workers):
    """Workers that need no time: all that is left is what the driver does, and what it sends and receives."""

    def __init__(self, count: int) -> None:
        super().__init__(count, Pass(0.0, 0.0), random.Random(0), True)
        self.rng = np.random.default_rng(0)
        self.making = 0.0
        self.made: dict[int, Adversarials] = {}

    def submit(self, number, task):
        pickle.dumps((number, task))
        super().submit(number, task)

    def result(self, task):
        start = time.process_time()
        self.sent = pickle.dumps(self.value(task))
        self.making += time.process_time() - start
        return pickle.loads(self.sent)

    def images(self, n: int) -> Adversarials:
        """As large as real ones; packing some for every unit would be most of what this takes."""
        x = self.rng.integers(0, 256, (n, 1, 28, 28)) / 255 + self.rng.choice([-0.3, 0.3], (n, 1, 28, 28))
        whole, real = self.rng.integers(0, 9, n), self.rng.random(n)
        return Adversarials("", np.arange(n), x.clip(0, 1).astype(np.float32), whole, real, real)

    def value(self, task):
        if not isinstance(task, Work) or isinstance(task, Liken):
            return super().result(task)
        n, unit = len(task.unit.positions), task.unit
        whole, real = self.rng.integers(0, 9, n), self.rng.random(n)
        outcome = Outcome(unit.positions, whole, whole[:, None], whole[:, None], whole, real, real, real, real)
        images = None
        if unit.stored is None:
            self.made[n] = one = self.made.get(n) or self.images(n)
            columns = {"position": arrays.pack({"position": unit.positions}), "images": one.packed["images"]}
            images = Packed.of(unit.cell.craft_key, unit.positions, columns, one.shape)
        return packed(Ended(0, [Done(outcome, images, 1.0, 1.0, np.zeros(n), False)])).value


def driver(options: argparse.Namespace) -> None:
    """What claiming, committing, sending and bookkeeping cost a unit of 125 MNIST images, with a real store."""
    session = Session(registry.defenses(), registry.attacks(), Settings(device="cpu"))
    session._datasets["mnist"] = dataset = blank("mnist", 10_000)
    asked = request.validated(
        {
            "defense": ["none", "pgd-at", "trades"],
            "dataset": "mnist",
            "attacks": ["pgd"],
            "accesses": ["white-box"],
            "samples": 10_000,
        }
    )
    plan = session.plan(asked.only())
    portions.BLOCKS = portions.SLOWEST = 1e-9  # so small a plan would be cut into smaller units than a large one
    for count in (2, 16, options.workers):
        spent = [_driven(session, dataset, plan, count) for _ in range(options.repeats)]
        print(f"driver with {count} workers: {spread(spent, 'ms of CPU a unit of 125 images')}", flush=True)


def _driven(session: Session, dataset: Dataset, plan: Plan, count: int) -> float:
    """Milliseconds a unit."""
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "r.sqlite") as store:
        workers, artifacts = Ready(count), Artifacts(Path(folder))
        runner = _runner(store, workers, artifacts, session, dataset)
        run = store.begin_run({}, {})
        start = time.process_time()
        report = runner.run(plan, run)
        spent = time.process_time() - start - workers.making
        assert report.done == len(plan.cells), report.failed
        return 1e3 * spent / workers.units


def _runner(store: Any, workers: Workers, artifacts: Artifacts, session: Session, dataset: Dataset) -> Runner:
    kit = session.attacks, dataset, Silent(), session.defenses
    return Runner(store, workers, artifacts, *kit, clock=workers.clock)


def spread(values: Sequence[float], unit: str) -> str:
    """The median of some measurements, and between what they lie."""
    low, *_, high = sorted(values) * 2 if len(values) == 1 else sorted(values)
    return f"{statistics.median(values):.2f} {unit} ({low:.2f} to {high:.2f}, {len(values)} runs)"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=256)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--datasets", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--trained", action="store_true", help="the weights are there already")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--driver", action="store_true", help="measure the runner's own cost")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    (driver if chosen.driver else simulate)(chosen)
