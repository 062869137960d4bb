"""What the passes of an attack amount to: noted as they come, added up now and then.

A small network on a GPU waits for the launch of each operation, so a note is two or three of them, and nothing
waits for what they say.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Notes that are added up at once.
FOLD = 64


class Standing:
    """Which samples were classified correctly in every pass so far, and in how many from the first one on.

    Args:
        y: (N,) true classes.
    """

    def __init__(self, y: Tensor) -> None:
        self._y = y
        self._standing = torch.ones_like(y, dtype=torch.bool)
        self._withstood = torch.zeros_like(y)
        self._right: list[Tensor] = []

    def note(self, logits: Tensor, copies: int = 1) -> None:
        """A pass, or several one below the other: (copies · N, K)."""
        self._right.append(logits.argmax(1).view(copies, -1) == self._y)
        if len(self._right) >= FOLD:
            self._fold()

    def so_far(self) -> tuple[Tensor, Tensor]:
        """(N,) bool who stands, and (N,) int64 how many passes each withstood before it fell; both to keep."""
        self._fold()
        return self._standing.clone(), self._withstood.clone()

    def _fold(self) -> None:
        if self._right:
            stood = self._standing & torch.cat(self._right).cumprod(0).bool()
            self._standing, self._withstood = stood[-1], self._withstood + stood.sum(0)
            self._right = []


class Broken:
    """How many gradients of each sample had a NaN or an infinity, and how many of them had nothing else.

    Args:
        y: (N,) true classes.
    """

    def __init__(self, y: Tensor) -> None:
        self._samples = len(y)
        self._found = torch.zeros(2, len(y), dtype=torch.int64, device=y.device)
        self._stray = torch.zeros(2, 1, dtype=torch.int64, device=y.device)
        self._before: list[Tensor] = []
        self._after: list[Tensor] = []

    def mend(self, gradient: Tensor, copies: int = 1) -> Tensor:
        """A gradient (copies · n, C, H, W) with zeros in the place of NaN and infinity.

        Whoever asks, by whatever way, gets that: a NaN would leave the image where it is, and pass for robustness.
        Where n is not N, nobody named the samples, and broken ones are shared out evenly.
        """
        usable = gradient.nan_to_num(0.0, 0.0, 0.0)
        before, after = _largest(gradient, copies), _largest(usable, copies)
        if before.shape[1] == self._samples:
            self._before.append(before)
            self._after.append(after)
            if len(self._before) >= FOLD:
                self._fold()
        else:
            self._stray += _counted(before, after).sum(1, keepdim=True)
        return usable

    def so_far(self) -> Tensor:
        """(2, N) float64 on the CPU."""
        self._fold()
        return self._found.cpu().double() + self._stray.cpu().double() / self._samples

    def _fold(self) -> None:
        if self._before:
            self._found += _counted(torch.cat(self._before), torch.cat(self._after))
            self._before, self._after = [], []


def _largest(gradient: Tensor, copies: int) -> Tensor:
    """(copies, n) size of the largest entry of each gradient; no finite number where any entry is none."""
    largest: Tensor = torch.linalg.vector_norm(gradient.flatten(1), math.inf, dim=1)
    return largest.view(copies, -1)


def _counted(before: Tensor, after: Tensor) -> Tensor:
    """(2, n) how many gradients were broken, and how many of them had nothing else.

    Args:
        before: (k, n) largest entries.
        after: Likewise, with zeros in the place of what was no finite number.
    """
    broken = ~before.isfinite()
    return torch.stack([broken, broken & (after == 0)]).sum(1)
