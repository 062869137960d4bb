"""The model an attack is given: images in, logits out, every pass counted.

A view hides what the attacker's access hides. For a randomised model every call uses draws of its own,
taken from the attack's stream, which the scoring never touches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchbox.contract.confirmation import Confirmation
from benchbox.contract.deformation import Deformation
from benchbox.contract.tally import Broken, Standing
from benchbox.draws import Draws, stack
from benchbox.errors import AttackError

Forward = Callable[[Tensor, Draws], Tensor]


@dataclass(frozen=True, eq=False)
class Trail:
    """The logits of a model and its way there: the steps it works in, and what it settles by a threshold.

    S = 0 and M = 0 of a model that has none, or hides them.

    Attributes:
        logits: (N, K).
        states: (N, S, C, H, W) after each step.
        faithful: (N, S, C, H, W) what those states would be if the steps kept the image as it came in.
        margins: (N, M) of each hard decision how far it is from turning; the sign says which way it went.
    """

    logits: Tensor
    states: Tensor
    faithful: Tensor
    margins: Tensor = field(default_factory=lambda: torch.empty(0))

    def __post_init__(self) -> None:
        """Who says nothing of margins has none."""
        if self.margins.dim() != 2:
            object.__setattr__(self, "margins", self.logits.new_empty(len(self.logits), 0))

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """All of it, in this order."""
        return self.logits, self.states, self.faithful, self.margins

    def split(self, size: int) -> list[Trail]:
        """Of `size` samples each, as of a tensor."""
        parts = (part.split(size) for part in self.parts)
        return [Trail(*part) for part in zip(*parts, strict=True)]


Walk = Callable[[Tensor, Draws], Trail]
#: Either of them.
Model = Callable[[Tensor, Draws], Any]


def joined(found: list[Any]) -> Any:
    """Answers of the same kind, one below the other."""
    if isinstance(found[0], Trail):
        columns = zip(*(trail.parts for trail in found), strict=True)
        return Trail(*(torch.cat(column) for column in columns))
    return torch.cat(found)


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
        batch: Rows of one call of the model: larger batches are split, draws of a smaller one are taken together;
            None for calls as they come. An attack that is `pooled` is given more samples than that.
        deformation: What makes images of the parameters that the attack is handed in their place; else None.
        confirmation: Who decides in float32 what is broken, where `forward` is of lower precision; else None.
        walk: (x, draws) -> the logits with the steps to them; None of a model that has none, or hides them.
        early_stop: Whether a sample may leave the search at the image that breaks it, see `Cell.early_stop`.
        whole: Calls that covered the whole batch, [forward, backward].
        partial: Rows passed in calls that covered a part of it, likewise.
    """

    def __init__(
        self,
        forward: Forward,
        y: Tensor,
        draws: Draws,
        *,
        randomized: bool = False,
        eot: int = 1,
        batch: int | None = None,
        confirmation: Confirmation | None = None,
        walk: Walk | None = None,
        deformation: Deformation | None = None,
        early_stop: bool = False,
    ) -> None:
        self.forward = forward
        self.y = y
        self.draws = draws
        self.randomized = randomized
        self.eot = eot if randomized else 1
        self.batch = batch
        self.confirmation = confirmation
        self.walk = walk
        self.deformation = deformation
        self.early_stop = early_stop
        self.whole = [0, 0]
        self.partial = [0, 0]
        self._left = torch.zeros_like(y, dtype=torch.bool)
        self._calls = 0
        self._parts: list[tuple[Tensor, View]] = []
        self._broken = Broken(y)
        self._standing = Standing(y)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (n, K) for images (n, C, H, W); for a randomised model, in a fresh draw."""
        return self._ask(x, 1, self.forward)  # type: ignore[no-any-return]

    def gradient(self, x: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient of a per-sample loss at x, in one forward and one backward pass per EOT draw.

        Args:
            x: (n, C, H, W) images.
            loss: logits (n, K) -> losses (n,).

        Returns:
            The gradient (n, C, H, W), the losses (n,) and the logits (n, K), each averaged over the draws.
        """
        return self._averaged(x, self.forward, loss)

    def along(self, x: Tensor, loss: Callable[[Trail], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """As `gradient`, of a loss that also sees the way of the model, if it has one and shows it.

        Args:
            x: (n, C, H, W) images.
            loss: the trail of n samples -> losses (n,).
        """
        if self.walk is not None:
            return self._averaged(x, self.walk, loss)
        nothing = x.new_empty(len(x), 0, *x.shape[1:])
        return self._averaged(x, self.forward, lambda logits: loss(Trail(logits, nothing, nothing)))

    def _averaged(self, x: Tensor, model: Model, loss: Callable[[Any], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        if self.eot == 1:
            return self._one_gradient(x, model, loss, 1)
        rows, left = len(x), self.eot
        totals: list[Tensor] = []
        while left:
            together = 1 if self.batch is None else min(left, max(1, self.batch // max(rows, 1)))
            found = self._one_gradient(x, model, loss, together)
            # One draw after the other, so that the sum is rounded alike however many were taken together.
            for draw in zip(*(part.split(rows) for part in found), strict=True):
                totals = [total + part for total, part in zip(totals, draw, strict=True)] if totals else [*draw]
            left -= together
        gradient, losses, logits = [total / self.eot for total in totals]
        return gradient, losses, logits

    def _one_gradient(
        self, x: Tensor, model: Model, loss: Callable[[Any], Tensor], copies: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        leaf = (x if copies == 1 else x.repeat(copies, 1, 1, 1)).detach().requires_grad_()
        with torch.enable_grad():
            found = self._ask(leaf, copies, model)
            parts = [loss(part) for part in found.split(len(x))] if copies > 1 else [loss(found)]
            # Of their sum, which need not be computed for it.
            (gradient,) = torch.autograd.grad(parts, leaf, [torch.ones_like(part) for part in parts])
            losses = parts[0] if copies == 1 else torch.cat(parts)
        logits = found.logits if isinstance(found, Trail) else found
        return gradient.contiguous(), losses.detach(), logits.detach()

    def _ask(self, x: Tensor, copies: int, model: Model) -> Any:
        """What a model says of some images, given once for each draw to be taken, one copy below the other."""
        rows = len(x) // copies
        if torch.is_grad_enabled() and x.requires_grad:
            # A tensor of its own for each call: a hook of a leaf that is asked about twice would count twice.
            x = x.view_as(x)
            # Where an operation has no derivative there is none to mend, and autograd says so itself.
            x.register_hook(lambda gradient: None if gradient is None else self._broken.mend(gradient, copies))
        found = self._said(self._shown(x, rows), rows, stack([self._source(rows) for _ in range(copies)]), model)
        logits = found.logits if isinstance(found, Trail) else found
        self._count(0, rows, copies)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: self._count(1, rows, copies))
        if rows == len(self.y):
            self._standing.note(logits.detach(), copies)
        return found

    def _shown(self, x: Tensor, rows: int) -> Tensor:
        if self.deformation is None:
            return x
        if rows != len(self.y):
            raise AttackError(
                "it drops samples on its own, and the deformations of an image are that image's alone"
            )
        return self.deformation(x)

    def deformed(self, deformation: Deformation) -> View:
        """The same model behind a deformation of its images; nothing was asked of it yet."""
        return View(
            self.forward,
            self.y,
            self.draws,
            randomized=self.randomized,
            eot=self.eot,
            batch=self.batch,
            walk=self.walk,
            deformation=deformation,
            early_stop=self.early_stop,
        )

    def _said(self, x: Tensor, rows: int, draws: Draws, model: Model) -> Any:
        if self.confirmation is None or model is self.walk:
            return self._split(model, x, draws)
        if rows != len(self.y):
            # Nobody says whose rows these are, so nothing could be confirmed.
            return self._split(self.confirmation.exact, x, draws)
        return self.confirmation.hear(self._split(model, x, draws), x, self.y, draws)

    def _split(self, model: Model, x: Tensor, draws: Draws) -> Any:
        if self.batch is None or len(x) <= self.batch:
            return model(x, draws)
        parts = (slice(at, at + self.batch) for at in range(0, len(x), self.batch))
        return joined([model(x[part], draws.rows(part)) for part in parts])

    def settle(self, found: Tensor) -> Tensor:
        """The images (N, C, H, W) a search returned, see `Confirmation.settle`."""
        if self.confirmation is None:
            return found
        return self.confirmation.settle(found, self.forward, self.y, self.draws)

    def rows(self, keep: Tensor) -> View:
        """A view of some of the samples, with draws and counters of their own; `keep` is an index or a mask.

        What it counts is counted here as well, for the samples concerned. An attack that drops samples goes on
        with this instead of calling with fewer rows, which would hide from a defence whose rows they are.
        """
        part = View(
            self.forward,
            self.y[keep],
            self.draws.rows(keep),
            randomized=self.randomized,
            eot=self.eot,
            batch=self.batch,
            confirmation=self.confirmation and self.confirmation.rows(keep),
            walk=self.walk,
            deformation=self.deformation and self.deformation.rows(keep),
            early_stop=self.early_stop,
        )
        self._parts.append((keep, part))
        return part

    def leave(self, fallen: Tensor) -> None:
        """Note that some samples, a mask or an index, leave the search before its last step, for `early_stop`."""
        self._left[fallen] = self.early_stop

    @property
    def left(self) -> Tensor:
        """(N,) bool, who left."""
        left = self._left.clone()
        for keep, part in self._parts:
            left[keep] = left[keep] | part.left
        return left

    @property
    def first_success(self) -> Tensor:
        """(N,) int64: number, from 1, of the pass that first misclassified each sample, or -1.

        A pass is a call that covered all samples of this view, or after those of a view of some of its `rows`.
        """
        standing, withstood = self._history()
        return torch.where(standing, -1, withstood + 1)

    def _history(self) -> tuple[Tensor, Tensor]:
        standing, withstood = self._standing.so_far()
        for keep, part in self._parts:
            stood, more = part._history()
            before = standing[keep]
            withstood[keep] += more * before
            standing[keep] = before & stood
        return standing, withstood

    def spent(self) -> Tensor:
        """(2, N) float64: forward and backward passes of each sample so far.

        Passes over rows that nobody named (a foreign attack drops them silently) are shared out evenly.
        """
        n = max(len(self.y), 1)
        own = [w + p / n for w, p in zip(self.whole, self.partial, strict=True)]
        spent = torch.tensor(own, dtype=torch.float64)[:, None].repeat(1, len(self.y))
        for keep, part in self._parts:
            spent[:, keep.cpu()] += part.spent()
        return spent

    def broken(self) -> Tensor:
        """(2, N) float64: gradients of each sample with a NaN or an infinity, and those of them with nothing else.

        Shared out as `spent` is.
        """
        found = self._broken.so_far()
        for keep, part in self._parts:
            found[:, keep.cpu()] += part.broken()
        return found

    def passes(self) -> tuple[float, float]:
        """(forward, backward) passes per sample so far, on average."""
        forwards, backwards = self.spent().mean(1).tolist() if len(self.y) else (0.0, 0.0)
        return forwards, backwards

    def _source(self, rows: int) -> Draws:
        """The draws of the next call: the same for a deterministic model, fresh ones for a randomised."""
        draws = self.draws
        if rows != len(draws):
            # A library that drops rows on its own does not say which: rows keep distinct draws, not their own.
            draws = draws.rows(torch.arange(rows, device=draws.indices.device) % len(draws))
        self._calls += 1
        return draws.at("view", self._calls - 1) if self.randomized else draws

    def _count(self, direction: int, rows: int, copies: int) -> None:
        if rows == self.y.shape[0]:
            self.whole[direction] += copies
        else:
            self.partial[direction] += rows * copies
