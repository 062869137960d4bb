"""Pointwise, the hard-label attack for sparse changes: takes an error back pixel by pixel, as long as it is one.

L. Schott, J. Rauber, M. Bethge, W. Brendel. Towards the First Adversarially Robust Neural Network Model on MNIST.
ICLR 2019 (arXiv 1805.09190), section 5. Departures: pixels are taken back in parts that are halved, as RayS flips
them, so that thousands of pixels need hundreds of queries; starts are corners of the box.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from benchbox import Access, Attack, Card, Count, Draws, Nature, ThreatModel, View

from ._labels import errs


@dataclass(frozen=True, kw_only=True)
class Pointwise(Attack):
    """Goes to a corner of the box that errs, and gives every part of the image its own pixels again.

    Parts are halved down to single pixels; then it begins anew from another corner, until the queries are spent.
    Few pixels that change much are what an L1 ball has room for, where directions that change every pixel, as RayS
    does, lead out of it at once. A sample whose error lies inside the ball leaves. Of a randomised view, an
    image is wrong if most of `eot` draws are.

    Attributes:
        queries: Queries a sample.
    """

    card = Card(
        "pointwise", "hard labels alone, pixel by pixel", paper="Schott et al., ICLR 2019", year=2019,
        kind="decision-based",
    )  # fmt: skip
    nature = Nature("decision-based", families=("minimum norm",))
    needs: ClassVar[Literal["gradient", "scores", "labels", "nothing"]] = "labels"
    standard = (Access.WHITE_BOX,)
    balls = ("l1",)
    averaging = "majority of the draws"

    queries: Count = 2000

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """`queries` + 1 forward passes of a sample that never breaks."""
        with torch.no_grad():
            rows = (~errs(model, x, y)).nonzero().flatten()
            found = x.clone()
            walk = _Walk.of(x[rows], draws.rows(rows), 0)
            part = model.rows(rows)
            for _ in range(self.queries):
                if not len(rows):
                    break
                walk = walk.asked(errs(part, walk.tried(), y[rows]), draws.rows(rows))
                done = _length(walk.best - x[rows]) <= threat.epsilon
                if bool(done.any()):
                    found[rows[done]] = walk.best[done]
                    rows, walk = rows[~done], walk.rows(~done)
                    part = model.rows(rows)
            found[rows] = threat.project(walk.best, x[rows])
            return found


class _Walk(NamedTuple):
    """Where the search of each sample stands; row i is one sample.

    Attributes:
        x: Clean image.
        here: The misclassified image, or the corner that is tried first.
        best: The one with the smallest L1 norm of all walks; the clean image before any.
        order: (n, d) place of each pixel among the parts.
        level: (n,) parts: 2 to the power of it; -1 before the corner has been asked about.
        block: (n,) the part that is taken back next.
        round: (n,) how many walks were begun.
    """

    x: Tensor
    here: Tensor
    best: Tensor
    order: Tensor
    level: Tensor
    block: Tensor
    round: Tensor

    @classmethod
    def of(cls, x: Tensor, draws: Draws, begun: int) -> _Walk:
        """Before any query."""
        zero = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        order, here = _corner(x, draws, begun)
        return cls(x, here, x.clone(), order, zero - 1, zero, zero + begun)

    def rows(self, keep: Tensor) -> _Walk:
        """Some of the samples."""
        return _Walk(*(field[keep] for field in self))

    def tried(self) -> Tensor:
        """The image with one more part of its own, or the corner itself."""
        size = self._size()
        inside = (self.order >= (self.block * size)[:, None]) & (self.order < ((self.block + 1) * size)[:, None])
        inside &= (self.level >= 0)[:, None]
        return torch.where(inside.view(self.x.shape), self.x, self.here)

    def asked(self, wrong: Tensor, draws: Draws) -> _Walk:
        """What comes next, once it is known whether `tried` errs."""
        here = torch.where(_over(wrong), self.tried(), self.here)
        begun = self.level >= 0
        nearer = wrong & ((here - self.x).flatten(1).abs().sum(1) < _length(self.best - self.x))
        best = torch.where(_over(nearer), here, self.best)
        # The corner, if it errs, is taken back in halves; if not, another corner is tried.
        block = torch.where(begun, self.block + 1, 0)
        last = begun & (block * self._size() >= self.order.shape[1])
        level = torch.where(last, self.level + 1, torch.where(begun | ~wrong, self.level, 1))
        block = torch.where(last, 0, block)
        over = (begun & last & (self._size() == 1)) | (~begun & ~wrong)
        walk = _Walk(self.x, here, best, self.order, level, block, self.round)
        return walk._anew(over, draws) if bool(over.any()) else walk

    def _anew(self, over: Tensor, draws: Draws) -> _Walk:
        """Samples whose walk is over begin another one."""
        rows = over.nonzero().flatten()
        order, here, begun = self.order.clone(), self.here.clone(), self.round + over
        for number in begun[rows].unique().tolist():
            some = rows[begun[rows] == number]
            order[some], here[some] = _corner(self.x[some], draws.rows(some), number)
        level, block = torch.where(over, -1, self.level), torch.where(over, 0, self.block)
        return self._replace(order=order, here=here, level=level, block=block, round=begun)

    def _size(self) -> Tensor:
        """(n,) pixels of a part."""
        return (self.order.shape[1] / 2.0 ** self.level.clamp_min(0)).ceil().clamp_min(1).long()


def _corner(x: Tensor, draws: Draws, number: int) -> tuple[Tensor, Tensor]:
    """An order of the pixels (n, d), and a corner of the box: the farthest one at first, then any."""
    source = draws.at("walk", number)
    order = source.at("order").permutation(x[0].numel())
    if number == 0:
        return order, (x < 0.5).to(x.dtype)
    return order, source.at("corner").uniform(*x.shape[1:]).round()


def _length(delta: Tensor) -> Tensor:
    """(n,) L1 norm; infinite where nothing was found yet."""
    length = delta.flatten(1).abs().sum(1)
    return torch.where(length == 0, torch.inf, length)


def _over(flags: Tensor) -> Tensor:
    return flags.view(-1, 1, 1, 1)
