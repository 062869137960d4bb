"""Outcomes that are unpacked when somebody looks at an image: thousands of cells fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from benchbox.domain import Outcome

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NAMES = tuple(field.name for field in fields(Outcome))


class _Gist(NamedTuple):
    """All that tables read of an outcome, in a few hundred bytes.

    Attributes:
        draws: R.
        clean: N · R bits, row by row in the order of the sample list: whether the clean image is right.
        adversarial: Likewise of the adversarial image.
        is_beginning: As `Outcome.is_beginning`.
        passes: As `Outcome.mean_passes`.
        certified: N bits likewise, as `Outcome.certificate`.
    """

    draws: int
    clean: NDArray[np.uint8]
    adversarial: NDArray[np.uint8]
    is_beginning: bool
    passes: tuple[float, float]
    certified: NDArray[np.uint8] | None


class Packed(Outcome):
    """An outcome whose arrays are read when one of them is asked for; what tables read of it is read once."""

    _read: Callable[[], Mapping[str, NDArray[Any]]]
    _count: int

    @classmethod
    def of(cls, read: Callable[[], Mapping[str, NDArray[Any]]], count: int, *, measured: bool = True) -> Packed:
        """The outcome of a cell.

        Args:
            read: Gives the arrays by name, and remembers those that are asked for again at once.
            count: Samples.
            measured: See `Outcome`.
        """
        self = cls.__new__(cls)
        for name, value in (("_read", read), ("_count", count), ("measured", measured)):
            object.__setattr__(self, name, value)
        return self

    def __len__(self) -> int:
        return self._count

    def __getattr__(self, name: str) -> Any:  # asked only for what is not there, that is, for the arrays
        if name not in _NAMES or "_read" not in vars(self):
            raise AttributeError(name)
        return self._read().get(name)  # what only some balls have may be missing

    @cached_property
    def gist(self) -> _Gist:
        """What tables read of it."""
        whole = Outcome(**self._read())
        return _Gist(
            whole.adversarial.shape[1],
            np.packbits(whole.correct("clean")),
            np.packbits(whole.correct("adversarial")),
            whole.is_beginning,
            whole.mean_passes,
            None if whole.certificate is None else np.packbits(whole.certificate),
        )

    def correct(self, which: Literal["clean", "adversarial"]) -> NDArray[np.bool_]:
        """As of any outcome."""
        gist = self.gist
        bits = np.unpackbits(getattr(gist, which), count=self._count * gist.draws)
        return bits.reshape(self._count, gist.draws).view(np.bool_)

    @property
    def certificate(self) -> NDArray[np.bool_] | None:
        """As of any outcome."""
        kept = self.gist.certified
        return None if kept is None else np.unpackbits(kept, count=self._count).view(np.bool_)

    @property
    def is_beginning(self) -> bool:
        """As of any outcome."""
        return self.gist.is_beginning

    @property
    def mean_passes(self) -> tuple[float, float]:
        """As of any outcome."""
        return self.gist.passes

    def __reduce__(self) -> tuple[type[Outcome], tuple[Any, ...]]:
        return Outcome, tuple(getattr(self, name) for name in _NAMES)
