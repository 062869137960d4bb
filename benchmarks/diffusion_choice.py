"""Where t*, the steps and the guidance of the diffusion purifiers come from: training images that were held out.

    python benchmarks/diffusion_choice.py digits docs/evidence/diffusion-choice-digits.json \\
        --images 64 --eot 1 --epsilon 0.1
    python benchmarks/diffusion_choice.py mnist docs/evidence/diffusion-choice-mnist.json \\
        --images 32 --eot 1 --train 10000 --epochs 15

A base and a score model are trained on the other training images, and the test images are not read. One after the
other, the value with the highest mean of clean accuracy and accuracy under white-box PGD with EOT is taken: t* of
`diffpure`, its steps, t* of `gdmp`, its guidance. Twice the steps have to win two points, for they cost twice the
passes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchbox import Defense, Draws, ThreatModel, View
from benchbox.contract import registry
from benchbox.data.dataset import load
from benchbox.training.loop import fit

TIMES, STEPS, GUIDANCE = (0.1, 0.2, 0.3, 0.4, 0.5), (5, 10), (0.3, 1.0, 3.0, 10.0)
#: Images held out; steps of PGD and their length as a share of the radius; draws of a score.
HELD_OUT, PGD_STEPS, STEP, SCORED = {"digits": 287}, 20, 0.1, 5
#: Points of the mean that more steps have to win.
WORTH = 2.0
Row = dict[str, Any]


class Trial:
    """The purifiers on held-out images, each with the score model that was trained on the others."""

    def __init__(self, asked: argparse.Namespace) -> None:
        dataset = load(asked.dataset)
        held = HELD_OUT.get(asked.dataset, 1000)
        order = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(1))
        self.dataset, self.train = dataset, dataset.train.rows(order[:-held][: asked.train])
        self.where, self.batch, self.eot = torch.device(asked.device), asked.batch, asked.eot
        self.threat = ThreatModel(dataset.norm, asked.epsilon or dataset.epsilon)
        rows = order[-held:][: asked.images]
        self.x, self.y = (t.to(self.where) for t in dataset.train.batch(rows))
        self.draws = Draws(rows.to(self.where))
        self.classifier = self.trained("none", None, {}).classifier
        own = {"epochs": asked.epochs} if asked.epochs else {}
        score = self.trained("diffpure", self.classifier, own)
        self.score, self.epochs = score.state_dict(), score.recipe.epochs
        pgd = registry.attacks().get("pgd").cls
        self.pgd = pgd.configure(dataset.family, dataset.name, steps=PGD_STEPS, step=STEP)
        self.rows: list[Row] = []
        self.oblivious = self.attacked(View(lambda x, _: self.classifier(x), self.y, self.draws))

    def trained(self, name: str, base: torch.nn.Module | None, fields: dict[str, Any]) -> Defense:
        """A defence trained on the images that are not held out."""
        cls = registry.defenses().get(name).cls
        recipe = cls.configure(self.dataset.family, self.dataset.name, **fields)
        torch.manual_seed(0)
        defense = cls(recipe, self.dataset.spec, base)
        start = time.perf_counter()
        fit(defense, recipe, self.train, threat=self.threat, seed=0, device=self.where)
        print(f"{name}: {recipe.epochs} epochs in {time.perf_counter() - start:.0f} s", flush=True)
        return defense.to(self.where).eval().requires_grad_(False)

    def attacked(self, view: View) -> torch.Tensor:
        """What PGD makes of the images."""
        return self.pgd(view, self.x, self.y, self.threat, self.draws.at("attack")).x

    def row(self, name: str, **fields: Any) -> Row:
        """How a purifier with these fields fares; percent right, expected over draws."""
        cls = registry.defenses().get(name).cls
        recipe = cls.configure(self.dataset.family, self.dataset.name, **fields)
        defense = cls(recipe, self.dataset.spec, self.classifier)
        defense.load_state_dict(self.score)
        defense.to(self.where).eval().requires_grad_(False)
        start = time.perf_counter()
        view = View(defense, self.y, self.draws.at("view"), randomized=True, eot=self.eot, batch=self.batch)
        made = {"clean": self.x, "gray-box": self.oblivious, "white-box": self.attacked(view)}
        shares = {said: self.right(defense, x) for said, x in made.items()}
        row = {
            "defence": name,
            "t*": recipe.t_star,
            "steps": recipe.steps,
            "guidance": getattr(recipe, "guidance", ""),
            **shares,
            "mean": round((shares["clean"] + shares["white-box"]) / 2, 2),
        }
        print(row, f"{time.perf_counter() - start:.1f} s", flush=True)
        self.rows.append(row)
        return row

    @torch.no_grad()
    def right(self, defense: Defense, x: torch.Tensor) -> float:
        """Percent of fresh draws that are right."""
        draws = self.draws.at("score")
        hits = [(defense(x, draws.at(r)).argmax(1) == self.y).float().mean() for r in range(SCORED)]
        return round(100 * float(torch.stack(hits).mean()), 1)


def best(rows: Sequence[Row]) -> Row:
    """The row with the highest mean, the first of equals."""
    return max(rows, key=lambda row: float(row["mean"]))


def chosen(trial: Trial) -> list[Row]:
    """The fields of each purifier, a row for each."""
    noisy = best([trial.row("diffpure", t_star=t, steps=STEPS[0]) for t in TIMES])
    for steps in STEPS[1:]:
        more = trial.row("diffpure", t_star=noisy["t*"], steps=steps)
        noisy = more if more["mean"] >= noisy["mean"] + WORTH else noisy
    steps = noisy["steps"]
    guided = best([trial.row("gdmp", t_star=t, steps=steps) for t in TIMES])
    pulled = best([trial.row("gdmp", t_star=guided["t*"], steps=steps, guidance=a) for a in GUIDANCE])
    return [{name: row[name] for name in ("defence", "t*", "steps", "guidance")} for row in (noisy, pulled)]


def main() -> None:
    """Train, try, choose, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("file", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epochs", type=int, help="of the score model; those of its recipe if not given")
    parser.add_argument("--train", type=int, help="images to train on; all that are not held out if not given")
    parser.add_argument("--eot", type=int, default=5, help="draws of a gradient")
    parser.add_argument("--images", type=int, default=256, help="held-out images that are attacked")
    parser.add_argument("--batch", type=int, default=1280, help="rows of one call")
    parser.add_argument("--epsilon", type=float, help="radius of the ball; the data set's own if not given")
    asked = parser.parse_args()
    trial = Trial(asked)
    values = chosen(trial)
    how = {
        "held-out images": len(trial.y),
        "others, trained on": len(trial.train),
        "epochs of the score model": trial.epochs,
        "ε": trial.threat.epsilon,
        "PGD's steps": PGD_STEPS,
        "draws a gradient": asked.eot,
        "draws a score": SCORED,
    }
    found = {"dataset": asked.dataset, "how": [how], "chosen": values, "rows": trial.rows}
    asked.file.parent.mkdir(parents=True, exist_ok=True)
    asked.file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
