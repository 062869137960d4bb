"""A search in low precision, and who decides there that an image is broken: the model in float32.

The logits that an attack hears are coarse, but for one thing: an image of the ball that they call misclassified
is asked about again in float32, until one has been confirmed for its sample. Where float32 disagrees, the attack
hears the float32 logits, and goes on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from benchbox.domain import TOLERANCE, ThreatModel
from benchbox.draws import Draws


class Confirmation:
    """What float32 has confirmed of some samples; for a deterministic model.

    Its passes are the referee's, like those of scoring: no attack is charged for them.

    Args:
        exact: (x, draws) -> logits of the attacked model in float32.
        x: (N, C, H, W) clean images.
        threat: The ball. What is misclassified outside of it breaks nothing and need not be confirmed.
        batch: Rows of one call.
    """

    def __init__(
        self, exact: Callable[[Tensor, Draws], Tensor], x: Tensor, threat: ThreatModel, batch: int
    ) -> None:
        self.exact = exact
        self.threat = threat
        self.batch = batch
        self._x = x
        self._image = x.clone()
        self._known = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self._rows = torch.arange(len(x), device=x.device)

    def rows(self, keep: Tensor) -> Confirmation:
        """The same for some of the samples: what one learns the other knows."""
        part = copy.copy(self)
        part._rows = self._rows[keep]
        return part

    def hear(self, logits: Tensor, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        """The coarse logits (n, K) of every sample as an attack may hear them.

        Their gradient stays the coarse one.

        Args:
            logits: In low precision.
            x: (n, C, H, W) images.
            y: (n,) true classes.
            draws: Row i belongs to sample i.
        """
        claimed = (logits.detach().argmax(1) != y) & ~self._known[self._rows]
        claimed &= self.threat.norms(x.detach() - self._x[self._rows]) <= self.threat.epsilon + TOLERANCE
        at = claimed.nonzero().flatten()
        if not len(at):
            return logits
        images, place = x.detach()[at], self._rows[at]
        said = self._ask(images, draws.rows(at))
        wrong = said.argmax(1) != y[at]
        self._known[place[wrong]] = True
        self._image[place[wrong]] = images[wrong]
        refuted = at[~wrong]
        if not len(refuted):
            return logits
        shift = torch.zeros_like(logits)
        shift[refuted] = said[~wrong] - logits.detach()[refuted]
        return logits + shift

    def settle(self, found: Tensor, coarse: Callable[[Tensor, Draws], Tensor], y: Tensor, draws: Draws) -> Tensor:
        """What a search returned (N, C, H, W), with a confirmed image where only low precision errs on its own.

        A sample that counted as broken from some image on is broken by that image.
        """
        at = (self._known[self._rows] & (self._ask(found, draws).argmax(1) == y)).nonzero().flatten()
        if len(at):
            with torch.no_grad():
                at = at[coarse(found[at], draws.rows(at)).argmax(1) != y[at]]
            found = found.index_copy(0, at, self._image[self._rows[at]])
        return found

    def _ask(self, x: Tensor, draws: Draws) -> Tensor:
        parts = (slice(at, at + self.batch) for at in range(0, max(len(x), 1), self.batch))
        with torch.no_grad():
            return torch.cat([self.exact(x[part], draws.rows(part)) for part in parts])
