"""What each cell cost as a document: passes an image, and the minutes they took on the device they ran on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchbox.analysis.labels import attacked, departures, labelled
from benchbox.domain import Evidence
from benchbox.report.document import Column, Document, Section, Text, grid

#: Columns of the long form.
FIELDS = (
    *("dataset", "samples_digest", "norm", "epsilon", "n", "defense", "attack", "access", "stand_in", "eot"),
    *("forwards", "backwards", "seconds", "device"),
)


@dataclass(frozen=True)
class Line:
    """A cell and what it cost.

    Attributes:
        defense: The defence, with what sets its recipe apart.
        forwards: Forward passes of the view an image, on average.
        backwards: Backward passes likewise.
    """

    evidence: Evidence
    defense: str
    forwards: float
    backwards: float

    @property
    def device(self) -> str:
        """Where it ran, as far as that is known."""
        return str(self.evidence.provenance.get("device", ""))


def document(evidence: Sequence[Evidence]) -> Document:
    """A section for each sample list and ball, a row for each cell that has images."""
    said = departures([item.cell.defense for item in evidence])
    lines = [_line(item, said) for item in evidence if len(item.outcome)]
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        groups.setdefault((line.evidence.cell.samples, line.evidence.cell.threat), []).append(line)
    return Document(
        "benchbox cost",
        [_section(group) for group in groups.values()] or [Section("No cells", sentences=["Nothing was run."])],
        lambda: {"cost": list(_records(lines))},
        FIELDS,
        lambda: _records(lines),
    )


def columns(devices: int) -> list[Column[Line]]:
    """The columns; that of the device where there are several."""
    return [
        Column("defense", "defence", lambda line: Text(line.defense), "left", heads=True),
        Column("attack", "attack", lambda line: Text(attacked(line.evidence.cell)), "left"),
        Column("forwards", "forward", lambda line: Text(f"{line.forwards:.0f}", exact=line.forwards)),
        Column("backwards", "backward", lambda line: Text(f"{line.backwards:.0f}", exact=line.backwards)),
        Column("minutes", "minutes", lambda line: Text(f"{line.evidence.seconds / 60:.2f}")),
        *([Column("device", "device", lambda line: Text(line.device), "left")] if devices > 1 else []),
    ]


def _line(item: Evidence, said: Mapping[str, str]) -> Line:
    spec, outcome = item.cell.defense, item.outcome
    name = labelled(spec.name, said[spec.identity])
    return Line(item, name, float(outcome.forwards.mean()), float(outcome.backwards.mean()))


def _section(lines: Sequence[Line]) -> Section:
    cell = lines[0].evidence.cell
    devices = sorted({line.device for line in lines if line.device})
    total = sum(line.evidence.seconds for line in lines) / 60
    return Section(
        f"{cell.samples.dataset}, {cell.threat}, {cell.samples.said}",
        [grid(columns(len(devices)), lines)],
        caption="Passes of the model under attack, an image; minutes of all images, crafting and scoring.",
        sentences=[f"Together {total:.1f} minutes{f' on {devices[0]}' if len(devices) == 1 else ''}."],
        remarks=["A pass counts once however many steps a purifier works in; a gradient of N draws is N of each."],
    )


def _records(lines: Sequence[Line]) -> Iterator[dict[str, Any]]:
    for line in lines:
        cell = line.evidence.cell
        yield {
            "dataset": cell.samples.dataset,
            "samples_digest": cell.samples.digest,
            "norm": cell.threat.norm,
            "epsilon": cell.threat.epsilon,
            "n": len(line.evidence.outcome),
            "defense": line.defense,
            "attack": cell.attack.name,
            "access": str(cell.access),
            "stand_in": cell.view.stand_in or "",
            "eot": cell.eot,
            "forwards": line.forwards,
            "backwards": line.backwards,
            "seconds": line.evidence.seconds,
            "device": line.device,
        }
