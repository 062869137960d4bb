"""What a defence proves of its images: a lower bound beside the upper one, unless an attack refutes it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchbox.analysis.score import Score
from benchbox.analysis.worst_case import is_finished

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchbox.analysis.probed import Probed
    from benchbox.domain import Evidence, SampleList

#: What a table says in the place of a bound that is none.
REFUTED = "refuted"


@dataclass(frozen=True)
class Certificate:
    """What is certified of the images of a sample list inside a ball, and whether it bears scrutiny.

    Attributes:
        score: Share of all images that are certified; None where no finished cell says so of each.
        certified: Positions in the data set of the images that any cell says it of.
        refuted: Those of them that are misclassified in some draw, as they are or attacked.
        fell_to: What they fell to, in words.
    """

    score: Score | None
    certified: tuple[int, ...]
    refuted: tuple[int, ...]
    fell_to: tuple[str, ...]

    @property
    def bound(self) -> Score | None:
        """The certified accuracy; None where a single proof is wrong, for then none of them is one."""
        return None if self.refuted else self.score

    @property
    def status(self) -> str:
        """Of the bound: `done`, `partial` while no cell has come to its end, `refuted`."""
        return REFUTED if self.refuted else "partial" if self.score is None else "done"

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "status": self.status,
            "score": None if self.bound is None else self.bound.as_dict(),
            "refuted": list(self.refuted),
            "fell_to": list(self.fell_to),
        }


def certificate(
    cells: Sequence[Evidence], others: Iterable[Evidence] = (), probed: Probed | None = None
) -> Certificate | None:
    """What some cells say is proven, and what of it fell to them.

    Args:
        cells: Of one trained defence, on one sample list inside one ball.
        others: Of the same on the same list, inside balls that this one contains.
        probed: What an audit's probes left of the images.

    Returns:
        None where no cell says anything.
    """
    said = [(cell, flags) for cell in cells if (flags := cell.outcome.certificate) is not None]
    if not said:
        return None
    samples = said[0][0].cell.samples
    claimed = np.zeros(len(samples), bool)
    for cell, flags in said:
        claimed[_positions(cell)] |= flags
    fallen: dict[str, NDArray[np.bool_]] = defaultdict(lambda: np.zeros(len(samples), bool))
    # Several cells bear one name: other seeds, other settings, another stand-in, a smaller ball.
    for item in (*cells, *others):
        fallen[f"{item.cell.access} {item.cell.attack.name}"] |= _fallen(item) & claimed
    if probed is not None:
        fallen["probes of the audit"] = ~np.all([right.all(axis=1) for right in probed.right], axis=0) & claimed
    whole = [flags for cell, flags in said if is_finished(cell)]
    return Certificate(
        # Cells that were scored by two machines may differ by a rounding: what both say counts.
        Score(np.all(whole, axis=0).astype(np.float64)) if whole else None,
        _indices(samples, claimed),
        _indices(samples, np.any(list(fallen.values()), axis=0)),
        tuple(name for name, flags in fallen.items() if flags.any()),
    )


def _positions(cell: Evidence) -> Any:
    """Of its scored images, ascending."""
    return slice(None) if is_finished(cell) else np.sort(cell.outcome.position)


def _fallen(cell: Evidence) -> NDArray[np.bool_]:
    """(N,) whether an image of the list is misclassified in some draw, as it is or attacked."""
    fallen = np.zeros(len(cell.cell.samples), bool)
    outcome = cell.outcome
    if len(outcome):
        right = outcome.correct("clean").all(axis=1) & outcome.correct("adversarial").all(axis=1)
        fallen[_positions(cell)] = ~right
    return fallen


def _indices(samples: SampleList, flags: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(samples.indices[position] for position in np.flatnonzero(flags))
