"""The small print of a leaderboard: what its marks mean, what failed, and where the paper contradicts itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np

from benchbox.analysis import paper, welch
from benchbox.analysis.certificate import Certificate
from benchbox.analysis.control import Control
from benchbox.analysis.pairs import ALPHA
from benchbox.analysis.score import NOT_RUN, WITHHELD, Entry, Measurement
from benchbox.analysis.substitutes import strangers
from benchbox.analysis.table import Row, Table
from benchbox.analysis.trainings import Trainings, repeated
from benchbox.domain import Access
from benchbox.report.document import listed


def noted(label: str, entry: Entry) -> Iterator[str]:
    """Sentences about an entry of a row that is not simply a finished number."""
    for measurement in entry.measurements:
        evidence = measurement.evidence
        through = f" through {measurement.stand_in}" if measurement.stand_in else ""
        if measurement.status == "failed":
            error = " ".join(evidence.error.split()) or "no message was stored"
            yield f"{label}, {entry.where}{through}: failed: {error}."
        elif measurement.status == "partial":
            done, total = len(evidence.outcome), len(evidence.cell.samples)
            yield f"{label}, {entry.where}{through}: {done} of {total} images so far; not in the worst case."
    seeds = sorted({m.evidence.cell.attack_seed for m in entry.measurements})
    if len(seeds) > 1:
        yield f"{label}, {entry.where}: worst case over attack seeds {', '.join(map(str, seeds))}."


def remarks(table: Table) -> Iterator[str]:
    """What holds for the whole table; only what it has need of."""
    rows, against = table.rows, table.against
    entries = [entry for row in rows for entry in (row.clean, *row.entries.values())]
    columns = [column for row in rows for column in row.entries]
    yield "Percent of all images that the deployed defence classifies correctly; in brackets, 95 % intervals."
    yield (
        "Robust: per-sample worst case over the clean image and every finished attack under every access; "
        "lowest: the single attack that gets furthest, of equals the one whose attacker knows most, then the "
        "cheapest."
    )
    yield from _of_certificates(rows)
    if any(entry.score and entry.score.draws > 1 for entry in entries):
        yield (
            "Randomised defences: expected accuracy over fresh scoring draws; a sample's worst attack is "
            "chosen and scored on different draws; intervals are Clopper–Pearson's, carried over to shares of "
            "draws with images as the unit. All other intervals are Clopper–Pearson's."
        )
    else:
        yield "Intervals are Clopper–Pearson's."
    if any(column.access is Access.BPDA for column in columns):
        yield "bpda: a sample falls if the attack breaks it through any of the defence's stand-ins."
    if any(column.access is Access.IMPORTED for column in columns):
        yield "imported: images made elsewhere and scored here; what their maker knew is not checked."
    coarse = {m.evidence.cell.attack.name for e in entries for m in e.measurements if _is_coarse(m)}
    if coarse:
        yield f"Searched in bfloat16, what they broke confirmed in float32: {', '.join(sorted(coarse))}."
    if any(entry.status == "same" for entry in entries):
        yield "=: same model under this access (the defence has no purifier); measured once, as white-box."
    for row in rows:
        if others := ", ".join(strangers(row, table.cards)):
            yield f"{row.label}: transfer from {others}, which is no second training of its own classifier."
    if any(entry.status == "partial" for entry in entries):
        yield "…: unfinished, shown as far as it is."
    if any(row.undecided for row in rows):
        yield "A defence with an unfinished or failed attack is not ranked, unless nothing is left to break."
    if any(row.uncontrolled and row.robust for row in rows):
        yield "§: the null attack, the control of a randomised defence, is missing; not ranked."
    yield from (f"{row.label}: {of_control(row.control)}" for row in rows if row.control)
    if any(row.missing and row.robust for row in rows):
        yield (
            "†: attacks of this table are missing for this defence, so its worst case may be too high, and its "
            "place is in parentheses."
        )
    yield from _of_panels(rows)
    if any(row.rank for row in rows):
        yield (
            "Ranks rest on the robust column: one more than the number of defences that are significantly more "
            "robust on these images (exact McNemar, for shares of draws a bound on the sign-flip test; Holm over "
            "all pairs, 5 %), also on the attacks that both have finished."
        )
    if any(row.rank and row.coarse for row in rows):
        yield (
            "≈: the interval reaches more than a point to either side, so this is no place but a group, formed by "
            "exact paired tests."
        )
    if against:
        yield (
            f"vs {against}: difference of the robust accuracies in points on the same images, with a paired "
            "bootstrap's 95 % interval; *: significant at 5 % after Holm over the rows. Each is the worst case "
            "over its own attacks (†: they are not the same); `benchbox compare` unites the common ones. "
            "It says nothing of the spread between training seeds."
        )
    for row in rows:
        said = table.contract.get(row.artifact, {})
        for what, words in said.items():
            yield f"{row.label}, tried on training images before any attack: {what}: {words}."
    yield from _of_chance(rows)
    yield from _of_gradients(rows, table.gradients)
    yield from _of_audits(rows)
    yield f"{NOT_RUN}: not run."
    if any(row.oracle for row in rows):
        yield "Oracles know what no defence can know and are not ranked."
    yield from _of_the_paper(rows, entries)
    yield from _of_trainings(rows, table.reference)


def _is_coarse(measurement: Measurement) -> bool:
    return measurement.evidence.cell.search_precision != "float32"


def brief(table: Table) -> Iterator[str]:
    """As much of it as a printed page has room for: what the numbers are, and the marks that appear."""
    rows = table.rows
    yield (
        "Percent of all images, with 95 % intervals. Robust: worst case per image over the clean image and every "
        "finished attack; lowest: the attack that gets furthest."
    )
    for holds, said in (
        (any(row.rank and row.coarse for row in rows), "≈: a group that these images cannot tell apart."),
        (
            any(row.missing and row.robust for row in rows),
            "†: attacks are missing; the number may be too high.",
        ),
        (any(row.uncontrolled and row.robust for row in rows), "§: the null attack, the control, is missing."),
        (any(row.badge.masked for row in rows), "‡: gradients are masked; the number may be far too high."),
        (
            any(row.certified for row in rows),
            "Certified: what the defence proves, a lower bound.",
        ),
        (any(row.invalid for row in rows), "Withdrawn: an integrity check of the audit failed."),
        (any(row.withheld for row in rows), f"{WITHHELD}: the control contradicts the clean accuracy."),
        (any(row.robust is None or row.clean.score is None for row in rows), f"{NOT_RUN}: not run."),
        (any(row.clean.paper for row in rows), f"In parentheses: what the PSSR paper prints ({paper.NAME})."),
    ):
        if holds:
            yield said
    yield from (f"{row.label}: {said}." for row in rows if (said := of_certificate(row.certificate)))
    yield from _of_gradients(rows, table.gradients)


def _of_panels(rows: Sequence[Row]) -> Iterator[str]:
    """Who is not ranked because too little was tried."""
    thin = [row for row in rows if row.lacking and not row.oracle]
    if thin:
        yield (
            "A rank needs a minimum panel of attacks, since a number that nobody tried to lower says nothing of "
            "the defence; `benchbox run --attacks all` runs it."
        )
    yield from (f"{row.label}: not ranked, for want of {', '.join(row.lacking)}." for row in thin)


def _of_certificates(rows: Sequence[Row]) -> Iterator[str]:
    if any(row.certified for row in rows):
        yield (
            "Certified: share of all images of which the defence proves that no image of the ball breaks it; the "
            "true robust accuracy lies between certified and robust."
        )
    yield from (f"{row.label}: {said}." for row in rows if (said := of_certificate(row.certificate)))


def of_certificate(found: Certificate | None) -> str:
    """What a reader has to know of proofs that are none, to go after the name of the row; empty if nothing."""
    if found is None or not found.refuted:
        return ""
    images = "image is" if len(found.refuted) == 1 else "images are"
    return (
        f"its certificate is wrong: {len(found.refuted)} proven {images} misclassified under "
        f"{', '.join(found.fell_to)} ({listed(found.refuted)}); no certified share is printed"
    )


def of_control(control: Control) -> str:
    """What a reader has to know of the null attack, to go after the name of the row."""
    unsound = "so nothing shows that the scoring is sound; not ranked"
    if control.measurement is None:
        return f"the null attack was not run, {unsound}."
    null = control.measurement.score
    if null is None or control.clean is None:
        error = " ".join(control.measurement.evidence.error.split())
        return f"the null attack is not finished{f' ({error})' if error else ''}, {unsound}."
    points, low, high = (
        f"{round(v or 0.0, null.digits) + 0.0:+.{null.digits}f}"
        for v in (control.difference, control.low, control.high)
    )
    found = (
        f"{null} % with the null attack, which changes no image, against {control.clean} % clean: "
        f"{points} points, 95 % interval [{low}, {high}], {control.test}, p = {control.p:.2g}"
    )
    if control.verdict == "agrees":
        return f"null attack agrees with the clean accuracy: {found}."
    return f"withheld: {found}. What is scored is not what is deployed; no number of this row counts."


def of_probes(row: Row) -> str:
    """What a reader has to know of the images that the probes of the audit broke; empty if they broke no more."""
    if not row.fallen:
        return ""
    images = "image" if row.fallen == 1 else "images"
    return f"audit broke {row.fallen} more {images} than the stored attacks, which were too weak"


def _of_chance(rows: Sequence[Row]) -> Iterator[str]:
    """Who is right no more often than a constant answer: weights or images are not what their maker thinks."""
    for row in rows:
        evidence = next(
            (m.evidence for e in row.entries.values() for m in e.measurements if m.evidence.outcome), None
        )
        if row.clean.score is None or evidence is None:
            continue
        share = 100 * float(np.bincount(evidence.outcome.label).max()) / len(evidence.outcome)
        if row.clean.score.percent <= share < 100:  # images of one class tell nothing
            yield (
                f"{row.label}: no better on clean images than naming one class always ({share:.1f} %), so nothing "
                "is left to defend; other weights, an untrained network, classes in another order, or images on "
                "another scale than [0, 1]?"
            )


def _of_gradients(rows: Sequence[Row], broken: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A gradient that is NaN leaves an image where it is: the attack was weaker than its name says."""
    for row in rows if broken else ():
        for entry in row.entries.values():
            for measurement in entry.measurements:
                found = broken.get(measurement.evidence.cell.craft_key)
                if found:
                    through = f" through {measurement.stand_in}" if measurement.stand_in else ""
                    share = 100 * found["gradients"] / found["asked"]
                    yield (
                        f"{row.label}, {entry.where}{through}: {share:.1f} % of the gradients, on "
                        f"{found['samples']} images, had NaN or infinite pixels, taken as zero; the number may be "
                        "too high."
                    )


def _of_audits(rows: Sequence[Row]) -> Iterator[str]:
    if all(row.badge.state == "not audited" for row in rows):
        yield "audit: nobody has asked whether these numbers can be trusted; `benchbox audit` does."
        return
    yield "audit: the worst that `benchbox audit` found, with its checks; docs/evaluation.md explains them."
    if any(row.invalid for row in rows):
        yield "withdrawn: an integrity check failed, so the number is not what it says and is not ranked."
    if any(row.badge.masked for row in rows):
        yield (
            "‡ masking: gradients are masked; ranked by the worst case per image over every attack, which may "
            "still be far too high."
        )
    if any(row.fallen for row in rows):
        yield "What the probes of an audit broke counts in the worst case like what an attack broke."
    for row in rows:
        if row.fallen:
            yield f"{row.label}: {of_probes(row)}."
        if row.purifier:
            yield from (f"{row.label}: {said}." for said in row.badge.remarks)
        if row.invalid or row.badge.masked:
            yield from (
                f"{row.label}, {id}: {row.badge.sentences[id]}."
                for id in row.badge.checks
                if id in row.badge.sentences
            )


def _of_the_paper(rows: Sequence[Row], entries: Sequence[Entry]) -> Iterator[str]:
    shown = list(dict.fromkeys(entry.paper for entry in entries if entry.paper is not None))
    if not shown:
        return
    tables = ", ".join(str(table) for table in sorted({number.table for number in shown}))
    yield (
        f"In parentheses: what the PSSR paper ({paper.NAME}, Table {tables}) prints, "
        "partly copied there from other papers; its networks, recipes and samples may differ from ours."
    )
    if any(
        c.access is Access.GRAY_BOX and row.purifier and e.paper for row in rows for c, e in row.entries.items()
    ):
        yield (
            "The paper calls Tables 1 and 4 white-box; for a purifier they can only be gray-box, "
            "that is, crafted on the bare classifier."
        )
    for number in shown:
        for other in paper.contradictions(number):
            yield (
                f"The paper contradicts itself on {number.row}, {number.dataset}, {number.column}: "
                f"Table {number.table} prints {number}, Table {other.table} prints {other}."
            )


def _of_trainings(rows: Sequence[Row], reference: Sequence[Row]) -> Iterator[str]:
    """A sentence on each recipe trained several times, and on how it differs from the one compared with."""
    groups = repeated(rows)
    compared = {row.artifact for row in reference}
    others = next((one for one in groups if one.rows[0].artifact in compared), None)
    for one in groups:
        values = one.robust
        versus = _versus(one, others) if others is not None and one is not others else ""
        yield (
            f"{one.label} over {len(values)} training seeds: robust {fmean(values):.1f} on average, standard "
            f"deviation {stdev(values):.1f}, lowest {min(values):.1f}{versus}."
        )


def _versus(one: Trainings, other: Trainings) -> str:
    if min(len(one.robust), len(other.robust)) < welch.ENOUGH:
        return f"; fewer than {welch.ENOUGH} trainings on a side say nothing of the spread between trainings"
    found = welch.welch(one.robust, other.robust)
    if found is None:
        return "; all trainings of each side came out alike"
    low, high = found.interval
    difference = fmean(one.robust) - fmean(other.robust)
    verdict = "" if found.p < ALPHA else "not "
    return (
        f"; {difference:+.1f} points [{low:+.1f}, {high:+.1f}] to {other.label} with the training as the unit, "
        f"{verdict}significant (Welch's t, p = {found.p:.2g})"
    )
