"""Names that command a terminal, as a stranger's published file may hold them: no layout of no format obeys."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from rich.padding import Padding
from rich.text import Text
from rows import BPDA, GRAY, SAMPLES, TRANSFER, WHITE, evidence, failed, first, unfinished

from benchbox import report
from benchbox.analysis.background import Background
from benchbox.analysis.compare import compare
from benchbox.analysis.difference import compare_runs
from benchbox.analysis.paper_layout import Layout
from benchbox.cli.console import output
from benchbox.domain import Access, Evidence
from benchbox.figures.survival import inline
from benchbox.report import comparison, difference, findings
from benchbox.report.csv import of_frame
from benchbox.report.document import Document
from benchbox.result import Result

#: A title, a colour, an eight-bit escape, a line that turns round, one written over, nothing to see, a tag.
CODES = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202e\r\x00\u2028\u200b\U000e0041\x7f"
OBEYED = set(CODES) - set("]0;owned[31m2J")
ENTRY = f"@misc{{hostile, title = {{T{CODES}}}, author = {{A{CODES}}}, year = {{2024}}}}"


def called(item: Evidence) -> Evidence:
    """The same on a data set, of a split and with a commit of such names."""
    samples = replace(SAMPLES, dataset=f"d{CODES}", split=f"s{CODES}", digest=CODES)
    cell = replace(item.cell, samples=samples, search_precision=f"p{CODES}")
    words = dict.fromkeys(("commit", "device"), f"w{CODES}") | {"command": ["benchbox", f"c{CODES}"]}
    return replace(item, cell=cell, provenance=words)


def hostile(name: str = f"n{CODES}") -> list[Evidence]:
    attack, arguments, stand_in = f"a{CODES}", {f"k{CODES}": CODES}, f"t{CODES}"
    made = [evidence(name, access, attack, 60, arguments=arguments) for access in (WHITE, GRAY, TRANSFER)]
    made += [evidence(name, BPDA, one, 50, arguments=arguments, stand_in=stand_in) for one in ("pgd", attack)]
    made += [
        evidence(name, Access.IMPORTED, f"imported:{CODES}", arguments=arguments),
        unfinished(evidence(name, attack=f"u{CODES}", arguments=arguments), 5),
        failed(evidence(name, attack=f"f{CODES}", arguments=arguments), f"e{CODES}"),
        evidence(name, attack=f"r{CODES}", arguments=arguments, right=first(30).repeat(3, 1)),
    ]
    return [called(item) for item in made]


ITEMS = [*hostile(), *hostile(f"o{CODES}")]
AUDIT: dict[str, Any] = {
    "defense": f"n{CODES}",
    "artifact": ITEMS[0].cell.artifact,
    "benchbox": CODES,
    "threat": {"norm": "linf", "epsilon": 0.3},
    "samples": {"dataset": f"d{CODES}", "digest": CODES},
    "effort": {"samples": 20, "steps": 40, "eot": 10},
    "findings": [
        {"check": check, "verdict": verdict, "sentence": CODES, "numbers": {CODES: 1}, "samples": [], "count": 0}
        for check, verdict in ((f"B{CODES}", "FAIL"), (f"C{CODES}", "WARN"))
    ],
    "summary": {"counts": {f"F{CODES}": 1}, "integrity": [f"A{CODES}"], "masking": [], "attack": []},
    "standing": {
        "robust": {"percent": 50.0},
        "set_by": {"through": CODES},
        "weaker": [{"route": CODES, "percent": 60.0}],
        "said": [CODES],
    },
}
KNOWN = Background(
    audits={ITEMS[0].cell.artifact: AUDIT},
    contract={ITEMS[0].cell.artifact: {f"q{CODES}": CODES}},
    papers={f"n{CODES}": ENTRY},
)
FOUND = Result(tuple(ITEMS), KNOWN, "x")
LAYOUTS: dict[str, Callable[[], Document]] = {
    "ranking": FOUND.document,
    "against": lambda: FOUND.document(f"o{CODES}"),
    "paper": lambda: FOUND.paper_table(Layout(), paper=True, intervals=True),
    "across": lambda: FOUND.paper_table(
        Layout(3, rows=(f"n{CODES}",), columns=("pgd", f"a{CODES}"), datasets=(f"d{CODES}",))
    ),
    "attacks": FOUND.attacks,
    "audits": FOUND.audits,
    "conventions": FOUND.conventions,
    "cost": FOUND.cost,
    "numbers": FOUND.paper_numbers,
    "comparison": lambda: comparison.document(compare(ITEMS, f"n{CODES}", f"o{CODES}")),
    "findings": lambda: findings.document(AUDIT, {f"B{CODES}": CODES}),
    "difference": lambda: difference.document(
        compare_runs(ITEMS, [replace(ITEMS[0], provenance={"commit": f"x{CODES}"})]), 1, 2
    ),
}


@pytest.mark.parametrize("format", report.FORMATS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_name_commands_no_reader(layout: str, format: str) -> None:
    document = LAYOUTS[layout]()
    for options in [{"width": 60}, {"width": 400}] if format == "terminal" else [{}]:
        assert not OBEYED & set(report.render(document, format, **options))
    assert not OBEYED & set(document.bibtex)


def test_every_layout_but_the_papers_own_has_the_names() -> None:
    for layout, make in LAYOUTS.items():
        assert (r"\x1b" in report.render(make(), "terminal", width=400)) is (layout != "numbers"), layout


@pytest.mark.filterwarnings("ignore:Glyph")  # of such characters, too
def test_a_picture_within_the_page_has_none_either() -> None:
    page = report.render(FOUND.document(), "html", draw=inline)
    assert "<svg" in page
    assert not OBEYED & set(page)


def test_json_loses_nothing_by_it() -> None:
    (table,) = json.loads(report.render(FOUND.document(), "json"))["tables"]
    assert {row["defense"]["name"] for row in table["rows"]} == {f"n{CODES}", f"o{CODES}"}


def test_a_heading_of_a_csv_file_commands_nothing_either() -> None:
    document = replace(FOUND.document(), fields=[f"h{CODES}"], lines=tuple)
    for text in (report.render(document, "csv"), of_frame(pd.DataFrame({f"h{CODES}": [1]}))):
        assert text.startswith(r"h\x1b]0;owned")
        assert not OBEYED & set(text)


def test_what_is_printed_as_it_stands_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output().print(Padding(Text(f"a{CODES}"), 1))
    said = capsys.readouterr().out
    assert r"a\x1b]0;owned" in said
    assert not OBEYED & set(said)
