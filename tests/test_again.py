"""“Make it again”: the commands of a page ask for the very cells of a row, also where nobody typed one."""

from __future__ import annotations

import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from commands import SHORT, Said
from rows import GRAY, WHITE, evidence

import benchbox
from benchbox.analysis import leaderboard
from benchbox.analysis.background import Background
from benchbox.domain import Access, Evidence, SampleList
from benchbox.report.page.drill import drill
from benchbox.result import Result
from benchbox.store import Store

RUNS = {
    "settings, seed, precision and a source": (
        *("--defense", "jpeg", "--attacks", "fgsm,pgd", "--access", "gray-box,white-box,transfer"),
        *("--source", "defense,pgd-at", "--set", "pgd.steps=3", "--set", "jpeg.quality=60"),
        *("--set", "pgd-at.epochs=1", "--set", "pgd-at.attack_steps=1"),
        *("--attack-seed", "3", "--search-precision", "bfloat16"),
    ),
    "draws": (
        *("--defense", "randomized-resize-pad", "--attacks", "fgsm", "--access", "gray-box,white-box"),
        *("--scoring-draws", "3", "--eot", "2", "--epsilon", "0.1"),
    ),
}


def commands(items: list[Evidence], known: Background | None = None) -> tuple[str, ...]:
    (table,) = leaderboard.build(items, known or Background())
    (row,) = table.rows
    return drill(table, row, None, "").commands


@pytest.mark.parametrize("run", RUNS)
def test_what_a_page_says_to_type_asks_for_the_very_cells(workspace: Path, said: Said, run: str) -> None:
    place = str(workspace / "results.sqlite")
    status, _, err = said("run", *RUNS[run], *SHORT, "--samples", "5", "--store", place)
    assert status == 0, err
    found: Result = benchbox.load(place)
    made = commands([replace(item, provenance={}) for item in found.evidence], found.known)
    for command in made:
        status, _, err = said(*shlex.split(command)[1:], "--store", place, "--quiet")
        assert status == 0, err
    with Store.open(place) as store:
        assert {item.cell.key for item in store.evidence()} == {item.cell.key for item in found.evidence}


def test_a_command_has_one_setting_of_an_attack_and_no_other_pair_of_attack_and_access() -> None:
    items = [
        evidence("pssr", WHITE, "pgd", settings={"steps": 7}),
        evidence("pssr", WHITE, "pgd", settings={"steps": 9}),
        evidence("pssr", GRAY, "pgd", settings={"steps": 7}),
        evidence("pssr", GRAY, "fgsm"),
    ]
    asked = set()
    for words in map(shlex.split, commands(items)):
        said = dict(pairwise(words))
        asked.add((said["--attacks"], said["--access"], said["--set"]))
    assert asked == {
        ("pgd", "white-box", "pgd.steps=7"),
        ("pgd", "white-box", "pgd.steps=9"),
        ("fgsm,pgd", "gray-box", "pgd.steps=7"),
    }


def test_what_no_command_asks_for_is_said() -> None:
    chosen = SampleList("mnist", "test", tuple(range(1, 101)), "d" * 64)
    items = [
        evidence("pssr", access, name, samples=chosen)
        for access, name in ((WHITE, "pgd"), (Access.IMPORTED, "imported:their\ns"))
    ]
    first, second, third = commands(items)
    assert first == "# these images are a choice of somebody's: the first as many are others"
    assert shlex.split(second)[:10] == [
        "benchbox",
        "run",
        "--defense",
        "pssr",
        "--dataset",
        "mnist",
        "--attacks",
        "pgd",
        "--access",
        "white-box",
    ]
    assert third == "# made elsewhere, so `benchbox import-adversarials` brings them in: imported:their s"


def test_what_was_typed_stands_as_it_was_typed_beside_what_was_not() -> None:
    typed = replace(evidence("pssr", WHITE, "pgd"), provenance={"command": ["benchbox", "run", "-d", "pssr"]})
    one, other = commands([typed, evidence("pssr", WHITE, "fgsm")])
    assert one == "benchbox run -d pssr"
    assert "--attacks fgsm --access white-box" in other
