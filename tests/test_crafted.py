"""What an attack may return, to the millionth; what it is charged; and what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchbox import Attack, AttackError, Card, Draws, RequestError, ThreatModel, View
from benchbox.contract.attack import Crafted, measured
from benchbox.contract.deformation import DEFORMATIONS
from benchbox.contract.ranges import Count
from benchbox.domain import TOLERANCE, Nature
from benchbox.draws import sample_draws

N = 3
X = sample_draws(N).at("x").uniform(1, 4, 4, low=0.4, high=0.6)
Y = torch.zeros(N, dtype=torch.int64)
ROWS = sample_draws(N, 7)


@dataclass(frozen=True, kw_only=True)
class Shift(Attack):
    """Returns what it is told to."""

    card = Card("shift", "moves every pixel")
    nature = Nature("iterative", ("margin",), steps=1, restarts=1)
    settings = {"mnist": {"steps": 4}, "digits": {"by": 0.25}}  # noqa: RUF012

    by: float = 0.1
    steps: Count = 2
    restarts: Count = 3
    mode: Literal["plain", "other"] = "plain"

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        for _ in range(self.steps):
            model(x)
        model.gradient(x, lambda logits: logits[:, 1])
        return self.moved(x, threat, draws)

    def moved(self, x: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return x + self.by


def view(sign: float = 1.0) -> View:
    return View(lambda x, _: torch.stack([0 * x.flatten(1)[:, 0] + 0.55, sign * x.flatten(1).mean(1)], 1), Y, ROWS)


def made(attack: Attack, threat: ThreatModel, x: Tensor = X) -> Crafted:
    return attack(view(), x, Y, threat, ROWS)


@pytest.mark.parametrize("epsilon", [0.1, 0.01])
def test_a_millionth_outside_is_rounding_and_comes_back_and_more_is_an_error(epsilon: float) -> None:
    threat = ThreatModel("linf", epsilon)
    inside = made(Shift(by=epsilon + 0.8 * TOLERANCE), threat)
    assert float((inside.x.double() - X.double()).abs().max()) <= epsilon + 6e-8
    for excess in (1.5e-6, 1e-5):
        with pytest.raises(AttackError, match=r"left the ball L∞ ε = .* by .*finish with threat.project"):
            made(Shift(by=epsilon + excess), threat)


@pytest.mark.parametrize("epsilon", [2.0, 4.0])
def test_no_search_leaves_a_large_l2_ball_by_what_float32_rounds(epsilon: float) -> None:
    class Uphill(Shift):
        def moved(self, x, threat, draws):
            return threat.project(x + draws.normal(*x.shape[1:]), x)

    x = ROWS.at("x").uniform(3, 160, 160, low=0.3, high=0.7)
    found = made(Uphill(), ThreatModel("l2", epsilon), x).x
    lengths = (found.double() - x).flatten(1).norm(dim=1)
    assert (lengths <= epsilon).all()
    assert (lengths >= epsilon - 1e-4).all()


@pytest.mark.parametrize("wall", [0.0, 1.0])
def test_the_box_is_as_hard_as_the_ball(wall: float) -> None:
    threat, sign = ThreatModel("linf", 0.1), 1 if wall else -1
    x = torch.full_like(X, wall)
    assert torch.equal(made(Shift(by=sign * 0.8e-6), threat, x).x, x)
    for beyond in (1.5e-6, 1e-3):
        with pytest.raises(AttackError, match=r"returned pixels in \["):
            made(Shift(by=sign * beyond), threat, x)


def test_in_l1_as_many_roundings_are_allowed_as_there_are_pixels() -> None:
    class Summed(Shift):
        balls = ("l1",)

    threat, x, rows = ThreatModel("l1", 0.5), torch.zeros(2, 2, 8, 4), ROWS.rows(slice(0, 2))
    few = View(lambda x, _: x.flatten(1)[:, :2], Y[:2], rows)
    for excess, fine in ((64 * 2**-24 * 0.7, True), (64 * 2**-24 * 1.6, False)):
        attack = Summed(by=(0.5 + excess) / 64)
        if fine:
            found = attack(few, x, Y[:2], threat, rows)
            assert found.distance is not None
            assert found.distance.tolist() == pytest.approx([0.5, 0.5], abs=1e-5)
        else:
            with pytest.raises(AttackError, match="left the ball"):
                attack(few, x, Y[:2], threat, rows)


def test_what_is_charged_and_found_is_the_view_s_own_count() -> None:
    found = made(Shift(by=0.1), ThreatModel("linf", 0.2))
    assert (found.forwards.tolist(), found.backwards.tolist()) == ([3.0] * N, [1.0] * N)
    assert found.broken is not None
    assert found.broken.tolist() == [[0.0] * N] * 2
    assert found.distance is None
    torch.testing.assert_close(found.x, X + 0.1)
    assert found.first_success.tolist() == [-1] * N
    assert not found.x.requires_grad


def test_an_attack_is_given_a_stream_of_its_own_and_no_samples_at_all_are_fine() -> None:
    class Noisy(Shift):
        def moved(self, x, threat, draws):
            return threat.project(x + draws.uniform(1, 4, 4), x)

    threat = ThreatModel("linf", 0.3)
    expected = threat.project(X + ROWS.at("attack").uniform(1, 4, 4), X)
    torch.testing.assert_close(made(Noisy(), threat).x, expected)

    class Idle(Shift):
        def search(self, model, x, y, threat, draws):
            return x.clone()

    empty = View(lambda x, _: x.flatten(1), Y[:0], ROWS.rows(slice(0, 0)))
    assert Idle()(empty, X[:0], Y[:0], threat, ROWS.rows(slice(0, 0))).x.shape == (0, 1, 4, 4)


def test_an_attack_is_given_the_view_the_images_their_classes_and_the_ball() -> None:
    given: list[Any] = []

    class Curious(Shift):
        def search(self, model, x, y, threat, draws):
            given.extend((model, x, y, threat, draws.seed, draws.indices.tolist()))
            return x.clone()

    asked, classes, threat = view(), torch.tensor([1, 0, 1]), ThreatModel("l2", 0.4)
    Curious()(asked, X, classes, threat, ROWS)
    assert given[0] is asked
    assert torch.equal(given[1], X)
    assert torch.equal(given[2], classes)
    assert given[3:] == [threat, ROWS.at("attack").seed, ROWS.indices.tolist()]
    given.clear()
    x = X.repeat(1, 3, 2, 2)
    Curious()(asked, x, classes, ThreatModel("recolor", 0.1), ROWS)
    assert torch.equal(given[1], DEFORMATIONS["recolor"](x, 0.1).still())
    assert torch.equal(given[2], classes)
    assert given[3:] == [ThreatModel("linf", 0.5), ROWS.at("attack").seed, ROWS.indices.tolist()]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (lambda x: x[:2], r"returned torch.float32 \(2, 1, 4, 4\) for torch.float32 \(3, 1, 4, 4\)"),
        (lambda x: x.double(), "returned torch.float64"),
        (lambda x: torch.where(x == x.max(), torch.nan, x), "returned NaN or infinity"),
        (lambda x: torch.where(x == x.max(), torch.inf, x), "returned NaN or infinity"),
        (lambda x: x.mul_(1.0001), "changed the batch it was given"),
        (lambda x: [x], "attack shift"),
    ],
)
def test_what_breaks_the_contract_is_named(found: Any, said: str) -> None:
    class Odd(Shift):
        def moved(self, x, threat, draws):
            return found(x)

    with pytest.raises(AttackError, match=said):
        made(Odd(), ThreatModel("linf", 0.3), X.clone())


def test_whoever_changes_the_classes_it_was_given_is_refused() -> None:
    class Liar(Shift):
        def search(self, model, x, y, threat, draws):
            y.add_(1)
            return x

    for norm in ("linf", "flow"):
        with pytest.raises(AttackError, match="changed the batch it was given; work on a copy"):
            Liar()(view(), X.repeat(1, 3, 1, 1), Y.clone(), ThreatModel(norm, 0.3), ROWS)


@pytest.mark.parametrize("beyond", [-1e-3, 1 + 1e-3])
def test_one_pixel_outside_of_the_box_is_enough(beyond: float) -> None:
    class One(Shift):
        def moved(self, x, threat, draws):
            return x.clone().index_fill(3, torch.tensor([2]), beyond)

    with pytest.raises(AttackError, match=r"returned pixels in \["):
        made(One(), ThreatModel("linf", 1.0))


def test_a_search_that_fails_is_the_attack_s_own_error() -> None:
    class Failing(Shift):
        def moved(self, x, threat, draws):
            raise ValueError("no such thing")

    with pytest.raises(AttackError, match=r"attack shift, .*test_crafted.py, line \d+: .*no such thing"):
        made(Failing(), ThreatModel("linf", 0.1))


def test_one_image_that_leaves_the_ball_is_enough() -> None:
    class One(Shift):
        def moved(self, x, threat, draws):
            return x + torch.tensor([0.0, 0.3, 0.1]).view(N, 1, 1, 1)

    with pytest.raises(AttackError, match=r"left the ball L∞ ε = 0\.2 by 0\.1;"):
        made(One(), ThreatModel("linf", 0.2))


def crafted(backwards: float, nothing: float, broken: bool = True) -> Crafted:
    cost = torch.full((N,), backwards, dtype=torch.float64)
    lost = torch.stack([cost, torch.full((N,), nothing, dtype=torch.float64)])
    return Crafted(X, Y, cost, cost, lost if broken else None)


def test_blind_is_who_asked_and_got_nothing_finite() -> None:
    assert crafted(4, 4).blind
    assert crafted(1 / 3, 1 / 3 - 1e-12).blind  # shared out, and rounded
    assert not crafted(4, 3.9999).blind
    assert not crafted(4, 4 - 2e-8).blind
    assert not crafted(0, 0).blind
    assert not crafted(4, 4, broken=False).blind


def test_settings_are_those_of_the_family_then_of_the_data_set_then_of_the_user() -> None:
    assert (Shift.configure().by, Shift.configure().steps) == (0.1, 2)
    chosen = Shift.configure("mnist", "digits")
    assert (chosen.by, chosen.steps) == (0.25, 4)
    assert Shift.configure("mnist", "digits", steps=9) == Shift(by=0.25, steps=9)
    assert Shift.configure("unknown") == Shift()
    with pytest.raises(RequestError, match=r"setting of attack shift.*did you mean steps"):
        Shift.configure(step=3)


def test_it_declares_the_effort_it_is_set_to() -> None:
    assert Shift(steps=7).declare() == Nature("iterative", ("margin",), steps=7, restarts=3)

    class Silent(Shift):
        nature = None

    assert Silent().declare() is None

    @dataclass(frozen=True, kw_only=True)
    class Whole(Shift):
        step: float = 0.5
        targets: Count = 4
        queries: Count = 70

    found = Whole(steps=2, restarts=5, step=0.25).declare()
    assert found == Nature("iterative", ("margin",), steps=2, step=0.25, restarts=5, targets=4, queries=70)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("steps", 0, "shift.steps = 0 does not fit: it has to be"),
        ("steps", True, "shift.steps = True does not fit"),
        ("by", float("nan"), "shift.by = nan does not fit"),
        ("by", "much", "shift.by = 'much' does not fit"),
        ("mode", "odd", "shift.mode = 'odd' does not fit"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_when_it_is_built(field: str, value: object, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        Shift(**{field: value})  # type: ignore[arg-type]
    assert Shift(steps="5").steps == 5  # type: ignore[arg-type]


def test_balls_it_does_not_search_are_refused() -> None:
    assert (Attack.balls, Attack.version, Attack.pooled, Attack.needs) == (("linf", "l2"), 1, False, "gradient")
    assert (Attack.standard, Attack.averaging, Attack.nature) == ((), "", None)
    for norm in ("linf", "l2", "flow", "recolor"):
        Shift.require(ThreatModel(norm, 0.1))  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="attack shift searches linf and l2 balls, not l1"):
        made(Shift(), ThreatModel("l1", 0.1))


@given(st.floats(0.0, 1.0))
def test_of_a_deformation_it_searches_the_parameters(share: float) -> None:
    threat = ThreatModel("recolor", 0.1)
    x = sample_draws(N).at("c").uniform(3, 8, 8, low=0.3, high=0.7)
    found = Shift(by=share / 2)(view(), x, Y, threat, ROWS)
    bent = DEFORMATIONS["recolor"](x, 0.1)
    torch.testing.assert_close(found.x, bent(bent.still() + share / 2), atol=1e-6, rtol=0)
    assert found.distance is not None
    assert found.distance.tolist() == pytest.approx([0.1 * share] * N, abs=1e-6)
    assert (found.forwards.tolist(), found.backwards.tolist()) == ([3.0] * N, [1.0] * N)


def test_lengths_of_other_norms_come_along() -> None:
    moved = X + torch.tensor([0.1, 0.0, -0.2]).view(N, 1, 1, 1)
    assert measured(moved, X, ThreatModel("linf", 1.0)) is None
    assert measured(moved, X, ThreatModel("l2", 1.0)) is None
    length = measured(moved, X, ThreatModel("l1", 9.0))
    assert length is not None
    assert length.dtype == torch.float64
    assert length.tolist() == pytest.approx([1.6, 0, 3.2], abs=1e-5)
