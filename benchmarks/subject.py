"""What the benchmarks attack: a trained network, as benchbox runs it and as its user has it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchbox.contract.attack import Attack
from benchbox.contract.defense import Defense
from benchbox.data.dataset import Dataset
from benchbox.domain import Access, Cell, Precision, SampleList, Spec, ThreatModel, ViewSpec
from benchbox.engine.bench import fastest
from benchbox.engine.judge import Judge, Streams, slices
from benchbox.engine.plan import Request
from benchbox.engine.session import Session
from benchbox.training.layout import Layout, lay


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
        """(N,) whether each image withstands an attack of ours, with all that a run does, tuning included.

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
            found.append(attack(view, x, y, self.threat, streams.crafting(name).rows(part)).x)
        return judge.score(torch.cat(found), streams.adversarial, 1)[:, 0] == self.y


def _cell(name: str, threat: ThreatModel, n: int, precision: Precision) -> Cell:
    spec, samples = Spec(name, {}, ""), SampleList("", "test", tuple(range(n)), "")
    return Cell(spec, "", spec, Access.WHITE_BOX, ViewSpec(""), threat, samples, search_precision=precision)


def trained(
    session: Session, name: str, dataset: str, images: int, threat: ThreatModel | None = None, **settings: Any
) -> Subject:
    """A defence without a purifier, trained if it is not yet.

    Args:
        session: Where weights are kept.
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
    theirs = copy.deepcopy(network).to(memory_format=torch.contiguous_format).requires_grad_(True)
    x, y = (t.to(session_device(session)) for t in data.test.batch(torch.arange(images)))
    return Subject(data, network, theirs, x.contiguous(), y, threat or ThreatModel(data.norm, data.epsilon))


def session_device(session: Session) -> torch.device:
    """Where it runs models."""
    return torch.device(session.settings.device or "cpu")
