"""docs/diffusion.md says of the attacks what the files that it quotes hold, and of t* what the recipes have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import benchbox
from benchbox.contract import registry

EVIDENCE = Path(__file__).parents[1] / "docs" / "evidence"
PAGE = " ".join((EVIDENCE.parent / "diffusion.md").read_text("utf-8").split())


def settings(file: str, *attacks: str) -> set[tuple[Any, ...]]:
    """What the cells of a file have for their attacks' steps and the length of these."""
    found = (
        item.cell.attack for item in benchbox.load(EVIDENCE / file).evidence if item.cell.attack.name in attacks
    )
    return {(one.arguments.get("steps"), one.arguments.get("step"), one.arguments.get("queries")) for one in found}


@pytest.mark.parametrize(
    ("said", "data", "attacks", "found"),
    [
        ("PGD and DiffAttack take 40 steps of ε/30", "-mnist", ("pgd", "diffattack"), {(40, 1 / 30, None)}),
        ("`low-frequency` 40 unless", "-mnist", ("low-frequency",), {(40, None, None), (100, None, None)}),
        ("PGD and `diffattack` take 20 steps of ε/10", "", ("pgd", "diffattack"), {(20, 0.1, None)}),
        ("`low-frequency` 40; `square`", "", ("low-frequency",), {(40, None, None)}),
        ("`square` and `rays` have 300 queries each", "", ("square", "rays"), {(None, None, 300)}),
    ],
)
def test_the_attacks_are_set_as_the_page_says(
    said: str, data: str, attacks: tuple[str, ...], found: set[tuple[Any, ...]]
) -> None:
    assert said in PAGE
    assert settings(f"diffusion{data}.json", *attacks) == found


@pytest.mark.parametrize("data", ["digits", "mnist"])
def test_the_recipes_have_what_held_out_images_chose(data: str) -> None:
    """“On digits the recipes have these values; … On MNIST they do not have this t*.”"""
    for row in json.loads((EVIDENCE / f"diffusion-choice-{data}.json").read_text("utf-8"))["chosen"]:
        recipe: Any = registry.defenses().get(row["defence"]).cls.configure("mnist", data)
        assert (recipe.t_star == row["t*"]) == (data == "digits")
        assert recipe.steps == row["steps"]
        assert row["guidance"] in ("", getattr(recipe, "guidance", None))


def test_mnist_has_rows_of_two_sizes() -> None:
    """“… is of the first 32, and says so”."""
    lists = {item.cell.samples.indices for item in benchbox.load(EVIDENCE / "diffusion-mnist.json").evidence}
    few, many = sorted(lists, key=len)
    assert len(few) == 32
    assert many[:32] == few
