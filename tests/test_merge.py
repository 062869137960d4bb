"""Stores that were filled apart become one, and stores that contradict each other do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from commands import WHITE, Said, refusal
from evidence import CELL, assert_filled, assert_same, begin, fill, images, outcome

from benchbox.engine import sharing
from benchbox.engine.plan import Plan, Request
from benchbox.errors import RequestError, StoreError
from benchbox.store import Store, outcomes
from benchbox.store.merge import merge


def test_a_store_merged_into_an_empty_one_is_the_same_and_twice_changes_nothing(tmp_path):
    with Store.open(tmp_path / "a.sqlite") as store:
        fill(store)
    first = merge(tmp_path / "a.sqlite", tmp_path / "c.sqlite")
    again = merge(tmp_path / "a.sqlite", tmp_path / "c.sqlite")
    assert first.images > 0
    assert (again.cells, again.images, again.same) == (0, 0, first.images)
    with Store.open(tmp_path / "c.sqlite") as store:
        assert_filled(store)
        assert store.examine().damaged == []


def test_two_halves_of_a_cell_become_the_whole(tmp_path):
    n = len(CELL.samples)
    whole = outcome(CELL, range(n))
    for name, rows in (("a", range(n // 2)), ("b", range(1, n))):
        with Store.open(tmp_path / f"{name}.sqlite") as store:
            begin(store, CELL)
            part = outcomes.without(whole, np.setdiff1d(np.arange(n), rows))
            store.commit_batch(CELL, part, seconds=1, crafted=images(CELL.craft_key, rows))
        merge(tmp_path / f"{name}.sqlite", tmp_path / "c.sqlite")
    with Store.open(tmp_path / "c.sqlite") as store:
        (found,) = store.evidence()
        assert found.status == "done"
        assert_same(found.outcome, whole)
        assert store.crafted(CELL.craft_key, np.arange(n)) is not None


def test_contradictory_outcomes_are_refused_in_one_line_and_nothing_is_taken(tmp_path):
    first = outcome(CELL, range(3))
    turned = replace(first, adversarial=first.adversarial + np.array([[0], [1], [0]]))
    for name, made in (("a", first), ("b", turned)):
        with Store.open(tmp_path / f"{name}.sqlite") as store:
            begin(store, CELL)
            store.commit_batch(CELL, made, seconds=1)
    merge(tmp_path / "a.sqlite", tmp_path / "c.sqlite")
    with pytest.raises(StoreError, match=r"b\.sqlite contradicts what is there: 1 images of cell") as caught:
        merge(tmp_path / "b.sqlite", tmp_path / "c.sqlite")
    assert "\n" not in str(caught.value)
    with Store.open(tmp_path / "c.sqlite") as store:
        assert_same(store.evidence()[0].outcome, first)
        assert len(store.runs()) == 1


def test_every_cell_is_in_one_part_and_those_that_share_images_stay_together():
    cells = tuple(replace(CELL, attack_seed=i) for i in range(40))
    cells += tuple(replace(cell, training_seed=1) for cell in cells)  # scored otherwise, crafted alike
    plan = Plan(Request(defenses=("none",)), cells, {})
    parts = [sharing.part(f"{i}/3").of(plan).cells for i in (1, 2, 3)]
    assert sorted(cell.key for part in parts for cell in part) == sorted(cell.key for cell in cells)
    assert all(parts)
    crafted = [{cell.craft_key for cell in part} for part in parts]
    assert sum(map(len, crafted)) == len({cell.craft_key for cell in cells})


@pytest.mark.parametrize("text", ["0/3", "4/3", "x", "1/0", "1", "-1/3"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(RequestError, match="write --shard 3/16"):
        sharing.part(text)


def test_shards_of_a_command_merge_into_what_one_command_makes(said: Said):
    command = ("run", "--defense", "none", *WHITE, "--attacks", "fgsm,noise,pgd", "--set", "pgd.steps=2")
    assert said(*command, "--store", "whole/r.sqlite")[0] == 0
    for part in ("1/2", "2/2"):
        status, _, err = said(*command, "--shard", part, "--store", "parts/r.sqlite".replace("r.", f"{part[0]}."))
        assert status == 0, err
    status, out, err = said("merge", "parts/1.sqlite", "parts/2.sqlite", "--into", "joined/r.sqlite")
    assert status == 0, err
    assert "1 new weights" in out
    with Store.open("whole/r.sqlite") as whole, Store.open("joined/r.sqlite") as joined:
        expected = {e.cell.key: e.outcome for e in whole.evidence()}
        found = {e.cell.key: e.outcome for e in joined.evidence()}
    assert len(expected) == 3
    assert expected.keys() == found.keys()
    for key, one in expected.items():
        assert np.array_equal(one.adversarial, found[key].adversarial)
    assert "name another store with --into" in refusal(said("merge", "a.sqlite", "--into", "a.sqlite"))
    assert "there is no store b.sqlite" in refusal(said("merge", "b.sqlite", "--into", "a.sqlite"))
