"""DiffAttack: a loss in every step of a purifier, so that the gradient need not come all the way.

M. Kang, D. Song, B. Li. DiffAttack: Evasion Attacks Against Diffusion-Based Adversarial Purification. NeurIPS
2023 (arXiv 2311.16124).

Beside the classification it climbs the deviated reconstruction loss (section 3.2): how far the state after each
step is from the image, diffused to the same time. It asks only for a model that works in steps; of any other, or
through a stand-in, nothing is left of it but PGD. What the authors do for memory, forwarding and backwarding by
segments, every purifier in steps does here by itself.

Departures: PGD with its restarts carries the loss where the authors add it to Auto-PGD; the distance is the mean
square over pixels and steps, all alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from benchbox import Access, Card, Nature, NonNegative, Trail, View

from .pgd import PGD


@dataclass(frozen=True, kw_only=True)
class DiffAttack(PGD):
    """PGD on the cross-entropy and the deviated reconstruction.

    Attributes:
        weight: λ of the deviated reconstruction.
    """

    card = Card("diffattack", "per-step losses, for purifiers", paper="Kang et al., NeurIPS 2023", year=2023,
                kind="gradient")  # fmt: skip
    #: 2: the later rounds of `gdmp` are compared with their own noise; what it answers is as before.
    version = 2
    nature = Nature("iterative", climbs=("cross-entropy", "deviated reconstruction"))
    standard: ClassVar[tuple[Access, ...]] = ()

    weight: NonNegative = 1.0

    def along(self, model: View, x: Tensor) -> Callable[[Trail, Tensor], Tensor]:
        """Both losses."""
        return lambda trail, y: self.loss(trail.logits, y) + self.weight * deviation(trail)


def deviation(trail: Trail) -> Tensor:
    """Mean square distance (N,) of the states from the faithful ones; 0 where there are none."""
    distance = (trail.states - trail.faithful).square().flatten(1)
    return distance.sum(1) / max(distance.shape[1], 1)
