"""What a click on a row opens: everything that stands behind its numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchbox.analysis import references
from benchbox.analysis.score import Entry
from benchbox.analysis.survival import ORDER
from benchbox.analysis.table import Column
from benchbox.domain import Access
from benchbox.report.page import again
from benchbox.report.remarks import noted, of_certificate, of_control, of_probes

if TYPE_CHECKING:
    from benchbox.analysis.badge import State
    from benchbox.analysis.references import Reference
    from benchbox.analysis.score import Measurement
    from benchbox.analysis.survival import Claim
    from benchbox.analysis.table import Row, Table

#: The audit's verdicts for somebody who has never seen one.
VERDICTS: dict[State, str] = {
    "withdrawn": "Do not use this number: an integrity check failed, so it is not what it says.",
    "masking": "Gradients are masked: attacks that follow them are lost, so the true robustness may be far lower.",
    "weak attack": "The attacks that were run look too weak to settle the question: the number may be too high.",
    "warned": "Nothing failed, but something looks odd; read the sentences before you rely on the number.",
    "incomplete": "Nothing failed, but evidence is missing for some of the checks.",
    "pass": "Every check was passed. That is no proof: it says that no known mistake was found.",
    "not audited": "Nobody has asked yet whether these numbers can be trusted.",
}


@dataclass(frozen=True)
class Attacked:
    """One attack, through one stand-in, from one seed.

    Attributes:
        access: What the attacker knew.
        attack: Its name.
        through: The stand-in, or what else tells it from its neighbours.
        figure: The number, as tables print it.
        percent: The same, exact; None where there is none.
        interval: As in "[95.1, 97.2]".
        ends: Of the interval.
        passes: Forward and backward passes a sample.
        facts: Where it comes from: state, images, seeds, cell, code, seconds.
    """

    access: Access
    attack: str
    through: str
    figure: str
    percent: float | None = None
    interval: str = ""
    ends: tuple[float, float] | None = None
    passes: str = ""
    facts: str = ""


@dataclass(frozen=True)
class Drill:
    """A row, opened.

    Attributes:
        headline: The worst case with its marks.
        interval: Of it.
        sentences: What it means, in plain words.
        attacks: Access by access, from what knows most.
        cost: All passes together, a sentence.
        verdict: The audit's, in plain words.
        audit: What its checks saw, by their ids.
        said: Its remarks, without ids.
        notes: What else has to be known of the numbers.
        picture: SVG text of what the claim survives; empty where nobody drew it.
        commands: What makes it again.
        made: Facts about weights, seeds and code, as names and values.
        paper: Where the defence was described.
    """

    headline: str
    interval: str
    sentences: tuple[str, ...]
    attacks: tuple[Attacked, ...]
    cost: str
    verdict: str
    audit: tuple[tuple[str, str], ...]
    said: tuple[str, ...]
    notes: tuple[str, ...]
    picture: str
    commands: tuple[str, ...]
    made: tuple[tuple[str, str], ...]
    paper: Reference | None


def drill(table: Table, row: Row, claimed: Claim | None, picture: str) -> Drill:
    """Everything about a row.

    Args:
        table: Where it stands.
        row: One trained defence.
        claimed: What its paper claims.
        picture: SVG text, or nothing.
    """
    measured = [m for entry in row.entries.values() for m in entry.measurements]
    notes = [note for entry in row.entries.values() for note in noted(row.label, entry)]
    notes += [of_control(row.control)] if row.control else []
    return Drill(
        headline=row.headline,
        interval=row.robust.interval if row.robust else "",
        sentences=tuple(_sentences(table, row, claimed)),
        attacks=tuple(_attacked(row)),
        cost=_cost(measured),
        verdict=VERDICTS[row.badge.state],
        audit=tuple(row.badge.sentences.items()),
        said=(*([of_probes(row)] if row.fallen else []), *row.badge.remarks),
        notes=tuple(dict.fromkeys(notes)),
        picture=picture[picture.find("<svg") :] if picture else "",
        commands=tuple(again.commands(table, row, measured)),
        made=tuple(_made(table, row, measured)),
        paper=references.of(row.defense.name),
    )


def _sentences(table: Table, row: Row, claimed: Claim | None) -> Iterator[str]:
    robust, n = row.robust, len(table.samples)
    if row.withheld or robust is None:
        yield "No number counts yet: " + (
            "its scoring disagrees with a control, see below." if row.withheld else "no attack is finished."
        )
    else:
        attacks = "1 attack" if row.over == 1 else f"the worst of {row.over} attacks, image by image"
        yield f"{robust} % of {n} images are still classified correctly after {attacks}."
    if row.certified is not None:
        yield f"It proves {row.certified} % of them: nothing in the ball is misclassified there."
    if said := of_certificate(row.certificate):
        yield f"{said[0].upper()}{said[1:]}."
    if row.clean.score is not None:
        yield f"Without an attack it is {row.clean.score} %."
    if row.set_by is not None:
        lowest = row.own[row.set_by].score
        leaves = f": it leaves {lowest} %" if lowest else ""
        yield f"The single attack that gets furthest is {row.set_by.attack}, {row.set_by.access}{leaves}."
    if claimed is not None:
        yield f"Its paper claims {claimed.percent:.2f} % ({claimed.source}, {claimed.table}, {claimed.column})."
    if row.missing and robust is not None:
        fall = ", so the number may still fall" if robust.percent else ""
        yield f"{len(row.missing)} attacks of this table are not finished for it{fall}."
    if row.oracle:
        yield "It is an oracle: it knows what no defence can know, and has no rank."


def _attacked(row: Row) -> Iterator[Attacked]:
    for column in sorted(row.entries, key=lambda column: (ORDER.index(column.access), column.place)):
        entry = row.entries[column]
        if entry.status == "not run":
            continue
        if entry.status == "same" and Column(Access.WHITE_BOX, column.attack) in row.entries:
            same = "the same model as white-box"
            yield Attacked(column.access, column.attack, same, entry.figure, **_numbers(entry))
            continue
        if len(entry.measurements) > 1:
            together = f"all {len(entry.measurements)} together, worst for each image"
            yield Attacked(column.access, column.attack, together, entry.figure, **_numbers(entry))
        apart = sorted(entry.measurements, key=lambda m: (m.stand_in, m.evidence.cell.attack_seed))
        yield from (_one(column, measurement) for measurement in apart)


def _one(column: Column, measurement: Measurement) -> Attacked:
    cell, evidence = measurement.evidence.cell, measurement.evidence
    figure = str(measurement.score) if measurement.score else measurement.status
    facts = [
        f"{measurement.status}, n = {len(evidence.outcome)}",
        f"attack seed {cell.attack_seed}",
        *([f"EOT over {cell.eot} draws"] if cell.eot > 1 else []),
        *([f"searched in {cell.search_precision}"] if cell.search_precision != "float32" else []),
        *([f"scored in {cell.scoring_draws} draws"] if cell.scoring_draws > 1 else []),
        f"cell {cell.key[:16]}",
        f"commit {measurement.commit[:12]}",
        f"{evidence.seconds:.1f} s",
    ]
    passes = "{:.0f} + {:.0f}".format(*measurement.passes) if measurement.passes else ""
    return Attacked(
        column.access,
        column.attack,
        measurement.stand_in,
        figure,
        passes=passes,
        facts=", ".join(facts),
        **_numbers(measurement),
    )


def _numbers(of: Entry | Measurement) -> dict[str, Any]:
    score = of.score
    if score is None:
        return {}
    return {"percent": score.percent, "interval": score.interval, "ends": (score.low, score.high)}


def _cost(measured: Sequence[Measurement]) -> str:
    # Cells that attacked the same model with the same attack share their images, and their cost.
    craftings = {m.evidence.cell.craft_key: m.passes for m in measured if m.passes}
    if not craftings:
        return "Nothing was counted."
    forward, backward = (sum(part) for part in zip(*craftings.values(), strict=True))
    return (
        f"{forward:,.0f} forward and {backward:,.0f} backward passes for each image, "
        f"over {len(craftings)} craftings."
    )


def _made(table: Table, row: Row, measured: Sequence[Measurement]) -> Iterator[tuple[str, str]]:
    cells = [m.evidence.cell for m in measured]
    card = table.cards.get(row.artifact, {})
    yield "recipe", json.dumps(dict(row.defense.arguments), ensure_ascii=False)
    yield "code", row.defense.code
    yield "weights", row.artifact
    yield "training seed", str(row.training_seed)
    if "seconds" in card:
        yield "training", f"{card['seconds']:.0f} s"
    for name, value in (
        ("attack seeds", sorted({str(cell.attack_seed) for cell in cells})),
        ("commits", sorted({m.commit for m in measured})),
        ("packages", sorted({_packages(m) for m in measured})),
        ("device", sorted({str(m.evidence.provenance.get("device") or "") for m in measured})),
    ):
        said = ", ".join(filter(None, value))
        if said:
            yield name, said
    yield "images", f"{table.samples.split} split, SHA-256 {table.samples.digest}"


def _packages(measurement: Measurement) -> str:
    packages = measurement.evidence.provenance.get("packages") or {}
    return " ".join(f"{name} {packages[name]}" for name in ("benchbox", "torch") if packages.get(name))
