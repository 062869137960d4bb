"""What it is worth to an attacker that a randomised defence's noise is held fixed and known.

    python benchmarks/noise.py diffpure docs/evidence/diffusion-noise.json --store results/benchbox.sqlite

PGD on the first trained recipe of that name in the store, on the images and in the ball of its cells: against
fresh noise in every call, and against one draw that stays; both sets of images are scored in that draw and in ten
fresh ones.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchbox import Draws, ThreatModel, View, load
from benchbox.analysis.conventions import CONVENTIONS, scores
from benchbox.contract import registry
from benchbox.engine.judge import Judge
from benchbox.engine.reproduce import training_of
from benchbox.engine.session import Session, Settings
from benchbox.store import Store
from benchbox.training.layout import Layout

STEPS, STEP, FRESH = 20, 0.1, 10
TIMES = (0.1, 0.2, 0.3, 0.4, 0.5)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("defense")
    parser.add_argument("file", type=Path)
    parser.add_argument("--store", default="results/benchbox.sqlite")
    asked = parser.parse_args()
    cell = load(asked.store, defense=asked.defense).evidence[0].cell
    folder = Path(asked.store).parent / "artifacts"
    with Store.open(asked.store) as store:
        card = store.artifacts()[cell.artifact]
    session = Session(
        registry.defenses(),
        registry.attacks(),
        Settings(asked.store, folder, device="cpu"),
    )
    training = training_of(card["training"])
    defense = session.workshop(training.dataset, lambda *progress: None).obtain(training)
    x, y = session.dataset(training.dataset).test.batch(torch.tensor(cell.samples.indices))
    indices = torch.tensor(cell.samples.indices)
    found = {
        "rows": compared(Judge(defense, Layout()), x, y, indices, cell.threat),
        "times": by_time(defense, x, y, indices, (cell.threat.epsilon, session.dataset(training.dataset).epsilon)),
    }
    print(json.dumps(found, indent=1))
    asked.file.write_text(json.dumps({"n": len(y), **found}, indent=1) + "\n", "utf-8")


def compared(judge: Judge, x: Tensor, y: Tensor, indices: Tensor, threat: Any) -> list[dict[str, Any]]:
    """A row for each kind of noise an attack met: how the images it made fare."""
    attack = registry.attacks().get("pgd").cls.configure(steps=STEPS, step=STEP)
    draws = Draws(indices)
    held = draws.at("held")
    views = {
        "nobody": None,
        "fresh in every call": View(judge.ask, y, draws.at("attack"), randomized=True, eot=1),
        "one draw, held": View(judge.ask, y, held),
    }
    rows = []
    for said, view in views.items():
        found = x if view is None else attack(view, x, y, threat, draws).x
        fixed = float((judge.ask(found, held).argmax(1) == y).float().mean())
        fresh = scores(judge.score(found, draws.at("score"), FRESH).numpy(), y.numpy())
        counted = {one.title.format(FRESH): round(fresh[one.key].percent, 1) for one in CONVENTIONS}
        rows.append({"noise the attacker met": said, "in the held draw": round(100 * fixed, 1), **counted})
    return rows


def by_time(defense: Any, x: Tensor, y: Tensor, indices: Tensor, radii: Sequence[float]) -> list[dict[str, Any]]:
    """A row for each t*: one draw of the clean images, and of what PGD makes of the base, which it alone knows."""
    draws = Draws(indices)
    attack = registry.attacks().get("pgd").cls.configure(steps=STEPS, step=STEP)
    bare = View(lambda x, _: defense.classifier(x), y, draws)
    images = {f"PGD on the base, ε = {r:g}": attack(bare, x, y, ThreatModel("linf", r), draws).x for r in radii}
    rows = []
    for t_star in TIMES:
        other = type(defense)(
            defense.recipe.model_copy(update={"t_star": t_star}), defense.images, defense.classifier
        )
        other.load_state_dict(defense.state_dict())
        other.eval().requires_grad_(False)
        row: dict[str, Any] = {"t*": t_star}
        for said, found in {"clean": x, **images}.items():
            row[said] = round(100 * float((other(found, draws.at("time")).argmax(1) == y).float().mean()), 1)
        rows.append(row)
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
