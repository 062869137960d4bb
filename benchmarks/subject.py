"""What the benchmarks attack: a trained network, as benchbox runs it and as its user has it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchbox.contract import registry
from benchbox.contract.attack import Attack
from benchbox.contract.defense import Defense
from benchbox.data.dataset import Dataset, Images
from benchbox.domain import Access, Cell, ImageSpec, Precision, SampleList, Spec, ThreatModel, ViewSpec
from benchbox.engine.bench import fastest
from benchbox.engine.judge import Judge, Streams, slices
from benchbox.engine.plan import Request
from benchbox.engine.session import Session
from benchbox.training.layout import Layout, lay


@dataclass(frozen=True)
class Attacked:
    """What came of an attack.

    Attributes:
        stands: (N,) whether each image withstands it.
        forwards: Forward passes an image, on average.
        backwards: Backward passes likewise.
    """

    stands: Tensor
    forwards: float
    backwards: float


@dataclass(frozen=True)
class Subject:
    """A network and images to attack it on.

    Attributes:
        dataset: Where the images are from.
        network: As it was trained; ours to lay out.
        theirs: A copy as a user has it: contiguous, its parameters trainable.
        x: (N, C, H, W) test images, contiguous.
        y: (N,) true classes.
        threat: The ball.
    """

    dataset: Dataset
    network: Defense
    theirs: Defense
    x: Tensor
    y: Tensor
    threat: ThreatModel

    def first(self, n: int) -> Subject:
        """The same with fewer images."""
        return Subject(self.dataset, self.network, self.theirs, self.x[:n], self.y[:n], self.threat)

    def tuned(self) -> Layout:
        """The layout that benchbox runs it in, which it has afterwards."""
        layout = fastest(self.network, self.dataset, self.x.device, len(self.y))
        lay(self.network, layout.channels_last)
        return layout

    def attacked(self, attack: Attack, precision: Precision = "float32", layout: Layout | None = None) -> Tensor:
        """(N,) whether each image withstands an attack of ours, see `run`."""
        return self.run(attack, precision, layout).stands

    def run(self, attack: Attack, precision: Precision = "float32", layout: Layout | None = None) -> Attacked:
        """An attack of ours, with all that a run of benchbox does, tuning included.

        Args:
            attack: The attack.
            precision: What it asks in.
            layout: Where it is known; found out otherwise.
        """
        n, name = len(self.y), attack.card.name
        layout = layout or self.tuned()
        judge, streams = Judge(self.network, layout), Streams(range(n), 0, self.x.device)
        cell, found = _cell(name, self.threat, n, precision), []
        for part in slices(n, n if attack.pooled else layout.batch):
            x, y = self.x[part], self.y[part]
            view = judge.searched(cell, x, y, streams.attacked(name).rows(part))
            found.append(attack(view, x, y, self.threat, streams.crafting(name).rows(part)))
        stands = judge.score(torch.cat([made.x for made in found]), streams.adversarial, 1)[:, 0] == self.y
        forwards, backwards = (
            float(torch.cat([getattr(made, name) for made in found]).mean()) for name in ("forwards", "backwards")
        )
        return Attacked(stands, forwards, backwards)


def _cell(name: str, threat: ThreatModel, n: int, precision: Precision) -> Cell:
    spec, samples = Spec(name, {}, ""), SampleList("", "test", tuple(range(n)), "")
    return Cell(spec, "", spec, Access.WHITE_BOX, ViewSpec(""), threat, samples, search_precision=precision)


def trained(
    session: Session, name: str, dataset: str, images: int, threat: ThreatModel | None = None, **settings: Any
) -> Subject:
    """A defence without a purifier, trained if it is not yet.

    Args:
        session: Where weights are kept; of the CPU.
        name: Of the defence.
        dataset: Of the images.
        images: How many of its test images.
        threat: The ball; the customary one otherwise.
        settings: Of its recipe, where they depart from the usual.
    """
    data = session.dataset(dataset)
    request = Request(defenses=name, dataset=dataset, overrides={name: settings} if settings else {})
    last = list(session.trainings(request).values())[-1]
    network = session.workshop(dataset, lambda *_: None).obtain(last)
    x, y = data.test.batch(torch.arange(images))
    return Subject(data, network, user_s(network), x, y, threat or ThreatModel(data.norm, data.epsilon))


def untrained(network: str, data: Dataset, images: int, device: torch.device) -> Subject:
    """A network with random weights, right about every image by definition, in a ball so small that they stand.

    Those are the images that cost time, and how long a pass takes does not hang on the weights.

    Args:
        network: As recipes call it.
        data: Its images.
        images: How many.
        device: Where it runs.
    """
    cls = registry.defenses().get("none").cls
    torch.manual_seed(0)
    made = cls(cls.configure(data.family, data.name, network=network), data.spec)
    made = made.eval().requires_grad_(False).to(device)
    x = data.test.batch(torch.arange(images))[0].to(device)
    with torch.no_grad():
        y = torch.cat([made(part).argmax(1) for part in x.split(100)])
    return Subject(data, made, user_s(made), x, y, ThreatModel("linf", 1e-5))


def made_up(channels: int, size: int, images: int) -> Dataset:
    """A data set of noise, for what takes as long on any image."""
    noise = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (images, channels, size, size), dtype=torch.uint8, generator=noise)
    own, spec = (
        Images(x, torch.arange(images) % 10),
        ImageSpec(channels, size, 10, (0.5,) * channels, (0.3,) * channels),
    )
    return Dataset("noise", "cifar" if channels == 3 else "mnist", own, own, spec, 8 / 255)


def user_s(network: Defense) -> Defense:
    """A copy as a user has it."""
    return copy.deepcopy(network).to(memory_format=torch.contiguous_format).requires_grad_(True)
