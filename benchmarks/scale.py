"""How well many workers share a grid: the real runner, with workers that only say how long they would take.

    python benchmarks/scale.py                  # 256 workers, Tables 1 to 4 of three data sets, 10,000 images each

Planned by the real planner, shared by the real runner; only the work is simulated. A pass of each network is
timed here and now (in seconds of a core), and a unit takes the passes that its attack declares, times a lognormal
factor that the runner does not know. Some workers are slow for the whole run, some die and come back; which, and
the factors, follow from a seed. The scheduler's constants were chosen with seed 0, which is not among the usual.
"""

from __future__ import annotations

import argparse
import heapq
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchbox.contract import registry
from benchbox.data.catalogue import KNOWN
from benchbox.data.dataset import EPSILON, Dataset, Images
from benchbox.domain import ImageSpec
from benchbox.engine import request
from benchbox.engine.agenda import chain
from benchbox.engine.executors import Ended, Liken, Lost, Make, Prepare, Prepared, Told, Work
from benchbox.engine.passes import passes
from benchbox.engine.plan import Plan
from benchbox.engine.runner import Runner
from benchbox.engine.session import Session, Settings
from benchbox.engine.unit import Done
from benchbox.progress import Silent, duration
from benchbox.store import Progress as Stored
from benchbox.training.artifacts import Artifacts
from benchbox.training.layout import SHARE, Layout
from benchbox.training.loop import Progress

GRIDS = Path(__file__).parent.parent / "docs" / "grids"
TABLES = {
    "mnist": ("table1", "table2", "table3", "table4"),
    "cifar10": ("table1-cifar10", "table2", "table3", "table4"),
    "cifar100": ("table1-cifar100", "table2-cifar100", "table3", "table4"),
}
SHAPES = {"mnist": (1, 28, 10), "cifar10": (3, 32, 10), "cifar100": (3, 32, 100)}
#: Seconds between a worker's end and the next task, and those the runner needs for a result: see --driver.
HANDING_OVER = 0.002
#: Passes of a training: PSSR's on MNIST took 1,800 s of two cores, where a pass over an image takes 332 µs.
TRAINING = 1800 / 332e-6
#: Passes over a batch to find out how a network is run, each way, for a run of 10,000 images.
TRIED = 2 * SHARE["cpu"] * 100 * 10_000 / 125
#: Of all workers' time, the part that is spent on work that counts.
GOAL = 0.9


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

    def waste(self, images: int) -> float:
        """How much longer an image takes in a batch that is not full."""
        return self.of(1, images) / images / (self.batch / 125 + self.image)

    @property
    def training(self) -> float:
        """Seconds of a training: as many passes whatever the network."""
        return TRAINING * (self.batch / 125 + self.image)


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
        self._left: dict[str, float] = defaultdict(lambda: 1.0)  # of trainings, which go on from a checkpoint
        self._events: list[object] = []

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
            return 0.0 if self.trained else self.seconds.training * self._left[task.training.digest]
        if isinstance(task, Prepare):
            return self.seconds.of(TRIED, 125)
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
        event: object = Lost(number) if dies < took else Ended(number, self.result(task, took), took)
        spent = min(took, dies)
        heapq.heappush(self.busy, (self.driver + spent, number, worker, (event, task, spent)))

    def next(self, timeout: float) -> object:
        if self._events:
            return self._events.pop()
        # What the runner did meanwhile took its time.
        self.now = max(self.now, self.driver)
        if not self.busy or (timeout == 0 and self.busy[0][0] > self.now):
            return None
        if self.busy[0][0] > self.now + 10 and self.idle:
            self.now += 10  # the runner looks whether something straggles
            return None
        at, _, worker, (event, task, spent) = heapq.heappop(self.busy)
        self.now = max(self.now, at)
        self.idle.append(worker)
        if isinstance(event, Lost):
            self.lost += 1
            if isinstance(task, Make):
                self._events.append(event)
                return self.broken_off(task, worker, spent)
        elif isinstance(task, Work) and not isinstance(task, Liken):
            # What a second copy did helps nobody; what a slow worker or a small batch needs more is lost as well.
            before = self._done[task.unit.cell.key]
            new = set(task.unit.positions.tolist()) - before
            before |= new
            self.units += bool(new)
            n = len(task.unit.positions)
            self.useful += event.seconds * self.speed[worker] * len(new) / n / self.waste(n)
        else:
            self.useful += event.seconds * self.speed[worker]
        return event

    def broken_off(self, task: Make, worker: int, spent: float) -> Told:
        """A training's worker died: somebody goes on from the checkpoint, half a minute before."""
        done = max(0.0, spent - 30) * self.speed[worker]
        self.useful += done
        self._left[task.training.digest] -= done / self.seconds.training
        return Told(task.training, Progress("train", int(1e6 * (1 - self._left[task.training.digest])), 1_000_000))

    def waste(self, images: int) -> float:
        """How much longer an image takes in a batch that is not full; without work there is nothing to waste."""
        return self.seconds.waste(images) if self.seconds.image else 1.0

    def result(self, task: object, took: float) -> object:
        if isinstance(task, Prepare):
            return Prepared(Layout(False, 125, None, self.seconds.batch / 125 + self.seconds.image))
        if isinstance(task, Make):
            return None
        if isinstance(task, Liken):
            return {}
        return [Done(task.unit.positions, True, took, 0.0, np.zeros(1), False)]  # type: ignore[arg-type, attr-defined]


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
        return cell

    def positions(self, cell):
        return np.flatnonzero(self.committed[cell.key])

    def siblings(self, cell):
        return ()

    def exchange(self, made, done, names, cells):
        for batch in made:
            cell = batch.cell
            self.committed[cell.key][batch.outcome] = True
            self.images.setdefault(cell.craft_key, np.zeros(len(cell.samples), bool))[batch.outcome] = True
        none = np.zeros(0, bool)
        there = {cell.key: np.packbits(self.images.get(cell.craft_key, none)).tobytes() for cell in cells}
        return set(names), {
            key: Stored(np.packbits(self.committed[key]).tobytes(), images) for key, images in there.items()
        }

    def release(self, names):
        pass

    def crafted(self, key, positions):
        return There()

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
        trainings = 0.0 if workers.trained else steps * seconds.training
        longest = max(longest, trainings + seconds.of(TRIED, 125) + seconds.of(passes(cell), 15))
    return longest


@dataclass(frozen=True)
class Grid:
    """The cells of a data set's tables, each once."""

    dataset: Dataset
    plan: Plan
    seconds: Pass

    def __str__(self) -> str:
        a_pass = f"{1e6 * (self.seconds.image + self.seconds.batch / 125):.0f} µs an image"
        trainings = f"{len(self.plan.trainings)} trainings of {duration(self.seconds.training)}"
        return f"{self.dataset.name}: {len(self.plan.cells)} cells, {trainings}, a pass {a_pass}"


def planned(session: Session, name: str, images: int) -> Grid:
    """The tables of a data set, as they are planned."""
    session._datasets[name] = dataset = blank(name, images)
    cells, trainings = {}, {}
    for table in TABLES[name]:
        asked = request.read(GRIDS / f"{table}.toml").with_options({"dataset": name, "samples": images}).only()
        plan = session.planner().plan(asked, dataset, session.samples(asked))
        cells |= {cell.key: cell for cell in plan.cells}
        trainings |= plan.trainings
    return Grid(dataset, type(plan)(plan.request, tuple(cells.values()), trainings), timed(session, dataset))


def made(store: Any, workers: Workers, artifacts: Artifacts, session: Session, dataset: Dataset) -> Runner:
    """The real runner."""
    kit = session.attacks, dataset, Silent(), session.defenses
    return Runner(store, workers, artifacts, *kit, clock=workers.clock)


@dataclass
class Shares:
    """Seconds of all workers together: those that counted, all, and those that would have had to do.

    Workers that are slow count for as much as they can do.
    """

    useful: float = 0.0
    whole: float = 0.0
    least: float = 0.0

    def __add__(self, other: Shares) -> Shares:
        return Shares(self.useful + other.useful, self.whole + other.whole, self.least + other.least)

    def __str__(self) -> str:
        allowed = f"{self.least / self.whole:.3f} of what work and the longest chain allow"
        return f"efficiency {self.useful / self.whole:.3f}, {allowed}"

    @property
    def efficiency(self) -> float:
        """The part that counted."""
        return self.useful / self.whole


def simulated(session: Session, grid: Grid, workers: Workers) -> Shares:
    """Run a grid on workers that only say how long they would take, and print what became of it."""
    with tempfile.TemporaryDirectory() as folder:
        runner = made(Memory(), workers, Artifacts(Path(folder)), session, grid.dataset)
        before = time.process_time()
        report = runner.run(grid.plan, 1)
        spent = time.process_time() - before
    assert report.done == len(grid.plan.cells)
    speed = sum(workers.speed)
    shares = Shares(
        workers.useful,
        speed * workers.now,
        max(workers.useful, speed * critical(grid.plan, workers, grid.seconds)),
    )
    print(
        f"  {grid.dataset.name}: {workers.units} units, {duration(workers.now)}, "
        f"{workers.speed.count(1 / 3)} slow, {workers.lost:.0f} died; {shares} "
        f"({1e3 * spent / workers.units:.2f} ms a unit)",
        flush=True,
    )
    return shares


def compared(session: Session, grids: Sequence[Grid], asked: argparse.Namespace, trained: bool) -> None:
    """Every seed, with the weights at hand or with all trainings; and whether the worst of them is good enough."""
    how = "weights at hand" if trained else "trainings included"
    print(f"\n{asked.workers} workers, {asked.images} images, {how}")
    found = []
    for seed in asked.seeds:
        print(f"seed {seed}", flush=True)
        chance = random.Random(seed)
        shares = [simulated(session, g, Workers(asked.workers, g.seconds, chance, trained)) for g in grids]
        found.append(sum(shares, Shares()))
        print(f"  all: {found[-1]}", flush=True)
    least = min(one.efficiency for one in found)
    met = "met" if least >= GOAL else "missed"
    print(f"the least of {len(found)} seeds: {least:.3f}, goal {GOAL}: {met}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=256)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--datasets", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    session = Session(registry.defenses(), registry.attacks(), Settings(device="cpu"))
    grids = [planned(session, name, asked.images) for name in asked.datasets]
    print(*grids, sep="\n", flush=True)
    for trained in (True, False):
        compared(session, grids, asked, trained)


if __name__ == "__main__":
    main()
