"""What a GPU can tell, in one command of at most nine minutes.

    python benchmarks/gpu.py [--out gpu.json]     # without a GPU it says so, and that is all
    python benchmarks/gpu.py --cpu                # a rehearsal at tiny size: does it run?

1. The device tests: the same attack on the CPU and on the GPU, a search in bfloat16, a batch that does not fit.
2. PGD-40 and AutoAttack (a share of its steps and queries) beside torchattacks and pyautoattack, on LeNet-5 and
   ResNet-18 with random weights and images that withstand: in float32 (TF32 off) and in a search in bfloat16.
   Goal: a third.
3. The largest batch of ResNet-18 that a gradient fits for, and what it costs an image.
4. Two epochs of PGD-AT on images of CIFAR-10's shape and number, or --train of them, seconds an epoch.

A part that would begin after --minutes is left out and named. Every line is in --out too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from rounds import measured, seconds  # sets the environment before torch is loaded  # isort: skip

import peers
import torch
from subject import Subject, made_up, untrained

from benchbox.contract import registry
from benchbox.domain import ThreatModel
from benchbox.draws import Draws
from benchbox.engine import device as devices
from benchbox.engine.judge import Judge
from benchbox.training.layout import Layout, answer, is_out_of_memory
from benchbox.training.loop import fit

GOAL = 1 / 3


class Sizes(NamedTuple):
    """How much is measured; see below."""

    gray: str
    colour: str
    images: int
    steps: int
    share: float
    rounds: int
    train: int
    largest: int


#: Networks of one and of three channels, images, steps of PGD, share of AutoAttack, rounds, training images, and
#: the largest batch that is tried.
FULL = Sizes("lenet5", "resnet18", 500, 40, 0.05, 3, 50_000, 2**17)
TINY = Sizes("lenet5", "smallcnn", 4, 2, 0.01, 1, 64, 16)


class Bench:
    """The parts, and what they have said."""

    def __init__(self, device: torch.device, sizes: Sizes, minutes: float) -> None:
        self.device, self.sizes, self.end = device, sizes, time.monotonic() + 60 * minutes
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)
        print(line, flush=True)

    def part(self, name: str, run: Callable[[], None]) -> None:
        """Do it if there is time, and go on whatever happens."""
        if time.monotonic() > self.end:
            self.say(f"{name}: left out, no time")
            return
        try:
            run()
        except Exception as error:  # one part shall not cost the others
            self.say(f"{name}: failed: {type(error).__name__}: {error}")

    def subject(self, network: str) -> Subject:
        channels, size = (1, 28) if network == self.sizes.gray else (3, 32)
        return untrained(network, made_up(channels, size, self.sizes.images), self.sizes.images, self.device)

    def agreement(self) -> None:
        """The same images broken, but for rounding, here and on the CPU, in float32 and in bfloat16."""
        here = self.subject(self.sizes.gray)
        ball = replace(here.threat, epsilon=0.02)
        attack = registry.attacks().get("bim").cls.configure("mnist")
        stands = {}
        for name, where in (("cpu", torch.device("cpu")), ("here", self.device)):
            moved = replace(
                here, network=here.network.to(where), x=here.x.to(where), y=here.y.to(where), threat=ball
            )
            stands[name] = moved.attacked(attack).cpu()
        stands["bfloat16"] = (
            replace(here, network=here.network.to(self.device), threat=ball).attacked(attack, "bfloat16").cpu()
        )
        apart = [int((stands["cpu"] ^ stands[name]).sum()) for name in ("here", "bfloat16")]
        n = len(here.y)
        self.say(f"BIM on the CPU and here: {apart[0]} of {n} images otherwise; in bfloat16 here: {apart[1]}")

    def attacks(self, network: str) -> None:
        subject, rounds, share = self.subject(network), self.sizes.rounds, self.sizes.share
        pgd = registry.attacks().get("pgd").cls.configure("mnist", keep="last", steps=self.sizes.steps)
        aa = registry.attacks().get("aa").cls.configure()
        reference = peers.plain("pgd", asdict(pgd), subject.threat, subject.theirs)

        def user_s() -> None:
            for rows in torch.arange(len(subject.y)).split(peers.BATCH):
                reference(subject.x[rows], subject.y[rows])

        for name, attack, theirs in (
            (f"PGD-{pgd.steps}", pgd, user_s),
            (
                "AutoAttack",
                aa,
                lambda: peers.autoattack(subject.theirs, subject.x, subject.y, subject.threat, share),
            ),
        ):
            ours = f"{network}, {name}"
            programs = {
                ours: lambda attack=attack: subject.attacked(attack),
                f"{ours}, bfloat16": lambda attack=attack: subject.attacked(attack, "bfloat16"),
                "theirs": theirs,
            }
            found = measured(programs, rounds, self.device)
            for one in (ours, f"{ours}, bfloat16"):
                self.say(found.say(one, "theirs", GOAL if self.device.type == "cuda" else None))

    def largest(self) -> None:
        """Twice the batch until memory is full."""
        subject, fits = self.subject(self.sizes.colour), []
        judge, size = Judge(subject.network, Layout(True, self.sizes.largest)), 8
        while size <= self.sizes.largest:
            x = subject.x[torch.arange(size, device=self.device) % len(subject.y)]
            start = seconds(self.device)
            try:
                answer(judge.ask, x, Draws(torch.arange(size, device=self.device)), channels_last=True)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                break
            fits.append((size, 1e6 * (seconds(self.device) - start) / size))
            size *= 2
        best = min(fits, key=lambda pair: pair[1])
        end = "memory is full" if size <= self.sizes.largest else "no more tried"
        self.say(
            f"{self.sizes.colour}, a gradient: {fits[-1][0]} images in one call, {end} at {size}; "
            f"{best[1]:.0f} µs an image at {best[0]}, the quickest"
        )

    def training(self) -> None:
        data, threat = made_up(3, 32, self.sizes.train), ThreatModel("linf", 8 / 255)
        cls = registry.defenses().get("pgd-at").cls
        recipe = cls.configure(data.family, data.name, epochs=2, network=self.sizes.colour)
        for precision in ("bfloat16", "float32"):
            defense, start = cls(recipe, data.spec).to(self.device), seconds(self.device)
            fit(defense, recipe, data.train, threat=threat, seed=0, device=self.device, precision=precision)
            took = (seconds(self.device) - start) / 2
            self.say(f"PGD-AT, {recipe.network}, {len(data.train)} images, {precision}: {took:.1f} s an epoch")
            if time.monotonic() > self.end:
                self.say("what is left of the trainings: left out, no time")
                break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--minutes", type=float, default=7, help="no part begins later than that")
    parser.add_argument("--rounds", type=int, help="of every comparison (default: 3)")
    parser.add_argument("--train", type=int, metavar="IMAGES", help="an epoch has (default: 50,000)")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if not (asked.cpu or torch.cuda.is_available()):
        print("there is no GPU here; python benchmarks/gpu.py --cpu rehearses it at tiny size")
        return
    device = devices.choose("cpu" if asked.cpu else "cuda")
    sizes = TINY if asked.cpu else FULL
    sizes = sizes._replace(rounds=asked.rounds or sizes.rounds, train=asked.train or sizes.train)
    bench = Bench(device, sizes, asked.minutes)
    bench.say(f"{devices.describe(device)}, torch {torch.__version__}, {bench.sizes}")
    peers.shorten(registry.attacks().get("aa").cls, bench.sizes.share)
    bench.part("agreement", bench.agreement)
    for network in (bench.sizes.gray, bench.sizes.colour):
        bench.part(network, lambda network=network: bench.attacks(network))
    bench.part("largest batch", bench.largest)
    bench.part("training", bench.training)
    if asked.out:
        asked.out.write_text(json.dumps(bench.lines, indent=1, ensure_ascii=False), "utf-8")


if __name__ == "__main__":
    main()
