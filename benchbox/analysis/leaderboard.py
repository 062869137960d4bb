"""Evidence arranged as tables: defences down, accesses and attacks across, the worst case beside the name."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from benchbox.analysis import access, control, distance, labels, panel, paper, ranking, weights
from benchbox.analysis.background import NOTHING, Background
from benchbox.analysis.badge import badge
from benchbox.analysis.certificate import certificate
from benchbox.analysis.probed import Probed
from benchbox.analysis.score import Entry, Measurement, Score, combine, measure, union
from benchbox.analysis.table import Column, Row, Table
from benchbox.analysis.worst_case import by_draws, clean_correct, correctness, fallen, is_beginning, is_null
from benchbox.analysis.worth import worth
from benchbox.domain import Access, Cell, Evidence, SampleList, Spec, ThreatModel

Measured = Mapping[Column, Sequence[Measurement]]


def build(evidence: Sequence[Evidence], known: Background = NOTHING, *, against: str | None = None) -> list[Table]:
    """Arrange evidence as tables, one for each (data set, ball, sample list).

    Args:
        evidence: Finished and unfinished cells, in any order.
        known: What is known of the defences and their weights.
        against: Name, label or digest of the defence that every other is compared with.

    Raises:
        RequestError: No table has such a defence, or a table has several.
    """
    groups: dict[tuple[SampleList, ThreatModel], list[Evidence]] = defaultdict(list)
    for item in evidence:
        groups[item.cell.samples, item.cell.threat].append(item)
    order = sorted(groups, key=_place)
    known = replace(
        known,
        purifiers=access.purifiers(evidence, known.purifiers),
        randomized=access.randomized(evidence, known.randomized),
    )
    first = _first_seeds(evidence)
    tables = [_Builder(groups[key], known, _inside(*key, groups), first).table(*key) for key in order]
    return tables if against is None else ranking.against(tables, against)


def _first_seeds(evidence: Sequence[Evidence]) -> Mapping[tuple[str, str], int]:
    """The lowest training seed of each defence on each data set, which goes without saying in every table."""
    found: dict[tuple[str, str], int] = {}
    for cell in (item.cell for item in evidence):
        key = cell.defense.name, cell.samples.dataset
        found[key] = min(found.get(key, cell.training_seed), cell.training_seed)
    return found


def _inside(
    samples: SampleList, threat: ThreatModel, groups: Mapping[tuple[SampleList, ThreatModel], Sequence[Evidence]]
) -> Mapping[str, Sequence[Evidence]]:
    """By digest of the weights, what is known of the same images inside smaller balls."""
    found: dict[str, list[Evidence]] = defaultdict(list)
    for (others, ball), items in groups.items():
        if others == samples and ball != threat and threat.contains(ball):
            for item in items:
                found[item.cell.artifact].append(item)
    return found


def _place(group: tuple[SampleList, ThreatModel]) -> tuple[tuple[int, str], str, float, int, str]:
    samples, threat = group
    return (labels.dataset_place(samples.dataset), threat.norm, threat.epsilon, len(samples), samples.digest)


class _Key(NamedTuple):
    """What makes two results the same row: a base trained otherwise changes the artifact alone."""

    recipe: str
    seed: int
    artifact: str


@dataclass(frozen=True)
class _Name:
    """What a row is called, and whether it is the one of its name that the paper's numbers are about."""

    label: str
    usual: bool


@dataclass(frozen=True)
class _Builder:
    """The evidence of one table, what is known inside smaller balls, by weights, and the first training seeds."""

    evidence: Sequence[Evidence]
    known: Background
    inside: Mapping[str, Sequence[Evidence]]
    first_seeds: Mapping[tuple[str, str], int]

    def table(self, samples: SampleList, threat: ThreatModel) -> Table:
        attacks = labels.departures([item.cell.attack for item in self.evidence])
        groups: dict[_Key, list[Evidence]] = defaultdict(list)
        for item in self.evidence:
            groups[_key(item)].append(item)
        measured = {key: _measured(items, attacks) for key, items in groups.items()}
        columns = self._columns(groups, measured)
        names = _names(self.evidence, self.known.cards, self.first_seeds)
        rows = [self._row(names[key], groups[key], measured[key], columns) for key in groups]
        cards = weights.behind(self.evidence, self.known.cards)
        known = self.known
        ranked = ranking.ranked(rows)
        return Table(
            samples,
            threat,
            columns,
            ranked,
            cards,
            gradients=known.gradients,
            contract=known.contract,
            papers=known.papers,
        )

    def _columns(
        self, groups: Mapping[_Key, Sequence[Evidence]], measured: Mapping[_Key, Measured]
    ) -> tuple[Column, ...]:
        """Every column somebody measured.

        A white-box column that no purifier was measured in is left out where the gray-box column stands: the
        defences without purifier show the same number there.
        """
        own = {column for found in measured.values() for column in found}
        purified = {c for key, found in measured.items() if self._purifies(groups[key][0]) for c in found}
        kept = [
            c
            for c in own
            if c.access is not Access.WHITE_BOX or c in purified or Column(Access.GRAY_BOX, c.attack) not in own
        ]
        return tuple(sorted(kept, key=lambda column: column.place))

    def _row(
        self, name: _Name, evidence: Sequence[Evidence], measured: Measured, columns: Sequence[Column]
    ) -> Row:
        cell = evidence[0].cell
        purifier = self._purifies(evidence[0])
        nulls = [measure(item) for item in sorted(evidence, key=by_draws) if is_null(item)]
        found = [m for ms in (*measured.values(), nulls) for m in ms]
        finished = sorted((m.evidence for m in found if m.status == "done"), key=by_draws)
        randomized = cell.defense.name in self.known.randomized
        held = control.hold(nulls, next(iter(finished), None), randomized=randomized)
        withheld = held is not None and held.verdict == "differs"
        if withheld:
            measured = {column: [_withheld(m) for m in ms] for column, ms in measured.items()}
        own = {column: combine(found, str(column)) for column, found in measured.items()}
        entries = {}
        for column in columns:
            entry = own.get(column) or (Entry() if purifier else _same_model(own, column))
            entries[column] = _with_paper(entry, evidence[0], name, column.access, column.attack)
        attacked = [] if withheld else [item for item in finished if not is_null(item)]
        probed = self.known.probed(cell)
        robust = union(correctness(attacked, with_clean=True, probed=probed)) if attacked else None
        lacking = panel.lacking(
            attacked, purifies=purifier, randomized=randomized, noted=self.known.kinds.get(cell.defense.name)
        )
        scores = {c: e.score for c, e in own.items() if e.status == "done" and e.score is not None}
        return Row(
            label=name.label,
            defense=cell.defense,
            training_seed=cell.training_seed,
            artifact=cell.artifact,
            purifier=purifier,
            oracle=cell.defense.name in self.known.oracles,
            clean=_with_paper(_clean(evidence, finished), evidence[0], name),
            robust=robust,
            # Where nothing is left to break no further attack could change the number.
            lacking=lacking if robust is not None and robust.shares.any() else (),
            set_by=_lowest({c: own[c] for c in scores}),
            over=len(scores),
            missing=tuple(c for c in columns if entries[c].status not in ("done", "same")),
            entries=entries,
            own=own,
            badge=badge(self.known.audit(cell), self._standing(attacked, robust, probed)),
            probed=probed,
            fallen=fallen(attacked, probed) if attacked else 0,
            control=held,
            usual=name.usual,
            distance=distance.median(attacked),
            certificate=certificate(evidence, self.inside.get(cell.artifact, ()), probed),
        )

    def _standing(
        self, attacked: Sequence[Evidence], robust: Score | None, probed: Probed | None
    ) -> dict[str, Any] | None:
        """What a row's number is worth, where it is no longer the one that its audit saw; else None."""
        record = self.known.audit(attacked[0].cell) if attacked else None
        recorded = (record or {}).get("standing", {}).get("robust")
        if recorded is None or robust is None or recorded["percent"] == robust.percent:
            return None
        below = {item.cell.view.artifact for item in attacked if item.cell.access is Access.GRAY_BOX}
        bare = [
            item
            for item in self.evidence
            if item.cell.artifact in below and item.status == "done" and not is_null(item)
        ]
        return worth(attacked, bare, probed)

    def _purifies(self, evidence: Evidence) -> bool:
        return evidence.cell.defense.name in self.known.purifiers


def _key(evidence: Evidence) -> _Key:
    cell = evidence.cell
    return _Key(cell.defense.identity, cell.training_seed, cell.artifact)


def _names(
    evidence: Sequence[Evidence], cards: weights.Cards, first_seeds: Mapping[tuple[str, str], int]
) -> Mapping[_Key, _Name]:
    specs = [item.cell.defense for item in evidence]
    foreign = {_key(item): _foreign_network(item.cell, cards) for item in evidence}
    papers_own = {key.recipe for key, network in foreign.items() if not network}
    said_of = labels.distinctions(specs, papers_own)
    usual = _usual(specs, papers_own)
    rows = {_key(item): item.cell.defense.name for item in evidence}
    dataset = evidence[0].cell.samples.dataset
    seeds = {
        name: {first_seeds[name, dataset], *(key.seed for key, owner in rows.items() if owner == name)}
        for name in rows.values()
    }
    said = {
        key: (
            name,
            said_of[key.recipe],
            # The recipe may have said it.
            "" if foreign[key] in said_of[key.recipe] else foreign[key],
            f"seed {key.seed}" if len(seeds[name]) > 1 else "",
        )
        for key, name in rows.items()
    }
    uses = Counter(said.values())
    # Equal recipes on another base: only the trained weights tell them apart.
    return {
        key: _Name(
            labels.labelled(*parts, f"weights {key.artifact[:8]}" if uses[parts] > 1 else ""),
            key.recipe in usual and not foreign[key],
        )
        for key, parts in said.items()
    }


def _usual(specs: Sequence[Spec], papers_own: Collection[str]) -> Collection[str]:
    """Identities of the recipes that what the paper prints is about: ours, with what its row says of it."""
    bare = {spec.identity: _without(spec, paper.setting(spec.name)) for spec in specs}
    departs = labels.departures(
        [bare[spec.identity] for spec in specs], {bare[key].identity for key in papers_own}
    )
    return {
        spec.identity
        for spec in specs
        if not departs[bare[spec.identity].identity]
        and all(spec.arguments.get(field) == value for field, value in paper.setting(spec.name).items())
    }


def _without(spec: Spec, fields: Collection[str]) -> Spec:
    return replace(spec, arguments={k: v for k, v in spec.arguments.items() if k not in fields})


def _foreign_network(cell: Cell, cards: weights.Cards) -> str:
    """As in "network=resnet18-16", where the paper's numbers are about another one; else ""."""
    network = weights.network(cell, cards)
    dataset, name = cell.samples.dataset, cell.defense.name
    return "" if paper.is_its_network(dataset, name, network) else f"network={network}"


def _measured(evidence: Sequence[Evidence], departs: Mapping[str, str]) -> Measured:
    """A row's attacks by the column they belong to; the control is none."""
    found: dict[Column, list[Measurement]] = defaultdict(list)
    for item in sorted((item for item in evidence if not is_null(item)), key=by_draws):
        attack = item.cell.attack
        column = Column(item.cell.access, labels.labelled(attack.name, departs[attack.identity]))
        found[column].append(measure(item))
    return found


def _withheld(measurement: Measurement) -> Measurement:
    """Without the numbers, where there are any: the scoring that they come from is wrong."""
    if measurement.score is None:
        return measurement
    return replace(measurement, score=None, status="withheld")


def _lowest(entries: Mapping[Column, Entry]) -> Column | None:
    """The column that leaves least; among equals the one that knows most, then the cheapest attack."""

    def strength(column: Column) -> tuple[float, int, float, str]:
        entry = entries[column]
        left = entry.score.percent if entry.score else 100.0
        return access.strength(left, column.access, entry.passes, column.attack)

    return min(entries, key=strength, default=None)


def _same_model(own: Mapping[Column, Entry], column: Column) -> Entry:
    """The white-box entry of a defence without purifier, under an access that changes nothing."""
    entry = own.get(Column(Access.WHITE_BOX, column.attack))
    if entry is None or not access.is_same_model(column.access, [m.evidence for m in entry.measurements]):
        return Entry()
    return replace(entry, status="same") if entry.status == "done" else entry


def _with_paper(
    entry: Entry, evidence: Evidence, name: _Name, access: Access | None = None, attack: str = ""
) -> Entry:
    """An entry with the paper's number, which is about the usual recipe alone."""
    cell = evidence.cell
    if not name.usual:
        return entry
    return replace(entry, paper=paper.beside(cell.samples.dataset, cell.defense.name, cell.threat, access, attack))


def _clean(evidence: Sequence[Evidence], finished: Sequence[Evidence]) -> Entry:
    if finished:
        return Entry("done", union([clean_correct(finished[0])]))
    longest = max(filter(is_beginning, evidence), key=lambda item: len(item.outcome), default=None)
    return Entry("partial", union([clean_correct(longest)])) if longest else Entry()
