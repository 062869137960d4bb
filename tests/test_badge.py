"""The badge of an audit stands beside every number, in every format."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from typing import Any

import pytest
from rich.console import Console
from test_report import _CHROMIUM, BPDA, GRAY, THREAT, WHITE, evidence

from benchbox import report
from benchbox.report import table
from benchbox.report.badge import badge

TEXT = ("terminal", "markdown", "html", "latex", "csv", "json")
#: What each kind of finding makes of a badge.
STATES = {
    "pass": {},
    "incomplete (1 checks)": {"INCOMPLETE": ["C8"]},
    "2 WARN B6 C3": {"WARN": ["B6", "C3"], "INCOMPLETE": ["C8"]},
    "weak attack B7": {"FAIL": ["B7"], "WARN": ["C3"]},
    "masking B1 B3": {"FAIL": ["B1", "B3", "B7"]},
    "withdrawn A2": {"FAIL": ["A2", "B1"]},
}


def record(**verdicts: list[str]) -> dict[str, Any]:
    """An audit's record with these verdicts, by check."""
    findings = [
        {"check": id, "verdict": verdict, "sentence": f"{id} saw 50 % & <i>"}
        for verdict, ids in verdicts.items()
        for id in ids
    ]
    failed = verdicts.get("FAIL", [])
    masking = [id for id in failed if id in ("A5", "B1", "B3")]
    summary = {
        "counts": {verdict: len(ids) for verdict, ids in verdicts.items()},
        "integrity": [id for id in failed if id[0] == "A"],
        "masking": masking,
        "attack": [id for id in failed if id[0] == "B" and id not in masking],
    }
    said = ["set by white-box pgd"]
    return {"summary": summary, "findings": findings, "threat": vars(THREAT), "standing": {"said": said}}


def cells() -> list[Any]:
    """Three defences; the names tell what their audits will say."""
    return [evidence(name, WHITE, "pgd", k) for name, k in (("good", 60), ("masked", 70), ("broken", 90))] + [
        evidence("pure", access, "pgd", 40) for access in (GRAY, WHITE, BPDA)
    ]


def audits() -> dict[str, dict[str, Any]]:
    found = {"good": record(WARN=["B6"]), "masked": record(FAIL=["B1", "B3"]), "broken": record(FAIL=["A2"])}
    return {
        item.cell.artifact: found[item.cell.defense.name] for item in cells() if item.cell.defense.name in found
    }


def shown(format: str, **options: Any) -> str:
    if format != "terminal":
        return report.render(cells(), format, audits=audits(), **options)
    console = Console(width=160, record=True, file=io.StringIO(), color_system=None)
    console.print(report.terminal(cells(), audits=audits(), **options))
    return console.export_text()


@pytest.mark.parametrize(("text", "verdicts"), STATES.items())
def test_the_worst_finding_makes_the_badge(text: str, verdicts: dict[str, list[str]]) -> None:
    assert str(badge(record(**verdicts))) == text


def test_no_audit_is_said_and_not_left_blank() -> None:
    assert str(badge(None)) == "not audited"
    assert all(str(row.badge) == "not audited" for row in table.build(cells())[0].rows)


@pytest.mark.parametrize("format", TEXT)
@pytest.mark.parametrize("options", [{}, {"against": "good"}], ids=["alone", "against"])
def test_every_format_shows_every_badge(format: str, options: dict[str, str]) -> None:
    text = shown(format, **options)
    if format == "csv":
        lines = list(csv.DictReader(io.StringIO(text)))
        told = {line["defense"]: f"{line['audit']} {line['audit_checks']}".strip() for line in lines}
        expected = {
            "good": "warned B6",
            "masked": "masking B1 B3",
            "broken": "withdrawn A2",
            "pure": "not audited",
        }
        assert told == expected
    elif format == "json":
        rows = {row["label"]: row["audit"] for row in json.loads(text)["tables"][0]["rows"]}
        assert (rows["masked"]["state"], rows["masked"]["checks"]) == ("masking", ["B1", "B3"])
        assert rows["masked"]["sentences"]["B1"] == "B1 saw 50 % & <i>"
        assert rows["pure"]["state"] == "not audited"
    else:
        for said in ("1 WARN B6", "masking B1 B3", "withdrawn A2", "not audited"):
            assert said in text, said


def test_what_is_withdrawn_has_no_rank_and_what_is_masked_has_one_and_a_mark() -> None:
    rows = {row.label: row for row in table.build(cells(), audits=audits())[0].rows}
    assert rows["broken"].rank is None
    assert rows["masked"].rank == 1
    assert rows["masked"].headline.endswith("‡")
    assert "‡" not in rows["good"].headline
    # The failing check's sentence is in the small print, and that of a warning is not.
    remarks = table.build(cells(), audits=audits())[0].remarks
    assert any(remark.startswith("masked, B1: B1 saw") for remark in remarks)
    assert not any("B6 saw" in remark for remark in remarks)
    assert "good: set by white-box pgd" in remarks


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("options", [{}, {"against": "pure"}], ids=["alone", "against"])
def test_latex_with_badges_compiles(tmp_path: Any, options: dict[str, str]) -> None:
    (tmp_path / "table.tex").write_text(shown("latex", standalone=True, **options), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "table.pdf").stat().st_size > 0


@pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_shows_the_badges(tmp_path: Any) -> None:
    page = tmp_path / "report.html"
    page.write_text(shown("html", against="pure"), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [str(_CHROMIUM), *flags, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    for state, said in (("withdrawn", "withdrawn A2"), ("masking", "masking B1 B3"), ("warned", "1 WARN B6")):
        assert f'<span class="badge {state}"' in done.stdout
        assert f">{said}</span>" in done.stdout
    assert 'title="set by white-box pgd\nB1: B1 saw 50 % &amp; &lt;i&gt;' in done.stdout.replace(
        "<i>", "&lt;i&gt;"
    )
