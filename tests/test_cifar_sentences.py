"""Sentences of docs/results.md about CIFAR-10, and what its rows were and were not put to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from test_sentences import Sentence, recipe, said_in_full

import benchbox
from benchbox.analysis.table import Column, Row
from benchbox.domain import Access, Evidence

ROOT = Path(__file__).parents[1]
#: The leaderboard's rows, of the paper's network, and what else was trained and attacked.
WIDE, EVIDENCE = "results/published/cifar10.json", "docs/evidence/cifar10-trainings.json"
PAGE = "docs/results.md"


@cache
def rows(file: str) -> Mapping[str, Row]:
    """Its rows, by what they are called; the first training goes without saying."""
    (table,) = benchbox.load(ROOT / file).tables
    return {row.label.replace(" (seed 0)", "").replace(", seed 0)", ")"): row for row in table.rows}


@cache
def audits(file: str) -> Mapping[str, Mapping[str, Any]]:
    """How its rows were audited, by the digest of the weights."""
    attached = json.loads((ROOT / file).read_text("utf-8"))["attachments"]
    return {one["record"]["artifact"]: one["record"] for one in attached if one["kind"] == "audit"}


def wide(name: str) -> Row:
    """A row of the paper's network; one that is no row of the leaderboard is evidence."""
    return {**rows(EVIDENCE), **rows(WIDE)}[name]


def took(name: str) -> float:
    """Seconds of its training."""
    cards = [json.loads((ROOT / file).read_text("utf-8"))["cards"] for file in (WIDE, EVIDENCE)]
    (seconds,) = {one[wide(name).artifact]["seconds"] for one in cards if wide(name).artifact in one}
    return float(seconds)


def narrow(name: str, **wanted: object) -> Row:
    """A row of the network that a CPU can bear, with such arguments."""
    (found,) = (
        row
        for row in rows(EVIDENCE).values()
        if row.defense.name == name and "network=resnet18-16" in row.label
        if wanted.items() <= row.defense.arguments.items()
    )
    return found


def settings(row: Row, *fields: str) -> Iterator[object]:
    """Settings of a row."""
    return (row.defense.arguments[field] for field in fields)


def usual(row: Row, *fields: str) -> Iterator[object]:
    """What its recipe says of them."""
    return (getattr(recipe(row.defense.name, "cifar", "cifar10"), field) for field in fields)


def left(row: Row, attack: str, access: Access = Access.WHITE_BOX) -> float:
    """What an attack leaves."""
    entry = row.entries[Column(access, attack)]
    assert entry.score is not None
    return entry.score.percent


def clean(row: Row) -> float:
    """How many images it gets right that nobody touched."""
    assert row.clean.score is not None
    return row.clean.score.percent


def printed() -> float:
    """What the paper's baseline gets right of the clean images."""
    number = wide("none").clean.paper
    assert number is not None
    return number.percent


def attacks(row: Row, name: str) -> Iterator[Evidence]:
    """The finished cells of an attack on the whole defence."""
    entry = row.entries.get(Column(Access.WHITE_BOX, name))
    return (one.evidence for one in entry.measurements if one.status == "done") if entry else iter(())


SENTENCES = (
    Sentence(
        PAGE,
        "`none` has the {} epochs of its recipe; `pgd-at` {} in batches of {} with an inner attack of {} steps, "
        "where its recipe has {}, {} and {}; `trades` {} in batches of {} with an inner attack of {} steps, "
        "where its recipe has {}, {} and {}; `pssr:ps` trains nothing.",
        lambda: (
            *settings(wide("none"), "epochs"),
            *settings(wide("pgd-at"), "epochs", "batch_size", "attack_steps"),
            *usual(wide("pgd-at"), "epochs", "batch_size", "attack_steps"),
            *settings(wide("trades"), "epochs", "batch_size", "attack_steps"),
            *usual(wide("trades"), "epochs", "batch_size", "attack_steps"),
        ),
    ),
    Sentence(
        PAGE,
        "`none` gets {:.1f} % right, and the paper's {:.2f} lies in its interval. `pgd-at` keeps {:.1f} % under "
        "AutoAttack and `trades` {:.1f} %.",
        lambda: (clean(wide("none")), printed(), *(left(wide(name), "aa") for name in ("pgd-at", "trades"))),
    ),
    Sentence(
        "docs/performance.md",
        "they are {:.0f} for {} epochs of `none`, {:.0f} for {} of `pgd-at`, {:.0f} for {} of `trades`, {:.0f} "
        "and {:.0f} for {} of `pssr` and `pssr:cae`.",
        lambda: (
            *(n for name in ("none", "pgd-at", "trades") for n in (took(name), *settings(wide(name), "epochs"))),
            *map(took, ("pssr", "pssr:cae")),
            *{n for name in ("pssr", "pssr:cae") for n in settings(wide(name), "epochs")},
        ),
    ),
    Sentence(
        PAGE,
        "`pssr` and `pssr:cae` trained for {} epochs in batches of {} with the {} of the pixel loss, where their "
        "recipe has {}, {} and now the {}. They get {:.1f} and {:.1f} % of the images right where `none` below "
        "them gets {:.1f} %",
        lambda: (
            *settings(wide("pssr"), "epochs", "batch_size", "pixel"),
            *usual(wide("pssr:cae"), "epochs", "batch_size", "pixel"),
            *(clean(wide(name)) for name in ("pssr", "pssr:cae", "none")),
        ),
    ),
    Sentence(
        PAGE,
        "for {} epochs in batches of {}, with a generator of width {} and training attacks of {} steps, before a "
        "`none` of {} epochs (seed {}). It gets {:.1f} % of the images right where `none` below it gets {:.1f} %",
        lambda: (
            *settings(narrow("pssr:cae"), "epochs", "batch_size", "width", "attack_steps"),
            *settings(narrow("none", epochs=2), "epochs"),
            narrow("pssr:cae").training_seed,
            clean(narrow("pssr:cae")),
            clean(narrow("none", epochs=2)),
        ),
    ),
    Sentence(
        PAGE,
        "PGD on the bare classifier leaves {:.1f} % of them and PGD on the whole {:.1f} %",
        lambda: (
            left(narrow("pssr:cae"), "pgd", Access.GRAY_BOX),
            left(narrow("pssr:cae"), "pgd"),
        ),
    ),
    Sentence(
        "docs/pssr.md",
        "has the {}, gets {:.1f} and {:.1f} % of the clean images right",
        lambda: (*settings(wide("pssr"), "pixel"), clean(wide("pssr")), clean(wide("pssr:cae"))),
    ),
    Sentence(
        PAGE,
        "Square has {:,} queries where AutoAttack gives it 5,000",
        lambda: tuple(
            {
                one.cell.attack.arguments["queries"]
                for file in (WIDE, EVIDENCE)
                for row in rows(file).values()
                for one in attacks(row, "square")
            }
        ),
    ),
    Sentence(
        PAGE,
        "an earlier training of `pgd-at` for {} epochs",
        lambda: tuple(settings(rows(EVIDENCE)["pgd-at"], "epochs")),
    ),
    Sentence(
        PAGE,
        "`none` for {}, `pgd-at` for {} with an inner attack of {} steps and without augmentation, `trades` for "
        "{} with an inner attack of {} steps likewise, but in float32, `pssr` for {} on that `none`, with a "
        "generator of width {} where its recipe has {} and training attacks of {} steps where it has {}.",
        lambda: (
            *settings(narrow("none", epochs=3), "epochs"),
            *settings(narrow("pgd-at", augment=False), "epochs", "attack_steps"),
            *settings(narrow("trades"), "epochs", "attack_steps"),
            *settings(narrow("pssr"), "epochs", "width"),
            *usual(narrow("pssr"), "width"),
            *settings(narrow("pssr"), "attack_steps"),
            *usual(narrow("pssr"), "attack_steps"),
        ),
    ),
    Sentence(
        PAGE,
        "{} epoch with an inner attack of {} steps, and {} epochs with a single inner step: FGSM leaves that one "
        "{:.1f} % and PGD {:.1f} %",
        lambda: (
            *settings(narrow("pgd-at", attack_steps=2, augment=True), "epochs", "attack_steps"),
            *settings(narrow("pgd-at", attack_steps=1), "epochs"),
            *(left(narrow("pgd-at", attack_steps=1), attack) for attack in ("fgsm", "pgd")),
        ),
    ),
    Sentence(
        PAGE,
        "`pssr` gets {:.1f} % of the images right where `none` below it gets {:.1f} %",
        lambda: (clean(narrow("pssr")), clean(narrow("none", epochs=3))),
    ),
    Sentence(
        PAGE,
        "PGD through its stand-ins leaves {:.1f} %, all attacks together {:.1f} %",
        lambda: (
            left(narrow("pssr"), "pgd", Access.BPDA),
            *(score.percent for score in [narrow("pssr").robust] if score),
        ),
    ),
)


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda one: one.said[:40])
def test_a_page_says_what_was_measured(sentence: Sentence) -> None:
    assert said_in_full(sentence)


def test_the_papers_clean_accuracy_lies_in_the_interval_of_the_baseline() -> None:
    score = wide("none").clean.score
    assert score is not None
    assert score.low <= printed() <= score.high


def test_every_wide_row_has_every_kind_of_attack() -> None:
    """They are ranked; AutoAttack on the networks, Square and RayS searched in bfloat16."""
    found = rows(WIDE)
    assert list(found)
    assert all(row.rank is not None and not row.lacking for row in found.values())
    assert {"network=resnet18-16" in label for label in found} == {False}
    for name, row in found.items():
        searched = ["square", "rays", *(["aa"] if name in ("none", "pgd-at", "trades") else [])]
        assert {one.cell.search_precision for attack in searched for one in attacks(row, attack)} == {"bfloat16"}
        assert {record["effort"]["samples"] for key, record in audits(WIDE).items() if key == row.artifact} == {20}
    assert set(found) == {"none", "pgd-at", "trades", "pssr:ps"}


def test_the_narrow_rows_lack_what_the_page_says() -> None:
    """“AutoAttack on `none` alone, Square and RayS on the three `pgd-at` and on `trades`”."""
    found = [row for label, row in rows(EVIDENCE).items() if "network=resnet18-16" in label]

    def given(attack: str, access: Access = Access.WHITE_BOX) -> set[str]:
        return {row.artifact for row in found if Column(access, attack) in row.finished}

    three = {row.artifact for row in found if row.defense.name == "pgd-at"}
    assert len(three) == 3
    assert given("aa") == {narrow("none", epochs=3).artifact}
    assert given("square") == given("rays") == three | {narrow("trades").artifact}
    later = {narrow("pssr:cae").artifact, narrow("none", epochs=2).artifact}
    assert {row.artifact for row in found} - given("pgd", Access.TRANSFER) == later
    assert narrow("pssr:cae").badge.state == "not audited"
    samples = {record["effort"]["samples"] for record in audits(EVIDENCE).values()}
    assert samples == {20}
