"""How much may be spent on an answer: `60s`, `200 images`, `50000 passes`. Standard library only."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Self

from benchbox.errors import RequestError

_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Budget:
    """Limits of a search; what is not limited is infinite.

    Attributes:
        seconds: From the first attack on; trainings do not count.
        images: Of the random list.
        passes: Forward and backward passes of single images through a model.
    """

    seconds: float = math.inf
    images: float = math.inf
    passes: float = math.inf

    @classmethod
    def parse(cls, text: str) -> Self:
        """The budget that a text says; several limits with commas.

        Raises:
            RequestError: It is none.
        """
        limits = {"seconds": math.inf, "images": math.inf, "passes": math.inf}
        for part in text.split(","):
            found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", part.lower())
            number, unit = (float(found[1]), found[2]) if found else (0.0, "")
            if number <= 0 or unit not in (*_SECONDS, "images", "passes"):
                raise RequestError(
                    f"budget {text!r} is no limit; write a number and its unit, as in 60s, 5min, 200images or "
                    "50000passes"
                )
            name, factor = ("seconds", _SECONDS[unit]) if unit in _SECONDS else (unit, 1.0)
            limits[name] = number * factor
        return cls(**limits)

    def __str__(self) -> str:
        """As it is written."""
        units = {"s": self.seconds, " images": self.images, " passes": self.passes}
        said = [f"{limit:g}{unit}" for unit, limit in units.items() if limit < math.inf]
        return ", ".join(said) or "no limit"


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
