"""Random numbers that belong to a sample, not to a batch.

Row i of every tensor drawn here depends on (seed, purpose, dataset index of sample i) alone, so results
do not change with batch size, order, sharding, early exit, or the place where a run was interrupted, and
the global random state is never touched. The generator is counter based (SplitMix64; Steele, Lea & Flood,
"Fast splittable pseudorandom number generators", OOPSLA 2014): one hash per number, on any device, with
the same bits everywhere.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor


def _signed(constant: int) -> int:
    """Two's complement of an unsigned 64-bit constant: torch has int64 arithmetic, and it wraps."""
    return constant - (1 << 64) if constant >= 1 << 63 else constant


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MIX = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)))


def _mix(z: Tensor) -> Tensor:
    for shift, factor in _MIX:
        # Shifting int64 right copies the sign bit; the mask makes the shift a logical one.
        z = (z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return z ^ ((z >> 31) & ((1 << 33) - 1))


@dataclass(frozen=True, eq=False)
class Draws:
    """A source of random tensors, one row a sample. Asking twice with the same purpose gives the same numbers.

    Attributes:
        indices: (N,) int64, dataset index of each row; its device is where numbers are drawn.
        seed: What the numbers derive from, together with the indices.
    """

    indices: Tensor
    seed: int = 0

    def at(self, *purpose: str | int) -> Draws:
        """An independent source for the same samples: `draws.at("restart", 3)`."""
        text = f"{self.seed}/{'/'.join(map(str, purpose))}".encode()
        return replace(self, seed=int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()))

    def rows(self, keep: Tensor) -> Draws:
        """The same source for a subset of the samples; `keep` is an index or boolean mask over rows."""
        return replace(self, indices=self.indices[keep])

    def bits(self, *shape: int) -> Tensor:
        """(N, *shape) int64, all 64 bits random."""
        keys = _mix(self.indices * _GAMMA + _signed(self.seed))
        steps = torch.arange(1, math.prod(shape) + 1, device=keys.device) * _GAMMA
        return _mix(keys[:, None] + steps).view(-1, *shape)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(N, *shape) float32, uniform in [low, high)."""
        unit = ((self.bits(*shape) >> 40) & 0xFFFFFF).float() * 2.0**-24
        return unit.mul_(high - low).add_(low) if (low, high) != (0.0, 1.0) else unit

    def normal(self, *shape: int) -> Tensor:
        """(N, *shape) float32, standard normal (Box–Muller)."""
        radius = (-2 * torch.log1p(-self.at("radius").uniform(*shape))).sqrt_()
        return radius * torch.cos(self.at("angle").uniform(*shape, high=2 * math.pi))

    def integers(self, high: int, *shape: int) -> Tensor:
        """(N, *shape) int64, uniform in [0, high)."""
        return (self.uniform(*shape) * high).long().clamp_max_(high - 1)

    def permutation(self, n: int) -> Tensor:
        """(N, n) int64: a permutation of 0 … n-1 in each row."""
        return self.bits(n).argsort(dim=1)

    def __len__(self) -> int:
        return len(self.indices)


def sample_draws(n: int, seed: int = 0, device: torch.device | str = "cpu") -> Draws:
    """A source for n samples that have no dataset index of their own: they are numbered 0 … n-1."""
    return Draws(torch.arange(n, device=device), seed)
