"""The ball by its formulas: what is inside, what a point outside becomes, and where a search begins."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchbox.domain import NAMED, SIGNS, TOLERANCE, ThreatModel, format_epsilon
from benchbox.domain.threat import ROUNDING
from benchbox.draws import sample_draws
from benchbox.errors import RequestError

RADII = st.floats(0.01, 3.0)
SEEDS = st.integers(0, 1000)


def some(seed: int, n: int = 4) -> tuple[Tensor, Tensor]:
    """Images of two channels and six pixels, and changes of all sizes."""
    draws = sample_draws(n, seed)
    return draws.at("x").uniform(2, 2, 3), draws.at("size").uniform(1, 1, 1) * draws.at("d").normal(2, 2, 3)


@given(SEEDS)
def test_a_norm_is_over_all_channels_and_pixels(seed: int) -> None:
    _, delta = some(seed)
    rows = [row.flatten().tolist() for row in delta]
    expected = {
        "linf": [max(abs(v) for v in row) for row in rows],
        "l2": [math.sqrt(sum(v * v for v in row)) for row in rows],
        "l1": [sum(abs(v) for v in row) for row in rows],
    }
    for norm, lengths in expected.items():
        found = ThreatModel(norm, 1.0).norms(delta)  # type: ignore[arg-type]
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, torch.tensor(lengths))


@pytest.mark.parametrize(("norm", "length"), [("l1", 4e5), ("l2", 200.0)])
def test_long_sums_are_taken_in_double_precision(norm: str, length: float) -> None:
    delta = torch.full((1, 1, 2000, 2000), 0.1)
    assert ThreatModel(norm, 1.0).norms(delta).item() == pytest.approx(length, rel=1e-7)  # type: ignore[arg-type]


@given(SEEDS, RADII)
def test_the_nearest_point_of_a_box(seed: int, epsilon: float) -> None:
    x, delta = some(seed)
    found = ThreatModel("linf", epsilon).project(x + delta, x)
    for a, b, c in zip(
        x.flatten().tolist(), (x + delta).flatten().tolist(), found.flatten().tolist(), strict=True
    ):
        assert c == pytest.approx(min(max(b, a - epsilon, 0), a + epsilon, 1), abs=1e-6)


@given(SEEDS, RADII)
def test_in_l2_a_change_is_shortened_and_then_cut(seed: int, epsilon: float) -> None:
    x, delta = some(seed)
    found = ThreatModel("l2", epsilon).project(x + delta, x)
    for a, d, c in zip(x.double(), delta.double(), found.double(), strict=True):
        shortened = a + d * min(1.0, epsilon / float(d.norm()))
        torch.testing.assert_close(c, shortened.clamp(0, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 28, 28), (3, 64, 64), (3, 160, 160)])
@pytest.mark.parametrize("epsilon", [0.01, 0.5, 2.0, 4.0, 30.0])
def test_in_l2_what_is_projected_is_inside_in_exact_arithmetic(shape: tuple[int, ...], epsilon: float) -> None:
    threat, draws = ThreatModel("l2", epsilon), sample_draws(12)
    x, noise = draws.at("x").uniform(*shape, low=0.2, high=0.8), draws.at("d").normal(*shape)
    room = 2.0**-24 * (3 * epsilon + noise[0].numel() ** 0.5)
    noise = noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    for length in (1 + 1e-6, 1.5, 1e3):
        found = threat.project(x + length * epsilon * noise, x)
        exact = (found.double() - x).flatten(1).norm(dim=1)
        assert (exact <= epsilon).all()
        at_the_walls = ((found == 0) | (found == 1)).flatten(1).any(1)
        assert (at_the_walls | (exact >= epsilon - 2 * room)).all()
        assert torch.equal(threat.project(found, x), found)


def test_an_image_is_its_own_projection_in_a_ball_without_radius() -> None:
    x, delta = some(3)
    for norm in ("linf", "l2"):
        torch.testing.assert_close(ThreatModel(norm, 0.0).project(x + delta, x), x)  # type: ignore[arg-type]
        assert torch.equal(ThreatModel(norm, 0.3).project(x, x), x)  # type: ignore[arg-type]


@given(SEEDS, RADII)
def test_a_search_begins_where_its_draws_say(seed: int, epsilon: float) -> None:
    x, _ = some(seed)
    draws = sample_draws(4, seed).at("attack")
    uniform = draws.at("start").uniform(2, 2, 3, low=-epsilon, high=epsilon)
    torch.testing.assert_close(ThreatModel("linf", epsilon).random_start(x, draws), (x + uniform).clamp(0, 1))
    radius = epsilon * draws.at("radius").uniform(1) ** (1 / 12)
    normal = draws.at("start").normal(2, 2, 3).flatten(1)
    euclidean = (normal / normal.norm(dim=1, keepdim=True) * radius).view_as(x)
    torch.testing.assert_close(
        ThreatModel("l2", epsilon).random_start(x, draws), (x + euclidean).clamp(0, 1), atol=1e-6, rtol=0
    )
    sizes = -(1 - draws.at("size").uniform(2, 2, 3)).log().flatten(1) * normal.sign()
    diamond = (sizes / sizes.abs().sum(1, keepdim=True) * radius).view_as(x)
    found = ThreatModel("l1", epsilon).random_start(x, draws)
    torch.testing.assert_close(found, (x + diamond).clamp(0, 1), atol=2e-6, rtol=0)


def test_the_room_for_rounding_is_a_millionth_of_the_brightest_pixel() -> None:
    """Ten times as much would let 8/255 be 8.003/255."""
    assert (TOLERANCE, ROUNDING) == (1e-6, 2**-24)
    for norm in ("linf", "l2"):
        assert ThreatModel(norm, 0.1).tolerance(10**9) == TOLERANCE  # type: ignore[arg-type]
    assert ThreatModel("l1", 0.1).tolerance(16) == TOLERANCE  # fewer pixels than round to that much
    assert ThreatModel("l1", 0.1).tolerance(3072) == 3072 * 2**-24


@pytest.mark.parametrize(("norm", "sign"), SIGNS.items())
def test_what_is_searched_printed_and_refused(norm: str, sign: str) -> None:
    threat = ThreatModel(norm, 0.3)  # type: ignore[arg-type]
    deforms = norm in ("flow", "recolor")
    assert threat.deforms == deforms
    assert threat.searched == ("linf" if deforms else norm)
    assert str(threat) == f"{sign} ε = 0.3"
    assert threat.scaled(0.5) == ThreatModel(norm, 0.15)  # type: ignore[arg-type]
    x = torch.zeros(1, 1, 2, 2)
    for ask in (
        lambda: threat.norms(x),
        lambda: threat.project(x, x),
        lambda: threat.random_start(x, sample_draws(1)),
    ):
        if deforms:
            with pytest.raises(RequestError, match=f"inside {sign} ε = 0.3, as of a norm; use linf, l2 or l1"):
                ask()
        else:
            ask()
    threat.require_norm() if not deforms else None


def test_names_and_radii() -> None:
    assert NAMED == "linf, l2, l1, flow or recolor"
    assert list(SIGNS.values()) == ["L∞", "L2", "L1", "flow", "recolouring"]
    assert ThreatModel("linf", 0.0).epsilon == 0
    for refused in (float("inf"), -1e-9):
        with pytest.raises(RequestError, match="finite number of at least 0"):
            ThreatModel("linf", refused)


@given(st.integers(1, 254))
def test_a_radius_is_printed_as_it_was_meant(steps: int) -> None:
    said = format_epsilon(steps / 255)
    assert said == (f"{steps / 255:g}" if steps % 51 == 0 else f"{steps}/255")
    assert format_epsilon(steps / 255 + 2e-6) == f"{steps / 255 + 2e-6:g}"


def test_a_tenth_is_a_tenth_and_no_number_of_grey_values() -> None:
    assert [format_epsilon(k / 10) for k in range(11)] == [f"{k / 10:g}" for k in range(11)]
    assert format_epsilon(0.5 / 255) == f"{0.5 / 255:g}"
    assert format_epsilon(1 / 255) == "1/255"
    assert format_epsilon(2e-9) == "2e-09"  # next to nothing, and not 0/255
    assert format_epsilon(8 / 255 + 2e-8) == "0.0313726"
    assert format_epsilon(0.2 + 5e-10) == "51/255"  # this is no 0.2 any more
