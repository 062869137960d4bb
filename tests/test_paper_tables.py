"""Tables in the paper's shape: whose rows, which are best, and what stands on the printed page."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import Said, refusal
from rows import BPDA, GRAY, TRANSFER, WHITE, N, evidence, failed, unfinished
from typeset import TEX, article, compiled, read

from benchbox import report
from benchbox.analysis import leaderboard, paper
from benchbox.analysis.background import Background
from benchbox.analysis.paper_layout import Layout
from benchbox.analysis.paper_table import PaperTable, arrange
from benchbox.domain import Access, Evidence, SampleList, ThreatModel
from benchbox.engine import request
from benchbox.errors import RequestError
from benchbox.report import latex
from benchbox.store import Store

PURIFIERS = Background(purifiers=("pssr",))
CIFAR = {
    "samples": SampleList("cifar10", "test", tuple(range(N)), "e" * 64),
    "threat": ThreatModel("linf", 8 / 255),
}
GRIDS = Path(__file__).parent.parent / "docs" / "grids"
#: Names that LaTeX would obey, break at, or take for options.
NASTY = (
    'say "so"',
    "a_b%",
    "c&d#e",
    "~f^g",
    "\\input{/etc/passwd}",
    "\\end{document}",
    "{open",
    "close}",
    "[opt]",
    "*star",
    "$x$",
)


def arranged(items: list[Evidence], known: Background = PURIFIERS, **layout: object) -> PaperTable:
    return arrange(leaderboard.build(items, known), Layout(**layout))  # type: ignore[arg-type]


def text_of(
    items: list[Evidence], format: str, *, options: dict[str, bool] | None = None, **layout: object
) -> str:
    chosen = Layout(**layout)  # type: ignore[arg-type]
    document = report.paper_table(items, PURIFIERS, layout=chosen, **(options or {}))
    return report.render(document, format)


def best(table: PaperTable, column: str) -> set[str]:
    return {line.name for group in table.groups for line in group.lines if line.at(column).best}


def cells() -> list[Evidence]:
    """PSSR falls under white-box alone; trades has two attacks, none the white-box ones of everybody."""
    return [
        evidence("none", WHITE, "fgsm", 30),
        evidence("none", WHITE, "pgd", 0),
        evidence("trades", WHITE, "fgsm", 92),
        evidence("trades", WHITE, "pgd", 90),
        evidence("pssr", GRAY, "fgsm", 95),
        evidence("pssr", GRAY, "pgd", 93),
        evidence("pssr", WHITE, "pgd", 1),
        evidence("pssr", TRANSFER, "pgd", 91),
        evidence("pssr", BPDA, "pgd", np.arange(N)[:, None] < 80, stand_in="identity"),
        evidence("pssr", BPDA, "pgd", np.arange(N)[:, None] >= 40, stand_in="soft"),
    ]


def test_rows_are_those_of_the_grid_files() -> None:
    for path in sorted(GRIDS.glob("table*.toml")):
        number, grid = int(path.stem[5]), request.read(path)
        for dataset in grid.datasets:
            # The paper does not say which of two defences it ran; the grid names those that it fits.
            assert set(grid.defenses) <= set(paper.lines_of(number, dataset)), path


@pytest.mark.parametrize(("number", "accesses"), [(1, (GRAY, WHITE)), (2, (TRANSFER,)), (4, (GRAY, WHITE))])
def test_a_table_has_the_papers_rows_and_columns(number: int, accesses: tuple[Access, ...]) -> None:
    table = arranged(cells(), number=number)
    assert table.columns == ("benign", "fgsm", "bim", "mim", "pgd", "aa", "cw", "worst")
    assert table.accesses == accesses
    for group in table.groups:
        assert [line.name for line in group.lines] == paper.lines_of(number, "mnist")
    assert table.unmeasured == ("cifar10", "cifar100")


def test_the_reader_chooses_the_access() -> None:
    for access, pgd in ((GRAY, 93.0), (WHITE, 1.0)):
        table = arranged(cells(), number=1, accesses=(access,))
        (group,) = table.groups
        found = {line.name: line for line in group.lines}
        score = found["pssr"].at("pgd").score
        assert score is not None
        assert score.percent == pgd
        # Without a purifier both are one model.
        same = found["trades"].at("pgd").score
        assert same is not None
        assert same.percent == 90.0
        caption = report.paper_table(cells(), PURIFIERS, layout=table.layout).sections[0].caption
        assert str(access) in caption
        assert "different access" not in caption
    assert "different access, group by group: gray-box, white-box" in text_of(cells(), "latex", number=1)


def test_best_is_a_tie_group_and_not_a_decimal() -> None:
    table = arranged(cells(), number=1, accesses=(GRAY,))
    # 93 against 90 of 100 images, three of them discordant, says nothing.
    assert best(table, "pgd") == {"pssr", "trades"}
    table = arranged(cells(), number=1, accesses=(WHITE,))
    assert best(table, "pgd") == {"trades"}
    assert best(table, "bim") == set()


def test_nobody_is_best_where_nothing_is_left() -> None:
    items = [evidence("none", WHITE, "pgd", 0), evidence("trades", WHITE, "pgd", 2)]
    assert best(arranged(items, number=1, accesses=(WHITE,)), "pgd") == set()


def test_a_worst_case_without_all_attacks_is_marked_and_never_best() -> None:
    names = ("fgsm", "pgd")
    items = [evidence(d, WHITE, a, k) for d, k in (("none", 20), ("trades", 60)) for a in names]
    items += [evidence("pcl", WHITE, "fgsm", 95), unfinished(evidence("pcl", WHITE, "pgd", 95), 10)]
    items += [failed(evidence("arn", WHITE, "pgd"), "no")]
    table = arranged(items, number=None, columns=(*names, "worst"), accesses=(WHITE,))
    assert best(table, "worst") == {"trades"}
    text = text_of(items, "terminal", columns=(*names, "worst"), accesses=(WHITE,))
    assert re.search(r"PCL \[\d\] +95\.0 +100\.0… +95\.0†", text)
    assert re.search(r"ARN \[\d\] +– +failed +–", text)


def test_table_3_has_data_sets_across_and_every_stand_in() -> None:
    items = [*cells(), evidence("pssr", BPDA, "pgd", 50, stand_in="identity", **CIFAR)]
    lines = text_of(items, "terminal", number=3, options={"paper": True}).splitlines()
    found = [line.split() for line in lines]
    assert ["defence", "through", "MNIST", "CIFAR-10"] in found
    assert ["PSSR", "[1]", "identity", "80.0", "50.0"] in found
    assert ["soft", "60.0", "–"] in found
    # An image falls if it falls through any.
    assert ["worst", "per", "image", "40.0", "(94.67)", "50.0", "(52.98)"] in found


def test_a_number_across_is_withdrawn_for_its_own_weights_alone() -> None:
    named = ("pssr", "atop")
    items = [evidence(name, BPDA, "pgd", 30, stand_in="identity") for name in named]
    items += [evidence(name, BPDA, "pgd", 80, stand_in="identity", artifact=name, **CIFAR) for name in named]
    bad = {
        "threat": vars(CIFAR["threat"]),
        "summary": {"integrity": ["A1"], "masking": [], "attack": [], "counts": {}},
    }
    known = Background(purifiers=named, audits={"pssr": bad})
    chosen = Layout(3, rows=named)
    document = report.paper_table(items, known, layout=chosen)
    found = [line.split() for line in report.render(document, "terminal").splitlines()]
    assert ["PSSR", "[1]", "identity", "30.0", "80.0", "(withdrawn)"] in found
    assert ["worst", "per", "image", "30.0", "80.0", "(withdrawn)"] in found
    assert ["worst", "per", "image", "30.0", "80.0"] in found
    table = arrange(leaderboard.build(items, known), chosen)
    assert [best(table, column) for column in ("mnist", "cifar10")] == [set(named), set()]
    lines = csv.DictReader(io.StringIO(report.render(document, "csv")))
    status = {(line["defense"], line["dataset"]): line["status"] for line in lines}
    assert status["pssr", "mnist"] == status["atop", "cifar10"] == "done"
    assert status["pssr", "cifar10"] == "withdrawn"


def test_what_is_said_of_a_number_across_is_of_the_images_it_is_of() -> None:
    few = {"samples": SampleList("mnist", "test", tuple(range(10)), "f" * 64)}
    ten = evidence("pssr", BPDA, "pgd", np.arange(10)[:, None] < 5, stand_in="identity", **few)
    ten = replace(ten, outcome=ten.outcome.rows(slice(10)))
    items = [ten, evidence("pssr", BPDA, "pgd", 30, stand_in="identity")]
    (section,) = report.paper_table(items, PURIFIERS, layout=Layout(3)).sections
    assert "n = 100" in section.caption
    assert "n = 10;" not in section.caption
    lines = csv.DictReader(io.StringIO(text_of(items, "csv", number=3)))
    assert {(line["n"], line["samples_digest"]) for line in lines if line["percent"]} == {("100", "d" * 64)}


def test_a_worst_case_beside_no_attack_is_over_every_finished_one_of_the_access() -> None:
    items = [evidence("none", WHITE, "aa", 10), evidence("none", WHITE, "pgd", np.arange(N)[:, None] >= 5)]
    items += [evidence("trades", WHITE, "pgd", 60), evidence("pssr", GRAY, "pgd", 70)]
    text = text_of(items, "terminal", columns=("benign", "worst"), accesses=(WHITE,))
    found = [line.split()[-2:] for line in text.splitlines()]
    assert ["99.0", "5.0"] in found
    assert ["99.0", "60.0†"] in found  # aa is missing
    assert ["99.0", "–"] in found  # nothing under this access
    assert "Worst: over every finished attack of that access, image by image" in " ".join(text.split())
    lines = text_of([evidence("pssr", BPDA, "pgd", 30, stand_in="exact")], "csv", number=3, columns=("worst",))
    assert ",30.0," in lines


def test_data_sets_are_groups_of_rows_and_never_compared() -> None:
    items = [*cells(), evidence("pssr", GRAY, "pgd", 60, **CIFAR), evidence("none", WHITE, "pgd", 0, **CIFAR)]
    table = arranged(items, number=1, accesses=(GRAY,))
    assert [group.dataset for group in table.groups] == ["mnist", "cifar10"]
    text = text_of(items, "markdown", number=1, accesses=(GRAY,))
    assert "| **MNIST** | | " in text.replace("|  |", "| |")
    assert "MNIST: L∞ ε = 0.3, n = 100; CIFAR-10: L∞ ε = 8/255, n = 100" in text
    assert "**60.0**" in text


def test_papers_numbers_and_intervals_stand_there_when_asked() -> None:
    plain = text_of(cells(), "terminal", number=1, accesses=(GRAY,))
    assert "98.92" not in plain
    assert "[86.1" not in plain
    both = text_of(cells(), "terminal", number=1, accesses=(GRAY,), options={"paper": True, "intervals": True})
    assert "(98.92)" in both
    assert "[86.1, 97.1]" in both
    assert "can only be gray-box" in both


def test_any_selection_takes_the_same_shape() -> None:
    text = text_of(cells(), "latex", rows=("pssr",), columns=("benign", "pgd"), accesses=(GRAY, BPDA, WHITE))
    assert "Benign & PGD" in text
    assert text.count("PSSR~\\cite{fu2024invariance}") == 3
    for wrong, name in (("rows", "psr"), ("columns", "pdg"), ("datasets", "mnits")):
        with pytest.raises(RequestError, match="did you mean"):
            arranged(cells(), **{wrong: (name,)})
    with pytest.raises(RequestError, match="no Table 5"):
        arranged(cells(), number=5)


def test_rows_and_lines_for_machines() -> None:
    lines = list(csv.DictReader(io.StringIO(text_of(cells(), "csv", number=1))))
    (line,) = [x for x in lines if (x["defense"], x["access"], x["column"]) == ("pssr", "white-box", "pgd")]
    assert (line["percent"], line["n"], line["best"], line["paper_percent"]) == ("1.0", "100", "", "98.92")


def test_every_cited_paper_is_in_the_bibliography() -> None:
    document = report.paper_table(cells(), layout=Layout(number=1))
    text = report.render(document, "latex")
    cited = set(re.findall(r"\\cite\{([^}]*)\}", text))
    assert cited == set(re.findall(r"^@\w+\{(.*),$", document.bibtex, re.MULTILINE))
    assert len(cited) >= 5
    assert "References" not in text
    assert text.count(r"\begin{table") == 1


def test_a_defence_of_ones_own_is_cited_by_its_card() -> None:
    entry = "@misc{me2026,\n  author = {Me, Myself and I},\n  title = {Mine & {Best}},\n  year = {2026}\n}"
    items = [evidence("mine", WHITE, "pgd", 5), evidence("other", WHITE, "pgd", 5)]
    known = Background(papers={"mine": entry, "other": "Other 2026"})
    document = report.paper_table(items, known, layout=Layout(columns=("pgd",)))
    text = report.render(document, "latex", standalone=True)
    assert r"mine~\cite{me2026}" in text
    assert r"\bibitem{me2026} Me et al. (2026). Mine \& Best" in text
    assert "other &" in text
    assert document.bibtex == entry + "\n"


def test_the_ranking_cites_too_in_print_alone() -> None:
    entry = "@misc{me2026,\n  author = {Me, Myself and I},\n  title = {Mine & {Best}},\n  year = {2026}\n}"
    items = [evidence(name, WHITE, "pgd", 5) for name in ("mine", "pssr:cae", "other")]
    document = report.tabulate(items, Background(papers={"mine": entry}))
    text = report.render(document, "latex", standalone=True)
    assert r"mine~\cite{me2026} &" in text
    assert r"pssr:cae~\cite{fu2024invariance} &" in text
    assert "other &" in text
    assert text.count(r"\bibitem{") == document.bibtex.count("@") == 2
    assert "Me et al." not in report.render(document, "markdown") + report.render(document, "terminal")


def pages(tmp_path: Path, text: str) -> str:
    """What a reader reads on the pages of a LaTeX document, without the marks of ligatures."""
    compiled(tmp_path, text)
    log = compiled(tmp_path, text)
    assert "undefined" not in log
    assert "Overfull" not in log
    return read(tmp_path, "-layout")


@TEX
def test_the_numbers_are_read_back_from_the_page(tmp_path: Path) -> None:
    document = report.paper_table(cells(), PURIFIERS, layout=Layout(number=1, accesses=(GRAY,)))
    found = pages(tmp_path, report.render(document, "latex", standalone=True))
    assert re.search(r"PSSR \[\d\] +99\.0 +95\.0 +– +– +93\.0 +– +– +93\.0\s*†", found), found
    assert re.search(r"TRADES \[\d\] +99\.0 +92\.0 +– +– +90\.0", found)
    assert re.search(r"\[\d\] Madry et al\. \(2018\)", found)
    assert "n = 100" in found


@TEX
def test_a_fragment_needs_two_packages_alone_and_any_name_survives(tmp_path: Path) -> None:
    items = [evidence(name, WHITE, "pgd", 10 + i) for i, name in enumerate(NASTY)]
    document = report.paper_table(items, layout=Layout(columns=("pgd",)))
    found = pages(tmp_path, article(report.render(document, "latex")))
    # Plain fonts draw _ as a rule, and ~ and ^ as accents.
    found = found.replace("˜", "~").replace("ˆ", "^").replace("”", '"')
    for i, name in enumerate(NASTY):
        assert re.search(rf"{re.escape(name.replace('_', ' '))} +{10 + i}\.0", found), (name, found)


def test_the_ranking_in_latex_is_one_table_with_few_words() -> None:
    many = [evidence(f"d{i}", WHITE, "pgd", 50 + i) for i in range(20)]
    many += [unfinished(evidence(f"d{i}", TRANSFER, "pgd", 50), 10) for i in range(20)]
    document = report.tabulate(many)
    text = latex.render(document)
    assert text.count(r"\begin{table*}") == 1
    printed = [line for line in text.splitlines() if not line.startswith("%")]
    assert len(" ".join(printed[printed.index(r"\footnotesize") :])) < 900
    whole = latex.render(document, groups=True)
    assert whole.count(r"\begin{table*}") == 3
    assert re.search(r"\$\^\{20\}\$ d\d+, transfer pgd: 10 of 100 images", whole)
    assert r"\ldots{}$^{20}$" in whole


@pytest.fixture
def filled(tmp_path: Path) -> str:
    """A store with the cells."""
    path = tmp_path / "results.sqlite"
    with Store.open(path) as store:
        run = store.begin_run({"dataset": "mnist"}, {})
        for item in cells():
            store.add_cell(item.cell, run)
            store.commit_batch(item.cell, item.outcome, seconds=1.0)
    return str(path)


def test_the_command_writes_the_table_and_its_bibliography(said: Said, filled: str, tmp_path: Path) -> None:
    words = ("report", "--store", filled, "--table", "1", "--access", "gray-box", "--format", "latex")
    status, out, err = said(*words, "--output", str(tmp_path / "one.tex"))
    assert status == 0, err
    assert (tmp_path / "one.tex").read_text(encoding="utf-8").count(r"\begin{tabular}") == 1
    assert (tmp_path / "one.bib").read_text(encoding="utf-8").startswith("@")
    status, out, err = said(*words[:3], "--format", "latex", "--output", str(tmp_path / "ranks.tex"))
    assert status == 0, err
    assert r"\cite{" in (tmp_path / "ranks.tex").read_text(encoding="utf-8")
    assert (tmp_path / "ranks.bib").exists()
    status, out, err = said(*words[:3], "--layout", "paper", "--rows", "pssr,trades", "--columns", "benign,pgd")
    assert status == 0, err
    assert re.search(r"defence +Benign +PGD", out)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("--rows", "pssr"), "add --table 1 or --layout paper"),
        (("--paper",), "add --table 1 or --layout paper"),
        (("--table", "7"), "choose 1, 2, 3 or 4"),
        (("--table", "1", "--against", "pssr"), "leave"),
        (("--layout", "papr"), "did you mean paper"),
        (("--table", "1", "--rows", "psr"), "did you mean pssr"),
        (("--by-access",), "--by-access is for --format latex"),
    ],
)
def test_what_does_not_fit_is_refused(said: Said, filled: str, words: tuple[str, ...], remedy: str) -> None:
    assert remedy in refusal(said("report", "--store", filled, *words))
