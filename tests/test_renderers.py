"""Every format: escaping, what is said of missing numbers, real readers."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from jinja2 import UndefinedError
from rich.console import Console
from rows import (
    BPDA,
    CHROMIUM,
    GRAY,
    WHITE,
    evidence,
    failed,
    rendered,
)
from typeset import TEX, article, compiled

from benchbox import report
from benchbox.analysis.background import Background
from benchbox.canonical import digest
from benchbox.domain import Cell, Evidence
from benchbox.errors import RequestError
from benchbox.report import latex
from benchbox.report.csv import of_frame
from benchbox.report.document import Grid
from benchbox.report.page.board import Head

NASTY = "<script>alert(1)</script> & 50%_$ #{x}~^\\|`*"


def test_terminal_fits_120_columns(both: list[Evidence]) -> None:
    console = Console(width=120, record=True, file=io.StringIO(), color_system=None)
    console.print(report.renderable(report.tabulate(both)))
    text = console.export_text()
    assert "mnist, L∞ ε = 0.3, the first 100 test images" in text
    assert "10.0 [4.9, 17.6]" in text
    assert "(98.92)" in text
    assert max(map(len, text.splitlines())) <= 120


def test_a_number_stands_under_white_box_too_where_its_column_is_only_listed_under_gray_box() -> None:
    items = [evidence("pssr", GRAY, "bim"), evidence("pssr", GRAY, "pgd"), evidence("pssr", WHITE, "cw", 7)]
    items += [evidence("none", WHITE, "pgd", 41), evidence("none", WHITE, "cw", 3)]
    lines = [line.split() for line in rendered(items, "terminal", width=120).splitlines()]
    white = lines[[line[:1] == ["white-box"] for line in lines].index(True) :]
    found = {line[-4]: line[-3:] for line in white[:2]}  # under bim, pgd and cw
    assert found == {"none": ["n/r", "41.0", "3.0"], "pssr": ["n/r", "n/r", "7.0"]}


def test_markdown_shows_every_access(both: list[Evidence]) -> None:
    text = rendered(both, "markdown")
    assert "| ≈1 | pssr | 99.0 <sub>\\[94.6, 100.0\\]</sub> (99.30) | **10.0** <sub>\\[4.9" in text
    assert "**transfer**" in text
    assert "= 40.0" in text


def test_csv_has_no_formula() -> None:
    items = [evidence("=HYPERLINK(1)", right=50), failed(evidence("=HYPERLINK(1)", attack="cw"), "@SUM(A1)")]
    lines = list(csv.DictReader(io.StringIO(rendered(items, "csv"))))
    assert {line["defense"] for line in lines} == {"'=HYPERLINK(1)"}
    assert "'@SUM(A1)" in {line["error"] for line in lines}
    frame = pd.DataFrame({"defense": ["=1+1", "none"], "difference": [-1.5, 2.0]})
    assert of_frame(frame) == "defense,difference\n'=1+1,-1.5\nnone,2.0\n"


def test_csv_has_a_line_for_every_number(both: list[Evidence]) -> None:
    lines = list(csv.DictReader(io.StringIO(rendered(both, "csv"))))
    stand_ins = [x for x in lines if x["measure"] == "cell" and x["access"] == "bpda"]
    assert {(x["stand_in"], float(x["percent"])) for x in stand_ins} == {("exact", 60.0), ("identity", 80.0)}
    assert {x["key"] for x in lines} >= {item.cell.key for item in both}
    robust = next(x for x in lines if x["measure"] == "robust" and x["defense"] == "pssr")
    assert (float(robust["percent"]), robust["access"], robust["n"]) == (10.0, "white-box", "100")


def test_json_holds_cells_and_provenance(both: list[Evidence]) -> None:
    rows = json.loads(rendered(both, "json"))["tables"][0]["rows"]
    cells = {cell["key"]: cell for r in rows for entry in r["entries"] for cell in entry["cells"]}
    for item in both:
        assert Cell.from_dict(cells[item.cell.key]["cell"]) == item.cell
        assert cells[item.cell.key]["commit"] == "abc123"


def test_json_says_how_the_weights_were_trained(both: list[Evidence]) -> None:
    base = {"defense": {"name": "none", "arguments": {}}, "base": None}
    target = both[0].cell.artifact
    cards = {
        target: {"training": {**base, "base": base}, "seconds": 12.5},
        digest(base): {"training": base, "seconds": 3.0},
        "of another table": {"training": base, "seconds": 1.0},
    }
    (found,) = json.loads(rendered(both, "json", Background(cards=cards)))["tables"]
    assert found["weights"] == {name: cards[name] for name in (target, digest(base))}
    (unknown,) = json.loads(rendered(both, "json"))["tables"]
    assert unknown["weights"] == {}


def test_json_keeps_a_number_whose_column_is_left_out(both: list[Evidence]) -> None:
    none = json.loads(rendered(both, "json"))["tables"][0]["rows"][1]
    fgsm = next(e for e in none["entries"] if e["access"] == "gray-box" and e["attack"] == "fgsm")
    assert fgsm["status"] == "same"
    assert fgsm["cells"][0]["cell"]["access"] == "white-box"


def test_an_unknown_format_is_refused(both: list[Evidence]) -> None:
    with pytest.raises(RequestError, match="did you mean markdown"):
        rendered(both, "markdwn")


@pytest.mark.parametrize("format", report.FORMATS)
def test_no_evidence_is_no_error(format: str) -> None:
    assert rendered([], format)


def test_templates_refuse_what_is_not_defined(monkeypatch: pytest.MonkeyPatch, both: list[Evidence]) -> None:
    monkeypatch.delattr(Head, "classes")
    with pytest.raises(UndefinedError, match="classes"):
        rendered(both, "html")
    monkeypatch.delattr(Grid, "groups")
    document = replace(report.tabulate(both), page=None)
    with pytest.raises(UndefinedError, match="groups"):
        report.render(document, "html")


class Reader(HTMLParser):
    """Collects text, tags and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.attributes: list[tuple[str, str | None]] = []
        self.depth: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "link", "img", "br", "input"):
            self.depth.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.depth.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def nasty() -> list[Evidence]:
    return [
        evidence(NASTY, GRAY, "pgd", 90, arguments={"note": '"><img src=x>'}),
        evidence(NASTY, GRAY, "a_b%", 90, arguments={"note": '"><img src=x>'}),
        failed(evidence(NASTY, BPDA, "pgd", arguments={"note": '"><img src=x>'}), "<b>100% & _$\\ é 漢 –</b>"),
        evidence("[opt]", WHITE, "pgd", 5),
        evidence("*star", WHITE, "pgd", 5),
    ]


def test_html_is_one_well_formed_file_that_escapes_everything() -> None:
    page = rendered(nasty(), "html")
    reader = Reader()
    reader.feed(page)
    assert reader.depth == []
    assert NASTY in reader.text
    assert "<b>100% & _$\\ é 漢 –</b>" in reader.text
    assert reader.tags.count("script") == 2
    assert not {"img", "link", "iframe"} & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name in ("src", "href") or name.startswith("on")]
    assert "url(" not in page.partition("</style>")[0]
    assert "@import" not in page.partition("</style>")[0]


def test_html_tooltips_say_where_a_number_comes_from(both: list[Evidence]) -> None:
    reader = Reader()
    reader.feed(rendered(both, "html"))
    tips = "\n".join(value or "" for name, value in reader.attributes if name == "title")
    for item in both:
        assert f"cell {item.cell.key[:16]}, commit abc123, 1.5 s" in tips


def test_markdown_escapes() -> None:
    text = rendered(nasty(), "markdown")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    header, *rows = [line for line in text.splitlines() if line.startswith("| ")][:4]
    assert all(line.replace("\\|", "").count("|") == header.count("|") for line in rows)


def test_latex_escapes() -> None:
    assert latex.escape("50%_$ #{x}~^\\ & --") == (
        r"50\%\_\$ \#\{x\}\textasciitilde{}\textasciicircum{}\textbackslash{} \& -{}-"
    )
    assert latex.escape("L∞ ε – 漢\nx") == r"L$_\infty$ $\varepsilon$ -- (U+6F22) x"
    fragment = rendered(nasty(), "latex")
    assert "documentclass" not in fragment
    assert "<script>" not in fragment


@TEX
def test_latex_compiles(tmp_path: Path, both: list[Evidence]) -> None:
    for text in (
        rendered(both, "latex", standalone=True),
        rendered(nasty(), "latex", standalone=True),
        rendered([], "latex", standalone=True),
        article(rendered(nasty(), "latex")),
    ):
        compiled(tmp_path, text)
        assert (tmp_path / "table.pdf").stat().st_size > 0


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_html_opens_in_a_browser(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(rendered(nasty(), "html"), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [str(CHROMIUM), *flags, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "&lt;script&gt;alert(1)" in done.stdout
    assert "><script>alert" not in done.stdout


def test_reports_need_neither_torch_nor_a_database() -> None:
    code = (
        "import sys, benchbox.report as r, benchbox.analysis.leaderboard;"
        "[r.render(r.tabulate([]), f) for f in r.FORMATS];"
        "print(sorted({'torch', 'sqlalchemy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
