"""BIM, the basic iterative method.

A. Kurakin, I. Goodfellow, S. Bengio. Adversarial Examples in the Physical World. ICLR 2017 workshop
(arXiv 1607.02533), section 2.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from benchbox import MEAN_GRADIENT, Access, Attack, Card, Count, Draws, Nature, Positive, ThreatModel, View, ascend


@dataclass(frozen=True, kw_only=True)
class BIM(Attack):
    """Projected gradient ascent on the cross-entropy, from the image itself.

    Attributes:
        steps: Number of steps.
        step: Length of a step as a share of epsilon, so that the whole ball stays in reach whatever its size.
        keep: Return the `best` iterate (one more forward pass), or the `last` as the paper does.
    """

    card = Card("bim", "iterated FGSM, no random start", "Kurakin et al., ICLR-W 2017", 2017, "gradient")
    nature = Nature("iterative", climbs=("cross-entropy",))
    standard = (Access.GRAY_BOX, Access.TRANSFER)
    averaging = MEAN_GRADIENT
    balls = ("linf", "l2", "l1")
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar": {"steps": 10, "step": 1 / 4},  # 10 × 2/255 at 8/255: the defaults of torchattacks.BIM
    }

    steps: Count = 40  # 40 × 0.01 at 0.3: the steps of mnist_challenge (Madry et al. 2018), without its start
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
            momentum=self.decay(),
            keep=self.keep,
            early_stop=model.early_stop,
        )

    def decay(self) -> float | None:
        """Of the accumulated gradient; None where none is accumulated."""
        return None
