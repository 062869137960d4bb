"""MIM, the momentum iterative method (MI-FGSM).

Y. Dong, F. Liao, T. Pang, H. Su, J. Zhu, X. Hu, J. Li. Boosting Adversarial Attacks with Momentum. CVPR 2018
(arXiv 1710.06081), Algorithm 1, Eq. 6 and 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from benchbox import Card, NonNegative

from .bim import BIM


@dataclass(frozen=True, kw_only=True)
class MIM(BIM):
    """Gradient ascent on the cross-entropy along the accumulated gradient, from the image itself.

    Attributes:
        momentum: μ, the decay of the accumulated gradient; 1 in the paper's experiments.
    """

    card = Card("mim", "iterated FGSM with momentum", paper="Dong et al., CVPR 2018", year=2018, kind="gradient")
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar": {"steps": 10, "step": 1 / 4},  # 10 × 2/255 at 8/255: the defaults of torchattacks.MIFGSM
    }

    momentum: NonNegative = 1.0

    def decay(self) -> float:
        """μ."""
        return self.momentum
