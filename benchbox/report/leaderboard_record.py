"""The leaderboard for machines: every number with what is needed to trust it, as lines and as one record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchbox.analysis.control import Control
from benchbox.analysis.paper import Printed
from benchbox.analysis.score import WITHHELD, Entry, Measurement, Score, shares_by_class
from benchbox.analysis.table import Row, Table, Versus
from benchbox.analysis.trainings import repeated
from benchbox.domain import NULL_ATTACK, Access
from benchbox.report.document import Column, added, unrecorded
from benchbox.report.remarks import of_certificate, of_control, remarks

if TYPE_CHECKING:
    from benchbox.report.leaderboard import Line

#: Columns of the CSV. `measure` is clean, certified (what is proven), robust, null (the control, held against
#: clean), attack (a number of the table) or cell (one of the cells that an attack's number unites: its stand-ins,
#: seeds and draws).
FIELDS = (
    *(
        "dataset",
        "split",
        "samples_digest",
        "norm",
        "epsilon",
        "rank",
        "defense",
        "training_seed",
        "artifact",
    ),
    *("measure", "access", "attack", "stand_in", "status", "percent", "low", "high", "n", "draws"),
    *("attack_seed", "eot", "averaging", "search_precision", "paper_table", "paper_percent"),
    *("majority_vote", "worst_of_r", "fixed_seed"),
    *("forwards", "backwards", "seconds", "run", "created", "commit", "key", "error"),
    *("against", "difference", "difference_low", "difference_high", "p", "p_holm", "test"),
    *("audit", "audit_checks"),
)


def fields(own: Iterable[Sequence[Column[Line]]]) -> list[str]:
    """Names of the long form's columns, those of the leaderboard's that it does not carry by itself last."""
    return list(dict.fromkeys([*FIELDS, *(column.key for columns in own for column in unrecorded(columns))]))


def lines(table: Table, own: Sequence[Column[Line]], shown: Sequence[Line]) -> Iterator[dict[str, Any]]:
    """Long form: one line for each number, percentages unrounded."""
    for line in shown:
        shared = _table_facts(table) | _row_facts(line.row) | added(own, line)
        yield from (shared | number for number in _lines(line.row, table.against))


def table(table: Table, own: Sequence[Column[Line]], shown: Sequence[Line]) -> dict[str, Any]:
    """Everything, cells and their provenance included."""
    return {
        "title": table.title,
        "samples": table.samples.as_dict(),
        "n": len(table.samples),
        "threat": {"norm": table.threat.norm, "epsilon": table.threat.epsilon},
        "against": table.against or None,
        "remarks": list(remarks(table)),
        "notes": list(shown[0].numbers) if shown else [],
        "rows": [_row(line) | added(own, line) for line in shown],
        "trainings": [one.as_dict() for one in repeated(table.rows)],
        "weights": {name: dict(card) for name, card in table.cards.items()},
    }


def _lines(row: Row, against: str) -> Iterator[dict[str, Any]]:
    yield {
        "measure": "clean",
        "status": row.clean.status,
        **_score(row.clean.score),
        **_paper(row.clean.paper),
    }
    if (proven := row.certificate) is not None:
        status = WITHHELD if row.withheld else proven.status
        yield {"measure": "certified", "status": status, "error": of_certificate(proven), **_score(row.certified)}
    yield {
        "measure": "robust",
        "status": _robust_status(row),
        "error": of_control(row.control) if row.control and row.withheld else "",
        **(_column_facts(*row.set_by) if row.set_by else {}),
        **_score(row.robust),
        **_versus(row.versus, against),
    }
    if row.control:
        yield {"measure": "null", **_control(row.control)}
    # A cell stands where it was measured, also where the table has no column for that.
    for column in dict.fromkeys((*row.entries, *row.own)):
        where = _column_facts(*column)
        if column in row.entries:
            yield {"measure": "attack", **where, **_entry(row.entries[column])}
        cells = row.own[column].measurements if column in row.own else ()
        yield from ({"measure": "cell", **where, **_cell(m)} for m in cells)


def _robust_status(row: Row) -> str:
    if row.withheld:
        return WITHHELD
    return "not run" if row.robust is None else "partial" if row.missing else "done"


def _control(control: Control) -> dict[str, Any]:
    facts = {} if control.measurement is None else _cell(control.measurement)
    return {
        **facts,
        **_column_facts(Access.WHITE_BOX, NULL_ATTACK),
        "status": control.verdict,
        "against": "clean" if control.p is not None else "",
        "difference": control.difference,
        "difference_low": control.low,
        "difference_high": control.high,
        "p": control.p,
        "test": control.test,
    }


def _entry(entry: Entry) -> dict[str, Any]:
    line = {"status": entry.status, **_score(entry.score), **_paper(entry.paper)}
    if len(entry.measurements) == 1:
        # One cell, one number: then the line can name its cell.
        cell = _cell(entry.measurements[0])
        return cell | line
    return line


def _cell(measurement: Measurement) -> dict[str, Any]:
    evidence = measurement.evidence
    forwards, backwards = measurement.passes or ("", "")
    return {
        "stand_in": measurement.stand_in,
        "status": measurement.status,
        "attack_seed": evidence.cell.attack_seed,
        "eot": evidence.cell.eot,
        "averaging": evidence.cell.averaging,
        "search_precision": evidence.cell.search_precision,
        "forwards": forwards,
        "backwards": backwards,
        "seconds": evidence.seconds,
        "run": evidence.run,
        "created": evidence.created,
        "commit": measurement.commit,
        "key": evidence.cell.key,
        "error": evidence.error,
        **measurement.extra,
        **_score(measurement.score),
    }


def _score(score: Score | None) -> dict[str, Any]:
    if score is None:
        return {}
    return {
        "percent": score.percent,
        "low": score.low,
        "high": score.high,
        "n": score.n,
        "draws": score.draws,
    }


def _paper(number: Printed | None) -> dict[str, Any]:
    return {} if number is None else {"paper_table": number.table, "paper_percent": number.percent}


def _versus(versus: Versus | None, against: str) -> dict[str, Any]:
    if versus is None:
        return {}
    return {
        "against": against,
        "difference": versus.difference,
        "difference_low": versus.low,
        "difference_high": versus.high,
        "p_holm": versus.p,
        "test": versus.test,
    }


def _table_facts(table: Table) -> dict[str, Any]:
    return {
        "dataset": table.samples.dataset,
        "split": table.samples.split,
        "samples_digest": table.samples.digest,
        "norm": table.threat.norm,
        "epsilon": table.threat.epsilon,
    }


def _row_facts(row: Row) -> dict[str, Any]:
    return {
        "rank": "" if row.rank is None else row.rank,
        "defense": row.label,
        "training_seed": row.training_seed,
        "artifact": row.artifact,
        "audit": row.badge.state,
        "audit_checks": " ".join(row.badge.checks),
    }


def _column_facts(access: Access, attack: str) -> dict[str, Any]:
    return {"access": str(access), "attack": attack}


def _row(line: Line) -> dict[str, Any]:
    row = line.row
    return {
        "rank": row.rank,
        "rank_of_a_group": row.coarse,
        "lacking": list(row.lacking),
        "audit": row.badge.as_dict(),
        "label": row.label,
        "defense": row.defense.as_dict(),
        "training_seed": row.training_seed,
        "artifact": row.artifact,
        "purifier": row.purifier,
        "oracle": row.oracle,
        "withheld": of_control(row.control) if row.control and row.withheld else None,
        "clean": _entry_json(row.clean, line),
        "null": _control_json(row.control),
        "certified": None if row.certificate is None else row.certificate.as_dict(),
        "robust": {
            "score": _described(row.robust),
            "by_class": _robust_by_class(row),
            "lowest": None if row.set_by is None else _column_facts(*row.set_by),
            "attacks": row.over,
            "fallen_to_probes": row.fallen,
            "missing": [_column_facts(*column) for column in row.missing],
        },
        "versus": None if row.versus is None else asdict(row.versus),
        "entries": [_column_facts(*column) | _entry_json(entry, line) for column, entry in row.entries.items()],
    }


def _robust_by_class(row: Row) -> dict[str, Any]:
    """The worst case by true class; every finished cell of a row is of the same images in the same order."""
    cells = [m for entry in row.entries.values() for m in entry.measurements if m.status == "done"]
    label = cells[0].evidence.outcome.label if cells else None
    if row.robust is None or label is None:
        return {}
    found = shares_by_class(label, row.robust.shares)
    return {name: {"n": n, "percent": percent} for name, (n, percent) in found.items()}


def _control_json(control: Control | None) -> dict[str, Any] | None:
    if control is None:
        return None
    return {
        "verdict": control.verdict,
        "score": _described(control.measurement.score if control.measurement else None),
        "clean": _described(control.clean),
        "difference": control.difference,
        "low": control.low,
        "high": control.high,
        "p": control.p,
        "test": control.test or None,
        "says": of_control(control),
        "cells": [_measurement(control.measurement)] if control.measurement else [],
    }


def _described(score: Score | None) -> dict[str, Any] | None:
    return None if score is None else score.as_dict()


def _entry_json(entry: Entry, line: Line) -> dict[str, Any]:
    return {
        "status": entry.status,
        "score": _described(entry.score),
        "paper": None if entry.paper is None else {"table": entry.paper.table, "percent": entry.paper.percent},
        "notes": line.numbers_of(entry),
        "cells": [_measurement(m) for m in entry.measurements],
    }


def _measurement(measurement: Measurement) -> dict[str, Any]:
    evidence = measurement.evidence
    return {
        "key": evidence.cell.key,
        "cell": evidence.cell.as_dict(),
        "stand_in": measurement.stand_in or None,
        "status": measurement.status,
        "score": _described(measurement.score),
        **measurement.extra,
        "by_class": measurement.by_class,
        "passes": measurement.passes,
        "error": evidence.error or None,
        "seconds": evidence.seconds,
        "run": evidence.run,
        "created": evidence.created,
        "commit": measurement.commit,
        "provenance": dict(evidence.provenance),
    }
