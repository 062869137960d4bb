"""pyautoattack's own attacks, with randomness that belongs to the sample instead of to the batch.

The searches are the library's, untouched. Replaced is only where their random numbers come from: the library
draws them from the global generator in the order in which samples happen to come, so that its results change
with the batch size and with every sample that is dropped.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Tensor

from benchbox import Draws, ThreatModel, View, margin

from ._fence import fenced

#: Takes the library's remarks, that a gradient is zero for one, which would else break into a terminal's progress.
#: The audit measures what they warn of (B4).
_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())

#: The library's names of the norms.
NORM = {"linf": "Linf", "l2": "L2"}


class Located:
    """The draws of rows that the library passes on in subsets without saying which.

    Rows are found by their pixels. Identical images share the draws of the last of them, which harms nobody.
    """

    def __init__(self, x: Tensor, draws: Draws) -> None:
        self.draws = draws
        self._row = {image.tobytes(): row for row, image in enumerate(x.detach().cpu().numpy())}

    def __call__(self, x: Tensor) -> Draws:
        rows = [self._row[image.tobytes()] for image in x.detach().cpu().numpy()]
        return self.draws.rows(torch.tensor(rows, dtype=torch.int64, device=self.draws.indices.device))


class _OwnStart:
    """Gives every run of APGD a random start from the samples' own draws."""

    located: Located
    norm: str
    eps: float
    runs = 0

    def attack_single_run(self, x: Tensor, y: Tensor, x_init: Tensor | None = None) -> Any:
        draws = self.located(x).at("run", self.runs)
        self.runs += 1
        shape = x.shape[1:]
        noise = draws.uniform(*shape, low=-1.0, high=1.0) if self.norm == "Linf" else draws.normal(*shape)
        start = x + self.eps * self.normalize(noise)  # type: ignore[attr-defined]
        return super().attack_single_run(x, y, x_init=start)  # type: ignore[misc]


class APGD(_OwnStart, APGDAttack):  # type: ignore[misc]
    """Auto-PGD (Croce & Hein 2020) on the cross-entropy, `ce`, or the difference of logits ratio, `dlr`."""

    def __init__(self, model: View, x: Tensor, threat: ThreatModel, draws: Draws, *, loss: str) -> None:
        super().__init__(model, loss=loss, eot_iter=model.eot, **_common(x, threat), logger=_log)
        self.located = Located(x, draws)


class TargetedAPGD(_OwnStart, APGDAttack_targeted):  # type: ignore[misc]
    """Auto-PGD on the targeted DLR loss, towards each of the `targets` most likely other classes in turn."""

    def __init__(self, model: View, x: Tensor, threat: ThreatModel, draws: Draws, *, targets: int) -> None:
        super().__init__(model, n_target_classes=targets, **_common(x, threat), logger=_log)
        self.located = Located(x, draws)


def targeted_fab(model: View, x: Tensor, y: Tensor, threat: ThreatModel, *, targets: int) -> Tensor:
    """FAB (Croce & Hein, arXiv 1907.02044) towards each target in turn; it draws nothing at random."""
    attack = FABAttack_PT(model, targeted=True, n_target_classes=targets, **_common(x, threat))
    found: Tensor = attack.perturb(x, y)
    return found


class _Square(SquareAttack):  # type: ignore[misc]
    """Square Attack whose signs belong to the samples; its windows are shared by all samples everywhere."""

    def __init__(
        self, model: View, x: Tensor, threat: ThreatModel, draws: Draws, *, queries: int, p: float
    ) -> None:
        super().__init__(model, n_queries=queries, p_init=p, resc_schedule=False, **_common(x, threat))
        self.view = model
        self.seed = draws.seed
        self.located = Located(x, draws)

    def attack_single_run(self, x: Tensor, y: Tensor) -> Any:
        self.present = self.located(x)
        # Drawn from in a fixed order whoever is still there: a function of seed and call number alone.
        self.shared = _uniform(self.seed)
        self.calls = 0
        return super().attack_single_run(x, y)

    def margin_and_loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The margin, twice; the library would compute a cross-entropy as well and throw it away."""
        self._follow(len(x))
        averaged = -margin(self.view(x), y)
        for _ in range(self.view.eot - 1):
            averaged = averaged - margin(self.view(x), y)
        averaged = averaged / self.view.eot
        if self.view.randomized:
            # No sample leaves on the strength of a few draws; the loss alone decides what is kept.
            return averaged.clamp_min(torch.finfo(averaged.dtype).tiny), averaged
        self.standing = averaged > 0
        return averaged, averaged.clone()

    def _follow(self, rows: int) -> None:
        # The library goes on with exactly the rows that still stood after the last query.
        if rows < len(self.present):
            self.present = self.present.rows(self.standing)

    def random_choice(self, shape: list[int]) -> Tensor:
        self.calls += 1
        if len(shape) < 4:
            signs = [math.copysign(1, next(self.shared) - 0.5) for _ in range(math.prod(shape))]
            return torch.tensor(signs, device=self.device).view(shape)
        self._follow(shape[0])
        return torch.where(self.present.at("sign", self.calls).uniform(*shape[1:]) < 0.5, -1.0, 1.0)

    def random_int(self, low: int = 0, high: int = 1) -> int:
        """A place on the image. The library makes a tensor of it, and has to read it back to slice with it."""
        return int(low + (high - low) * next(self.shared))


def _uniform(seed: int) -> Iterator[float]:
    """Numbers in [0, 1) without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.rand(4096, generator=generator).tolist()


def square(
    model: View,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    draws: Draws,
    *,
    queries: int = 5000,
    p: float = 0.8,
) -> Tensor:
    """Square Attack (Andriushchenko et al., ECCV 2020) on the margin.

    Args:
        model: The view under attack; for a randomised one every query is the mean over `model.eot` draws and
            no sample stops early.
        x: (N, C, H, W) clean images.
        y: (N,) true classes.
        threat: The ball.
        draws: Row i belongs to sample i.
        queries: Queries a sample.
        p: Share of the pixels in the first square.

    Returns:
        (N, C, H, W) images; of a deterministic model, the clean one where nothing was found.
    """
    attack = _Square(model, x, threat, draws, queries=queries, p=p)
    with torch.no_grad(), fenced(draws.seed):
        if model.randomized:
            attack.init_hyperparam(x)
            found: Tensor = attack.attack_single_run(x, y)[1]
        else:
            found = attack.perturb(x, y)
    return threat.project(found, x)


def _common(x: Tensor, threat: ThreatModel) -> dict[str, Any]:
    return {"norm": NORM[threat.norm], "eps": threat.epsilon, "device": x.device, "seed": 0}
