"""PGD towards one class after the other: what pushes away from the true class alone may stop between two others.

A. Kurakin, I. Goodfellow, S. Bengio. Adversarial Machine Learning at Scale. ICLR 2017 (arXiv 1611.01236), targeted
steps. S. Gowal, J. Uesato, C. Qin, et al. An Alternative Surrogate Loss for PGD-based Adversarial Testing.
arXiv 1910.09338 (2019), MultiTargeted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from benchbox import Access, Card, Count, Draws, Nature, ThreatModel, View, ascend, cross_entropy

from ._survivors import runner_up
from .noise import worst
from .pgd import PGD


@dataclass(frozen=True, kw_only=True)
class PGDT(PGD):
    """PGD that descends the cross-entropy of each of the most likely other classes.

    Attributes:
        targets: Classes aimed at, at most; all others where there are fewer.
    """

    card = Card("pgd-t", "PGD, targeted", paper="Kurakin et al., ICLR 2017", year=2017, kind="gradient")
    nature = Nature("iterative", climbs=("cross-entropy",), families=("targeted",))
    standard: ClassVar[tuple[Access, ...]] = ()

    targets: Count = 9

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """A run of PGD for each target and restart, a forward pass for each end, and one to rank the classes."""
        return worst(model, y, self._ends(model, x, y, threat, draws))

    def _ends(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Iterator[Tensor]:
        with torch.no_grad():
            logits = model(x)
        for rank in range(1, min(self.targets, logits.shape[1] - 1) + 1):
            target = runner_up(logits, y, rank)
            for restart in range(self.restarts):
                yield ascend(
                    model,
                    x,
                    y,
                    threat,
                    start=self.start(x, threat, draws.at("target", rank).at("restart", restart)),
                    steps=self.steps,
                    step_size=self.step * threat.epsilon,
                    loss=lambda logits, y, target=target: self.towards(logits, y, target),  # type: ignore[misc]
                    keep=self.keep,
                )

    def towards(self, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        """What is ascended to reach a target (N,): losses (N,)."""
        return -cross_entropy(logits, target)


@dataclass(frozen=True, kw_only=True)
class MultiTargeted(PGDT):
    """PGD on the margin of each of the most likely other classes: that logit minus the true one."""

    card = Card("mt", "PGD, multi-targeted margins", paper="Gowal et al., 2019", year=2019, kind="gradient")
    nature = Nature("iterative", climbs=("margin",), families=("targeted",))

    def towards(self, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        """The margin of one class (N,)."""
        return (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).squeeze(1)
