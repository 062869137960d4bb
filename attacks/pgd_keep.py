"""PGD that keeps what a purifier decides: it climbs inside the region where the gradient is true.

A defence that settles something by a threshold, such as which pixels it removes, has a gradient that holds as long
as no decision turns. An attack that follows it blindly turns decisions as it goes, and what it has won is taken
away. So the objective is adapted to the defence, as asked by F. Tramèr, N. Carlini, W. Brendel, A. Madry. On
Adaptive Attacks to Adversarial Example Defenses. NeurIPS 2020 (arXiv 2002.08347): beside the classification, each
decision is held on the side where the clean image has it.

It asks only for a model that tells the margins of its decisions. Of any other, or through a stand-in, nothing is
left of it but PGD.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from benchbox import Access, Card, Nature, NonNegative, Trail, View

from .pgd import PGD


@dataclass(frozen=True, kw_only=True)
class PGDKeep(PGD):
    """PGD on the cross-entropy, less what decisions have turned, or nearly turned, from those on the clean image.

    Attributes:
        weight: λ of the decisions; 0 leaves PGD.
        slack: How far from turning each decision is to stay, in the scale of the defence's margins.
    """

    card = Card("pgd-keep", "PGD that keeps a purifier's decisions", paper="after Tramèr et al., NeurIPS 2020",
                year=2020, kind="gradient")  # fmt: skip
    nature = Nature("iterative", climbs=("cross-entropy", "kept decisions"))
    standard: ClassVar[tuple[Access, ...]] = ()

    weight: NonNegative = 1.0
    slack: NonNegative = 0.1

    def along(self, model: View, x: Tensor) -> Callable[[Trail, Tensor], Tensor]:
        """Both losses; a pass each way more, to see what is decided on the clean images."""
        decided = decisions(model, x)
        return lambda trail, y: self.loss(trail.logits, y) - self.weight * turned(trail, decided, self.slack)


def decisions(model: View, x: Tensor) -> Tensor:
    """(N, M) signs of the margins of what a model decides on images (N, C, H, W)."""
    seen: list[Tensor] = []

    def look(trail: Trail) -> Tensor:
        seen.append(trail.margins.detach().sign())
        return trail.logits.sum(1)

    model.along(x, look)
    # Of several draws the sum of their votes.
    return torch.stack(seen).sum(0).sign()


def turned(trail: Trail, decided: Tensor, slack: float) -> Tensor:
    """(N,) L2 norm of how far each decision is from where it is to stay; 0 where there are none."""
    missing: Tensor = ((slack - decided * trail.margins).relu() * decided.abs()).norm(dim=1)
    return missing
