"""Square Attack: a random search that repaints one square at a time and keeps what raises the margin.

M. Andriushchenko, F. Croce, N. Flammarion, M. Hein. Square Attack: a query-efficient black-box adversarial
attack via random search. ECCV 2020 (arXiv 1912.00049), Algorithms 1 to 3; schedule as in the authors' AutoAttack.
In L1: F. Croce, M. Hein. Mind the Box. ICML 2021 (arXiv 2103.01208), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise

import torch
from torch import Tensor

from benchbox import Draws, Norm, ThreatModel, View, margin

#: Queries after which the share of pixels in a square is halved.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
#: Queries whose random numbers are drawn at once, and after which samples leave.
BLOCK = 25


def square(
    model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, *, queries: int = 5000, p: float = 0.8
) -> Tensor:
    """The search on the margin, each sample with squares of its own: at most `queries` + 3 forward passes.

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
    if model.randomized:
        return _search(model, x, y, threat, draws, queries, p)
    rows = (model(x).argmax(1) == y).nonzero().flatten()
    found = x.clone()
    if len(rows):
        part = model.rows(rows)
        candidate = _search(part, x[rows], y[rows], threat, draws.rows(rows), queries, p)
        wrong = part(candidate).argmax(1) != y[rows]
        found[rows[wrong]] = candidate[wrong]
    return found


def _search(
    model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, queries: int, p: float
) -> Tensor:
    kind = PAINTERS[threat.norm]
    painter = kind(threat.epsilon, x)
    best = painter.start(draws.at("start"))
    highest = _margin(model, best, y)
    end, rows, part = best.clone(), torch.arange(len(y), device=y.device), model
    for first, last, side in _blocks(queries, p, x.shape[-2:], kind.least):
        if not model.randomized and bool((fallen := highest > 0).any()):
            end[rows[fallen]] = best[fallen]
            rows, best, highest, y = rows[~fallen], best[~fallen], highest[~fallen], y[~fallen]
            part, painter = model.rows(rows), kind(threat.epsilon, x[rows])
            if not len(rows):
                break
        painter.load(draws.rows(rows).at("squares", first), last - first, side)
        for query in range(last - first):
            tried = painter.paint(best, query)
            value = _margin(part, tried, y)
            best = torch.where((value > highest).view(-1, 1, 1, 1), tried, best)
            highest = torch.maximum(highest, value)
    end[rows] = best
    return end


def _margin(model: View, x: Tensor, y: Tensor) -> Tensor:
    value = margin(model(x).float(), y)
    if model.eot == 1:
        return value
    return (value + sum(margin(model(x).float(), y) for _ in range(model.eot - 1))) / model.eot


def _blocks(queries: int, p: float, size: torch.Size, least: int) -> Iterator[tuple[int, int, int]]:
    """(first query, last, side of the squares): runs of equal squares, none longer than `BLOCK`.

    The share of pixels in a square is p, halved where `HALVINGS` says so.
    """
    height, width = size
    starts = [0, *(h + 1 for h in HALVINGS if h + 1 < queries), queries]
    for halvings, (start, stop) in enumerate(pairwise(starts)):
        side = max(round(math.sqrt(p / 2**halvings * height * width)), least)
        if least > 1:
            side += 1 - side % 2  # the L2 window has a centre
        side = min(side, height, width)
        for first in range(start, stop, BLOCK):
            yield first, min(first + BLOCK, stop), side


class _Stripes:
    """L∞: vertical stripes first, then squares, all at ±ε from the clean image, a sign a sample and channel."""

    least = 1

    def __init__(self, epsilon: float, x: Tensor) -> None:
        self.epsilon = epsilon
        self.x = x
        self.low, self.high = (x - epsilon).clamp_(0, 1), (x + epsilon).clamp_(0, 1)

    def start(self, draws: Draws) -> Tensor:
        """Stripes one pixel wide."""
        channels, _, width = self.x.shape[1:]
        return (self.x + self.epsilon * _signs(draws, channels, 1, width)).clamp_(0, 1)

    def load(self, draws: Draws, queries: int, side: int) -> None:
        """Place the squares of some queries to come, each the product of a column and a line."""
        channels, height, width = self.x.shape[1:]
        top, left = _corners(draws, (queries,), side, height, width)
        sign = _signs(draws, queries, channels, 1)
        column = 2 * self.epsilon * sign * _covered(top, side, height)[:, :, None]
        # (queries, n, C, H, 1) and (queries, n, 1, 1, W)
        self.columns = column.transpose(0, 1).unsqueeze(4)
        self.lines = _covered(left, side, width).transpose(0, 1)[:, :, None, None].to(self.x.dtype)

    def paint(self, best: Tensor, query: int) -> Tensor:
        """The candidates of one query."""
        return torch.addcmul(best, self.columns[query], self.lines[query]).clamp_(self.low, self.high)


class _Pyramids:
    """L2: windows of two pyramids of opposite signs, each of which takes over the budget of a second window."""

    least = 3
    order = 2  # of the norm in which windows are measured
    fall = 2  # k^-fall is what the k-th ring adds

    def __init__(self, epsilon: float, x: Tensor) -> None:
        self.epsilon = epsilon
        self.x = x

    def start(self, draws: Draws) -> Tensor:
        """A mosaic of windows, about five by five."""
        channels, height, width = self.x.shape[1:]
        side = max(height // 5, 1)
        margin = (height - 5 * side) // 2
        delta = torch.zeros_like(self.x)
        for top in range(margin, height - side + 1, side):
            for left in range(margin, width - side + 1, side):
                own = draws.at("tile", top, left)
                tile = self._oriented(own, (), side).view(-1, 1, side, side) * _signs(own, channels, 1, 1)
                delta[:, :, top : top + side, left : left + side] = tile
        return self._image(delta.flatten(2))

    def load(self, draws: Draws, queries: int, side: int) -> None:
        """Place the two windows of each of some queries to come."""
        channels, height, width = self.x.shape[1:]
        top, left = _corners(draws, (queries, 2), side, height, width)
        self.corner = (top * width + left).transpose(0, 1)
        steps = torch.arange(side, device=self.x.device)
        self.window = (steps[:, None] * width + steps).flatten()
        self.pattern = self._oriented(draws, (queries,), side).transpose(0, 1)[:, :, None]
        self.sign = _signs(draws, queries, channels, 1).transpose(0, 1)

    def paint(self, best: Tensor, query: int) -> Tensor:
        """The candidates of one query (Algorithm 3)."""
        delta = (best - self.x).flatten(2)
        painted, paying, old, rest = self._windows(delta, query)
        channels = delta.shape[1]
        freed = old.square().sum(2) + rest.gather(2, paying).square().sum(2)
        unspent = (self.epsilon**2 - delta.square().sum((1, 2))).clamp_min(0) / channels
        new = self._pattern(query, old) * (unspent[:, None] + freed).sqrt()[:, :, None]
        return self._image(rest.scatter_(2, paying, 0).scatter_(2, painted, new))

    def _windows(self, delta: Tensor, query: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(n, C, side²) places, in the flattened image, of the window that is painted and of the one that pays.

        And what the first held, and the change without it.
        """
        painted, paying = (
            (self.corner[query][:, i, None] + self.window)[:, None].expand(-1, delta.shape[1], -1) for i in (0, 1)
        )
        return painted, paying, delta.gather(2, painted), delta.scatter(2, painted, 0)

    def _pattern(self, query: int, old: Tensor) -> Tensor:
        """(n, C, side²) of unit length: the two pyramids upon what the window held."""
        return self._unit(self.sign[query] * self.pattern[query] + self._unit(old, 2), 2)

    def _image(self, delta: Tensor) -> Tensor:
        delta = self._unit(delta, (1, 2)).mul_(self.epsilon)
        return (self.x + delta.view(self.x.shape)).clamp_(0, 1)

    def _oriented(self, draws: Draws, shape: tuple[int, ...], side: int) -> Tensor:
        """(n, *shape, side²): two pyramids side by side, or one above the other, as drawn; of unit length."""
        half = side // 2
        upright = torch.cat([self._pyramid(half, side), -self._pyramid(side - half, side)])
        upright = self._unit(upright, (0, 1))
        both = torch.stack([upright, upright.T]).flatten(1).to(draws.indices.device)
        return both[draws.at("turned").integers(2, *(shape or (1,)))].view(len(draws), *shape, side * side)

    def _pyramid(self, height: int, width: int) -> Tensor:
        """(height, width), of unit length: rings around the middle, each a sum over those from it outwards."""
        middle, half = (height // 2, width // 2), max(height, width) // 2 + 1
        rows, columns = (torch.arange(n) - m for n, m in zip((height, width), middle, strict=True))
        ring = torch.maximum(rows.abs()[:, None], columns.abs()[None])
        sums = (1 / torch.arange(1, half + 1).float() ** self.fall).flip(0).cumsum(0).flip(0)
        return self._unit(sums[ring], (0, 1))

    def _unit(self, x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
        unit: Tensor = x / torch.linalg.vector_norm(x, self.order, dim=dim, keepdim=True).clamp_min(1e-12)
        return unit


class _Spikes(_Pyramids):
    """L1: pyramids so steep that a few pixels are most of them, and the projection in the place of scaling."""

    order, fall = 1, 4

    def paint(self, best: Tensor, query: int) -> Tensor:
        """The candidates of one query."""
        delta = (best - self.x).flatten(2)
        painted, paying, old, rest = self._windows(delta, query)
        channels = delta.shape[1]
        freed = old.abs().sum(2) + rest.gather(2, paying).abs().sum(2)
        unspent = (self.epsilon - delta.abs().sum((1, 2))).clamp_min(0) / channels
        # As in the authors' program, so many times too much for colour images; the projection has the last word.
        length = (unspent[:, None] + freed) * channels
        new = self._pattern(query, old) * length[:, :, None]
        return self._image(rest.scatter_(2, paying, 0).scatter_(2, painted, new))

    def _image(self, delta: Tensor) -> Tensor:
        return ThreatModel("l1", self.epsilon).project(self.x + delta.view(self.x.shape), self.x)


def _corners(draws: Draws, shape: tuple[int, ...], side: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """(n, *shape) each: upper and left edges of windows; as in the authors' program, never the last place."""
    top = draws.at("top").integers(max(height - side, 1), *shape)
    return top, draws.at("left").integers(max(width - side, 1), *shape)


def _signs(draws: Draws, *shape: int) -> Tensor:
    return torch.where(draws.at("sign").bits(*shape) < 0, -1.0, 1.0)


def _covered(start: Tensor, side: int, length: int) -> Tensor:
    """Which of `length` places the windows that begin at `start` (…) cover: (…, length)."""
    place = torch.arange(length, device=start.device) - start[..., None]
    return (place >= 0) & (place < side)


PAINTERS: Mapping[Norm, type[_Stripes | _Pyramids]] = {"linf": _Stripes, "l2": _Pyramids, "l1": _Spikes}
