"""MIM, the momentum iterative method (MI-FGSM).

Y. Dong, F. Liao, T. Pang, H. Su, J. Zhu, X. Hu, J. Li. Boosting Adversarial Attacks with Momentum. CVPR 2018
(arXiv 1710.06081), Algorithm 1, Eq. 6 and 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from benchbox import (
    MEAN_GRADIENT,
    Access,
    Attack,
    Card,
    Count,
    Draws,
    Nature,
    NonNegative,
    Positive,
    ThreatModel,
    View,
    ascend,
)


@dataclass(frozen=True, kw_only=True)
class MIM(Attack):
    """Gradient ascent on the cross-entropy along the accumulated gradient, from the image itself.

    Attributes:
        momentum: μ, the decay of the accumulated gradient; 1 in the paper's experiments.
        steps: Number of steps.
        step: Length of a step as a share of epsilon.
        keep: Return the `best` iterate (one more forward pass), or the `last` as the paper does.
    """

    card = Card("mim", "iterated FGSM with momentum", paper="Dong et al., CVPR 2018", year=2018, kind="gradient")
    nature = Nature("iterative", climbs=("cross-entropy",))
    standard = (Access.GRAY_BOX, Access.TRANSFER)
    averaging = MEAN_GRADIENT
    balls = ("linf", "l2", "l1")
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar": {"steps": 10, "step": 1 / 4},  # 10 × 2/255 at 8/255: the defaults of torchattacks.MIFGSM
    }

    momentum: NonNegative = 1.0
    steps: Count = 40  # 40 × 0.01 at 0.3: as BIM and PGD, so that the three differ in one thing each
    step: Positive = 1 / 30
    keep: Literal["last", "best"] = "best"

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """`steps` forward and backward passes, and one forward pass for `keep="best"`."""
        return ascend(
            model,
            x,
            y,
            threat,
            start=x,
            steps=self.steps,
            step_size=self.step * threat.epsilon,
            momentum=self.momentum,
            keep=self.keep,
        )
