"""Carlini–Wagner's loss inside the ball.

N. Carlini, D. Wagner. Towards Evaluating the Robustness of Neural Networks. IEEE S&P 2017
(arXiv 1608.04644), objective f₆ of section V; optimised by PGD as in the challenges of Madry et al.
(ICLR 2018), `loss_func = cw`, because the original minimises a distance and knows no ball.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from benchbox import Access, Card, Count, Nature, margin

from .pgd import PGD


@dataclass(frozen=True, kw_only=True)
class CW(PGD):
    """Projected gradient ascent on the margin: the best other logit minus the true one.

    The margin does not saturate where the cross-entropy of a confident model underflows.
    """

    card = Card("cw", "PGD on the logit margin", paper="Carlini & Wagner, S&P 2017", year=2017, kind="gradient")
    nature = Nature("iterative", climbs=("margin",))
    standard = (Access.GRAY_BOX, Access.TRANSFER, Access.WHITE_BOX)
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar": {"step": 1 / 4},  # 2/255 at 8/255: config.json of cifar10_challenge
    }

    steps: Count = 100  # 100 × 0.01 at 0.3: the CW rows of mnist_challenge's leaderboard

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """The margin (N,)."""
        return margin(logits, y)
