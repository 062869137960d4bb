"""The model an attack is given: images in, logits out, every pass counted.

A view hides what the attacker's access hides. For a randomised model every call uses draws of its own,
taken from the attack's stream, which the scoring never touches.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchbox.draws import Draws

Forward = Callable[[Tensor, Draws], Tensor]
#: What `View.gradient` averages over the draws. Means of logits or of probabilities are other objectives.
MEAN_GRADIENT = "mean of the gradients of the per-draw losses"


class View:
    """A model under attack, for one batch of samples.

    Attributes:
        forward: (x, draws) -> logits.
        randomized: Whether two calls on one image may differ.
        draws: The attack's stream for this batch; row i belongs to sample i.
        eot: Draws a gradient is averaged over (Expectation over Transformation; Athalye et al. 2018). The
            mean is taken over the gradients of the per-draw losses, as AutoAttack does.
        whole: Calls that covered the whole batch, [forward, backward].
        partial: Rows passed in calls that covered a part of it, likewise.
    """

    def __init__(
        self, forward: Forward, y: Tensor, draws: Draws, *, randomized: bool = False, eot: int = 1
    ) -> None:
        self.forward = forward
        self.y = y
        self.draws = draws
        self.randomized = randomized
        self.eot = eot if randomized else 1
        self.whole = [0, 0]
        self.partial = [0, 0]
        self._calls = 0
        self._standing = torch.ones_like(y, dtype=torch.bool)
        self._withstood = torch.zeros_like(y)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (n, K) for images (n, C, H, W); for a randomised model, in a fresh draw."""
        rows = x.shape[0]
        logits = self.forward(x, self._fresh(rows) if self.randomized else self.draws)
        self._calls += 1
        self._count(0, rows)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: self._count(1, rows))
        if rows == self.y.shape[0]:
            self._standing &= logits.detach().argmax(1) == self.y
            self._withstood += self._standing
        return logits

    def gradient(self, x: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient of a per-sample loss at x, in one forward and one backward pass per EOT draw.

        Args:
            x: (n, C, H, W) images.
            loss: logits (n, K) -> losses (n,).

        Returns:
            The gradient (n, C, H, W), the losses (n,) and the logits (n, K), each averaged over the draws.
        """
        gradient, losses, logits = self._one_gradient(x, loss)
        if self.eot == 1:
            return gradient, losses, logits
        for _ in range(self.eot - 1):
            more = self._one_gradient(x, loss)
            gradient, losses, logits = gradient + more[0], losses + more[1], logits + more[2]
        return gradient / self.eot, losses / self.eot, logits / self.eot

    def _one_gradient(self, x: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        leaf = x.detach().requires_grad_()
        with torch.enable_grad():
            logits = self(leaf)
            losses = loss(logits)
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        return gradient, losses.detach(), logits.detach()

    @property
    def first_success(self) -> Tensor:
        """(N,) int64: number, from 1, of the whole-batch call that first misclassified each sample, or -1."""
        return torch.where(self._standing, -1, self._withstood + 1)

    def rows(self, keep: Tensor) -> View:
        """A view of some of the samples, with counters of its own."""
        return View(self.forward, self.y[keep], self.draws.rows(keep), randomized=self.randomized, eot=self.eot)

    def passes(self) -> tuple[float, float]:
        """(forward, backward) passes per sample so far; passes over a part of the batch are shared out evenly."""
        n = max(len(self.y), 1)
        return self.whole[0] + self.partial[0] / n, self.whole[1] + self.partial[1] / n

    def _fresh(self, rows: int) -> Draws:
        draws = self.draws
        if rows != len(draws):
            # A library that drops rows on its own does not say which: rows keep distinct draws, not their own.
            draws = draws.rows(torch.arange(rows, device=draws.indices.device) % len(draws))
        return draws.at("view", self._calls)

    def _count(self, direction: int, rows: int) -> None:
        if rows == self.y.shape[0]:
            self.whole[direction] += 1
        else:
            self.partial[direction] += rows
