"""Purifiers that settle something by a threshold: which pixel is removed, say. Their gradient does not see it.

    class Mine(DecidingPurifier[MineRecipe]):
        def purify(self, x, draws): ...               # decides, and does as it decided
        def margins(self, x, draws): ...              # how far each of its decisions is from turning

An attacker who knows the margins can keep the decisions as they are while it climbs, or turn them on purpose: it
adapts its objective (Tramèr et al. 2020, arXiv 2002.08347).
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from benchbox.contract.defense import Purifier, R
from benchbox.contract.view import Trail
from benchbox.draws import Draws


class DecidingPurifier(Purifier[R]):
    """A purifier with hard decisions, which says how far each is from turning."""

    @abstractmethod
    def margins(self, x: Tensor, draws: Draws) -> Tensor:
        """(N, M) of each decision its distance to the threshold, in a scale of its own, differentiable in x.

        The sign says which way it goes; M may be 0.
        """

    def trail(self, x: Tensor, draws: Draws) -> Trail:
        """Logits (N, K) and the margins; there are no steps."""
        nothing = x.new_empty(len(x), 0, *x.shape[1:])
        return Trail(self(x, draws), nothing, nothing, self.margins(x, draws))
