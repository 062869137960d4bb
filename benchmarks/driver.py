"""What the runner itself costs a unit: claiming, committing, sending and bookkeeping, with a real store.

    python benchmarks/driver.py                 # 2, 16 and 64 workers, CPU time

The real runner on the real planner's cells, with workers that need no time, in units of 125 MNIST images. What
workers would do (making and packing results) is not counted; what is sent to them and received is.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from scale import Pass, Workers, blank, made

from benchbox.contract import registry
from benchbox.data.dataset import Dataset
from benchbox.domain import Outcome
from benchbox.engine import portions, request
from benchbox.engine.executors import Ended, Liken, Work
from benchbox.engine.executors.worker import packed
from benchbox.engine.plan import Plan
from benchbox.engine.session import Session, Settings
from benchbox.engine.unit import Done
from benchbox.store import Adversarials, Store, arrays, clean_images
from benchbox.store.images import Packed
from benchbox.training.artifacts import Artifacts

#: What the runner may take a unit, in milliseconds of CPU.
GOAL = 2.0


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

    def result(self, task, took):
        start = time.process_time()
        self.sent = pickle.dumps(self.value(task))
        self.making += time.process_time() - start
        return pickle.loads(self.sent)

    def images(self, n: int) -> Adversarials:
        """As large as real ones; packing some for every unit would be most of what this takes."""
        clean = (self.rng.integers(0, 256, (n, 1, 28, 28)) / 255).astype(np.float32)
        x = (clean + self.rng.choice(np.array([-0.3, 0.3], np.float32), clean.shape)).clip(0, 1)
        whole, real, at = self.rng.integers(0, 9, n), self.rng.random(n), np.arange(n)
        return Adversarials("", at, x, whole, real, real, clean=clean_images("", at, clean))

    def value(self, task):
        if not isinstance(task, Work) or isinstance(task, Liken):
            return super().result(task, 1.0)
        n, unit = len(task.unit.positions), task.unit
        whole, real = self.rng.integers(0, 9, n), self.rng.random(n)
        outcome = Outcome(unit.positions, whole, whole[:, None], whole[:, None], whole, real, real, real, real)
        images = None
        if unit.stored is None:
            self.made[n] = one = self.made.get(n) or self.images(n)
            known = unit.cell.samples.clean_key
            clean = elsewhere(one.clean, known, unit.positions)
            images = elsewhere(one, unit.cell.craft_key, unit.positions, known, clean)
        return packed(Ended(0, [Done(outcome, images, 1.0, 1.0, np.zeros(n), False)])).value


def elsewhere(
    one: Adversarials, key: str, positions: np.ndarray, known: str = "", clean: Packed | None = None
) -> Packed:
    """Packed images as if they were those at other positions of some list."""
    where = {"position": positions} | ({"clean": np.frombuffer(known.encode(), np.uint8)} if known else {})
    columns = {"position": arrays.pack(where), "images": one.packed["images"]}
    return Packed.of(key, positions, columns, one.shape, clean)


def plan_of(session: Session, dataset: Dataset) -> Plan:
    """Three cells of 80 units each."""
    asked = request.validated(
        {
            "defense": ["none", "pgd-at", "trades"],
            "dataset": dataset.name,
            "attacks": ["pgd"],
            "accesses": ["white-box"],
            "samples": len(dataset.test.y),
        }
    )
    return session.plan(asked.only())


def _driven(session: Session, dataset: Dataset, plan: Plan, count: int) -> float:
    """Milliseconds of CPU a unit."""
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "r.sqlite") as store:
        workers, artifacts = Ready(count), Artifacts(Path(folder))
        runner = made(store, workers, artifacts, session, dataset)
        run = store.begin_run({}, {})
        start = time.process_time()
        report = runner.run(plan, run)
        spent = time.process_time() - start - workers.making
        assert report.done == len(plan.cells), report.failed
        return 1e3 * spent / workers.units


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 16, 64])
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    session = Session(registry.defenses(), registry.attacks(), Settings(device="cpu"))
    session._datasets["mnist"] = dataset = blank("mnist", 10_000)
    plan = plan_of(session, dataset)
    portions.BLOCKS = portions.SLOWEST = 1e-9  # so small a plan would be cut into smaller units than a large one
    _driven(session, dataset, plan, 64)  # whatever is loaded or compiled once
    for count in asked.workers:
        spent = [_driven(session, dataset, plan, count) for _ in range(asked.repeats)]
        middle, met = statistics.median(spent), "met" if statistics.median(spent) <= GOAL else "missed"
        between = f"{min(spent):.2f} to {max(spent):.2f}, {len(spent)} runs"
        print(f"{count} workers: {middle:.2f} ms of CPU a unit ({between}), goal {GOAL:g}: {met}", flush=True)


if __name__ == "__main__":
    main()
