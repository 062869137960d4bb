"""More images, fewer images, other images: what is known of an image is not computed again, and is the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from evidence import CELL, assert_same, images, outcome

from benchbox.contract import registry
from benchbox.data.dataset import load, sample_list
from benchbox.domain import Access, SampleList
from benchbox.engine import gradients, unit
from benchbox.engine import secret as secrets
from benchbox.engine.request import Request
from benchbox.engine.reuse import take_over
from benchbox.engine.session import Session, Settings
from benchbox.store import Store


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def on(dataset, n, seed=None):
    return replace(CELL, samples=sample_list(dataset, n, seed=seed))


def whole(cell):
    """Outcomes that depend on the image alone, as real ones do."""
    made = outcome(cell, range(1797))
    rows = list(cell.samples.indices)
    return replace(_rows(made, rows), position=np.arange(len(rows), dtype=np.int64))


def _rows(made, rows):
    return type(made)(**{name: None if v is None else v[rows] for name, v in vars(made).items()})


def filled(store, cell):
    run = store.begin_run({}, {"of": len(cell.samples)})
    store.add_cell(cell, run)
    made = replace(images(cell.craft_key, range(1797)), position=np.arange(1797))
    store.commit_batch(
        cell,
        whole(cell),
        seconds=6.0,
        crafted=replace(made.rows(list(cell.samples.indices)), position=np.arange(len(cell.samples))),
    )
    return run


@pytest.mark.parametrize("sizes", [(30, 60), (60, 30)])
@pytest.mark.parametrize("seed", [None, 1])
def test_a_cell_takes_over_what_another_knows(store, digits, sizes, seed):
    first, second = (on(digits, n, seed) for n in sizes)
    run = filled(store, first)
    store.add_cell(second, store.begin_run({}, {}))
    assert take_over(store, second, digits) == 30
    assert take_over(store, second, digits) == 0
    _, got = store.evidence()
    expected = whole(second)
    rows = got.outcome.position
    assert_same(got.outcome, _rows(expected, rows))
    assert got.status == ("done" if sizes[1] == 30 else "partial")
    assert got.seconds == pytest.approx(6.0 * 30 / sizes[0])
    assert store.crafted(second.craft_key, rows) is not None
    np.testing.assert_array_equal(
        store.crafted(second.craft_key, rows).x,
        images("", range(1797)).x[list(np.array(second.samples.indices)[rows])],
    )
    assert store.runs()[run - 1].cells == 1


@pytest.mark.parametrize(("secret", "taken"), [("ab" * 16, 30), ("cd" * 16, 0), (None, 0)])
def test_what_was_scored_under_another_secret_is_left_alone(store, digits, secret, taken):
    first, second = on(digits, 30), on(digits, 60)
    filled(store, first)
    store.attach(first.key, secrets.KIND, {"secret": "ab" * 16, "before": 0})
    store.add_cell(second, store.begin_run({}, {}))
    assert take_over(store, second, digits, secret) == taken
    known = store.attached(second.key, secrets.KIND)
    assert known == ({"secret": secret, "before": 0} if taken else None)


def test_a_cell_begun_under_another_secret_is_not_mixed(store, digits):
    first, second = on(digits, 30), on(digits, 60)
    filled(store, first)
    store.attach(first.key, secrets.KIND, {"secret": "ab" * 16, "before": 0})
    store.add_cell(second, store.begin_run({}, {}))
    store.attach(second.key, secrets.KIND, {"secret": "cd" * 16, "before": 0})
    assert take_over(store, second, digits, "ab" * 16) == 0


def test_what_was_found_out_about_other_images_is_left_alone(store, digits):
    filled(store, on(digits, 30))
    elsewhere = replace(digits, test=replace(digits.test, x=torch.flip(digits.test.x, [2])))
    cell = on(elsewhere, 60)
    store.add_cell(cell, store.begin_run({}, {}))
    assert take_over(store, cell, elsewhere) == 0
    for change in ({"attack_seed": 3}, {"artifact": "z"}, {"access": Access.BPDA}):
        other = replace(on(digits, 60), **change)
        store.add_cell(other, 1)
        assert take_over(store, other, digits) == 0


@pytest.mark.parametrize(("beyond", "taken"), [(-1, 1), (0, 0), (9, 0)])
def test_a_list_that_goes_beyond_the_images_of_today_is_left_alone(store, digits, beyond, taken):
    n = len(digits.test)
    indices = (3, n + beyond)
    digest = digits.test.rows([3, n - 1]).digest
    first = replace(CELL, samples=SampleList("digits", "test", indices, digest))
    store.add_cell(first, store.begin_run({}, {}))
    store.commit_batch(first, outcome(first, [0]), seconds=1.0)
    second = on(digits, 5)
    store.add_cell(second, 1)
    assert take_over(store, second, digits) == taken
    assert store.positions(second).tolist() == [3] * taken


def test_what_is_known_of_the_gradients_comes_along(store, digits):
    first, second = on(digits, 30), on(digits, 60)
    filled(store, first)
    record = {"samples": 3, "gradients": 4.0, "asked": 90.0}
    store.attach(first.craft_key, gradients.KIND, record)
    store.add_cell(second, store.begin_run({}, {}))
    take_over(store, second, digits)
    assert store.attached(second.craft_key, gradients.KIND) == record


def test_nobody_is_asked_where_nothing_is_missing(store, digits, monkeypatch):
    filled(store, on(digits, 30))
    known = on(digits, 20)
    store.add_cell(known, store.begin_run({}, {}))
    assert take_over(store, known, digits) == 20
    monkeypatch.setattr(store, "siblings", lambda cell: pytest.fail("it was asked"))
    assert take_over(store, known, digits) == 0


def test_several_lists_give_what_they_have_and_no_image_twice(store, digits):
    lists = [on(digits, 20), on(digits, 30), on(digits, 40, 1)]
    for cell in lists:
        filled(store, cell)
    second = on(digits, 60)
    store.add_cell(second, store.begin_run({}, {}))
    known = {*range(30), *(i for i in lists[2].samples.indices if i < 60)}
    assert take_over(store, second, digits) == len(known)
    assert store.positions(second).tolist() == sorted(known)


class Silent:
    """Hears of everything and says nothing."""

    def __getattr__(self, name):
        return lambda *_: None


def test_a_run_of_more_images_computes_the_new_ones_only_and_finds_the_same(tmp_path, monkeypatch):
    def evidence(name, *sizes):
        settings = Settings(artifacts=tmp_path / "artifacts", device="cpu", batch_size=10)
        session = Session(registry.defenses(tmp_path), registry.attacks(tmp_path), settings)
        fields = {"none": {"epochs": 1}, "pgd": {"steps": 3}}
        with Store.open(tmp_path / name) as store:
            for n in sizes:
                wanted = Request(
                    defenses=("none",),
                    dataset="digits",
                    attacks=("pgd",),
                    accesses=("white-box",),
                    samples=n,
                    overrides=fields,
                )
                session.run(session.plan(wanted), store, Silent())
            found = {len(e.cell.samples): e for e in store.evidence() if e.cell.attack.name == "pgd"}
            return found[sizes[-1]]

    attacked = []
    real = unit.work
    monkeypatch.setattr(
        unit, "work", lambda unit, models: attacked.append(len(unit.positions)) or real(unit, models)
    )
    grown, at_once = evidence("a.sqlite", 10, 25), evidence("b.sqlite", 25)
    assert_same(grown.outcome, at_once.outcome)
    shrunk, direct = evidence("c.sqlite", 25, 10), evidence("d.sqlite", 10)
    assert_same(shrunk.outcome, direct.outcome)
    per_image = sum(attacked) // (25 + 25 + 25 + 10)  # an attack and its control
    assert sum(attacked) == per_image * (25 + 25 + 25 + 10)
