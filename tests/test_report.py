"""Reports from synthetic evidence: known answers, the marks of what is missing, escaping, real readers."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jinja2 import UndefinedError
from rich.console import Console

from benchbox import report
from benchbox.domain import Access, Cell, Evidence, Outcome, SampleList, Spec, ThreatModel, ViewSpec
from benchbox.errors import RequestError
from benchbox.report import latex, paper, table
from benchbox.report.records import Column, Row, Table

N = 100
SAMPLES = SampleList("mnist", "test", tuple(range(N)), "d" * 64)
THREAT = ThreatModel("linf", 0.3)
GRAY, WHITE, BPDA, TRANSFER = Access.GRAY_BOX, Access.WHITE_BOX, Access.BPDA, Access.TRANSFER
NASTY = "<script>alert(1)</script> & 50%_$ #{x}~^\\|`*"


def outcome(right: np.ndarray, clean: np.ndarray) -> Outcome:
    """Label 0 everywhere; a wrong prediction is 1. Both (n, R)."""
    n = len(right)
    return Outcome(
        position=np.arange(n),
        label=np.zeros(n, np.int64),
        clean=np.where(clean, 0, 1),
        adversarial=np.where(right, 0, 1),
        first_success=np.full(n, -1),
        linf=np.full(n, 0.3),
        l2=np.full(n, 4.0),
        forwards=np.full(n, 41.0),
        backwards=np.full(n, 40.0),
    )


def first(k: int, n: int = N) -> np.ndarray:
    """(n, 1): the first k samples are right."""
    return (np.arange(n) < k)[:, None]


def evidence(
    name: str = "none",
    access: Access = WHITE,
    attack: str = "pgd",
    right: np.ndarray | int = 50,
    *,
    clean: np.ndarray | int = 99,
    arguments: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    stand_in: str | None = None,
    **cell: Any,
) -> Evidence:
    right = first(right) if isinstance(right, int) else right
    clean = np.repeat(first(clean), right.shape[1], 1) if isinstance(clean, int) else clean
    defense = Spec(name, dict(arguments or {}), "benchbox/1")
    weights = f"weights of {name} {sorted(defense.arguments.items())}"
    source = {GRAY: "base", TRANSFER: "substitute"}.get(access, weights)
    view = ViewSpec(source, stand_in)
    made = Cell(defense, weights, Spec(attack, dict(settings or {}), "benchbox/1"), access, view, THREAT, SAMPLES)
    made = replace(made, scoring_draws=right.shape[1], **cell)
    return Evidence(
        made,
        outcome(right, clean),
        "done",
        seconds=1.5,
        run=3,
        created="2025-01-01",
        provenance={"commit": "abc123"},
    )


def unfinished(item: Evidence, scored: int) -> Evidence:
    kept = item.outcome
    cut = {name: value[:scored] for name, value in vars(kept).items()}
    return replace(item, outcome=Outcome(**cut), status="partial")


def failed(item: Evidence, error: str) -> Evidence:
    return replace(unfinished(item, 0), status="failed", error=error)


@pytest.fixture
def both() -> list[Evidence]:
    """A purifier and a defence without one, as the planner runs them."""
    return [
        evidence("none", WHITE, "fgsm", 40),
        evidence("none", WHITE, "pgd", 1),
        evidence("none", TRANSFER, "pgd", 2),
        evidence("pssr", GRAY, "fgsm", 98),
        evidence("pssr", GRAY, "pgd", 97),
        evidence("pssr", TRANSFER, "pgd", 96),
        evidence("pssr", WHITE, "pgd", 30),
        evidence("pssr", BPDA, "pgd", 60),
        evidence("pssr", BPDA, "pgd", ~first(20), stand_in="identity"),
    ]


def only(items: list[Evidence], **options: Any) -> Table:
    (found,) = table.build(items, **options)
    return found


def percent(found: Row) -> float | None:
    return found.robust.percent if found.robust else None


def row(found: Table, label: str) -> Row:
    return next(r for r in found.rows if r.label == label)


# --- numbers -------------------------------------------------------------------------------------------------


def test_robust_accuracy_is_the_per_sample_worst_case() -> None:
    half, other = first(60), ~first(40)
    found = only([evidence(attack="pgd", right=half), evidence(attack="square", right=other)]).rows[0]
    assert found.robust is not None
    # Right under both: 40 to 59; sample 99 is wrong when clean.
    assert (found.robust.percent, found.robust.n) == (20.0, 100)
    assert (found.set_by, found.over) == (Column(WHITE, "pgd"), 2)


def test_no_defence_is_more_robust_than_it_is_accurate() -> None:
    found = only([evidence(right=100, clean=97)]).rows[0]
    assert found.robust is not None
    assert found.robust.percent == 97.0
    assert found.entries[Column(WHITE, "pgd")].figure == "100.0"


def test_positions_are_aligned_before_attacks_are_united() -> None:
    a, b = evidence(attack="pgd", right=50), evidence(attack="cw", right=50)
    order = np.random.default_rng(0).permutation(N)
    shuffled = Outcome(**{name: value[order] for name, value in vars(b.outcome).items()})
    found = only([a, replace(b, outcome=shuffled)]).rows[0]
    assert found.robust is not None
    assert found.robust.percent == 50.0


def test_a_randomised_defence_is_not_punished_for_bad_luck() -> None:
    generator = np.random.default_rng(0)
    lucky = [generator.random((N, 10)) < 0.8 for _ in range(8)]
    items = [evidence("dice", attack=f"a{i}", right=r, clean=np.ones((N, 10), bool)) for i, r in enumerate(lucky)]
    found = only(items).rows[0]
    assert found.robust is not None
    assert found.robust.percent == pytest.approx(80, abs=3)
    assert found.robust.method == "cluster bootstrap"
    extra = found.entries[Column(WHITE, "a0")].measurements[0].extra
    assert extra["majority_vote"] > 90 > 30 > extra["worst_of_r"]


def test_a_bpda_number_is_the_union_over_stand_ins(both: list[Evidence]) -> None:
    entry = row(only(both), "pssr").entries[Column(BPDA, "pgd")]
    assert entry.figure == "40.0"  # 60 right through one, 80 through the other, 40 through both
    assert {m.stand_in: m.score.percent for m in entry.measurements if m.score} == {
        "exact": 60.0,
        "identity": 80.0,
    }


# --- arrangement ---------------------------------------------------------------------------------------------


def test_columns_stand_in_the_papers_order(both: list[Evidence]) -> None:
    items = [
        *both,
        evidence("pssr", GRAY, "zebra", 90),
        evidence("pssr", GRAY, "cw", 90),
        evidence("pssr", GRAY, "ant"),
    ]
    gray = [column.attack for column in only(items).under(GRAY)]
    assert gray == ["fgsm", "pgd", "cw", "ant", "zebra"]
    assert only(items).accesses == (GRAY, TRANSFER, WHITE, BPDA)


def test_a_defence_without_purifier_shows_its_number_under_every_access(both: list[Evidence]) -> None:
    found = only(both)
    none = row(found, "none")
    assert none.entries[Column(GRAY, "fgsm")].figure == "= 40.0"
    assert none.entries[Column(BPDA, "pgd")].figure == "= 1.0"
    assert none.entries[Column(TRANSFER, "pgd")].figure == "2.0"
    assert Column(WHITE, "fgsm") not in found.columns
    assert none.missing == ()
    assert any(remark.startswith("=: same model") for remark in found.remarks)


def test_a_purifier_is_never_credited_with_an_access_nobody_ran(both: list[Evidence]) -> None:
    items = [*both, evidence("sponge", WHITE, "pgd", 5)]
    known = row(only(items, purifiers={"sponge"}), "sponge")
    assert known.entries[Column(GRAY, "pgd")].figure == "n/r"
    assert known.headline == "5.0†"


def test_rows_are_ranked_by_the_worst_case_and_oracles_are_not() -> None:
    items = [evidence("a", right=10), evidence("b", right=90), evidence("c", right=10), evidence("god", right=99)]
    found = only(items, oracles={"god"})
    assert [(r.label, r.rank) for r in found.rows] == [("b", 1), ("a", 2), ("c", 2), ("god", None)]


def test_unfinished_defences_are_not_ranked() -> None:
    items = [evidence("a", right=10), evidence("b", right=90), failed(evidence("b", attack="cw"), "NaN")]
    items.append(unfinished(evidence("c", right=95), 40))
    found = only(items)
    assert [(r.label, r.rank, r.headline) for r in found.rows] == [
        ("a", 1, "10.0†"),
        ("b", None, "90.0†"),
        ("c", None, "n/r"),
    ]


def test_fewer_attacks_are_marked() -> None:
    items = [evidence("a", attack="pgd"), evidence("a", attack="cw"), evidence("b", attack="pgd", right=60)]
    found = only(items)
    assert row(found, "b").headline == "60.0†"
    assert row(found, "b").entries[Column(WHITE, "cw")].figure == "n/r"
    assert any(remark.startswith("†") for remark in found.remarks)


def test_rows_that_share_a_name_say_how_they_differ() -> None:
    items = [
        evidence("pssr", attack="pgd", arguments={"alpha": 1.5, "epochs": 8}),
        evidence("pssr", attack="cw", arguments={"epochs": 8, "alpha": 1.5}),
        evidence("pssr", arguments={"alpha": 2.0, "epochs": 8}),
    ]
    assert {r.label for r in only(items).rows} == {"pssr", "pssr (alpha=2)"}


def test_seeds_and_weights_are_rows_of_their_own() -> None:
    seeds = [evidence("a"), evidence("a", training_seed=1)]
    assert {r.label for r in only(seeds).rows} == {"a (seed 0)", "a (seed 1)"}
    weights = [evidence("a", artifact="1" * 64), evidence("a", artifact="2" * 64)]
    assert {r.label for r in only(weights).rows} == {"a (weights 11111111)", "a (weights 22222222)"}


def test_variants_of_an_attack_are_columns_of_their_own() -> None:
    items = [evidence("a", settings={"steps": 40}), evidence("b", settings={"steps": 40})]
    found = only([*items, evidence("a", settings={"steps": 100}, right=10)])
    assert found.attacks == ("pgd", "pgd (steps=100)")


def test_attack_seeds_are_united_and_said() -> None:
    found = only([evidence(right=50), evidence(right=~first(10), attack_seed=7)])
    entry = found.rows[0].entries[Column(WHITE, "pgd")]
    assert entry.figure == "40.0"
    assert found.notes == ("none, white-box pgd: worst case over attack seeds 0, 7.",)
    assert entry.notes == (1,)


def test_other_samples_and_other_balls_are_other_tables() -> None:
    item = evidence()
    bigger = replace(item, cell=replace(item.cell, threat=ThreatModel("linf", 0.4)))
    elsewhere = replace(item, cell=replace(item.cell, samples=replace(SAMPLES, digest="e" * 64)))
    assert len(table.build([item, bigger, elsewhere])) == 3


# --- what went wrong -----------------------------------------------------------------------------------------


def test_an_unfinished_cell_is_shown_and_not_counted() -> None:
    found = only([evidence(attack="pgd", right=50), unfinished(evidence(attack="cw", right=0), 40)])
    entry = found.rows[0].entries[Column(WHITE, "cw")]
    assert (entry.status, entry.figure) == ("partial", "0.0…")
    assert percent(found.rows[0]) == 50.0
    assert found.rows[0].headline == "50.0†"
    assert found.notes == ("none, white-box cw: 40 of 100 images so far; not in the worst case.",)


def test_a_cell_that_says_done_but_lacks_images_is_unfinished() -> None:
    short = replace(unfinished(evidence(), 99), status="done")
    assert only([short]).rows[0].entries[Column(WHITE, "pgd")].status == "partial"


def test_a_failed_cell_says_why() -> None:
    found = only([failed(evidence(), "left the ball by 0.1;\nproject")])
    entry = found.rows[0].entries[Column(WHITE, "pgd")]
    assert entry.figure == "failed"
    assert found.rows[0].robust is None
    assert found.rows[0].headline == "n/r"
    assert found.rows[0].clean.figure == "n/r"
    assert found.notes == ("none, white-box pgd: failed: left the ball by 0.1; project.",)


def test_a_stand_in_that_failed_leaves_the_union_unfinished(both: list[Evidence]) -> None:
    broken = failed(evidence("pssr", BPDA, "pgd", stand_in="soft"), "NaN")
    found = only([*both, broken])
    assert row(found, "pssr").entries[Column(BPDA, "pgd")].figure == "40.0…"
    assert percent(row(found, "pssr")) == 10.0


# --- the paper -----------------------------------------------------------------------------------------------


def test_every_value_of_the_paper_is_there() -> None:
    lines = list(paper.values())
    assert len(lines) == 360
    assert sum(line["value"] == "" for line in lines) == 9  # its dashes
    assert {line["table"] for line in lines} == {"1", "2", "3", "4"}


@pytest.mark.parametrize(
    ("place", "percent"),
    [
        ((1, "mnist", "pssr", "pgd"), 98.92),
        ((2, "mnist", "trades", "fgsm"), 95.35),
        ((3, "mnist", "pssr", "bpda"), 94.67),
        ((4, "mnist", "ps", "pgd"), 31.24),
        ((1, "cifar100", "bagt", "cw"), 33.16),
        ((1, "cifar10", "baseline", "cw"), 7.41),
        ((4, "cifar10", "baseline", "cw"), 0.00),
        ((1, "cifar10", "pssr", "cw"), 80.99),
        ((4, "cifar10", "ps-cae-ard", "cw"), 83.91),
    ],
)
def test_values_of_the_paper(place: tuple[int, str, str, str], percent: float) -> None:
    found = paper.printed(*place)
    assert found is not None
    assert found.percent == percent


def test_a_dash_of_the_paper_is_no_number() -> None:
    assert paper.printed(1, "mnist", "pcl", "aa") is None


def test_table_4_agrees_with_table_1_but_for_two_values() -> None:
    numbers = [paper.printed(1, line["dataset"], line["row"], line["column"]) for line in paper.values()]
    told = {
        (n.dataset, n.row, n.column, n.percent, other.percent)
        for n in numbers
        if n
        for other in paper.contradictions(n)
    }
    assert told == {
        ("cifar10", "baseline", "cw", 7.41, 0.0),
        ("cifar10", "pssr", "cw", 80.99, 83.91),
        ("cifar10", "trades", "benign", 58.89, 57.21),
    }


@pytest.mark.parametrize(
    ("defense", "access", "attack", "expected"),
    [
        ("pssr", None, "", (1, 99.30)),
        ("pssr", GRAY, "pgd", (1, 98.92)),
        ("pssr", TRANSFER, "pgd", (2, 98.95)),
        ("pssr", BPDA, "pgd", (3, 94.67)),
        ("pssr", WHITE, "pgd", None),
        ("pssr", BPDA, "cw", None),
        ("none", WHITE, "pgd", (1, 0.48)),
        ("none", GRAY, "pgd", (1, 0.48)),
        ("none", BPDA, "pgd", None),
        ("pssr:ps", GRAY, "pgd", (4, 31.24)),
        ("pssr:ps", TRANSFER, "pgd", None),
        ("mine", GRAY, "pgd", None),
        ("none", WHITE, "square", None),
    ],
)
def test_where_the_papers_numbers_stand(
    defense: str, access: Access | None, attack: str, expected: tuple[int, float] | None
) -> None:
    found = paper.beside("mnist", defense, THREAT, access, attack)
    assert (found and (found.table, found.percent)) == expected


def test_another_ball_or_recipe_has_no_number_of_the_paper(both: list[Evidence]) -> None:
    assert paper.beside("mnist", "pssr", ThreatModel("linf", 0.1), GRAY, "pgd") is None
    assert paper.beside("mnist", "pssr", ThreatModel("l2", 0.3), GRAY, "pgd") is None
    found = only([*both, evidence("pssr", GRAY, "pgd", arguments={"alpha": 9})])
    assert row(found, "pssr").entries[Column(GRAY, "pgd")].paper is not None
    assert row(found, "pssr (alpha=9)").entries[Column(GRAY, "pgd")].paper is None


def test_contradictions_are_printed_where_the_number_is() -> None:
    samples = replace(SAMPLES, dataset="cifar10")
    item = evidence(attack="cw")
    item = replace(item, cell=replace(item.cell, samples=samples, threat=ThreatModel("linf", 8 / 255)))
    told = "baseline, cifar10, cw: Table 1 prints 7.41, Table 4 prints 0.00"
    assert any(told in remark for remark in only([item]).remarks)


# --- renderers -----------------------------------------------------------------------------------------------


def test_terminal_fits_120_columns(both: list[Evidence]) -> None:
    console = Console(width=120, record=True, file=io.StringIO(), color_system=None)
    console.print(report.terminal(both[:3]))  # twice: the function must survive the import of its module
    console.print(report.terminal(both))
    text = console.export_text()
    assert "mnist, L∞ ε = 0.3, the first 100 test images" in text
    assert "10.0 [4.9, 17.6]" in text
    assert "(98.92)" in text
    assert max(map(len, text.splitlines())) <= 120


def test_markdown_shows_every_access(both: list[Evidence]) -> None:
    text = report.render(both, "markdown")
    assert "| ≈1 | pssr | 99.0 <sub>\\[94.6, 100.0\\]</sub> (99.30) | **10.0** <sub>\\[4.9" in text
    assert "**transfer**" in text
    assert "= 40.0" in text


def test_csv_has_a_line_for_every_number(both: list[Evidence]) -> None:
    lines = list(csv.DictReader(io.StringIO(report.render(both, "csv"))))
    stand_ins = [x for x in lines if x["measure"] == "cell" and x["access"] == "bpda"]
    assert {(x["stand_in"], float(x["percent"])) for x in stand_ins} == {("exact", 60.0), ("identity", 80.0)}
    assert {x["key"] for x in lines} >= {item.cell.key for item in both}
    robust = next(x for x in lines if x["measure"] == "robust" and x["defense"] == "pssr")
    assert (float(robust["percent"]), robust["access"], robust["n"]) == (10.0, "white-box", "100")


def test_json_holds_cells_and_provenance(both: list[Evidence]) -> None:
    rows = json.loads(report.render(both, "json"))["tables"][0]["rows"]
    cells = {cell["key"]: cell for r in rows for entry in r["entries"] for cell in entry["cells"]}
    for item in both:
        assert Cell.from_dict(cells[item.cell.key]["cell"]) == item.cell
        assert cells[item.cell.key]["commit"] == "abc123"


def test_json_keeps_a_number_whose_column_is_left_out(both: list[Evidence]) -> None:
    none = json.loads(report.render(both, "json"))["tables"][0]["rows"][1]
    fgsm = next(e for e in none["entries"] if e["access"] == "gray-box" and e["attack"] == "fgsm")
    assert fgsm["status"] == "same"
    assert fgsm["cells"][0]["cell"]["access"] == "white-box"


def test_an_unknown_format_is_refused(both: list[Evidence]) -> None:
    with pytest.raises(RequestError, match="did you mean markdown"):
        report.render(both, "markdwn")


@pytest.mark.parametrize("format", report.FORMATS)
def test_no_evidence_is_no_error(format: str) -> None:
    assert report.render([], format)


def test_templates_refuse_what_is_not_defined(monkeypatch: pytest.MonkeyPatch, both: list[Evidence]) -> None:
    monkeypatch.delattr(Row, "headline")
    for format in ("html", "latex"):
        with pytest.raises(UndefinedError, match="headline"):
            report.render(both, format)


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
        if tag not in ("meta", "link", "img", "br"):
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
    page = report.render(nasty(), "html")
    reader = Reader()
    reader.feed(page)
    assert reader.depth == []
    assert NASTY in reader.text
    assert "<b>100% & _$\\ é 漢 –</b>" in reader.text
    assert not {"script", "img", "b", "link"} & set(reader.tags)
    assert not {"src", "href", "onclick"} & {name for name, _ in reader.attributes}
    assert "url(" not in page
    assert "@import" not in page


def test_html_tooltips_say_where_a_number_comes_from(both: list[Evidence]) -> None:
    reader = Reader()
    reader.feed(report.render(both, "html"))
    tips = "\n".join(value or "" for name, value in reader.attributes if name == "title")
    for item in both:
        assert f"cell {item.cell.key[:16]}, commit abc123, 1.5 s" in tips


def test_markdown_escapes() -> None:
    text = report.render(nasty(), "markdown")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    header, *rows = [line for line in text.splitlines() if line.startswith("| ")][:4]
    assert all(line.replace("\\|", "").count("|") == header.count("|") for line in rows)


def test_latex_escapes() -> None:
    assert latex.escape("50%_$ #{x}~^\\ & --") == (
        r"50\%\_\$ \#\{x\}\textasciitilde{}\textasciicircum{}\textbackslash{} \& -{}-"
    )
    assert latex.escape("L∞ ε – 漢\nx") == r"L$_\infty$ $\varepsilon$ -- (U+6F22) x"
    fragment = report.render(nasty(), "latex")
    assert "documentclass" not in fragment
    assert "<script>" not in fragment


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path: Path, both: list[Evidence]) -> None:
    for name, text in (
        ("both", report.render(both, "latex", standalone=True)),
        ("nasty", report.render(nasty(), "latex", standalone=True)),
        ("empty", report.render([], "latex", standalone=True)),
        ("fragment", _document(report.render(nasty(), "latex"))),
    ):
        (tmp_path / f"{name}.tex").write_text(text, encoding="utf-8")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
        assert (tmp_path / f"{name}.pdf").stat().st_size > 0


def _document(fragment: str) -> str:
    return f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}{fragment}\\end{{document}}"


_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium is installed")
def test_html_opens_in_a_browser(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(report.render(nasty(), "html"), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [str(_CHROMIUM), *flags, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "&lt;script&gt;alert(1)" in done.stdout
    assert "<script" not in done.stdout


def test_reports_need_neither_torch_nor_a_database() -> None:
    code = (
        "import sys, benchbox.report as r, benchbox.report.table, benchbox.report.console;"
        "[r.render([], f) for f in r.FORMATS];"
        "print(sorted({'torch', 'sqlalchemy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
