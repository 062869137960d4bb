"""Adversarial images kept as what was done to the clean ones: half the bytes, and the same to the bit."""

import pickle
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from evidence import CELL, begin, images, outcome
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as any_array

from benchbox.domain import SampleList
from benchbox.errors import StoreError
from benchbox.store import Adversarials, Store, arrays, clean_images, perturbation
from benchbox.store.merge import merge

CLEAN = CELL.samples.clean_key
SHAPE = (3, 8, 8)
EPSILON = np.float32(0.3)


def clean(n=6, shape=SHAPE, seed=0):
    """Images of which a third is black."""
    rng = np.random.default_rng(seed)
    grey = rng.integers(0, 256, (n, *shape)) * (rng.random((n, *shape)) > 1 / 3)
    return (grey / 255).astype(np.float32)


def attacked(x, seed=0, free=0.1):
    """What a sign gradient makes of them, and a few pixels that are anywhere in the ball."""
    rng = np.random.default_rng(seed)
    steps = rng.choice(np.array([-30, -30, -3, 0, 8, 30, 30], np.float32), x.shape) * np.float32(0.01)
    anywhere = rng.uniform(-EPSILON, EPSILON, x.shape).astype(np.float32)
    return np.clip(x + np.where(rng.random(x.shape) < free, anywhere, steps), 0, 1).astype(np.float32)


def made(key, positions, free=0.1, samples=CELL.samples, x=None):
    """Of the clean images at some positions."""
    x = clean(len(samples)) if x is None else x
    plain, at = images(key, positions, shape=x.shape[1:]), np.array(positions)
    known = clean_images(samples.clean_key, at, x[at])
    return replace(plain, x=attacked(x, free=free)[at], clean=known)


def is_same(got, expected):
    return got.shape == expected.shape and got.tobytes() == expected.tobytes() and got.dtype == expected.dtype


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 1, 1), (3, 5, 7)])
@pytest.mark.parametrize("free", [0, 0.1, 0.6])
def test_what_attacks_make_comes_back_to_the_bit(shape, free):
    x = clean(4, shape)
    adversarial = attacked(x, free=free)
    moved = perturbation.encode(adversarial, x)
    if moved is not None:
        assert is_same(perturbation.decode(arrays.unpack(arrays.pack(moved)), x), adversarial)
    assert (moved is not None) or x.size < 200


def bits(shape):
    """Any bits: NaN with a payload, infinities, negative zeros, denormal numbers."""
    odd = st.sampled_from([0, 1, 0x80000000, 0x3F800000, 0x3E99999A, 0x7FC00001, 0x7F800000, 0xFF800000])
    return any_array(np.uint32, shape, elements=odd | st.integers(0, 2**32 - 1))


@given(
    st.tuples(st.integers(0, 5), st.integers(1, 3), st.integers(1, 9)).flatmap(
        lambda s: st.tuples(bits(s), bits(s))
    )
)
def test_any_bits_come_back(pair):
    x, given_x = (array.view(np.float32) for array in pair)
    for start in (given_x, x):
        if (moved := perturbation.encode(x, start)) is not None:
            assert is_same(perturbation.decode(arrays.unpack(arrays.pack(moved)), start), x)


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.sampled_from([(1, 4, 4), (3, 6, 6)]))
def test_images_on_a_lattice_come_back_from_a_few_bits_a_pixel(seed, free, shape):
    x = clean(8, shape, seed)
    adversarial = attacked(x, seed, free)
    moved = perturbation.encode(adversarial, x)
    if moved is not None:
        assert is_same(perturbation.decode(moved, x), adversarial)
        assert len(moved["alone"]) <= (free + 0.15) * x.size + 4 * 30


def test_one_step_takes_a_bit_a_pixel():
    x = clean(50, (1, 28, 28))
    up = np.random.default_rng(1).random(x.shape) < 0.5
    moved = perturbation.encode(np.clip(x + np.where(up, EPSILON, -EPSILON), 0, 1), x)
    assert len(moved["moves"]) == 2
    assert len(arrays.pack(moved)) < x.size / 8 * 1.04


def test_other_clean_images_are_noticed():
    x = clean()
    moved = perturbation.encode(attacked(x), x)
    with pytest.raises(ValueError, match="other clean images"):
        perturbation.decode(moved, np.nextafter(x, np.float32(2)))
    with pytest.raises(ValueError, match="codes for"):
        perturbation.decode(moved, x[:3])


def test_noise_that_no_two_pixels_share_is_kept_as_it_is():
    x = np.full((6, *SHAPE), 0.5, np.float32)
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, x.shape).astype(np.float32)
    assert perturbation.encode(x + noise, x) is None


@pytest.fixture
def file(path):
    with Store.open(path) as store:
        begin(store, CELL)
    return path


def rows(path, sql):
    with sqlite3.connect(path) as plain:
        found = plain.execute(sql).fetchall()
    plain.close()
    return found


def commit(path, cell, *crafted):
    with Store.open(path) as store:
        begin(store, cell)
        for one in crafted:
            store.commit_batch(cell, outcome(cell, one.position), seconds=1, crafted=one)


def test_two_attacks_share_the_clean_images_in_whatever_batches(file):
    other = replace(CELL, attack=replace(CELL.attack, name="bim"))
    commit(file, CELL, made(CELL.craft_key, [0, 1, 2]).as_packed(), made(CELL.craft_key, [3, 4, 5]))
    commit(file, other, made(other.craft_key, [1, 2, 3, 4]), made(other.craft_key, [4, 0, 5]))
    expected = attacked(clean())
    kept = "SELECT sum(samples) FROM crafted JOIN crafting ON crafting.id = crafting_id WHERE key"
    assert rows(file, f"{kept} = '{CLEAN}'") == [(6,)]
    with Store.open(file) as store:
        for key in (CELL.craft_key, other.craft_key):
            for positions in ([0, 1, 2], [1, 2, 3, 4], [5, 3, 0]):
                got = pickle.loads(pickle.dumps(store.crafted(key, np.array(positions))))
                assert is_same(got.x, expected[positions])
                assert got.first_success.shape == (len(positions),)
        assert is_same(store.crafted(CLEAN, np.arange(6)).x, clean())
        assert store.examine().damaged == []


def test_of_a_batch_that_is_kept_as_it_is_a_part_is_too(file):
    """The clean images that the part alone would be kept against are not there."""
    x = np.full((6, *SHAPE), 0.5, np.float32)
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, x.shape).astype(np.float32)
    noise[5, 0] = 0.3
    whole = replace(made(CELL.craft_key, range(6), x=x), x=x + noise)
    assert perturbation.encode(whole.x, x) is None
    assert perturbation.encode(whole.x[5:], x[5:]) is not None
    commit(file, CELL, replace(whole.rows(np.arange(5)), clean=None), whole)
    with Store.open(file) as store:
        assert is_same(store.crafted(CELL.craft_key, np.arange(6)).x, whole.x)


def test_random_steps_take_two_thirds_of_the_bytes():
    x = clean(6, (1, 28, 28))
    one = made(CELL.craft_key, range(6), free=0, x=x)
    without = replace(one, clean=None)
    assert len(one.packed["images"]) < 0.7 * len(without.packed["images"])
    assert is_same(one.as_packed().x, without.as_packed().x)


def test_what_was_stored_without_clean_images_stays_readable_beside_the_rest(file):
    whole = made(CELL.craft_key, range(6))
    old, new = replace(whole.rows(np.arange(3)), clean=None), whole.rows(np.arange(3, 6))
    commit(file, CELL, old, new)
    with Store.open(file) as store:
        assert store.crafted(CLEAN, np.arange(3)) is None
        for positions in ([0, 1, 2], [3, 4, 5], [4, 1]):
            assert is_same(store.crafted(CELL.craft_key, np.array(positions)).x, whole.x[positions])


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE crafted SET images = substr(images, 1, 50) WHERE crafting_id = {clean}",
        "DELETE FROM crafted WHERE crafting_id = {clean}",
        "DELETE FROM crafting WHERE id = {clean}",
    ],
)
def test_where_clean_images_are_damaged_a_repair_drops_what_needs_them(file, sql):
    whole = made(CELL.craft_key, range(6))
    commit(file, CELL, whole)
    ((number,),) = rows(file, f"SELECT id FROM crafting WHERE key = '{CLEAN}'")
    rows(file, sql.format(clean=number))
    with Store.open(file) as store:
        with pytest.raises(StoreError, match=r"images .* damaged .*`benchbox doctor --repair`"):
            assert store.crafted(CELL.craft_key, np.arange(6)).x is None
        assert store.examine(repair=True).damaged
        assert store.examine().damaged == []
        assert store.crafted(CELL.craft_key, np.arange(6)) is None
        store.commit_batch(CELL, outcome(CELL, range(6)), seconds=1, crafted=whole)
        assert is_same(store.crafted(CELL.craft_key, np.arange(6)).x, whole.x)


def test_clean_images_go_with_the_last_cell_on_their_list(file):
    other = replace(CELL, attack=replace(CELL.attack, name="bim"))
    for cell in (CELL, other):
        commit(file, cell, made(cell.craft_key, range(6)))
    with Store.open(file) as store:
        store.remove_cells([CELL.key])
        assert is_same(store.crafted(other.craft_key, np.arange(6)).x, attacked(clean()))
        store.remove_cells([other.key])
        assert store.crafted(CLEAN, np.arange(6)) is None
    assert rows(file, "SELECT count(*) FROM crafted") == [(0,)]


def test_merged_images_bring_their_clean_ones(file, tmp_path):
    commit(file, CELL, made(CELL.craft_key, range(6)))
    merge(file, tmp_path / "whole.sqlite")
    with Store.open(tmp_path / "whole.sqlite") as store:
        assert is_same(store.crafted(CELL.craft_key, np.arange(6)).x, attacked(clean()))
        assert is_same(store.crafted(CLEAN, np.arange(6)).x, clean())
        assert store.examine().damaged == []


def test_images_that_go_to_another_list_are_kept_against_that_one(file):
    longer = replace(CELL, samples=SampleList("digits", "test", (7, 5, 4, 0, 1, 9, 2), "d"))
    place = {index: position for position, index in enumerate(longer.samples.indices)}
    target = np.array([place[index] for index in CELL.samples.indices])
    commit(file, CELL, made(CELL.craft_key, range(6)))
    with Store.open(file) as store:
        begin(store, longer)
        assert store.take_over(longer, CELL, np.arange(6), target) == 6
        assert is_same(store.crafted(longer.craft_key, target).x, attacked(clean()))
        assert is_same(store.crafted(longer.samples.clean_key, target).x, clean())
        store.remove_cells([CELL.key])
        assert is_same(store.crafted(longer.craft_key, target).x, attacked(clean()))


def test_clean_images_are_packed_once_and_not_taken_for_others_of_that_name():
    x, at = clean(), np.arange(6)
    first = clean_images("clean/a", at, x)
    assert clean_images("clean/a", at, x.copy()) is first
    assert is_same(clean_images("clean/a", at, 1 - x).x, 1 - x)


def test_clean_images_that_do_not_fit_are_refused():
    with pytest.raises(StoreError, match="clean images"):
        replace(images("k", [0, 1], shape=SHAPE), clean=clean_images("clean/b", np.arange(3), clean(3)))
    assert isinstance(made("k", [0, 1]).rows(np.array([True, False])), Adversarials)
