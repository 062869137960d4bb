"""Square Attack, a random search that needs no gradient.

M. Andriushchenko, F. Croce, N. Flammarion, M. Hein. Square Attack: a query-efficient black-box adversarial
attack via random search. ECCV 2020 (arXiv 1912.00049), Algorithms 1 to 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from benchbox import Access, Attack, Card, Count, Draws, Nature, ThreatModel, View

from ._square import square


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Square Attack on the margin, with AutoAttack's settings.

    Attributes:
        queries: Queries a sample; 5,000 in AutoAttack.
        p: Share of the pixels in the first square; it shrinks on the authors' fixed schedule.
    """

    card = Card("square", "random search by squares", "Andriushchenko et al., ECCV 2020", 2020, "score-based")
    nature = Nature("score-based", climbs=("margin",))
    needs: ClassVar[Literal["gradient", "scores", "labels", "nothing"]] = "scores"
    standard = (Access.WHITE_BOX,)
    averaging = "mean of the per-draw losses"
    balls = ("linf", "l2", "l1")
    version = 3

    queries: Count = 5000
    p: Annotated[float, Field(gt=0, le=1)] = 0.8

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """`queries` + 3 forward passes for a sample that never breaks."""
        with torch.no_grad():
            return square(model, x, y, threat, draws, queries=self.queries, p=self.p)
