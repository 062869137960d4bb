"""Randomised defences under every convention of scoring as a document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchbox.analysis.conventions import CONVENTIONS, Convention, Line, largest, lines
from benchbox.analysis.labels import attacked, departures, labelled
from benchbox.domain import Evidence
from benchbox.report.document import Column, Document, Number, Section, Text, grid

#: Columns of the long form.
FIELDS = (
    *("dataset", "samples_digest", "norm", "epsilon", "n", "defense", "attack", "access", "stand_in", "eot"),
    *("draws", "convention", "percent", "low", "high"),
)


def document(evidence: Sequence[Evidence]) -> Document:
    """A section for each sample list and ball, a row for each cell that was scored in several draws."""
    found = lines(evidence)
    said = departures([item.cell.defense for item in evidence])
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for line in found:
        cell = line.evidence.cell
        groups.setdefault((cell.samples, cell.threat, line.draws), []).append(line)
    return Document(
        "benchbox conventions",
        [_section(group, said) for group in groups.values()] or [_empty()],
        lambda: {"conventions": list(_records(found, said))},
        FIELDS,
        lambda: _records(found, said),
    )


def columns(draws: int, said: Mapping[str, str]) -> list[Column[Line]]:
    """The columns. One more convention is one entry of the analysis."""
    return [
        Column("defense", "defence", lambda line: Text(_name(line, said)), "left", heads=True),
        Column("attack", "attack", lambda line: Text(attacked(line.evidence.cell)), "left"),
        *(Column(one.key, one.title.format(draws), _number(one)) for one in CONVENTIONS),
        Column("spread", "spread", lambda line: Text(f"{line.spread:.1f}", exact=line.spread)),
    ]


def _number(one: Convention) -> Any:
    def number(line: Line) -> Number:
        score = line.scores[one.key]
        return Number(str(score), interval=score.interval, ends=(score.low, score.high), exact=score.percent)

    return number


def _section(found: Sequence[Line], said: Mapping[str, str]) -> Section:
    first = found[0]
    cell, draws = first.evidence.cell, first.draws
    return Section(
        f"{cell.samples.dataset}, {cell.threat}, {cell.samples.said}",
        [grid(columns(draws, said), found)],
        caption=f"Percent right of the same images in the same {draws} draws, by what is counted.",
        sentences=list(_sentences(found, said)),
        remarks=[f"{one.title.format(draws)}: {one.said}." for one in CONVENTIONS],
    )


def _sentences(found: Sequence[Line], said: Mapping[str, str]) -> Iterator[str]:
    most = largest(found)
    if most is not None and most.spread > 0:
        under = f"{_name(most, said)} under {attacked(most.evidence.cell)}"
        yield f"The conventions differ most on {under}: by {most.spread:.1f} points, of one set of images."


def _empty() -> Section:
    return Section("No randomised defence", sentences=["Nothing here was scored in more than one draw."])


def _name(line: Line, said: Mapping[str, str]) -> str:
    spec = line.evidence.cell.defense
    return labelled(spec.name, said[spec.identity])


def _records(found: Sequence[Line], said: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for line in found:
        cell = line.evidence.cell
        for one in CONVENTIONS:
            score = line.scores[one.key]
            yield {
                "dataset": cell.samples.dataset,
                "samples_digest": cell.samples.digest,
                "norm": cell.threat.norm,
                "epsilon": cell.threat.epsilon,
                "n": score.n,
                "defense": _name(line, said),
                "attack": cell.attack.name,
                "access": str(cell.access),
                "stand_in": cell.view.stand_in or "",
                "eot": cell.eot,
                "draws": line.draws,
                "convention": one.key,
                "percent": score.percent,
                "low": score.low,
                "high": score.high,
            }
