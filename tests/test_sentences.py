"""Sentences of the pages that quote a result: here with gaps, which the files that hold the results fill."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from second_trainings import second

import benchbox
from benchbox.analysis import papers
from benchbox.analysis.substitutes import strangers
from benchbox.analysis.table import Column, Row
from benchbox.contract import registry
from benchbox.domain import Access

ROOT = Path(__file__).parents[1]
WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PSSR = ("pssr", "pssr:ps", "pssr:cae", "pssr:ps+cae")


@dataclass(frozen=True)
class Sentence:
    """What a page says.

    Attributes:
        page: Which, from the root of the repository.
        said: The sentence, with {} for every number.
        numbers: Them, from the results.
    """

    page: str
    said: str
    numbers: Callable[[], tuple[object, ...]]


@cache
def file(name: str) -> Mapping[str, Any]:
    """A published file as it is."""
    found: Mapping[str, Any] = json.loads((ROOT / f"results/published/{name}.json").read_text("utf-8"))
    return found


@cache
def rows(name: str) -> Mapping[str, Row]:
    """The rows of a file's largest table, by what they are called."""
    tables = benchbox.load(ROOT / f"results/published/{name}.json").tables
    return {row.label: row for row in max(tables, key=lambda table: len(table.samples)).rows}


def percent(name: str, defense: str, attack: str, access: Access = Access.WHITE_BOX) -> float:
    """What an attack on the whole defence leaves."""
    entry = rows(name)[defense].entries[Column(access, attack)]
    assert entry.score is not None
    return entry.score.percent


def card(name: str, defense: str) -> Mapping[str, Any]:
    """How the weights of a row were trained."""
    found: Mapping[str, Any] = file(name)["cards"][rows(name)[defense].artifact]
    return found


def arguments(name: str, defense: str) -> Mapping[str, Any]:
    """What a row's recipe says."""
    return rows(name)[defense].defense.arguments


def recipe(defense: str, *scopes: str) -> Any:
    """What it says unless asked otherwise."""
    return registry.defenses().get(defense).cls.configure(*scopes)


def smallcnn() -> Row:
    """TRADES on the network of its authors."""
    (found,) = (row for row in rows("mnist").values() if row.defense.arguments.get("network") == "smallcnn")
    return found


def published(name: str) -> tuple[int, int | None]:
    """How many images the rows of a file are about, and the seed that they were drawn with."""
    lists = {table.samples for table in benchbox.load(ROOT / f"results/published/{name}.json").tables}
    longest = max(lists, key=len)
    return len(longest), longest.seed


def autoattacked(row: Row) -> tuple[float, float, float, int]:
    """What AutoAttack on the whole defence leaves, its interval, and of how many images as yet."""
    entry = row.entries[Column(Access.WHITE_BOX, "aa")]
    assert entry.score is not None
    (one,) = entry.measurements
    return entry.score.percent, entry.score.low, entry.score.high, len(one.evidence.outcome)


def readings(attack: str) -> Iterator[float]:
    """What an attack on the bare classifier leaves of each reading of surgery that removes pixels."""
    for row in benchbox.load(ROOT / "docs/evidence/pssr-readings.json").tables[0].rows:
        entry = row.entries.get(Column(Access.GRAY_BOX, attack))
        if row.defense.name == "pssr:ps" and entry is not None and entry.score is not None:
            yield entry.score.percent


SENTENCES = (
    Sentence(
        "docs/results.md",
        "`ibp` ({} epochs here, its recipe has {})",
        lambda: (arguments("mnist", "ibp")["epochs"], recipe("ibp", "gray", "mnist").epochs),
    ),
    Sentence(
        "docs/results.md",
        "`carso` is a training of {} epochs where its recipe has {}",
        lambda: (arguments("mnist", "carso")["epochs"], recipe("carso", "gray", "mnist").epochs),
    ),
    Sentence(
        "docs/results.md",
        "bfloat16: {:.1f}, {:.1f} and {:.1f} % of the images are right as they are",
        lambda: thrice(),
    ),
    Sentence(
        "docs/results.md",
        "`network=smallcnn`: {} epochs, β = {:.0f} and an inner attack of {} steps, where their script has "
        "{}, {:.0f} and {}.",
        lambda: (
            *(smallcnn().defense.arguments[name] for name in ("epochs", "beta", "attack_steps")),
            *(getattr(recipe("trades"), name) for name in ("epochs", "beta", "attack_steps")),
        ),
    ),
    Sentence(
        "docs/results.md",
        "here it leaves {:.1f} % \\[{:.1f}, {:.1f}\\] of the {:,} random ones.",
        lambda: autoattacked(smallcnn()),
    ),
    Sentence(
        "docs/results.md",
        "that took {:.0f} gradients an image on `atop` and {:.0f} on `carso`, on {} images",
        lambda: (*(second(name, "aa").gradients for name in ("atop", "carso")), second("atop", "aa").images),
    ),
    Sentence(
        "docs/results.md",
        "Of these AutoAttack leaves `atop` {:.1f} % and `carso` {:.1f} %, PGD with one draw a gradient "
        "{:.1f} and {:.1f} %",
        lambda: tuple(second(name, attack).percent for attack in ("aa", "pgd") for name in ("atop", "carso")),
    ),
    Sentence(
        "docs/results.md",
        "with 5 of them it leaves {:.1f} %. On `carso` they hardly help, it leaves {:.1f} %",
        lambda: tuple(second(name, "pgd", 5).percent for name in ("atop", "carso")),
    ),
    Sentence(
        "docs/results.md",
        "The `pgd-at` below `carso` keeps {:.1f} % under AutoAttack",
        lambda: (second("pgd-at", "aa", 1).percent,),
    ),
    Sentence(
        "docs/performance.md",
        "A whole training of `pssr` in {} took {:.1f} minutes",
        lambda: (card("mnist", "pssr")["precision"], card("mnist", "pssr")["seconds"] / 60),
    ),
    Sentence(
        "docs/diffusion.md",
        "`pgd-at`, which [withstands](results.md) {:.0f} % under PGD",
        lambda: (percent("mnist", "pgd-at", "pgd"),),
    ),
)


def thrice() -> tuple[float, ...]:
    """What each training of PSSR leaves of the images as they are, by their seeds."""
    (table,) = benchbox.load(ROOT / "docs/evidence/pssr-trainings.json", dataset="mnist").tables
    found = [row.clean.score for row in sorted(table.rows, key=lambda row: row.training_seed)]
    return tuple(score.percent for score in found if score)


@pytest.mark.parametrize(
    ("seeds", "apart"),
    [
        ((0, 1), set()),
        ((0, 2), {"clean", "white-box fgsm", "bpda fgsm"}),
        ((1, 2), {"white-box fgsm"}),
    ],
)
def test_trainings_of_pssr_are_as_far_apart_as_the_page_says(seeds: tuple[int, int], apart: set[str]) -> None:
    """docs/results.md, of everything that both were put to."""
    store = ROOT / "docs/evidence/pssr-trainings.json"
    cells = [item.cell for item in benchbox.load(store).evidence]
    weights = {cell.training_seed: cell.artifact for cell in cells if cell.defense.name == "pssr"}
    (found,) = benchbox.compare(*(weights[seed] for seed in seeds), store=store).comparisons
    tested = {pair.label: pair.p_holm for pair in found.pairs if pair.p_holm is not None}
    assert len(tested) == found.family > 10
    assert {column for column, p in tested.items() if p < 0.05} == apart


def audits(name: str) -> Mapping[str, Mapping[str, Any]]:
    """The audits of a file, by the name of the defence."""
    found = (one["record"] for one in file(name)["attachments"] if one["kind"] == "audit")
    return {record["defense"]: record for record in found}


def said_in_full(sentence: Sentence) -> bool:
    """Whether its page has it, with the numbers of the results."""
    page = " ".join((ROOT / sentence.page).read_text("utf-8").split())
    return sentence.said.format(*sentence.numbers()) in page


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda one: one.said[:40])
def test_a_page_says_what_was_measured(sentence: Sentence) -> None:
    assert said_in_full(sentence)


def test_which_images_the_published_rows_are_about() -> None:
    """docs/your-own.md, for who wants a result beside them."""
    (digits, seed), clothes, (colour, _) = map(published, ("mnist", "fashion-mnist", "cifar10"))
    assert clothes == (digits, seed)
    assert published("cifar10") == (colour, seed)
    said = Sentence(
        "docs/your-own.md",
        "{:,} of MNIST and of Fashion-MNIST, {} of CIFAR-10, drawn with seed {} from the test set",
        lambda: (digits, colour, seed),
    )
    assert said_in_full(said)


def test_no_reading_has_the_papers_white_box_numbers() -> None:
    """docs/pssr.md: “no reading that is published has them”."""
    for number in papers.numbers("pssr"):
        if (number.table, number.dataset, number.row) == ("1", "mnist", "pssr") and number.column != "benign":
            column = Column(Access.WHITE_BOX, number.column)
            found = [row.entries[column].score for name in PSSR if column in (row := rows("mnist")[name]).finished]
            assert found
            assert all(score and number.percent and score.percent < number.percent for score in found)


def test_surgery_alone_withstands_next_to_nothing() -> None:
    """docs/pssr.md, of every α, beside the 31.24 of the paper."""
    found = list(readings("pgd"))
    assert len(found) > 20
    assert max(found) < 5


def test_two_audits_of_the_same_surgery_differ() -> None:
    """docs/pssr.md: “`PS` is withdrawn by an audit of 10 images …; one of 100 images, of the same weights”."""
    said = []
    for file in ("docs/evidence/pssr-readings.json", "results/published/mnist.json"):
        attached = json.loads((ROOT / file).read_text("utf-8"))["attachments"]
        (audit,) = (
            one["record"]
            for one in attached
            if one["kind"] == "audit" and one["record"]["artifact"] == rows("mnist")["pssr:ps"].artifact
        )
        (found,) = (finding["numbers"] for finding in audit["findings"] if finding["check"] == "A3")
        said.append((len(audit["samples"]["indices"]), found.get("differ", 0), found["asked"]))
    assert said == [(10, 2, 120), (100, 0, 2600)]


def test_the_paper_prints_more_for_trades_under_cw_than_on_benign_images() -> None:
    """docs/pssr.md; docs/results.md has the numbers."""
    printed = {
        n.column: n.percent
        for n in papers.numbers("pssr")
        if (n.table, n.dataset, n.row) == ("1", "mnist", "trades")
    }
    assert printed["cw"] is not None
    assert printed["benign"] is not None
    assert (printed["cw"], printed["benign"]) == (99.16, 98.79)


def test_neither_cw_inside_the_ball_is_the_papers_column() -> None:
    """docs/results.md, of the three rows of docs/evidence/cw-l2.json; docs/pssr.md: “fits no better”."""
    (table,) = benchbox.load(ROOT / "docs/evidence/cw-l2.json").tables
    first = max(benchbox.load(ROOT / "results/published/mnist.json").tables, key=lambda one: len(one.samples))
    assert table.samples.indices == first.samples.indices[:100]
    allowed = {}
    for row in table.rows:
        margin, l2 = (row.entries[Column(Access.WHITE_BOX, attack)] for attack in ("cw", "cw-l2"))
        assert margin.score is not None
        assert l2.score is not None
        if margin.paper is not None:
            scores = (margin.score, l2.score)
            allowed[row.label] = [score.low <= margin.paper.percent <= score.high for score in scores]
    assert allowed == {"none": [True, False], "pgd-at": [False, True]}


def test_transfer_to_three_rows_is_from_others() -> None:
    """docs/results.md: “Transfer to the SmallCNN and to `ibp` is from the substitute of `pgd-at`, a LeNet-5”."""
    (table,) = (t for t in benchbox.load(ROOT / "results/published/mnist.json").tables if len(t.samples) == 1000)
    found = {row.label: strangers(row, table.cards) for row in table.rows}
    assert {name for name, them in found.items() if them} == {smallcnn().label, "ibp", "trades (beta=6)"}
    assert found["ibp"] == found[smallcnn().label] == ["pgd-at (seed 1000)"]
    assert found["trades (beta=6)"] == ["none (seed 1000)"]
    beta = rows("mnist")["trades (beta=6)"]
    assert beta.badge.state == "not audited"
    assert Column(Access.WHITE_BOX, "aa") not in beta.finished


def test_some_searches_through_stand_ins_were_cut_short() -> None:
    """docs/results.md: “CW through the stand-ins of `pssr` was stopped after two of four”."""
    found = {
        (name, column.attack): {
            m.evidence.cell.view.stand_in or "exact": m.evidence.outcome.robust.mean() for m in entry.measurements
        }
        for name in ("pssr", "pssr:ps", "pssr:ps+cae")
        for column, entry in rows("mnist")[name].entries.items()
        if column.access is Access.BPDA
    }
    without = {"exact", "identity-removal", "soft-mask"}
    assert set(found["pssr", "cw"]) == {"exact", "identity-removal"}
    assert all(set(found[name, "aa"]) == without for name in ("pssr", "pssr:ps", "pssr:ps+cae"))
    cut = [found["pssr", "cw"], *(found[name, "aa"] for name in ("pssr", "pssr:ps+cae"))]
    assert not any(left for one in cut for left in one.values())
    assert min(found[name, "pgd"]["identity-purifier"] for name in ("pssr", "pssr:ps+cae")) > 0.5


def test_mnist_lacks_what_the_page_says() -> None:
    """docs/results.md: “No `uat`, `rst` or `bagt-trades`; no second training of `pssr`”."""
    names = {row.defense.name for row in rows("mnist").values()}
    assert not names & {"uat", "rst", "bagt-trades"}
    assert {row.training_seed for row in rows("mnist").values()} == {0}
