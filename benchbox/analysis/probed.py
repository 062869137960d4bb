"""What the probes of an audit broke, as one more attack in the worst case: a short attack that succeeds counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchbox.domain import SampleList

Right = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Probed:
    """What an audit's probes leave of the images of a sample list.

    Attributes:
        asked: (N,) whether an image was probed.
        right: (N, R) arrays of correctness, one for a deterministic defence; two for a randomised one, the probe
            that is worst for each image by the even draws and that by the odd ones (`worst_case.Halves`). All
            true where nothing was probed.
    """

    asked: NDArray[np.bool_]
    right: tuple[Right, ...]

    def on(self, images: NDArray[np.bool_]) -> list[Right]:
        """The arrays, as if only some of the images (N,) had been probed."""
        return [right | ~images[:, None] for right in self.right]


def probed(record: Mapping[str, Any] | None, samples: SampleList) -> Probed | None:
    """What the record of an audit says of the images of a list.

    Args:
        record: Of an audit inside the same ball; None where there is none.
        samples: The list.

    Returns:
        None where the audit was about none of these images, or is too old to say which it broke.
    """
    if record is None or "broken" not in record or "samples" not in record:
        return None
    audited = SampleList.from_dict(record["samples"])
    if (audited.dataset, audited.split) != (samples.dataset, samples.split):
        return None
    broken, draws = list(record["broken"]), record.get("draws", {})
    indices = np.array(samples.indices, np.int64)
    # What an earlier audit broke is among the broken ones, whatever the last one was about.
    asked = np.isin(indices, [*audited.indices, *broken, *map(int, draws)])
    if not asked.any():
        return None
    if not draws:
        return Probed(asked, (~np.isin(indices, broken)[:, None],))
    length = len(next(iter(draws.values()))[0])
    right = [np.ones((len(indices), length), bool) for _ in range(2)]
    place = {int(index): at for at, index in enumerate(indices)}
    for index, rows in draws.items():
        if (at := place.get(int(index))) is not None:
            for array, row in zip(right, rows, strict=True):
                array[at] = [draw == "1" for draw in row]
    return Probed(asked, tuple(right))
