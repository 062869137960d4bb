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
from collections.abc import Sequence
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
        return replace(self, seed=_derived(self.seed, purpose))

    def rows(self, keep: Tensor | slice) -> Draws:
        """The same source for a subset of the samples; `keep` is an index or boolean mask over rows."""
        return replace(self, indices=self.indices[keep])

    def bits(self, *shape: int) -> Tensor:
        """(N, *shape) int64, all 64 bits random."""
        keys = _mix(self.indices * _GAMMA + self._offset())
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

    def hidden(self, key: bytes) -> Draws:
        """The same samples under names that say neither which they are nor what is drawn for.

        Row i of what is drawn depends on (key, seed, purpose, dataset index) alone, as ever; other purposes give
        other names, so that nobody who is asked twice knows a sample again by its index.

        Args:
            key: A secret, up to 64 bytes.
        """
        keyed = self._keyed(key)
        names = _mix(_mix(keyed.indices * _GAMMA + keyed._offset()) ^ _signed(_hash(key, b"name")))
        return Draws(names)

    def _keyed(self, key: bytes) -> Draws:
        return replace(self, seed=_hash(key, str(self.seed).encode()))

    def _offset(self) -> Tensor | int:
        return _signed(self.seed)

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True, eq=False, kw_only=True)
class Stacked(Draws):
    """Several sources one below the other, so that copies of a batch pass through a network as one.

    Row i draws exactly what it would draw from its own source.

    Attributes:
        seeds: Of the sources.
        source: (N,) int64, the source of each row: its place in `seeds`.
    """

    seeds: tuple[int, ...]
    source: Tensor

    def at(self, *purpose: str | int) -> Draws:
        """An independent source for the same rows."""
        return replace(self, seeds=tuple(_derived(seed, purpose) for seed in self.seeds))

    def rows(self, keep: Tensor | slice) -> Draws:
        """The same sources for a subset of the rows."""
        return replace(self, indices=self.indices[keep], source=self.source[keep])

    def _keyed(self, key: bytes) -> Draws:
        return replace(self, seeds=tuple(_hash(key, str(seed).encode()) for seed in self.seeds))

    def _offset(self) -> Tensor:
        return torch.tensor([_signed(seed) for seed in self.seeds], device=self.indices.device)[self.source]


def stack(sources: Sequence[Draws]) -> Draws:
    """Sources one below the other; a single one stays what it is. None of them is stacked itself."""
    if len(sources) == 1:
        return sources[0]
    indices = torch.cat([source.indices for source in sources])
    counts = torch.tensor([len(source) for source in sources], device=indices.device)
    place = torch.arange(len(sources), device=indices.device).repeat_interleave(counts, output_size=len(indices))
    return Stacked(indices, sources[0].seed, seeds=tuple(source.seed for source in sources), source=place)


def _derived(seed: int, purpose: tuple[str | int, ...]) -> int:
    return _hash(b"", f"{seed}/{'/'.join(map(str, purpose))}".encode())


def _hash(key: bytes, text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=key).digest())


def sample_draws(n: int, seed: int = 0, device: torch.device | str = "cpu") -> Draws:
    """A source for n samples that have no dataset index of their own: they are numbered 0 … n-1."""
    return Draws(torch.arange(n, device=device), seed)
