"""What benchbox costs beside the libraries it replaces or drives: ratios from one run, medians of paired repeats.

    python benchmarks/speed.py [--dataset mnist] [--repeats 5] [--aa-images 32]

Three ratios, each at most 1.0 or 3 % when all is well:

1. PGD-40 on LeNet-5, 1,000 images: ours over torchattacks', both in batches of 125.
2. AutoAttack on an adversarially trained LeNet-5: ours over pyautoattack's `run_standard_evaluation`.
3. The share of a whole run that is neither attack nor model: planning, committing, telling of progress.

A pair runs back to back, in alternating order, so that a slow minute of the machine hits both sides.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# As the command line does, before torch is loaded: threads that spin would be measured instead of the attacks.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pyautoattack
import torch
import torchattacks

from benchbox.contract import registry
from benchbox.contract.attack import Attack
from benchbox.contract.defense import Defense
from benchbox.contract.view import View
from benchbox.domain import ThreatModel
from benchbox.draws import Draws
from benchbox.engine.plan import Request
from benchbox.engine.session import Session, Settings
from benchbox.store import Store

BATCH = 125


class Silent:
    """An observer that draws nothing."""

    def training(self, *_: object) -> None: ...
    def cell(self, *_: object) -> None: ...
    def failed(self, cell: object, error: str) -> None:
        raise SystemExit(error)


def ours(attack: Attack, model: Defense, x: torch.Tensor, y: torch.Tensor, threat: ThreatModel) -> None:
    draws = Draws(torch.arange(len(y)), 0)
    for rows in torch.arange(len(y)).split(BATCH):
        own = draws.rows(rows)
        batch = x[rows].contiguous(memory_format=torch.channels_last)
        attack(View(lambda x, draws: model(x), y[rows], own), batch, y[rows], threat, own)


def paired(name: str, repeats: int, first: Callable[[], None], second: Callable[[], None]) -> None:
    first(), second()
    ratios, seconds = [], ([], [])
    for repeat in range(repeats):
        times = {}
        for side, run in ((0, first), (1, second)) if repeat % 2 else ((1, second), (0, first)):
            start = time.perf_counter()
            run()
            times[side] = time.perf_counter() - start
            seconds[side].append(times[side])
        ratios.append(times[0] / times[1])
    a, b = (statistics.median(side) for side in seconds)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"{name}: {statistics.median(ratios):.2f}  ({spread}; medians {a:.2f} s and {b:.2f} s)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--aa-images", type=int, default=32)
    parser.add_argument("--parts", default="pgd,aa,overhead", help="which of the three, comma separated")
    parser.add_argument("--store", type=Path, default=Path("results"))
    options = parser.parse_args()

    settings = Settings(artifacts=options.store / "artifacts", device="cpu")
    session = Session(registry.defenses(), registry.attacks(), settings)
    dataset = session.dataset(options.dataset)
    threat = ThreatModel(dataset.norm, dataset.epsilon)
    request = Request(defenses="none,pgd-at", dataset=options.dataset)
    workshop = session.workshop(options.dataset, lambda *_: None)
    plain, robust = map(workshop.obtain, session.trainings(request).values())
    print(f"{options.dataset}, {torch.get_num_threads()} threads, torch {torch.__version__}")

    x, y = dataset.test.batch(torch.arange(min(1000, len(dataset.test))))
    pgd = session.attacks.get("pgd").cls.configure("mnist")
    reference = torchattacks.PGD(plain, eps=threat.epsilon, alpha=0.01, steps=40, random_start=True)

    def theirs() -> None:
        for rows in torch.arange(len(y)).split(BATCH):
            reference(x[rows], y[rows])

    parts = options.parts.split(",")
    if "pgd" in parts:
        paired("PGD-40, ours / torchattacks", options.repeats, lambda: ours(pgd, plain, x, y, threat), theirs)

    few, labels = x[: options.aa_images], y[: options.aa_images]
    aa = session.attacks.get("aa").cls.configure("mnist")

    def official() -> None:
        suite = pyautoattack.AutoAttack(robust, norm="Linf", eps=threat.epsilon, seed=0)
        suite.run_standard_evaluation(few, labels, batch_size=BATCH)

    if "aa" in parts:
        name = "AutoAttack, ours / pyautoattack"
        paired(name, options.repeats, lambda: ours(aa, robust, few, labels, threat), official)

    shares = []
    for _ in range(options.repeats if "overhead" in parts else 0):
        with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "r.sqlite") as store:
            start = time.perf_counter()
            attacks = ("fgsm", "bim", "mim", "pgd", "cw")
            plan = session.plan(
                Request(defenses="none", dataset=options.dataset, attacks=attacks, access="white-box")
            )
            report = session.run(plan, store, Silent())
            total = time.perf_counter() - start - report.training
            shares.append(1 - (report.crafting + report.scoring) / total)
    if shares:
        share = 100 * statistics.median(shares)
        print(f"neither attack nor model: {share:.1f} % of a run of {len(plan.cells)} cells")


if __name__ == "__main__":
    main()
