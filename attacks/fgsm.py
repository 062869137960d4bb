"""FGSM, the fast gradient sign method.

I. Goodfellow, J. Shlens, C. Szegedy. Explaining and Harnessing Adversarial Examples. ICLR 2015
(arXiv 1412.6572), section 4: x + ε sign ∇ₓ J(θ, x, y).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from benchbox import MEAN_GRADIENT, Access, Attack, Card, Draws, Nature, ThreatModel, View, ascend


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """One step of length epsilon from the image itself; it has no hyper-parameters."""

    card = Card(
        "fgsm", "one step of length epsilon", paper="Goodfellow et al., ICLR 2015", year=2015, kind="gradient"
    )
    nature = Nature("one-step", climbs=("cross-entropy",), steps=1)
    standard = (Access.GRAY_BOX, Access.TRANSFER, Access.WHITE_BOX)
    averaging = MEAN_GRADIENT
    balls = ("linf", "l2", "l1")

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """One forward and one backward pass."""
        return ascend(model, x, y, threat, start=x, steps=1, step_size=threat.epsilon)
