"""The samples that no search has broken yet, pooled: each search runs on full batches of what still stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from benchbox import Draws, ThreatModel, View


class Found(NamedTuple):
    """What a search comes back with; row i is one sample.

    Attributes:
        x: (n, C, H, W) the image it found, the best it knows where it broke nothing.
        broken: (n,) bool, whether the model got that image wrong, inside the ball.
    """

    x: Tensor
    broken: Tensor


#: (view, x, y, draws) of some samples -> what was found.
Search = Callable[[View, Tensor, Tensor, Draws], Found]


class Survivors:
    """Who still stands, and the images of those who fell.

    Attributes:
        x_adv: (N, C, H, W) the image that broke each sample, the clean one of whoever stands.
        standing: (m,) rows of those who stand.
    """

    def __init__(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> None:
        self.model = model
        self.x = x
        self.y = y
        self.threat = threat
        self.draws = draws
        self.x_adv = x.clone()
        self.standing = torch.arange(len(y), device=y.device)

    def attack(self, search: Search) -> None:
        """Run a search on everyone who stands; whom it breaks falls."""
        left = []
        for rows in batches(self.standing, self.model.batch):
            model, draws = self.model.rows(rows), self.draws.rows(rows)
            found, broken = search(model, self.x[rows], self.y[rows], draws)
            fallen = rows[broken]
            self.x_adv[fallen] = self.threat.project(found[broken], self.x[fallen])
            left.append(rows[~broken])
        self.standing = torch.cat(left) if left else self.standing

    def confirm(self, rows: Tensor) -> None:
        """Ask about the images of some samples once more; whoever is classified correctly stands (again)."""
        left = []
        for part in batches(rows, self.model.batch):
            right = self.model.rows(part)(self.x_adv[part]).argmax(1) == self.y[part]
            self.x_adv[part[right]] = self.x[part[right]]
            left.append(part[right])
        self.standing = torch.cat(left) if left else rows

    def ask(self) -> int:
        """Ask about the clean images of those who stand: whoever is misclassified falls. One forward pass.

        Returns:
            The number of classes; 0 where nobody stands any more.
        """
        classes, left = 0, []
        for rows in batches(self.standing, self.model.batch):
            logits = self.model.rows(rows)(self.x[rows])
            right = logits.argmax(1) == self.y[rows]
            classes = max(classes, logits.shape[1] if bool(right.any()) else 0)
            left.append(rows[right])
        self.standing = torch.cat(left) if left else self.standing
        return classes


def over_pixels(flags: Tensor) -> Tensor:
    """(n,) as (n, 1, 1, 1)."""
    return flags.view(-1, 1, 1, 1)


def batches(rows: Tensor, size: int | None) -> Iterator[Tensor]:
    """Batches of about equal size, none larger than `size`; one of all without it."""
    if len(rows):
        yield from rows.tensor_split(math.ceil(len(rows) / (size or len(rows))))


def runner_up(logits: Tensor, y: Tensor, rank: int) -> Tensor:
    """(n,) the class of the given rank, from 1, among those that are not the true one (n,)."""
    return logits.scatter(1, y[:, None], -torch.inf).topk(rank).indices[:, -1]
