"""The audits of some defences side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import rows

from benchbox import report
from benchbox.analysis import leaderboard
from benchbox.analysis.background import Background
from benchbox.domain import Evidence, SampleList, ThreatModel
from benchbox.report.audits import document

NAMES = {"A1": "inside the ball", "B1": "breaks only without gradients", "B4": "more steps"}


def record(item: Evidence, **verdicts: str) -> dict[str, Any]:
    """An audit of the weights of a cell, of twenty images."""
    found = [{"check": check, "verdict": said, "sentence": f"saw {check}"} for check, said in verdicts.items()]
    summary = {
        "counts": {},
        "integrity": [],
        "masking": ["B1"] if verdicts.get("B1") == "FAIL" else [],
        "attack": [],
    }
    return {
        "defense": item.cell.defense.name,
        "artifact": item.cell.artifact,
        "threat": {"norm": "linf", "epsilon": 0.3},
        "samples": {"dataset": "mnist"},
        "effort": {"samples": 20, "steps": 40, "eot": 10},
        "findings": found,
        "summary": summary,
        "standing": {"robust": {"percent": 50.0}, "weaker": []},
    }


def shown(evidence: list[Evidence], *records: dict[str, Any]):
    known = Background(audits={one["artifact"]: one for one in records})
    return document(leaderboard.build(evidence, known), known.audits, NAMES)


def test_each_audited_defence_has_a_row_that_names_the_checks() -> None:
    mine, other, none = (rows.evidence(name) for name in ("mine", "other", "unasked"))
    few = replace(mine, cell=replace(mine.cell, samples=SampleList("mnist", "test", (4,), "e" * 64)))
    found = shown(
        [mine, few, other, none],
        record(mine, A1="PASS", B1="FAIL", B4="INCOMPLETE", B9="PASS"),
        record(other, A1="PASS", B4="WARN"),
    )
    (section,) = found.sections  # also of a defence with two lists of images
    assert section.title == "Audits on mnist, L∞ ε = 0.3"
    assert [[value.text for value in row] for row in section.grids[0].rows] == [
        ["mine", "20", "40", "10", "B1", "none", "B4", "2", "worth at most 50.0 %; gradients are masked (B1)"],
        ["other", "20", "40", "10", "none", "B4", "none", "1", "worth 50.0 %"],
    ]
    assert section.sentences == [
        "mine, FAIL B1, breaks only without gradients: saw B1.",
        "other, WARN B4, more steps: saw B4.",
    ]
    assert [(line["defense"], line["FAIL"], line["PASS"]) for line in found.lines()] == [
        ("mine", "B1", 2),
        ("other", "", 1),
    ]


@pytest.mark.parametrize("format", report.FORMATS)
def test_every_format_has_it(format: str) -> None:
    mine = rows.evidence("mine")
    text = report.render(shown([mine], record(mine, B4="WARN")), format)
    assert "mine" in text
    assert "B4" in text


def test_an_audit_in_another_ball_says_nothing() -> None:
    mine = rows.evidence("mine")
    elsewhere = replace(mine, cell=replace(mine.cell, threat=ThreatModel("linf", 0.1)))
    (section,) = shown([elsewhere], record(mine, A1="PASS")).sections
    assert section.sentences == ["Nothing here was audited inside its ball; `benchbox audit` does."]
