"""What came of a cell: what happened to each of its images, and what is known of how it was run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from benchbox.domain.nouns import Cell
from benchbox.domain.threat import ThreatModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Outcome:
    """What happened to each sample; row i is one sample. Percentages belong to reports.

    Attributes:
        position: (N,) place in the cell's sample list.
        label: (N,) true class.
        clean: (N, R) predicted class on the clean image, one column a scoring draw.
        adversarial: (N, R) predicted class on the adversarial image, in the same draws' order.
        first_success: (N,) forward pass at which the attacked view first erred; -1 never or not observed.
        linf: (N,) largest change of a pixel.
        l2: (N,) Euclidean length of the change.
        forwards: (N,) forward passes of the view spent on the sample.
        backwards: (N,) backward passes likewise.
        distance: (N,) length of the change in the norm of the ball, where that is neither L∞ nor L2; else None.
        certified: (N,) whether the defence proves that it gives every image of the ball the true class, in every
            draw; None where it proves nothing in that ball, or nobody asked it.
        measured: Whether these are the distances of each sample; False where all have the largest of any.
    """

    measured: ClassVar[bool] = True

    position: NDArray[np.int64]
    label: NDArray[np.int64]
    clean: NDArray[np.int64]
    adversarial: NDArray[np.int64]
    first_success: NDArray[np.int64]
    linf: NDArray[np.float64]
    l2: NDArray[np.float64]
    forwards: NDArray[np.float64]
    backwards: NDArray[np.float64]
    # By a factory, so that the class has no such attribute: the store makes outcomes that are unpacked on demand.
    distance: NDArray[np.float64] | None = field(default_factory=lambda: None)
    certified: NDArray[np.bool_] | None = field(default_factory=lambda: None)

    def __len__(self) -> int:
        return len(self.position)

    def rows(self, chosen: Any, **changed: NDArray[Any]) -> Outcome:
        """Some of the samples, by anything that numpy takes as an index, with other values in some columns."""
        columns: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(Outcome)}
        kept: dict[str, Any] = {k: None if column is None else column[chosen] for k, column in columns.items()}
        return Outcome(**kept | changed)

    def lengths(self, threat: ThreatModel) -> NDArray[np.float64]:
        """(N,) of the changes, as the ball measures them."""
        known = {"linf": self.linf, "l2": self.l2}.get(threat.norm, self.distance)
        assert known is not None, f"an outcome in the ball {threat} has no distances"
        return known

    def correct(self, which: Literal["clean", "adversarial"]) -> NDArray[np.bool_]:
        """(N, R) whether each draw classifies that image correctly, in the order of the cell's sample list."""
        predicted: NDArray[np.int64] = getattr(self, which)
        right: NDArray[np.bool_] = (predicted == self.label[:, None]).take(self.position.argsort(), axis=0)
        return right

    @property
    def certificate(self) -> NDArray[np.bool_] | None:
        """(N,) `certified` in the order of the cell's sample list."""
        return None if self.certified is None else self.certified[self.position.argsort()]

    @property
    def clean_correct(self) -> NDArray[np.float64]:
        """(N,) share of scoring draws in which the clean image is classified correctly."""
        share: NDArray[np.float64] = (self.clean == self.label[:, None]).mean(axis=1)
        return share

    @property
    def robust(self) -> NDArray[np.float64]:
        """(N,) share of scoring draws in which the adversarial image is classified correctly."""
        share: NDArray[np.float64] = (self.adversarial == self.label[:, None]).mean(axis=1)
        return share

    @property
    def is_beginning(self) -> bool:
        """Whether the scored samples are the first of the list, and some."""
        return len(self.position) > 0 and int(self.position.max()) == len(self.position) - 1

    @property
    def mean_passes(self) -> tuple[float, float]:
        """Forward and backward passes a sample, on average; 0 for no samples."""
        return (float(self.forwards.mean()), float(self.backwards.mean())) if len(self) else (0.0, 0.0)


@dataclass(frozen=True)
class Evidence:
    """A finished or unfinished cell as the store knows it: what reports are made from."""

    cell: Cell
    outcome: Outcome
    status: Literal["done", "partial", "failed"]
    error: str = ""
    seconds: float = 0.0
    run: int = 0
    created: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def is_of(self, datasets: Collection[str], defenses: Collection[str]) -> bool:
        """Whether it is of one of some data sets and of one of some defences; of any where none is named."""
        in_data = not datasets or self.cell.samples.dataset in datasets
        return in_data and (not defenses or self.cell.defense.name in defenses)
