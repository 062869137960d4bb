"""AutoAttack beside the authors' package: ratios of seconds from one run, and how their robust sets differ.

    python benchmarks/autoattack.py [--dataset digits] [--defense pgd-at] [--images 200] [--norm linf] …

Ours is measured against `pyautoattack`'s run_standard_evaluation on the same weights, twice: on the model as a
user has it (contiguous tensors), and on the model in the layout that ours runs in. The three run one after the
other, in alternating order, on one thread; printed are medians of the ratios and their range.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

# As the command line does, before torch is loaded: threads that spin would be measured instead of the attacks.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pyautoattack
import torch
from torch import Tensor, nn

from benchbox.contract import registry
from benchbox.contract.attack import Attack
from benchbox.contract.view import View
from benchbox.domain import ThreatModel
from benchbox.draws import Draws
from benchbox.engine.plan import Request
from benchbox.engine.session import Session, Settings

NORM = {"linf": "Linf", "l2": "L2"}


def ours(attack: Attack, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, batch: int) -> Tensor:
    """(N,) whether each image withstands; all images at once, as the runner hands them to a pooled attack."""
    draws = Draws(torch.arange(len(y)))
    view = View(lambda x, _: model(x), y, draws, batch=batch)
    return model(attack(view, x, y, threat, draws).x).argmax(1) == y


def theirs(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, batch: int) -> Tensor:
    """The same of the authors' program."""
    suite = pyautoattack.AutoAttack(model, norm=NORM[threat.norm], eps=threat.epsilon, seed=0)
    x_adv, _ = suite.run_standard_evaluation(x, y, batch_size=batch)
    return model(x_adv).argmax(1) == y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--defense", default="pgd-at")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--norm", choices=list(NORM), default="linf")
    parser.add_argument("--epsilon", type=float)
    parser.add_argument("--epochs", type=int, help="of the training, where the recipe's take too long")
    parser.add_argument("--batch", type=int, default=125, help="ours; theirs is 250, as in its README")
    parser.add_argument("--store", type=Path, default=Path("results"))
    options = parser.parse_args()
    torch.set_num_threads(1)

    settings = Settings(artifacts=options.store / "artifacts", device="cpu")
    session = Session(registry.defenses(), registry.attacks(), settings)
    dataset = session.dataset(options.dataset)
    threat = ThreatModel(options.norm, options.epsilon or dataset.epsilon)
    overrides = {options.defense: {"epochs": options.epochs}} if options.epochs else {}
    request = Request((options.defense,), options.dataset, overrides=overrides)
    last = list(session.trainings(request).values())[-1]
    model = session.workshop(options.dataset, lambda *_: None).obtain(last)
    x, y = dataset.test.batch(torch.arange(options.images))
    x = x.contiguous()
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format).requires_grad_(True)
    last_x = x.contiguous(memory_format=torch.channels_last)
    attack = session.attacks.get("aa").cls.configure()

    runs: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: ours(attack, model, last_x, y, threat, options.batch),
        "theirs, as a user runs it": lambda: theirs(plain, x, y, threat, 250),
        "theirs, same layout": lambda: theirs(model, last_x, y, threat, 250),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    robust: dict[str, Tensor] = {}
    for repeat in range(options.repeats):
        for name in list(runs)[:: 1 if repeat % 2 else -1]:
            start = time.perf_counter()
            robust[name] = runs[name]()
            seconds[name].append(time.perf_counter() - start)
    print(
        f"{options.defense} on {options.dataset}, {threat}, {len(y)} images, 1 thread, torch {torch.__version__}"
    )
    for name, flags in robust.items():
        ratios = [a / b for a, b in zip(seconds["ours"], seconds[name], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        sets = f"{int(flags.sum())} robust, {int((flags & ~robust['ours']).sum())} of them broken by ours"
        sets += f", {int((robust['ours'] & ~flags).sum())} broken only here"
        print(f"{name:28} {statistics.median(seconds[name]):7.1f} s   ours / this {spread}   {sets}")


if __name__ == "__main__":
    main()
