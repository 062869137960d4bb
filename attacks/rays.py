"""RayS, a search for the nearest error that is told classes alone: the hard-label attack.

J. Chen, Q. Gu. RayS: A Ray Searching Method for Hard-label Adversarial Attack. KDD 2020 (arXiv 2006.12792),
Algorithms 1 to 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from benchbox import Access, Attack, Card, Count, Draws, Nature, ThreatModel, View

from ._labels import errs

#: Queries after which samples that are done leave.
BLOCK = 25
#: A radius is found to this share of epsilon; the authors' 1e-3 of a length in L2, on MNIST.
TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class RayS(Attack):
    """Flips the signs of ever smaller parts of a direction, and keeps what brings the first error nearer.

    All it reads of the model is whether the class is wrong, so nothing that hides gradients or flattens scores
    stops it. Directions are corners of the L∞ ball; in L2 they are the same, of unit length. Of a randomised view,
    an image is wrong if most of `eot` draws are; the radius found is where luck ends, so the end is taken on the
    surface of the ball.

    Attributes:
        queries: Queries a sample.
    """

    card = Card(
        "rays", "hard labels alone, by rays", paper="Chen & Gu, KDD 2020", year=2020, kind="decision-based"
    )
    nature = Nature("decision-based", families=("minimum norm",))
    needs: ClassVar[Literal["gradient", "scores", "labels", "nothing"]] = "labels"
    standard = (Access.WHITE_BOX,)
    averaging = "majority of the draws"

    queries: Count = 1000

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """`queries` + 1 forward passes for a sample that never breaks."""
        with torch.no_grad():
            rows = (~errs(model, x, y)).nonzero().flatten()
            found = x.clone()
            rays = _Rays.start(x[rows])
            part = model.rows(rows)
            for first in range(0, self.queries, BLOCK):
                if not len(rows):
                    break
                rays = _queries(part, rays, x[rows], y[rows], threat, min(BLOCK, self.queries - first))
                done = (rays.best <= threat.epsilon) & (not model.randomized)
                if bool(done.any()):
                    found[rows[done]] = rays.rows(done).end(x[rows[done]], threat)
                    rows, rays = rows[~done], rays.rows(~done)
                    part = model.rows(rows)
            if model.randomized:
                rays = rays._replace(best=torch.full_like(rays.best, torch.inf))
            found[rows] = rays.end(x[rows], threat)
            return found


class _Rays(NamedTuple):
    """Where the search of each sample stands; row i is one sample.

    Attributes:
        sign: (n, d) the best direction.
        best: (n,) its smallest radius that is known to err; infinity before any.
        low: (n,) largest radius of the tried direction that is taken to be right; -1 where it was not asked about.
        high: (n,) smallest radius of the tried direction that errs.
        level: (n,) parts of the direction: 2 to the power of it.
        block: (n,) the part that is flipped in the tried direction; -1 for none.
    """

    sign: Tensor
    best: Tensor
    low: Tensor
    high: Tensor
    level: Tensor
    block: Tensor

    @classmethod
    def start(cls, x: Tensor) -> _Rays:
        """All pixels brighter; that direction itself is tried before any part of it is flipped."""
        zero = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        far = torch.full((len(x),), torch.inf, device=x.device)
        return cls(torch.ones_like(x).flatten(1), far, torch.full_like(far, -1), far.clone(), zero, zero - 1)

    def rows(self, keep: Tensor) -> _Rays:
        """Some of the samples."""
        return _Rays(*(field[keep] for field in self))

    def tried(self) -> tuple[Tensor, Tensor]:
        """The direction with one part flipped (n, d), and whether that part ends it (n,)."""
        length = self.sign.shape[1]
        size = (length / 2.0**self.level).ceil().clamp_min(1).long()
        place = torch.arange(length, device=self.sign.device)
        start, end = self.block * size, (self.block + 1) * size
        inside = (place >= start[:, None]) & (place < end[:, None])
        return torch.where(inside, -self.sign, self.sign), end >= length

    def end(self, x: Tensor, threat: ThreatModel) -> Tensor:
        """The image on the best direction: where it errs, or on the surface of the ball where that is farther."""
        return threat.project(_on(x, self.sign, self.best.clamp_max(threat.epsilon), threat), x)


def _queries(model: View, rays: _Rays, x: Tensor, y: Tensor, threat: ThreatModel, count: int) -> _Rays:
    """Ask `count` times about every sample: first whether a direction is better, then how much, by halving."""
    box = 1.0 if threat.norm == "linf" else float(x[0].numel()) ** 0.5
    for _ in range(count):
        direction, last = rays.tried()
        new = rays.low < 0
        radius = torch.where(new, rays.best.clamp_max(box), (rays.low + rays.high) / 2)
        wrong = errs(model, _on(x, direction, radius, threat), y)
        high = torch.where(wrong, radius, rays.high)
        low = torch.where(new, 0.0, torch.where(wrong, rays.low, radius))
        found = ~new & (high - low <= TOLERANCE * threat.epsilon)
        # What errs inside the ball is kept at once; what errs outside it, when its radius is known.
        keep = (high < rays.best) & (found | (wrong & (radius <= threat.epsilon)))
        sign = torch.where(keep[:, None], direction, rays.sign)
        best = torch.where(keep, high, rays.best)
        step = (new & ~wrong) | found | keep
        level = torch.where(step & last, rays.level + 1, rays.level)
        block = torch.where(step, torch.where(last, 0, rays.block + 1), rays.block)
        low = torch.where(step, -1.0, low)
        rays = _Rays(sign, best, low, torch.where(step, torch.inf, high), level, block)
    return rays


def _on(x: Tensor, direction: Tensor, radius: Tensor, threat: ThreatModel) -> Tensor:
    """The images that lie so far along directions of ±1 (n, d), in the box."""
    length = radius if threat.norm == "linf" else radius / direction.shape[1] ** 0.5
    return (x + (length[:, None] * direction).view(x.shape)).clamp(0, 1)
