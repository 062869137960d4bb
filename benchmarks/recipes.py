"""What the recipes of a data set cost to train, in minutes of one core.

    python benchmarks/recipes.py mnist > recipes.json
    python benchmarks/recipes.py mnist --only pssr pssr:cae --others docs/evidence/recipes.json > recipes.json

Each is trained on a few images, once without and once with an epoch, on one thread; CPU time of the process. What
comes before the epochs (a purifier's own adversarial images) and an epoch are each taken in proportion to the
images, a classifier that a purifier stands on is not counted. A shared core needs more.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchbox import ThreatModel
from benchbox.contract import registry
from benchbox.data.dataset import Dataset, load
from benchbox.training.loop import fit

#: The defences whose recipes have an epoch, in the order of the tables.
RECIPES = (
    "none", "grad-reg", "pgd-at", "trades", "rice", "bagt-pgd-at", "bagt-trades", "pcl", "uat", "rst", "ibp",
    "arn", "pssr:cae", "pssr:ps+cae", "pssr", "atop", "carso",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--images", type=int, default=384, help="to train on")
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=RECIPES, metavar="NAME", help="recipes")
    parser.add_argument("--others", type=Path, metavar="FILE", help="what was measured of the others before")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    dataset, rows = load(asked.dataset), []
    known = json.loads(asked.others.read_text("utf-8"))[asked.dataset] if asked.others else ()
    before = {row["recipe"]: row for row in known}
    for name in RECIPES:
        if name not in asked.only:
            rows += [before[name]] if name in before else []
            continue
        row: dict[str, Any] = {"recipe": name}
        for precision in ("float32", "bfloat16"):
            row |= cost(name, dataset, asked.images, precision)
        rows.append(row)
        print(row, file=sys.stderr)
    print(json.dumps({asked.dataset: rows}, indent=1))


def cost(name: str, dataset: Dataset, images: int, precision: Any) -> dict[str, Any]:
    """Epochs, and minutes of a core for the whole of a training."""
    cls = registry.defenses().get(name).cls
    recipe = cls.configure(dataset.family, dataset.name)
    few, threat = dataset.train.rows(torch.arange(images)), ThreatModel(dataset.norm, dataset.epsilon)
    base = registry.defenses().get(recipe.base or cls.base).cls if cls.base else None
    took = []
    for epochs in (0, 1):
        torch.manual_seed(0)
        classifier = base(base.configure(dataset.family, dataset.name), dataset.spec).classifier if base else None
        defense = cls(recipe, dataset.spec, classifier)
        gc.collect()
        start = time.process_time()
        fit(
            defense,
            recipe.model_copy(update={"epochs": epochs}),
            few,
            threat=threat,
            seed=0,
            device=torch.device("cpu"),
            precision=precision,
        )
        took.append(time.process_time() - start)
    before, epoch = took[0], took[1] - took[0]
    minutes = (before + recipe.epochs * epoch) * len(dataset.train) / images / 60
    return {"epochs": recipe.epochs, f"minutes of a core, {precision}": round(minutes, 1)}


if __name__ == "__main__":
    main()
