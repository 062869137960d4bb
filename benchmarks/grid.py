"""Tables 1 and 2 of the PSSR paper, ours beside a plain script of torchattacks and pyautoattack loops.

    python benchmarks/grid.py                                         # digits, small: minutes, trainings apart
    python benchmarks/grid.py --dataset mnist --samples 1000 --share 1

Seven defences under six attacks, gray-box and white-box (Table 1) and by transfer (Table 2). The script makes
every number of the tables by itself: craft on the model of the access, ask the deployed defence. `benchbox` is
asked once for both tables, and what several numbers share it makes once; it is asked in float32, and in a search
in bfloat16. Trainings count for neither. CPU seconds of one thread (rounds.py); the goal is a fifth.

Of AutoAttack both make a share (`--share`), and of the steps of the other attacks (`--steps`): which numbers share
what does not hang on that. It also says what sharing alone can do: the passes of what is made, a backward one
counted as two, to those of all numbers.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import NamedTuple, cast

from rounds import measured  # sets the environment before torch is loaded  # isort: skip

import peers
import torch
from torch import Tensor

from benchbox.contract import registry
from benchbox.contract.defense import Defense
from benchbox.domain import Access, Cell, Outcome, Precision
from benchbox.engine.plan import Plan, Request
from benchbox.engine.session import Session, Settings
from benchbox.progress import Silent
from benchbox.store import Store

DEFENSES = "none,grad-reg,trades,pgd-at,arn,pcl,pssr"
ATTACKS = "fgsm,bim,mim,pgd,aa,cw"
GOAL = 0.2


class Made(NamedTuple):
    """A number of a table.

    Attributes:
        accuracy: Share of the images.
        passes: Spent on an image, a backward one counted as two.
        craft_key: What its images are known by; numbers that share them have the same.
    """

    accuracy: float
    passes: float
    craft_key: str


def place(cell: Cell) -> tuple[str, ...]:
    """Of a number in the tables."""
    return cell.defense.name, cell.access.value, cell.attack.name


def ours(session: Session, plan: Plan) -> dict[tuple[str, ...], Made]:
    """Every number, all that a run does included."""
    with tempfile.TemporaryDirectory() as folder, Store.open(str(Path(folder) / "r.sqlite")) as store:
        report = session.run(plan, store, Silent())
        if report.failed:
            raise SystemExit("; ".join(report.failed.values()))
        return {place(item.cell): made(item.cell, item.outcome) for item in store.evidence()}


def made(cell: Cell, outcome: Outcome) -> Made:
    passes = float((outcome.forwards + 2 * outcome.backwards).mean())
    return Made(float(outcome.robust.mean()), passes, cell.craft_key)


def shared(table: dict[tuple[str, ...], Made]) -> float:
    """Passes of what is made once, to those of every number by itself."""
    once = {number.craft_key: number.passes for number in table.values()}
    return sum(once.values()) / sum(number.passes for number in table.values())


class Script:
    """What somebody writes in an afternoon."""

    def __init__(self, session: Session, plan: Plan, share: float) -> None:
        workshop = session.workshop(plan.request.dataset, lambda *_: None)
        needed = {key for cell in plan.cells for key in (cell.artifact, cell.view.artifact)}
        self.models = {key: workshop.obtain(plan.trainings[key]) for key in needed}
        self.cells, self.share = plan.cells, share
        self.x, self.y = session.dataset(plan.request.dataset).test.batch(list(plan.cells[0].samples.indices))

    def __call__(self) -> dict[tuple[str, ...], float]:
        return {place(cell): self.accuracy(cell) for cell in self.cells}

    def accuracy(self, cell: Cell) -> float:
        attacked, deployed = self.models[cell.view.artifact], self.models[cell.artifact]
        images = self.crafted(cell, attacked.classifier if cell.access is Access.GRAY_BOX else attacked)
        right = [deployed(x).argmax(1) == y for x, y in zip(images, self.y.split(peers.BATCH), strict=True)]
        return float(torch.cat(right).float().mean())

    def crafted(self, cell: Cell, model: Defense | torch.nn.Module) -> list[Tensor]:
        if cell.attack.name == "aa":
            return list(peers.autoattack(model, self.x, self.y, cell.threat, self.share).split(peers.BATCH))
        attack = peers.plain(cell.attack.name, dict(cell.attack.arguments), cell.threat, model)
        return [attack(x, y) for x, y in zip(self.x.split(peers.BATCH), self.y.split(peers.BATCH), strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--share", type=float, default=0.02, help="of AutoAttack's steps and queries; 1 for all")
    parser.add_argument("--steps", type=float, default=1.0, help="likewise of the other attacks' steps")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--defenses", default=DEFENSES)
    parser.add_argument("--attacks", default=ATTACKS)
    parser.add_argument("--epochs", type=int, help="of the trainings, where the recipes' take too long")
    parser.add_argument("--store", type=Path, default=Path("results"), help="its folder artifacts has the weights")
    asked = parser.parse_args()
    settings = Settings(artifacts=asked.store / "artifacts", device="cpu")
    session = Session(registry.defenses(), registry.attacks(), settings)
    plan, coarse = (planned(session, asked, precision) for precision in ("float32", "bfloat16"))
    peers.shorten(registry.attacks().get("aa").cls, asked.share)
    programs = {
        "benchbox": lambda: ours(session, plan),
        "benchbox, bfloat16": lambda: ours(session, coarse),
        "script": Script(session, plan, asked.share),
    }
    with torch.random.fork_rng():
        found = measured(programs, asked.rounds)
    cells = f"{len(plan.cells)} cells, {len({cell.craft_key for cell in plan.cells})} craftings"
    print(f"{asked.dataset}, {asked.samples} images, {asked.defenses.replace(',', ', ')}: {cells}")
    print(f"{asked.share:.0%} of AutoAttack, {asked.steps:.0%} of the steps of the other attacks")
    theirs = cast(dict[tuple[str, ...], float], found.last["script"])
    for name in ("benchbox", "benchbox, bfloat16"):
        table = cast(dict[tuple[str, ...], Made], found.last[name])
        apart = [100 * (table[key].accuracy - theirs[key]) for key in theirs]
        print(found.say(name, "script", GOAL))
        print(f"a number of {name} is {min(apart):+.1f} to {max(apart):+.1f} points above the script's")
    table = cast(dict[tuple[str, ...], Made], found.last["benchbox"])
    print(f"passes of what is made once, to those of every number by itself: {shared(table):.2f}")


def planned(session: Session, asked: argparse.Namespace, precision: Precision) -> Plan:
    names, attacks = asked.defenses.split(","), registry.attacks()
    overrides: dict[str, dict[str, int]] = {name: {"epochs": asked.epochs} for name in names if asked.epochs}
    if asked.steps < 1:
        for name in asked.attacks.split(","):
            steps = getattr(attacks.get(name).cls.configure(*scopes(session, asked.dataset)), "steps", None)
            overrides |= {name: {"steps": max(1, round(asked.steps * steps))}} if steps else {}
    return session.plan(
        Request(
            defenses=names,
            dataset=asked.dataset,
            attacks=asked.attacks,
            access="gray-box,white-box,transfer",
            samples=asked.samples,
            search_precision=precision,
            overrides=overrides,
        )
    )


def scopes(session: Session, dataset: str) -> tuple[str, str]:
    """Where attacks look for their settings."""
    data = session.dataset(dataset)
    return data.family, data.name


if __name__ == "__main__":
    main()
