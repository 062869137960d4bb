"""HopSkipJump, a walk along the decision boundary that is told classes alone.

J. Chen, M. Jordan, M. Wainwright. HopSkipJumpAttack: A Query-Efficient Decision-Based Attack. IEEE S&P 2020
(arXiv 1904.02144), Algorithms 1 and 2; constants as in the authors' program.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from benchbox import Attack, Card, Count, Draws, Nature, ThreatModel, View, direction

from ._labels import errs

#: Images of noise among which a first error is sought.
STARTS = 100
#: Halvings of a step that would lead back to the true class, at most.
HALVINGS = 20
#: No boundary is sought more finely than float32 tells pixels apart.
FINEST = 1e-6


@dataclass(frozen=True, kw_only=True)
class HopSkipJump(Attack):
    """Estimates the boundary's normal from the classes of images around it, steps along it, and comes back.

    Unlike RayS it follows the curvature of the boundary, in either norm; that takes thousands of queries, so
    `--attacks all` runs RayS. A sample whose error comes to lie inside the ball leaves. Of a randomised view, an
    image is wrong if most of `eot` draws are, nobody leaves, and the end is taken on the surface of the ball, as
    with RayS.

    Attributes:
        queries: Queries a sample.
        probes: Images around the boundary that the first normal is estimated from; √t times as many in step t.
    """

    card = Card(
        "hopskipjump",
        "hard labels alone, along the boundary",
        paper="Chen, Jordan & Wainwright, S&P 2020",
        year=2020,
        kind="decision-based",
    )
    nature = Nature("decision-based", families=("minimum norm",))
    needs: ClassVar[Literal["gradient", "scores", "labels", "nothing"]] = "labels"
    averaging = "majority of the draws"

    queries: Count = 5000
    probes: Count = 100

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """`queries` + 1 forward passes of a sample that never breaks; samples of a batch walk in step."""
        with torch.no_grad():
            rows = (~errs(model, x, y)).nonzero().flatten()
            found = x.clone()
            walk = _Walk.of(model.rows(rows), x[rows], y[rows], threat, draws.rows(rows), self.queries)
            begun = walk.start()
            rows, walk = rows[begun], walk.rows(begun)
            step = 1
            while len(rows):
                walk.advance(step, round(self.probes * math.sqrt(step)))
                done = (walk.left == 0) | ((walk.distance() <= threat.epsilon) & (not model.randomized))
                found[rows[done]] = walk.rows(done).end(surface=model.randomized)
                rows, walk = rows[~done], walk.rows(~done)
                step += 1
            return found


@dataclass
class _Walk:
    """Where the search of each sample stands; row i is one sample.

    Attributes:
        model: The view of these samples.
        x: Clean image.
        y: True class.
        threat: The ball.
        draws: Of these samples.
        left: (n,) queries that may still be made of each.
        here: The nearest misclassified image so far.
    """

    model: View
    x: Tensor
    y: Tensor
    threat: ThreatModel
    draws: Draws
    left: Tensor
    here: Tensor

    @classmethod
    def of(cls, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, queries: int) -> _Walk:
        """Before any query."""
        return cls(model, x, y, threat, draws, torch.full_like(y, queries), x.clone())

    def rows(self, keep: Tensor) -> _Walk:
        """Some of the samples."""
        if bool(keep.all()):
            return self
        model, draws = self.model.rows(keep), self.draws.rows(keep)
        return _Walk(model, self.x[keep], self.y[keep], self.threat, draws, self.left[keep], self.here[keep])

    def start(self) -> Tensor:
        """Go to the boundary on the way to an image of noise; (n,) whether one was misclassified."""
        begun = torch.zeros_like(self.y, dtype=torch.bool)
        for i in range(STARTS):
            if bool(begun.all()):
                break
            noise = self.draws.at("start", i).uniform(*self.x.shape[1:])
            wrong = self.ask(noise, ~begun)
            self.here = torch.where(_over(wrong), noise, self.here)
            begun |= wrong
        self.approach(self.here)
        return begun

    def advance(self, step: int, probes: int) -> None:
        """Estimate the normal of the boundary here, go along it as far as errors go, and back to the boundary."""
        distance = self.distance()
        away = direction(self._normal(step, probes, distance), self.threat)
        length = distance / math.sqrt(step)
        there, landed = self.here, torch.zeros_like(self.y, dtype=torch.bool)
        for _ in range(HALVINGS):
            if bool(landed.all()):
                break
            tried = (self.here + _over(length) * away).clamp(0, 1)
            wrong = self.ask(tried, ~landed)
            there = torch.where(_over(wrong), tried, there)
            landed |= wrong
            length = length / 2
        self.approach(there)

    def approach(self, there: Tensor) -> None:
        """From misclassified images towards the clean ones until just before the class is right (Algorithm 1)."""
        low, high = torch.zeros_like(self.x[:, 0, 0, 0]), torch.ones_like(self.x[:, 0, 0, 0])
        near = there
        for _ in range(math.ceil(-math.log2(self._fine()))):
            middle = (low + high) / 2
            tried = self._between(there, middle)
            wrong = self.ask(tried)
            near = torch.where(_over(wrong), tried, near)
            low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
        distance = self.distance()
        nearer = (self.threat.norms(near - self.x) < distance) | (distance == 0)
        self.here = torch.where(_over(nearer), near, self.here)

    def ask(self, x: Tensor, whom: Tensor | None = None) -> Tensor:
        """(n,) whether images are misclassified; a query of everybody, or of some, who has any left."""
        asked = self.left > 0 if whom is None else whom & (self.left > 0)
        self.left = self.left - asked.long()
        return errs(self.model, x, self.y) & asked if bool(asked.any()) else asked

    def distance(self) -> Tensor:
        """(n,) of the nearest errors so far."""
        return self.threat.norms(self.here - self.x)

    def end(self, *, surface: bool) -> Tensor:
        """The nearest errors where they are inside the ball; else, or at its `surface`, the way they lie in."""
        if not surface:
            return self.threat.project(self.here, self.x)
        scale = self.threat.epsilon / self.distance().clamp_min(1e-12)
        return self.threat.project(self.x + _over(scale) * (self.here - self.x), self.x)

    def _normal(self, step: int, probes: int, distance: Tensor) -> Tensor:
        """The mean of random directions, those that lead to errors positive (Eq. 16)."""
        linf, pixels = self.threat.norm == "linf", self.x.shape[1:].numel()
        reach = _over(distance * self._fine() * (pixels if linf else math.sqrt(pixels)))
        total, weighted = torch.zeros_like(self.x), torch.zeros_like(self.x)
        hits, count = torch.zeros_like(distance), torch.zeros_like(distance)
        for i in range(probes):
            own, shape = self.draws.at("normal", step, i), self.x.shape[1:]
            aside = own.uniform(*shape, low=-1.0, high=1.0) if linf else own.normal(*shape)
            image = (self.here + reach * aside / _over(aside.flatten(1).norm(dim=1))).clamp(0, 1)
            aside = (image - self.here) / reach.clamp_min(1e-12)
            asked = (self.left > 0).to(aside.dtype)
            sign = (2.0 * self.ask(image) - 1) * asked
            total, weighted = total + _over(asked) * aside, weighted + _over(sign) * aside
            hits, count = hits + sign, count + asked
        mean = hits / count.clamp_min(1)
        # Where all probes agree there is no mean to take off.
        agreed = mean.abs() > 1 - 1e-6
        return torch.where(_over(agreed), _over(mean) * total, weighted - _over(mean) * total)

    def _fine(self) -> float:
        """θ: how finely the boundary is sought, as a share of the way."""
        pixels = float(self.x.shape[1:].numel())
        return max(math.pow(pixels, -2 if self.threat.norm == "linf" else -1.5), FINEST)

    def _between(self, there: Tensor, share: Tensor) -> Tensor:
        """The images a share of the way from the clean ones: on the line in L2, in the smaller ball in L∞."""
        delta = there - self.x
        if self.threat.norm == "linf":
            limit = _over(share * self.threat.norms(delta))
            return self.x + delta.clamp(-limit, limit)
        return self.x + _over(share) * delta


def _over(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
