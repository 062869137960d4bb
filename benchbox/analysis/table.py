"""A table as data: what every renderer prints, and none of them computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from benchbox.analysis.access import ACCESSES
from benchbox.analysis.badge import NOT_AUDITED, Badge
from benchbox.analysis.certificate import Certificate
from benchbox.analysis.control import Control
from benchbox.analysis.intervals import PLACE
from benchbox.analysis.labels import attack_place
from benchbox.analysis.probed import Probed
from benchbox.analysis.score import NOT_RUN, WITHHELD, Entry, Score
from benchbox.domain import Access, SampleList, Spec, ThreatModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Column(NamedTuple):
    """An attack under an access."""

    access: Access
    attack: str

    @property
    def place(self) -> tuple[int, tuple[int, str]]:
        """Sort key: the order in which papers print accesses and attacks."""
        return ACCESSES.index(self.access), attack_place(self.attack)

    def __str__(self) -> str:
        return f"{self.access} {self.attack}"


@dataclass(frozen=True)
class Versus:
    """How a row's worst case differs from that of the row it is compared with; in points.

    Attributes:
        difference: This row's minus the other's.
        low: Lower end of its 95 % interval, by a paired bootstrap over samples.
        high: Upper end.
        p: Adjusted by Holm over the rows of the table.
        test: What p comes from.
        significant: Whether p is below 5 %.
        alike: Whether both were attacked in every column that one of them was attacked in.
        digits: Decimals worth printing.
    """

    difference: float
    low: float
    high: float
    p: float
    test: str
    significant: bool
    alike: bool
    digits: int

    @property
    def interval(self) -> str:
        """As in "[-5.1, -1.4]"."""
        return f"[{self.low:+.{self.digits}f}, {self.high:+.{self.digits}f}]"

    def __str__(self) -> str:
        marks = ("*" if self.significant else "") + ("" if self.alike else "†")
        return f"{self.difference:+.{self.digits}f}{marks}"


@dataclass(frozen=True)
class Row:
    """One trained defence.

    Attributes:
        label: Name, and how the recipe departs from the usual one.
        defense: The recipe.
        training_seed: Of its training.
        artifact: Digest of the trained defence.
        purifier: Whether the attacker's accesses are different models.
        oracle: Knows what no defence can know; never ranked.
        clean: Accuracy on the images as they are.
        robust: Per-sample worst case over the clean image, every finished attack and the audit's probes; None if
            no attack is finished.
        set_by: The finished column with the lowest accuracy.
        over: How many columns the worst case is over.
        missing: Columns of the table that are not finished for this row.
        entries: By column.
        own: By what it was measured as; a column that tells nothing beside another one is not in the table.
        lacking: What of the minimum panel of attacks is missing; then the row has no rank.
        rank: From 1, shared with those that are not significantly better; None for an oracle, for a row whose
            worst case is not known yet, and for one that was hardly attacked.
        versus: The comparison with the row that was asked for.
        badge: What the audit of these weights inside this ball found.
        control: What the null attack says; None for a deterministic defence that it was not run on.
        usual: Whether its recipe is the usual one of that name, on the paper's network and with the setting that
            the paper's row has in its name: what a paper prints stands beside such a row alone.
        probed: What the audit's probes left of these images; None where there was no audit of them.
        distance: Median distance of the nearest error, see `analysis.distance`; None where nobody has searched.
        fallen: How many images that withstood every finished attack fell to these probes.
        certificate: What the defence proves of these images; None for one that proves nothing.
    """

    label: str
    defense: Spec
    training_seed: int
    artifact: str
    purifier: bool
    oracle: bool
    clean: Entry
    robust: Score | None
    set_by: Column | None
    over: int
    missing: tuple[Column, ...]
    entries: Mapping[Column, Entry]
    own: Mapping[Column, Entry]
    lacking: tuple[str, ...] = ()
    rank: int | None = None
    versus: Versus | None = None
    badge: Badge = NOT_AUDITED
    control: Control | None = None
    usual: bool = True
    probed: Probed | None = None
    fallen: int = 0
    distance: float | None = None
    certificate: Certificate | None = None

    def under(self, columns: Iterable[Column]) -> list[Entry]:
        """What stands in some columns; "not run" where nothing does."""
        return [self.entries.get(column, Entry()) for column in columns]

    @property
    def shares(self) -> NDArray[np.float64] | None:
        """(N,) share of draws in which each sample survives the worst case; None if no attack finished."""
        return None if self.robust is None else self.robust.shares

    @property
    def finished(self) -> frozenset[Column]:
        """The columns of the table whose number counts, also where it was measured under another access."""
        return frozenset(c for c, entry in self.entries.items() if entry.status in ("done", "same"))

    @property
    def undecided(self) -> bool:
        """Whether an attack failed or was interrupted that may still break a sample, if one is left to break."""
        left = self.shares is None or bool(self.shares.any())
        return left and any(entry.status in ("partial", "failed") for entry in self.entries.values())

    @property
    def withheld(self) -> bool:
        """Whether the null attack shows that the scoring is wrong; then no number of the row counts."""
        return self.control is not None and self.control.verdict == "differs"

    @property
    def certified(self) -> Score | None:
        """What is proven; None where nothing is, where a proof is wrong, and where no number of the row counts."""
        return None if self.withheld or self.certificate is None else self.certificate.bound

    @property
    def uncontrolled(self) -> bool:
        """Whether the null attack has yet to show that the scoring is right; then the row has no rank."""
        return self.control is not None and self.control.verdict in ("not run", "unfinished")

    @property
    def invalid(self) -> bool:
        """Whether the audit found that the number is not what it says; then it has no rank."""
        return self.badge.invalid

    @property
    def headline(self) -> str:
        """The worst case with its marks.

        † when attacks of this table are missing, § when the null attack is, ‡ when gradients are masked.
        """
        if self.withheld:
            return WITHHELD
        flags = {"†": bool(self.missing), "§": self.uncontrolled, "‡": self.badge.masked}
        marks = "".join(mark for mark, flag in flags.items() if flag)
        return NOT_RUN if self.robust is None else f"{self.robust}{marks}"

    @property
    def coarse(self) -> bool:
        """Whether the interval is too wide for a place of its own: then the rank is that of a group (D1)."""
        return self.robust is not None and (self.robust.high - self.robust.low) / 2 > 100 * PLACE

    @property
    def place(self) -> str:
        """The rank as it is printed: "3", "≈3" for a group that the samples cannot tell apart, "–" for none.

        In parentheses while attacks are missing: the next one may end it.
        """
        if self.rank is None:
            return "–"
        place = f"{'≈' if self.coarse else ''}{self.rank}"
        return f"({place})" if self.missing else place


@dataclass(frozen=True)
class Table:
    """Every defence measured on one sample list within one ball.

    Attributes:
        samples: The images.
        threat: The ball.
        columns: In the order they are printed.
        rows: Best worst case first, then those that are unfinished, oracles last.
        cards: How the weights behind the rows were trained, by digest, as far as it is known.
        against: Label of the row the others are compared with, if any.
        gradients: By key of a crafting, how many of its gradients were NaN or infinite.
        contract: By digest of the weights, what was remarked when the defence was tried.
        papers: BibTeX entries of the defences that bring one, by name.
    """

    samples: SampleList
    threat: ThreatModel
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    cards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    against: str = ""
    gradients: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    contract: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    papers: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Data set, ball and number of images."""
        return f"{self.samples.dataset}, {self.threat}, {self.samples.said}"

    @property
    def accesses(self) -> tuple[Access, ...]:
        """The accesses of the columns, in their order."""
        return tuple(dict.fromkeys(column.access for column in self.columns))

    @property
    def attacks(self) -> tuple[str, ...]:
        """The attacks of the columns, in the order papers print them."""
        return tuple(sorted({column.attack for column in self.columns}, key=attack_place))

    @property
    def reference(self) -> tuple[Row, ...]:
        """The row the others are compared with, or every training of it; empty if they are compared with none."""
        compared = bool(self.against)
        return tuple(r for r in self.rows if compared and r.robust is not None and r.versus is None)

    def under(self, access: Access) -> tuple[Column, ...]:
        """The columns of one access."""
        return tuple(column for column in self.columns if column.access is access)
