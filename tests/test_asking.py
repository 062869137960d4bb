"""What a judge hands to a defence, takes back from it and says of it: precision, layout, draws, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_judge import CPU, SECRET, Dice, Steps, Threshold, Y, cell_of, images, streams
from test_judge import X as PIXELS
from torch import Tensor, nn

from benchbox import Card, DefenseError, Draws
from benchbox.engine import transfer
from benchbox.engine.judge import Judge, Streams, check_logits
from benchbox.training.layout import Layout

ONES = torch.ones(5, 1, 1, 1)


class Product(nn.Module):
    """A factor that bfloat16 takes for 1."""

    def __init__(self) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.tensor([[1.0], [1.001], [-1.0]]), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.factors.T


def steps(classifier: nn.Module, name: str = "steps") -> Steps:
    defense = type("Named", (Steps,), {"card": Card(name, "halves twice")})()
    defense.classifier = classifier
    return defense


@pytest.mark.parametrize("stand_in", [None, "identity"])
def test_a_search_may_be_coarse_and_nothing_else_is(stand_in: str | None) -> None:
    judge, draws = Judge(steps(Product()), Layout(batch=5)), streams().clean
    coarse = judge.searched(cell_of(stand_in, "bfloat16"), ONES, Y, draws)
    fine = judge.searched(cell_of(stand_in), ONES, Y, draws)
    walk = judge.walk()
    assert walk is not None
    assert coarse.confirmation is not None
    for said, expected in (
        (judge.ask(ONES, draws), 0.25025),
        (judge.ask(ONES, draws, "bfloat16"), 0.25),
        (judge.asked(judge.defense, ONES, draws), 0.25025),
        (judge.through(stand_in)(ONES, draws), 0.25025),
        (judge.through(stand_in, "bfloat16")(ONES, draws), 0.25),
        (coarse.forward(ONES, draws), 0.25),
        (coarse.confirmation.exact(ONES, draws), 0.25025),
        (fine(ONES), 0.25025),
        (walk(ONES, draws).logits, 0.25025),
    ):
        assert said.dtype == torch.float32
        torch.testing.assert_close(said[:, 1], torch.full((5,), expected), rtol=1e-6, atol=0)
    assert judge.score(ONES, draws, 1).flatten().tolist() == [1] * 5  # to bfloat16 the first two are equal


def test_what_is_confirmed_is_about_the_images_and_their_ball() -> None:
    judge = Judge(steps(Product()), Layout(batch=5))
    view = judge.searched(cell_of(None, "bfloat16"), ONES / 2, torch.ones(5, dtype=torch.int64), streams().clean)
    view(ONES / 2 + 0.2)  # inside of the ball, and wrong to the coarse one alone
    assert view.first_success.tolist() == [-1] * 5
    view(ONES)  # outside
    assert view.first_success.tolist() == [2] * 5


@pytest.mark.parametrize("last", [True, False])
def test_however_it_is_asked_a_defence_is_handed_its_layout(last: bool) -> None:
    seen: list[bool] = []

    class Noting(Steps):
        def begin(self, x: Tensor, draws: Draws) -> Tensor:
            seen.append(x.is_contiguous(memory_format=torch.channels_last))
            return x

    judge = Judge(Noting(), Layout(channels_last=last, batch=2))
    x, draws = torch.rand(2, 3, 4, 4), Draws(torch.arange(2))
    walk = judge.walk()
    assert walk is not None
    for ask in (judge.ask, judge.without_gradient, judge.through("identity"), walk):
        ask(x, draws)
    assert seen == [last] * 4


class Raising(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("no such thing")


class Listing(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return [x]


def test_whatever_fails_is_named_with_its_line() -> None:
    judge = Judge(steps(Raising(), "odd"), Layout(batch=5))
    walk = judge.walk()
    assert walk is not None
    for ask in (judge.ask, judge.without_gradient, judge.through("identity"), walk):
        with pytest.raises(DefenseError, match=r"defence odd, .*test_asking.py, line \d+: .*no such thing"):
            ask(ONES, streams().clean)


def test_what_is_no_tensor_is_the_defence_s_fault() -> None:
    judge = Judge(steps(Listing(), "odd"), Layout(batch=5))
    for ask in (judge.ask, judge.without_gradient, judge.through("identity")):
        with pytest.raises(DefenseError, match="defence odd returned a list"):
            ask(ONES, streams().clean)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (lambda z: z[:, :2], r"returned shape \(5, 2\) for 5 images and 3 classes; return logits of shape \(5, 3"),
        (lambda z: z.softmax(1), "returned probabilities"),
        (lambda z: z / 0, "returned NaN or infinity"),
        (lambda z: z.long(), "returned torch.int64"),
        (lambda z: None, "returned None"),
    ],
)
def test_what_breaks_the_contract_is_never_scored(found: Any, said: str) -> None:
    class Odd(Threshold):
        card = Card("odd", "answers otherwise")

        def forward(self, x, draws=None):
            return found(super().forward(x, draws))

    with pytest.raises(DefenseError, match=f"defence odd {said}"):
        Judge(Odd(), Layout(batch=5)).score(PIXELS, streams().clean, 1)


def test_an_attack_hears_of_a_wrong_shape_at_once() -> None:
    class Odd(Threshold):
        card = Card("odd", "a class too few")

        def forward(self, x, draws=None):
            return super().forward(x, draws)[:, :2]

    judge = Judge(Odd(), Layout(batch=5))
    with pytest.raises(DefenseError, match=r"defence odd returned shape \(5, 2\) for 5 images and 3 classes"):
        judge.view(Y, streams().clean)(PIXELS)


@pytest.mark.parametrize(
    "row",
    [
        [1.000016, -8e-6, -8e-6],  # too high, and nothing else
        [0.5, 0.50003, -3e-5],  # too low
        [0.5, 0.5, 3e-5],  # too much
        [1 + 1e-5, -5e-6, -5e-6],  # just too high
        [0.5, 0.50001, -1e-5],  # just too low
    ],
)
def test_what_no_softmax_gives_is_taken_for_logits(row: list[float]) -> None:
    check_logits(torch.tensor([row]), 1, 3, "mine")
    with pytest.raises(DefenseError, match="probabilities"):
        check_logits(torch.tensor([[round(value, 4) for value in row]]).clamp_min(0), 1, 3, "mine")


def test_who_is_asked_without_a_gradient_sees_the_same_draws() -> None:
    judge = Judge(Dice(), Layout(batch=5), SECRET)
    assert torch.equal(judge.without_gradient(PIXELS, streams().clean), judge.ask(PIXELS, streams().clean))


def test_a_view_knows_the_classes_and_takes_one_draw() -> None:
    view = Judge(Dice(), Layout(batch=7), SECRET).view(Y, streams().clean)
    assert view.y is Y
    assert view.eot == 1


def test_the_names_of_no_samples_are_whole_numbers_and_lie_where_they_are_drawn() -> None:
    assert Streams((), 0, CPU).samples.indices.dtype == torch.int64
    assert Streams((1, 2), 0, torch.device("meta")).samples.indices.is_meta


def test_what_a_defence_has_answered_it_cannot_change_any_more() -> None:
    class Regretting(Threshold):
        said: Tensor | None = None

        def forward(self, x, draws=None):
            if self.said is not None:
                with torch.no_grad():
                    self.said.add_(9)
            self.said = super().forward(x, draws)
            return self.said

    judge = Judge(Regretting(), Layout(batch=5))
    for x in (PIXELS, PIXELS.clone().requires_grad_()):
        first = judge.ask(x, streams().clean)
        kept = first.detach().clone()
        judge.ask(x, streams().clean)
        assert torch.equal(first, kept)


def test_a_transfer_is_described_in_parts_whose_names_begin_anew() -> None:
    """What is stored of randomised targets hangs on these names."""
    substitute, target = Threshold(), Dice()
    x = images(*[0.1] * 501)
    found = transfer.describe(
        Judge(substitute, Layout()), Judge(target, Layout()), x, x + 0.8, torch.zeros(501, dtype=torch.int64)
    )
    assert [rows for rows, _ in target.asked] == [500, 1]
    assert [rows for rows, _ in substitute.asked] == [500, 1, 500, 1]
    rolled = torch.cat([Draws(torch.arange(n), 0).at("roll").integers(3, 1) for n in (500, 1)])
    assert found["agreement"] == pytest.approx(float((rolled == 0).double().mean()))
    assert (found["source_accuracy"], found["source_success"]) == (1.0, 1.0)
