"""Samples that leave a search at the image that breaks them: the same fall, for fewer passes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evidence import CELL, begin, images, outcome
from test_ascent import curved
from test_judge import Threshold
from test_unit import models, unit
from torch import Tensor

from benchbox import Access, Attack, Card, Draws, StoreError, ThreatModel, View, ascend
from benchbox.contract import registry
from benchbox.draws import sample_draws
from benchbox.engine.request import Request
from benchbox.engine.session import Session, Settings
from benchbox.engine.unit import work
from benchbox.store import Store, seals
from benchbox.store.merge import merge
from benchbox.store.schema import CELL as CELLS

BALL = ThreatModel("linf", 0.1)
N = 24
ROWS = sample_draws(N)


def some(seed: int) -> tuple[Any, Tensor, Tensor]:
    """Five classes with logits that bend, images in the box, and classes for them, a few of them wrong."""
    forward, x, y = curved(seed, N, 5)
    y[:3] = (y[:3] + 1) % 5
    return forward, x, y


def searched(attack: Attack, seed: int, *, early: bool, randomized: bool = False) -> tuple[Tensor, View, Tensor]:
    forward, x, y = some(seed)
    view = View(forward, y, ROWS, early_stop=early, randomized=randomized)
    found = attack(view, x, y, BALL, ROWS.at("a"))
    return forward(found.x, ROWS).argmax(1) != y, view, found.x


@pytest.mark.parametrize("name", ["bim", "mim", "pgd", "cw", "apgd-ce", "aa", "noise"])
@pytest.mark.parametrize("seed", [0, 1])
def test_whoever_falls_falls_either_way_and_for_fewer_passes(name: str, seed: int) -> None:
    attack = registry.attacks().get(name).cls.configure("mnist")
    broken, whole, _ = searched(attack, seed, early=False)
    early, stopped, x_adv = searched(attack, seed, early=True)
    assert 3 < int(broken.sum()) < N  # of both kinds
    assert torch.equal(early, broken)
    assert torch.equal(stopped.first_success, whole.first_success)
    spent, full = stopped.spent().sum(0), whole.spent().sum(0)
    assert (spent <= full).all()
    assert torch.equal(spent[~broken], full[~broken])
    assert not (stopped.left & ~broken).any()
    assert not whole.left.any()
    assert float(spent[broken].sum()) < 0.6 * float(full[broken].sum())
    assert float(spent[:3].max()) <= 2  # those that are wrong before
    assert (BALL.norms(x_adv - some(seed)[1]) <= 0.1 + 1e-6).all()


def test_those_who_stand_end_where_they_would_have_ended() -> None:
    for name in ("mim", "pgd", "noise"):
        attack = registry.attacks().get(name).cls.configure("mnist")
        broken, _, whole = searched(attack, 2, early=False)
        _, _, early = searched(attack, 2, early=True)
        torch.testing.assert_close(early[~broken], whole[~broken])


def test_a_single_draw_of_a_randomised_model_breaks_nothing() -> None:
    for name in ("pgd", "apgd-ce"):
        attack = registry.attacks().get(name).cls.configure("mnist")
        _, whole, x = searched(attack, 0, early=False, randomized=True)
        _, early, same = searched(attack, 0, early=True, randomized=True)
        assert torch.equal(x, same)
        assert torch.equal(whole.spent(), early.spent())


def test_the_last_iterate_is_not_left_for_an_earlier_one() -> None:
    forward, x, y = some(0)
    ends = [
        ascend(View(forward, y, ROWS), x, y, BALL, start=x, steps=9, step_size=0.03, early_stop=early, keep="last")
        for early in (False, True)
    ]
    assert torch.equal(*ends)


class Err(Threshold):
    """Wrong about every image, as a stand-in may be: a search that believes it ends at once."""

    def forward(self, x: Tensor, draws: Any = None) -> Tensor:
        return super().forward(x, draws).flip(1)


@dataclass(frozen=True, kw_only=True)
class Patient(Attack):
    """Returns the image itself where the view lets it stop, and an image that everybody errs on where not."""

    card = Card("patient", "two steps")

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        wrong = model(x).argmax(1) != y
        if not model.early_stop:
            return threat.project(x + (0.5 - x).sign(), x)
        model.leave(wrong)
        return x


@dataclass(frozen=True, kw_only=True)
class Wanderer(Attack):
    """Sees errors on its way, as whoever looks outside of the ball, and leaves nobody for them."""

    card = Card("wanderer", "a step out and back")

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        model(1 - x)
        return x


def test_who_stopped_at_an_image_that_breaks_nothing_is_searched_to_the_end() -> None:
    """By a stand-in that errs where the defence does not, or by a defence that errs once to be left alone."""
    both = models(attacked=Err(), attack=Patient())
    whole = work(unit([0, 1, 2, 3]), both)
    early = work(unit([0, 1, 2, 3], early_stop=True), both)
    alone = work(unit([0, 1, 2, 3], early_stop=True), models(attack=Patient()))
    stood, fell = whole.outcome.clean_correct > 0, whole.outcome.robust == 0
    assert (stood & fell).any()
    np.testing.assert_array_equal(early.outcome.robust, whole.outcome.robust)
    assert early.images is not None
    assert whole.images is not None
    np.testing.assert_array_equal(early.images.x[stood], whole.images.x[stood])
    assert early.outcome.forwards[stood].tolist() == [2.0] * int(stood.sum())  # of both searches
    # Of those who were right before, nobody left.
    assert alone.outcome.forwards[stood].max() == 1


def test_who_left_nobody_searches_once() -> None:
    done = work(unit([0, 1, 2, 3], early_stop=True), models(attack=Wanderer()))
    assert ((done.outcome.first_success >= 0) & (done.outcome.robust > 0)).any()
    assert done.outcome.forwards.tolist() == [1.0] * 4


def test_only_images_that_nobody_else_is_asked_about_may_be_left_early() -> None:
    session = Session(registry.defenses(), registry.attacks(), Settings(device="cpu"))
    wanted = Request(defenses=("none", "pssr", "carso"), attacks=("pgd",), dataset="digits", samples=8)
    plan = session.plan(wanted)
    said = {(c.defense.name, c.access, c.view.stand_in): c.early_stop for c in plan.cells}
    early = {place for place, stops in said.items() if stops}
    assert {name for name, _, _ in early} == {"pssr"}  # none's images are pssr's gray-box ones; carso draws
    assert {access for _, access, _ in early} == {Access.WHITE_BOX, Access.BPDA}
    assert all(stops for (name, access, _), stops in said.items() if name == "pssr" and access is Access.BPDA)


def test_the_number_is_the_same_cell_and_the_images_are_others() -> None:
    early = replace(CELL, early_stop=True)
    assert early.key == CELL.key
    assert early.craft_key != CELL.craft_key
    assert "early_stop" not in CELL.as_dict()
    assert type(CELL).from_dict(early.as_dict()) == early


@pytest.mark.parametrize(
    ("record", "of_before"),
    [
        (
            {"averaging": "gradients", "nature": None},
            "1dc68144f184aa1416a3cf1eb3ae27de320065e08f5764559131a303788f233d",
        ),
        ({}, "cf0e0c97b24d8d9fab94bd8410cf2953806dcf6aec84817f4033132d72f3e84b"),
    ],
)
def test_seals_of_before_still_fit(record: dict[str, Any], of_before: str) -> None:
    row = {column.name: None for column in CELLS.c} | {"key": "k" * 64, "record": {"eot": 20, **record}}
    assert seals.seal(CELLS, row) == of_before
    early = row | {"record": {"eot": 20, **record, "early_stop": True}}
    assert seals.seal(CELLS, early) != of_before


def test_a_cell_goes_on_as_it_was_begun(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s.sqlite") as store:
        run = begin(store, CELL)
        assert store.add_cell(replace(CELL, early_stop=True), run) == CELL
        other = replace(CELL, attack_seed=7, early_stop=True)
        assert store.add_cell(other, run) == other
        assert store.add_cell(replace(other, early_stop=False), run) == other


def test_images_that_were_left_early_serve_nobody_who_wants_whole_ones(tmp_path: Path) -> None:
    early = replace(CELL, early_stop=True)
    longer = replace(CELL, samples=replace(CELL.samples, indices=(4, 0, 5, 1, 9, 7, 2)))
    for name, cell, served in (("a", longer, False), ("b", replace(longer, early_stop=True), True)):
        with Store.open(tmp_path / f"{name}.sqlite") as store:
            begin(store, early, cell)
            made = images(early.craft_key, range(6))
            store.commit_batch(early, outcome(early, range(6)), seconds=1, crafted=made)
            rows = np.arange(6)
            assert store.take_over(cell, early, rows, rows) == 6  # the outcomes hold either way
            assert (store.crafted(cell.craft_key, rows) is not None) == served


@pytest.mark.parametrize(("shift", "refused"), [(0, False), (1, True)])
def test_stores_of_which_one_left_early_agree_if_the_same_images_fell(
    tmp_path: Path, shift: int, refused: bool
) -> None:
    made = replace(outcome(CELL, range(3)), label=np.zeros(3, np.int64), adversarial=np.array([[1], [2], [3]]))
    other = replace(made, adversarial=np.array([[4], [5], [0 if shift else 6]]))
    for name, cell, found in (("a", CELL, made), ("b", replace(CELL, early_stop=True), other)):
        with Store.open(tmp_path / f"{name}.sqlite") as store:
            begin(store, cell)
            store.commit_batch(cell, found, seconds=1)
    merge(tmp_path / "a.sqlite", tmp_path / "c.sqlite")
    if refused:
        with pytest.raises(StoreError, match="1 images of cell"):
            merge(tmp_path / "b.sqlite", tmp_path / "c.sqlite")
    else:
        assert merge(tmp_path / "b.sqlite", tmp_path / "c.sqlite").same == 3
