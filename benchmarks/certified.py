"""What interval arithmetic proves of a trained `ibp`, beside its clean accuracy: where no attack can succeed.

    python benchmarks/certified.py --dataset mnist --samples 1000 --sample-seed 0 --epochs 15

The weights are those beside the store, as `benchbox train` leaves them; without them it trains.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchbox.analysis.intervals import clopper_pearson
from benchbox.contract import registry
from benchbox.domain import ThreatModel
from benchbox.engine.request import Request
from benchbox.engine.session import Session, Settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--sample-seed", type=int)
    parser.add_argument("--epochs", type=int)
    asked = parser.parse_args()
    overrides = {} if asked.epochs is None else {"ibp": {"epochs": asked.epochs}}
    chosen: dict[str, Any] = {"samples": asked.samples, "sample_seed": asked.sample_seed}
    request = Request(defenses=["ibp"], datasets=[asked.dataset], set=overrides, **chosen)
    settings = Settings(download=False, artifacts=Path("results/artifacts"))
    session = Session(registry.defenses(), registry.attacks(), settings)
    dataset, samples = session.dataset(asked.dataset), session.samples(request)
    (training,) = session.trainings(request).values()
    defense = session.workshop(asked.dataset, lambda *_: None, {}).obtain(training)
    x, y = dataset.test.batch(torch.tensor(samples.indices))
    threat = ThreatModel(dataset.norm, dataset.epsilon)
    with torch.no_grad():
        right = defense(x).argmax(1) == y
    proven = defense.certified(x, y, threat)
    for what, found in (("clean", right), ("certified", proven)):
        k, n = int(found.sum()), len(found)
        low, high = clopper_pearson(k, n)
        print(f"{asked.dataset}, {threat}: {what} {100 * k / n:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {n}")
    assert not bool((proven & ~right).any())


if __name__ == "__main__":
    main()
