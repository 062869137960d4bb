"""Every way in which some defences were attacked, each with its own number.

A ranking is about one list of images, and takes together what an attack was run with. Here each stand-in and each
number of draws stands by itself, and an attack that is too dear for all images stands beside those that saw them.
What else an attack was run with, say another seed, is taken together here too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from benchbox.analysis.access import ACCESSES
from benchbox.analysis.conventions import scores
from benchbox.analysis.labels import attack_place, labelled
from benchbox.analysis.score import combine, measure, union
from benchbox.analysis.shared_images import on
from benchbox.analysis.worst_case import clean_correct
from benchbox.domain import Access, SampleList, ThreatModel

if TYPE_CHECKING:
    from benchbox.analysis.certificate import Certificate
    from benchbox.analysis.score import Entry, Measurement, Score
    from benchbox.analysis.table import Row, Table


@dataclass(frozen=True)
class Way:
    """How a defence was attacked.

    Attributes:
        access: What the attacker knows.
        attack: With what sets its settings apart.
        stand_in: What was differentiated in the defence's place; "" for the defence itself.
        eot: Draws a gradient.
    """

    access: Access
    attack: str
    stand_in: str
    eot: int

    @property
    def place(self) -> tuple[int, tuple[int, str], str, int]:
        """Sort key: stand-ins one by one, more draws below fewer."""
        return ACCESSES.index(self.access), attack_place(self.attack), self.stand_in, self.eot

    def __str__(self) -> str:
        draws = f"EOT {self.eot}" if self.eot > 1 else ""
        through = f"through {self.stand_in}" if self.stand_in else ""
        return ", ".join(part for part in (self.attack, draws, through) if part)


@dataclass(frozen=True)
class Board:
    """All that is known of attacks on one data set in one ball.

    Attributes:
        samples: The longest list of images among them.
        threat: The ball.
        clean: By label of a defence, its accuracy on the images as they are, if it is known of all, and which they
            are.
        found: By way and label, the worst for each image of what has finished on the most images.
        certified: By label of a defence that proves something, what, and of which images.
    """

    samples: SampleList
    threat: ThreatModel
    clean: Mapping[str, tuple[Score | None, SampleList]]
    found: Mapping[tuple[Way, str], Entry]
    certified: Mapping[str, tuple[Certificate, SampleList]] = field(default_factory=dict)

    @property
    def ways(self) -> list[Way]:
        """In the order they are printed."""
        return sorted({way for way, _ in self.found}, key=lambda way: way.place)

    def of(self, way: Way) -> list[Entry]:
        """What was found in one way, of every defence."""
        return [found for (one, _), found in self.found.items() if one == way]

    def on_shared_images(self) -> Board | None:
        """The same on the shortest list, where all others contain it; None if they do not, or there is one."""
        lists = {images(entry) for entry in self.found.values()}
        least = min(lists, key=len, default=self.samples)
        if least == self.samples or not all({*least.indices} <= {*one.indices} for one in lists):
            return None
        found = {
            key: combine([measure(on(least, m.evidence)) for m in entry.measurements]) if entry.score else entry
            for key, entry in self.found.items()
        }
        seen = {label: entry.measurements[0].evidence for (_, label), entry in found.items()}
        clean = {label: (union([clean_correct(seen[label])]), least) for label in self.clean if label in seen}
        return Board(least, self.threat, clean, found)

    def vote(self, label: str) -> tuple[Score, Measurement] | None:
        """The lowest majority vote that an attack leaves of a defence; None where there are no draws to vote."""
        every = [m for (_, one), entry in self.found.items() if one == label for m in entry.measurements]
        several = [m for m in every if m.extra]
        if not several:
            return None
        lowest = min(several, key=lambda m: m.extra["majority_vote"])
        outcome = lowest.evidence.outcome
        return scores(outcome.adversarial, outcome.label)["majority_vote"], lowest


def images(entry: Entry) -> SampleList:
    """What a number of a board is about."""
    return entry.measurements[0].evidence.cell.samples


def boards(tables: Iterable[Table]) -> list[Board]:
    """One for each data set and ball.

    Args:
        tables: Such that those of a data set and ball follow one another, as `leaderboard.build` makes them.
    """
    return [
        _board(list(group))
        for _, group in groupby(tables, key=lambda table: (table.samples.dataset, table.threat))
    ]


def _board(tables: Sequence[Table]) -> Board:
    # The longest list first: what it has goes before what shorter ones have.
    tables = sorted(tables, key=lambda table: -len(table.samples))
    names = _labels([row for table in tables for row in table.rows])
    clean: dict[str, tuple[Score | None, SampleList]] = {}
    found: dict[tuple[Way, str], Entry] = {}
    certified: dict[str, tuple[Certificate, SampleList]] = {}
    for table in tables:
        for row in table.rows:
            label = names[row.artifact]
            if clean.get(label, (None,))[0] is None:
                clean[label] = (row.clean.score if row.clean.status == "done" else None), table.samples
            if row.certificate is not None and not row.withheld:
                certified.setdefault(label, (row.certificate, table.samples))
            for way, measurements in _measured(row).items():
                found.setdefault((way, label), combine(measurements))
    return Board(tables[0].samples, tables[0].threat, clean, found, certified)


def _measured(row: Row) -> Mapping[Way, Sequence[Measurement]]:
    """The finished attacks on a row; what two accesses share counts for the one that asks for it by itself."""
    white = {
        m.evidence.cell.craft_key
        for column, entry in row.own.items()
        if column.access is Access.WHITE_BOX
        for m in entry.measurements
    }
    found: dict[Way, list[Measurement]] = defaultdict(list)
    for column, entry in row.own.items():
        for m in entry.measurements:
            cell = m.evidence.cell
            if m.status in ("done", "withheld") and (
                column.access is Access.WHITE_BOX or cell.craft_key not in white
            ):
                found[Way(column.access, column.attack, cell.view.stand_in or "", cell.eot)].append(m)
    return found


def _labels(rows: Sequence[Row]) -> Mapping[str, str]:
    """What to call each training, by the digest of its weights."""
    names = {row.artifact: row.label for row in rows}
    uses = Counter(names.values())
    return {
        artifact: labelled(name, f"weights {artifact[:8]}") if uses[name] > 1 else name
        for artifact, name in names.items()
    }
