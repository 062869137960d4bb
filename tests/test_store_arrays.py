"""Packed arrays: a fraction of the bytes, and the same to the bit."""

import zlib

import numpy as np
import pytest

from benchbox.store import arrays

RNG = np.random.default_rng(0)
ODD = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 0.1] * 20)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(5),
        np.array([-1, 300]),
        np.array([2**40, -(2**50)]),
        np.zeros((0, 10), np.int64),
        np.zeros((3, 0, 2), np.float32),
        RNG.random(50),
        RNG.random((4, 3, 8, 8), np.float32),
        RNG.choice(RNG.random(9, np.float32), (4, 3, 8, 8)),
        RNG.choice(RNG.random(900, np.float32), (40, 3, 8, 8)),
        ODD,
        ODD.astype(np.float32),
        ODD.astype(np.float32).astype(np.float64),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_what_is_packed_comes_back_to_the_bit(array):
    got = arrays.unpack(arrays.pack({"a": array, "b": array[:1]}))
    for name, expected in (("a", array), ("b", array[:1])):
        assert (got[name].dtype, got[name].shape) == (expected.dtype, expected.shape)
        assert got[name].tobytes() == expected.tobytes()
        assert got[name].flags.writeable
        assert [*(alone := arrays.unpack(arrays.pack({"a": array, "b": array[:1]}), (name,)))] == [name]
        assert alone[name].tobytes() == expected.tobytes()


def test_adversarial_images_take_a_fraction_of_what_a_compressor_makes_of_them():
    clean = RNG.integers(0, 17, (64, 1, 8, 8)).astype(np.float32) / 16
    eps = np.float32(0.15)
    x = np.clip(clean + RNG.choice(np.array([-eps, eps], np.float32), clean.shape), 0, 1).astype(np.float32)
    one_by_one = sum(len(zlib.compress(image.tobytes(), 1)) for image in x)
    assert len(arrays.pack({"x": x})) < 0.4 * one_by_one


@pytest.mark.parametrize(
    "damaged", [b"", b"x", zlib.compress(b"{}"), zlib.compress(b"[[1]]\\n"), arrays.pack({"a": np.arange(9)})[:-5]]
)
def test_what_was_not_packed_is_refused(damaged):
    with pytest.raises(ValueError, match="not packed arrays"):
        arrays.unpack(damaged)


def test_positions_are_bits():
    kept = arrays.bits(np.array([0, 9]))
    assert arrays.positions(arrays.bits(np.array([3]), kept)).tolist() == [0, 3, 9]
    assert [arrays.count(kept), arrays.count(None)] == [2, 0]
    assert arrays.positions(None).tolist() == arrays.positions(arrays.bits(np.array([], np.int64))).tolist() == []
