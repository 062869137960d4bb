"""The audits of some defences side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import rows

from benchbox import report
from benchbox.analysis import leaderboard
from benchbox.analysis.background import Background
from benchbox.domain import Evidence, SampleList, Spec, ThreatModel
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


def test_what_the_claim_is_worth_is_todays() -> None:
    mine = rows.evidence("mine", right=rows.first(50))
    later = replace(
        mine,
        cell=replace(mine.cell, attack=Spec("aa", {}, "1")),
        outcome=rows.outcome(rows.first(30), rows.first(99)),
    )
    standing = {"robust": {"percent": 50.0}, "weaker": [{"route": "gray-box", "percent": 90.0}]}
    old = record(mine, A1="PASS") | {"standing": standing}
    (line,) = shown([mine], old).lines()
    assert line["comes_to"] == "worth 50.0 %; its 90.0 % are gray-box"
    found = shown([mine, later], old)
    (line,) = found.lines()
    assert line["comes_to"] == "worth 30.0 %"
    assert found.record()["audits"][0]["comes_to"] == "worth 30.0 %"
    assert found.sections[0].grids[0].rows[0][-1].text == "worth 30.0 %"


def test_a_number_that_the_control_contradicts_is_worth_nothing_here_either() -> None:
    mine = rows.evidence("mine", right=50)
    null = rows.evidence("mine", attack="null", right=20)
    (line,) = shown([mine, null], record(mine, A1="PASS")).lines()
    assert line["comes_to"] == "withheld: the control contradicts the clean accuracy"


def test_findings_are_quoted_with_who_wrote_them_and_when() -> None:
    old, new, unknown = (rows.evidence(name) for name in ("old", "new", "unknown"))
    made = {"packages": {"benchbox": "0.0.9"}, "commit": "abcdef0123456789"}
    found = shown(
        [old, new, unknown],
        record(old, A1="PASS") | {"provenance": made},
        record(new, A1="PASS") | {"provenance": {"packages": {"benchbox": "0.1.0"}}, "date": "2026-11-27"},
        record(unknown, A1="PASS"),
    )
    said = " ".join(found.sections[0].remarks)
    assert "as the audit of its day judged and worded them, and today's checks may differ" in said
    for who in (
        "old by benchbox 0.0.9, commit abcdef012345",
        "new by benchbox 0.1.0, 2026-11-27",
        "unknown by unknown code",
    ):
        assert who in said
    assert {line["written_by"] for line in found.lines()} >= {"unknown code", "benchbox 0.1.0, 2026-11-27"}


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
