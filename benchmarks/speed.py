"""What benchbox costs beside the libraries that it replaces: ratios of CPU seconds from one run, with their range.

    python benchmarks/speed.py                                    # digits, small: minutes
    python benchmarks/speed.py --dataset mnist --pgd-images 1000 --aa-images 200 --share 1 --rounds 5

1. PGD-40 on an undefended LeNet-5, ours beside torchattacks' in batches of 125. Ours includes finding out in which
   layout and batch size the network is fastest.
2. AutoAttack on an adversarially trained LeNet-5, ours beside pyautoattack's `run_standard_evaluation` on the
   network as a user has it (contiguous, batches of 250), and on a channels-last one with channels-last images.
3. Both in a search in bfloat16, whose finds are confirmed in float32.
4. Of both, what bounds them (roofline.py).
5. The share of a whole run that is neither attack nor model: planning, committing, telling of progress.

Of AutoAttack's steps and queries both sides make a share (`--share`): on samples that withstand, which is where
the time goes, the costs of all four members are proportional to it. It also says how the robust sets differ. See
rounds.py for how it is measured.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from rounds import Rounds, measured  # sets the environment before torch is loaded  # isort: skip

import peers
import torch
from roofline import roofline
from subject import Attacked, Subject, trained
from torch import Tensor, nn

from benchbox.contract import registry
from benchbox.domain import ThreatModel
from benchbox.engine.plan import Request
from benchbox.engine.session import Session, Settings
from benchbox.progress import Silent
from benchbox.store import Store

#: What the issue of this repository asks for.
GOALS = {"PGD": 0.8, "PGD, bfloat16": 0.6, "AA": 0.55, "AA, same layout": 0.75, "AA, bfloat16": 0.4}


def pgd(subject: Subject, rounds: int) -> None:
    """PGD-40 at the settings of the MNIST challenge."""
    attack = registry.attacks().get("pgd").cls.configure("mnist", keep="last")
    reference = peers.plain("pgd", asdict(attack), subject.threat, subject.theirs)

    def theirs() -> None:
        for rows in torch.arange(len(subject.y)).split(peers.BATCH):
            reference(subject.x[rows], subject.y[rows])

    programs = {
        "PGD": lambda: subject.run(attack),
        "PGD, bfloat16": lambda: subject.run(attack, "bfloat16"),
        "torchattacks": theirs,
    }
    found = measured(programs, rounds)
    print(f"{len(subject.y)} images")
    for name in ("PGD", "PGD, bfloat16"):
        print(found.say(name, "torchattacks", GOALS[name]), flush=True)
    bounded(subject, found, "PGD")


def official(network: nn.Module, subject: Subject, x: Tensor, share: float) -> Tensor:
    """(N,) whether each image withstands the authors' program."""
    x_adv = peers.autoattack(network, x, subject.y, subject.threat, share)
    with torch.no_grad():
        return network(x_adv).argmax(1) == subject.y


def autoattack(subject: Subject, rounds: int, share: float) -> None:
    cls = registry.attacks().get("aa").cls
    peers.shorten(cls, share)
    attack = cls.configure()
    turned = copy.deepcopy(subject.theirs).to(memory_format=torch.channels_last)
    last = subject.x.contiguous(memory_format=torch.channels_last)
    programs = {
        "AA": lambda: subject.run(attack),
        "AA, bfloat16": lambda: subject.run(attack, "bfloat16"),
        "pyautoattack": lambda: official(subject.theirs, subject, subject.x, share),
        "pyautoattack, channels-last": lambda: official(turned, subject, last, share),
    }
    found = measured(programs, rounds)
    print(f"{len(subject.y)} images, {share:.0%} of AutoAttack's budget")
    print(found.say("AA", "pyautoattack", GOALS["AA"]))
    print(found.say("AA", "pyautoattack, channels-last", GOALS["AA, same layout"]))
    print(found.say("AA, bfloat16", "pyautoattack", GOALS["AA, bfloat16"]))
    bounded(subject, found, "AA")
    for name in programs:
        print(f"{name}: {_set(found, name)}", flush=True)


def bounded(subject: Subject, found: Rounds, name: str) -> None:
    made = found.last[name]
    assert isinstance(made, Attacked)
    print(roofline(subject, subject.tuned()).say(name, made, statistics.median(found.seconds[name])), flush=True)


def _set(found: Rounds, name: str) -> str:
    flags, ours = (_stands(found.last[one]) for one in (name, "AA"))
    here, there = int((flags & ~ours).sum()), int((ours & ~flags).sum())
    return f"{int(flags.sum())} robust; broken by AA alone {here}, by this alone {there}"


def _stands(made: object) -> Tensor:
    flags = made.stands if isinstance(made, Attacked) else made
    assert isinstance(flags, Tensor)
    return flags


def overhead(session: Session, dataset: str, rounds: int, settings: dict[str, int]) -> None:
    attacks, shares = ("fgsm", "bim", "mim", "pgd", "cw"), []
    overrides = {"none": settings} if settings else {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder, Store.open(str(Path(folder) / "r.sqlite")) as store:
            start = time.perf_counter()
            request = Request(
                defenses="none", dataset=dataset, attacks=attacks, access="white-box", overrides=overrides
            )
            plan = session.plan(request)
            report = session.run(plan, store, Silent())
            total = time.perf_counter() - start - report.training
            shares.append(100 * (1 - (report.crafting + report.scoring) / total))
    middle, spread = statistics.median(shares), f"{min(shares):.1f} to {max(shares):.1f}"
    print(f"neither attack nor model: {middle:.1f} % ({spread}) of a run of {len(plan.cells)} cells")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pgd-images", type=int, default=250)
    parser.add_argument("--aa-images", type=int, default=60)
    parser.add_argument("--share", type=float, default=0.05, help="of AutoAttack's steps and queries; 1 for all")
    parser.add_argument("--parts", default="pgd,aa,overhead", help="which of them, comma separated")
    parser.add_argument("--defense", default="pgd-at", help="what AutoAttack is run on")
    parser.add_argument("--epochs", type=int, help="of the trainings, where the recipes' take too long")
    parser.add_argument("--norm", choices=list(peers.NORM), default="linf")
    parser.add_argument("--epsilon", type=float)
    parser.add_argument("--store", type=Path, default=Path("results"), help="its folder artifacts has the weights")
    asked = parser.parse_args()
    settings = Settings(artifacts=asked.store / "artifacts", device="cpu")
    session = Session(registry.defenses(), registry.attacks(), settings)
    threat = ThreatModel(asked.norm, asked.epsilon or session.dataset(asked.dataset).epsilon)
    few = {"epochs": asked.epochs} if asked.epochs else {}
    print(f"{asked.dataset}, {threat}, LeNet-5, 1 thread, torch {torch.__version__}", flush=True)
    parts = asked.parts.split(",")
    if "pgd" in parts:
        pgd(trained(session, "none", asked.dataset, asked.pgd_images, threat, **few), asked.rounds)
    if "aa" in parts:
        subject = trained(session, asked.defense, asked.dataset, asked.aa_images, threat, **few)
        autoattack(subject, asked.rounds, asked.share)
    if "overhead" in parts:
        overhead(session, asked.dataset, asked.rounds, few)


if __name__ == "__main__":
    main()
