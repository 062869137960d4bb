"""Each number that the PSSR paper prints and what came of it: reproduced, not, contradicted, or not run and why.

A purifier's number in Tables 1 and 4 is compared with the gray-box one, which is all that it can be (`paper`);
what it is printed as, white-box, is answered by the same attack on the whole defence, if ours gets about as many
clean images right: what a training failed to learn is no attack's doing. The paper's number has no interval, so
it is asked whether it lies in ours, which is about the choice of images, not about another training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from benchbox.analysis import labels, paper, papers
from benchbox.analysis.papers import Number
from benchbox.analysis.score import Entry, Score
from benchbox.analysis.table import Column, Row, Table
from benchbox.domain import Access

#: Whose tables are gone through, as `papers` calls it.
PAPER = "pssr"
#: What each table is compared with. Table 3 is about BPDA alone.
_ACCESS = {"1": Access.GRAY_BOX, "2": Access.TRANSFER, "3": Access.BPDA, "4": Access.GRAY_BOX}
#: Under which the whole defence is attacked as a table claims it is; the first that is finished is heard.
_WHOLE = {
    "1": [Access.WHITE_BOX, Access.BPDA],
    "3": [Access.BPDA, Access.WHITE_BOX],
    "4": [Access.WHITE_BOX, Access.BPDA],
}
#: Points of clean accuracy that ours may lack and still speak for the paper's defence.
NEAR = 10.0


class Verdict(StrEnum):
    """What came of a printed number."""

    REPRODUCED = "reproduced"
    DIFFERS = "not reproduced"
    CONTRADICTED = "contradicted by a stronger attack"
    NOT_RUN = "not run"
    NOT_PRINTED = "the paper prints a dash"


@dataclass(frozen=True)
class Answer:
    """A printed number and what was measured.

    Attributes:
        number: As the paper prints it.
        verdict: What came of it.
        defense: Our name of the defence; empty where none was measured.
        measured: The comparable number; None where there is none.
        where: Access and attack it was measured under.
        stronger: What the same attack on the whole defence leaves, where that contradicts the number.
        why: Of what was not run.
    """

    number: Number
    verdict: Verdict
    defense: str = ""
    measured: Score | None = None
    where: str = ""
    stronger: Score | None = None
    why: str = ""

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's, in points."""
        if self.measured is None or self.number.percent is None:
            return None
        return self.measured.percent - self.number.percent


def answers(tables: Sequence[Table]) -> list[Answer]:
    """One for each of the 360 numbers, in the paper's order.

    Args:
        tables: What was measured; on each data set the one of most images inside the paper's ball is heard.
    """
    own = {name: _ground(tables, name) for name in paper.EPSILON}
    return [_answer(number, own[number.dataset]) for number in papers.numbers(PAPER)]


def _ground(tables: Sequence[Table], dataset: str) -> Table | None:
    fitting = [t for t in tables if t.samples.dataset == dataset and paper.is_its_ball(dataset, t.threat)]
    return max(fitting, key=lambda table: len(table.samples), default=None)


def _answer(number: Number, table: Table | None) -> Answer:
    if number.percent is None:
        return Answer(number, Verdict.NOT_PRINTED)
    names = [
        n for n in paper.lines_of(int(number.table), number.dataset) if paper.row_of(n, number.table) == number.row
    ]
    if table is None:
        return Answer(number, Verdict.NOT_RUN, why=f"nothing is published on {papers.shown(number.dataset)}")
    own = [row for row in table.rows if row.defense.name in names]
    rows = _first_trainings([row for row in own if row.usual and not row.invalid])
    if not rows:
        missing = " or ".join(names) or "it"
        other = f" {_as_printed(names, number.dataset)}" if own and not any(row.usual for row in own) else ""
        return Answer(number, Verdict.NOT_RUN, why=f"no row of {missing}{other} is published")
    found = [one for row in rows for one in _compared(number, row)]
    if not found:
        attack, access = _attack(number.column), _ACCESS[number.table]
        who = " and ".join(row.defense.name for row in rows)
        return Answer(number, Verdict.NOT_RUN, why=f"{access} {attack} is not finished on {who}")
    return min(found, key=lambda one: (_ORDER.index(one.verdict), abs(one.difference or 0)))


def _first_trainings(rows: Sequence[Row]) -> list[Row]:
    """Of each defence the training of the lowest seed: the best of several is a choice."""
    lowest: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row.training_seed):
        lowest.setdefault(row.defense.name, row)
    return list(lowest.values())


def _as_printed(names: Sequence[str], dataset: str) -> str:
    """As in "on resnet18": on another network, or with another setting, it is another number."""
    settings = [f"{field}={labels.short(value)}" for n in names for field, value in paper.setting(n).items()]
    return " ".join([f"on {paper.NETWORK[dataset]}", *(["with " + " and ".join(settings)] if settings else [])])


#: Where several defences of ours stand for one row of the paper, what is heard first.
_ORDER = (Verdict.REPRODUCED, Verdict.DIFFERS, Verdict.CONTRADICTED)


def _compared(number: Number, row: Row) -> Iterator[Answer]:
    """The answer of one row; of several stand-ins the nearest number is compared."""
    printed = number.percent
    assert printed is not None
    if number.column == "benign":
        scores, where = [row.clean.score] if row.clean.status == "done" else [], "clean images"
    else:
        access, attack = _ACCESS[number.table], _attack(number.column)
        entry = row.entries.get(Column(access, attack), Entry())
        if access is Access.GRAY_BOX and not row.purifier and entry.status == "not run":
            # The same model; a table that no purifier is in has no column for it.
            entry = row.entries.get(Column(Access.WHITE_BOX, attack), entry)
        alone = [m.score for m in entry.measurements] if access is Access.BPDA else []
        scores, where = [*alone, entry.score] if entry.status in ("done", "same") else [], f"{access} {attack}"
    nearest = min(filter(None, scores), key=lambda score: abs(score.percent - printed), default=None)
    if nearest is None:
        return
    stronger = _stronger(number, row)
    # Half a unit of what the paper prints: its numbers are rounded.
    inside = nearest.low - 0.005 <= printed <= nearest.high + 0.005
    verdict = Verdict.CONTRADICTED if stronger else Verdict.REPRODUCED if inside else Verdict.DIFFERS
    yield Answer(number, verdict, row.defense.name, nearest, where, stronger)


def _stronger(number: Number, row: Row) -> Score | None:
    """What the same attack leaves of a purifier when it is aimed at all of it, where that is clearly less."""
    if number.column == "benign" or not row.purifier:
        return None
    if not _is_as_good(row):
        return None
    assert number.percent is not None
    attack = _attack(number.column)
    entries = [row.entries.get(Column(access, attack), Entry()) for access in _WHOLE.get(number.table, [])]
    left = next((entry.score for entry in entries if entry.status == "done" and entry.score is not None), None)
    return left if left is not None and left.high < number.percent else None


def _is_as_good(row: Row) -> bool:
    """Whether ours gets nearly as many clean images right as the paper says of its row."""
    clean, printed = row.clean.score, row.clean.paper
    return clean is not None and printed is not None and clean.percent >= printed.percent - NEAR


def _attack(column: str) -> str:
    """Our name of a column; that of Table 3 names no attack, and BPDA is PGD's gradient through a stand-in."""
    known = paper.attacks()
    return next(name for name, place in known.items() if column in (place.column, place.bpda))
