"""What is left of a defence's claim, attack by attack: a table's rows read for one picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchbox.analysis import labels, paper, papers, references, trainings
from benchbox.domain import Access, ThreatModel

if TYPE_CHECKING:
    from benchbox.analysis.score import Entry, Score
    from benchbox.analysis.table import Row, Table

#: From what knows most to what knows least: the order in which a claim is tested.
ORDER = (Access.WHITE_BOX, Access.BPDA, Access.TRANSFER, Access.GRAY_BOX, Access.IMPORTED)


@dataclass(frozen=True)
class Dot:
    """One finished measurement.

    Attributes:
        access: What the attacker knew.
        name: The attack, and the stand-in it went through where there is one.
        score: What was left.
    """

    access: Access
    name: str
    score: Score


@dataclass(frozen=True)
class Claim:
    """What a paper prints for a defence.

    Attributes:
        percent: The number.
        column: The paper's attack.
        table: The paper's table.
        source: The paper.
    """

    percent: float
    column: str
    table: str
    source: str


@dataclass(frozen=True)
class Survival:
    """A defence on one list of images inside one ball.

    Attributes:
        recipe: `Spec.identity` of its rows.
        label: Its name, and how its recipe differs from the others of that name.
        title: Of its table.
        dataset: Name.
        threat: The ball.
        n: Images.
        seeds: Of its trainings.
        attack_seeds: Of what attacked it.
        dots: Access by access in `ORDER`, attacks in the order of papers.
        worst: Worst case of the training that has fallen furthest; None where nothing is finished.
        clean: Of clean images, of the same training.
        claim: The lowest number under attack that its paper prints; None where it prints none.
        warnings: What the reader has to know, one sentence each.
    """

    recipe: str
    label: str
    title: str
    dataset: str
    threat: ThreatModel
    n: int
    seeds: tuple[int, ...]
    attack_seeds: tuple[int, ...]
    dots: tuple[Dot, ...]
    worst: Dot | None
    clean: Dot | None
    claim: Claim | None
    warnings: tuple[str, ...] = ()

    @property
    def setting(self) -> str:
        """For an axis: data set, ball, number of images."""
        return f"{self.dataset}, {self.threat}, n = {self.n}"


def survivals(tables: Sequence[Table]) -> Iterator[Survival]:
    """One for each defence and recipe of each table that has something to show; trainings are taken together.

    Of a data set the table of most images comes first.
    """
    for table in sorted(tables, key=lambda table: -len(table.samples)):
        groups: dict[str, list[Row]] = defaultdict(list)
        for row in table.rows:
            groups[row.defense.identity].append(row)
        for rows in groups.values():
            found = _survival(table, rows, trainings.label(rows[0]))
            if found.dots:
                yield found


def claim(dataset: str, defense: str, threat: ThreatModel) -> Claim | None:
    """The lowest number under attack that a paper prints for a defence in its main table or its ablation."""
    # What the PSSR paper calls white-box stands beside gray-box (benchbox.analysis.paper says why).
    every = [paper.beside(dataset, defense, threat, Access.GRAY_BOX, attack) for attack in paper.attacks()]
    lowest = min((one for one in every if one is not None), key=lambda one: one.percent, default=None)
    if lowest is not None:
        return Claim(lowest.percent, lowest.column, f"Table {lowest.table}", paper.NAME)
    number, reference = papers.claim(defense, dataset, threat), references.of(defense)
    if number is None or number.percent is None or reference is None:
        return None
    return Claim(
        number.percent, number.column, f"table {number.table}", f"arXiv {reference.url.rpartition('/')[2]}"
    )


def _survival(table: Table, rows: Sequence[Row], label: str) -> Survival:
    shown = [row for row in rows if not row.withheld]
    scored = [(row.robust.percent, row.training_seed, row) for row in shown if row.robust is not None]
    furthest = min(scored, key=lambda one: one[:2])[2] if scored else None
    name, dataset = rows[0].defense.name, table.samples.dataset
    cells = [m.evidence.cell for row in rows for entry in row.entries.values() for m in entry.measurements]
    return Survival(
        recipe=rows[0].defense.identity,
        label=label,
        title=table.title,
        dataset=dataset,
        threat=table.threat,
        n=len(table.samples),
        seeds=tuple(sorted({row.training_seed for row in rows})),
        attack_seeds=tuple(sorted({cell.attack_seed for cell in cells})),
        dots=_dots(shown),
        worst=_named("worst case", furthest.robust if furthest else None),
        clean=_named("clean images", furthest.clean.score if furthest else None),
        # What a paper prints is about the usual recipe alone.
        claim=claim(dataset, name, table.threat) if any(row.usual for row in rows) else None,
        warnings=tuple(_warnings(rows)),
    )


def _named(name: str, score: Score | None) -> Dot | None:
    return None if score is None else Dot(Access.WHITE_BOX, name, score)


def _dots(rows: Sequence[Row]) -> tuple[Dot, ...]:
    found: dict[str, tuple[str, Dot]] = {}
    for row in rows:
        for column, entry in row.entries.items():
            found |= {key: (column.attack, dot) for key, dot in _measured(column.attack, entry)}
    dots = sorted(
        found.values(), key=lambda pair: (ORDER.index(pair[1].access), labels.attack_place(pair[0]), pair[1].name)
    )
    return tuple(dot for _, dot in dots)


def _measured(attack: str, entry: Entry) -> Iterator[tuple[str, Dot]]:
    for measurement in entry.measurements:
        # Also what is printed under another access of the same model: it counts where it was measured.
        cell = measurement.evidence.cell
        if measurement.status == "done" and measurement.score is not None:
            through = f", {measurement.stand_in}" if measurement.stand_in else ""
            yield cell.key, Dot(cell.access, f"{attack}{through}", measurement.score)


def _warnings(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        seed = f" (training seed {row.training_seed})" if len(rows) > 1 else ""
        if row.withheld:
            yield f"Withheld{seed}: the null attack disagrees with the clean accuracy, so its scoring is wrong."
        if row.invalid:
            yield f"Withdrawn{seed}: the audit found that its numbers are not what they say."
        if row.oracle:
            yield "An oracle: it knows what no defence can know."
