"""Four documents, six formats: one more of either is seen in all; narrow windows; stores of older code."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rows import BPDA, GRAY, WHITE, evidence, rendered

from benchbox import report
from benchbox.analysis.compare import compare
from benchbox.analysis.difference import compare_runs
from benchbox.cli import main
from benchbox.domain import Evidence
from benchbox.report import comparison, difference, findings, leaderboard, terminal
from benchbox.report.document import Column, Document, Text

ASSETS = Path(__file__).parent / "assets"
PURE = [
    evidence("pure", GRAY, "pgd", 90),
    evidence("pure", BPDA, "pgd", 70, stand_in="identity"),
    evidence("pure", WHITE, "pgd", 12),
]


def audited(robust: float = 0.0, **failed: list[str]) -> dict[str, Any]:
    """The record of an audit; `failed` are checks by what their failure says."""
    ids = [*failed.get("integrity", []), *failed.get("masking", []), *failed.get("attack", []), "C1"]
    return {
        "defense": "pure",
        "artifact": "a" * 64,
        "summary": {
            "counts": {"FAIL": len(ids) - 1, "WARN": 0, "INCOMPLETE": 0, "PASS": 1},
            **{"integrity": [], "masking": [], "attack": [], **failed},
        },
        "findings": [
            {
                "check": id,
                "verdict": "PASS" if id == "C1" else "FAIL",
                "sentence": f"{id} saw it",
                "numbers": {"gap": 0.5},
                "samples": [3, 5],
                "count": 2,
            }
            for id in ids
        ],
        "samples": {"dataset": "mnist", "split": "test", "indices": {"first": 100}, "digest": "d" * 64},
        "threat": {"norm": "linf", "epsilon": 8 / 255},
        "standing": {
            "n": 100,
            "robust": {"percent": robust, "low": 0.0, "high": 3.6},
            "set_by": {"access": "white-box", "attack": "pgd", "through": "white-box"},
            "weaker": [
                {"route": "white-box", "percent": robust, "attacks": ["pgd"]},
                {"route": "gray-box", "percent": 90.3, "attacks": ["pgd"]},
            ],
            "said": ["it is what it is"],
        },
    }


def leaderboard_of(items: list[Evidence] = PURE) -> Document:
    return report.tabulate([*items, evidence("none", right=40)])


DOCUMENTS: dict[str, tuple[Any, Callable[[], Document]]] = {
    "leaderboard": (leaderboard, leaderboard_of),
    "comparison": (comparison, lambda: comparison.document(compare([*PURE, evidence("none")], "pure", "none"))),
    "findings": (findings, lambda: findings.document(audited(), {"C1": "all of it"})),
    "difference": (
        difference,
        lambda: difference.document(compare_runs(PURE, [replace(PURE[0], provenance={"commit": "def"})]), 1, 2),
    ),
}
every_document = pytest.mark.parametrize("name", DOCUMENTS)


# --- what one change does ------------------------------------------------------------------------------------


def titles(document: Document) -> str:
    """A format of six lines: the headings of every grid."""
    return " ".join(
        column.title for section in document.sections for grid in section.grids for column in grid.columns
    )


@every_document
def test_a_new_format_prints_every_document(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(report.FORMATS, "titles", f"{__name__}:titles")
    document = DOCUMENTS[name][1]()
    first_column = document.sections[0].grids[0].columns[1]
    assert first_column.title in report.render(document, "titles")


@every_document
@pytest.mark.parametrize("format", report.FORMATS)
def test_a_new_column_is_in_every_format(name: str, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, make = DOCUMENTS[name]
    before = report.render(make(), format)
    columns = module.columns
    new: Column[Any] = Column("novelty", "novelty", lambda item: Text("quite new"), "left")
    monkeypatch.setattr(module, "columns", lambda *about: [*columns(*about), new])
    after = report.render(make(), format)
    assert "quite new" not in before
    assert "quite new" in after
    assert "novelty" in after.lower()


@every_document
def test_machines_can_read_every_document(name: str) -> None:
    document = DOCUMENTS[name][1]()
    lines = list(csv.DictReader(io.StringIO(report.render(document, "csv"))))
    assert lines
    assert None not in lines[0]
    assert json.loads(report.render(document, "json"))


# --- narrow windows ------------------------------------------------------------------------------------------


def wide() -> list[Evidence]:
    names = ("randomized-resize-pad", "an-uncommonly-long-name-of-a-defence", "x" * 40)
    attacks = ("fgsm", "bim", "mim", "pgd", "aa", "cw", "apgd-ce", "apgd-t", "fab-t", "square", "spatial")
    return [
        evidence(name, access, attack, 10 + 7 * i + j)
        for i, name in enumerate(names)
        for access in (GRAY, WHITE, BPDA)
        for j, attack in enumerate(attacks)
    ]


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_a_table_is_whole_at_any_width(width: int) -> None:
    text = rendered(wide(), "terminal", width=width)
    assert max(map(len, text.splitlines())) <= width
    words = set(text.split())
    assert {"defence", "clean", "robust", "access", "spatial", "apgd-ce"} <= words
    for item in wide():
        assert f"{100 * item.outcome.robust.mean():.1f}" in words
    for interval in re.findall(r"\[\d+\.\d, \d+\.\d\]", rendered(wide(), "terminal", width=400)):
        assert interval in text


def test_columns_go_in_the_order_they_state() -> None:
    gone = {}
    for width in (200, 80, 60):
        found = re.search(r"No room for: (.*?);", rendered(wide(), "terminal", width=width))
        gone[width] = found.group(1).split(", ") if found else []
    assert gone[200] == []
    assert gone[80][:1] == ["n"]
    assert gone[60][:2] == ["n", "attacks"]


@every_document
def test_every_document_fits_80_columns(name: str) -> None:
    text = report.render(DOCUMENTS[name][1](), "terminal", width=80)
    assert max(map(len, text.splitlines())) <= 80


def test_a_name_commands_no_terminal() -> None:
    text = rendered([evidence("a\x1b[31mb\x07\u202ec", WHITE, "pgd", 5)], "terminal")
    assert not {"\x1b", "\x07", "\u202e"} & set(text)


# --- the audit's last word -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (audited(), "worth 0.0 %; its 90.3 % are gray-box"),
        (audited(90.3), "worth 90.3 %"),
        (
            audited(80.0, masking=["B1"]),
            "worth at most 80.0 %; gradients are masked (B1); its 90.3 % are gray-box",
        ),
        (audited(80.0, integrity=["A2"]), "withdrawn: the number is not what it says (A2)"),
        ({**audited(), "standing": {"said": []}}, "no number yet: nothing finished is stored"),
    ],
)
def test_the_verdict_on_the_claim_comes_last(record: dict[str, Any], said: str) -> None:
    document = findings.document(record, {})
    assert report.render(document, "terminal").rstrip().splitlines()[-1].strip() == said
    assert report.render(document, "markdown").rstrip().splitlines()[-1].startswith("#### ")
    assert f">{said}</p>" in report.render(document, "html")
    assert "L∞ ε = 8/255" in document.sections[0].title


# --- stores of older code ------------------------------------------------------------------------------------


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store made and printed by the code before there were documents."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    (tmp_path / "results").mkdir()
    path = tmp_path / "results" / "benchbox.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript((ASSETS / "store-0001-tables.sql").read_text(encoding="utf-8"))
    connection.close()
    return path


@pytest.mark.parametrize(("format", "ending"), [("terminal", "txt"), ("markdown", "md")])
def test_an_older_store_prints_the_tables_it_printed(
    older: Path, capsys: pytest.CaptureFixture[str], format: str, ending: str
) -> None:
    capsys.readouterr()
    assert main(["report", "--format", format]) == 0
    assert capsys.readouterr().out == (ASSETS / f"store-0001-tables.{ending}").read_text(encoding="utf-8")


@pytest.mark.parametrize("format", report.FORMATS)
def test_every_format_prints_the_oldest_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], format: str
) -> None:
    shutil.copy(ASSETS / "store-0001.sqlite", tmp_path / "oldest.sqlite")
    words = ["report", "--format", format, "--store", str(tmp_path / "oldest.sqlite")]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out").read_text(encoding="utf-8")
    assert "pssr" in text
    assert "carso" in text


@pytest.mark.parametrize("format", report.FORMATS)
def test_every_command_takes_every_format(older: Path, capsys: pytest.CaptureFixture[str], format: str) -> None:
    for words in (["compare", "none", "jpeg"], ["diff", "1", "1"], ["report", "-o", "page"]):
        assert main([*words, "--format", format]) == 0
    assert "jpeg" in capsys.readouterr().out


def test_no_name_of_a_command_is_another_format(older: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["compare", "none", "jpeg"], ["diff", "1", "1"], ["report"], ["audit", "none"]):
        assert main([*words, "--format", "markdwn"]) == 2
        assert "did you mean markdown?" in capsys.readouterr().err


def test_a_difference_at_the_end_of_a_long_value_is_seen_in_a_narrow_window() -> None:
    command = "benchbox run --defense none,pgd-at,pssr --attacks fgsm,pgd --samples 200"
    one, other = (replace(PURE[0], provenance={"command": f"{command} --eot {n}"}) for n in (17, 23))
    text = terminal.render(difference.document(compare_runs([one], [other]), 1, 2), width=80)
    assert "17" in text
    assert "23" in text
    assert "…" not in text
