"""The control that no attack may fall below: epsilon → 0.

N. Carlini, A. Athalye, N. Papernot, et al. On Evaluating Adversarial Robustness. arXiv 1902.06705 (2019),
section 5: sanity tests. An evaluation that reports less than the clean accuracy under this attack counts the
defence's own randomness as the attacker's success.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from benchbox import Attack, Card, Draws, Nature, ThreatModel, View


@dataclass(frozen=True, kw_only=True)
class Null(Attack):
    """Returns the images it was given."""

    card = Card("null", "no attack: must return the clean accuracy", year=2019, kind="control")
    nature = Nature("control")
    balls = ("linf", "l2", "l1")
    needs: ClassVar[Literal["gradient", "scores", "labels", "nothing"]] = "nothing"

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """The images themselves, without a single pass."""
        return x.clone()
