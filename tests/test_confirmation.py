"""Who decides in float32 what a coarse search has broken: what is asked again, what is heard, what is returned."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchbox import Draws, ThreatModel, View
from benchbox.contract.confirmation import Confirmation
from benchbox.draws import sample_draws

N = 5
X = torch.full((N, 1, 1, 1), 0.5)
Y = torch.zeros(N, dtype=torch.int64)
ROWS = sample_draws(N, 7)


class Asked:
    """A model of two classes that errs above a brightness; writes down what it is asked, and in whose draws."""

    def __init__(self, wall: float, scale: float = 1.0) -> None:
        self.wall, self.scale = wall, scale
        self.seen: list[list[float]] = []
        self.draws: list[list[int]] = []

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        self.seen.append([round(v, 3) for v in x.flatten().tolist()])
        self.draws.append(draws.indices.tolist())
        assert draws.seed == ROWS.seed
        pixel = x.flatten()
        return self.scale * torch.stack([0 * pixel + self.wall, pixel], 1)


def images(*pixels: float) -> Tensor:
    return torch.tensor(pixels).view(-1, 1, 1, 1)


def test_what_is_claimed_inside_of_the_ball_is_asked_again_until_it_is_confirmed() -> None:
    exact, coarse = Asked(0.56), Asked(0.52, 10.0)
    told = Confirmation(exact, X, ThreatModel("linf", 0.1), 2)
    # Right, wrong to the coarse one alone, wrong, wrong outside of the ball, wrong on its wall but for rounding.
    x = images(0.5, 0.55, 0.58, 0.7, 0.6 + 5e-7).requires_grad_()
    said = coarse(x, ROWS)
    heard = told.hear(said, x, Y, ROWS)
    assert exact.seen == [[0.55, 0.58], [0.6]]
    assert exact.draws == [[1, 2], [4]]
    assert torch.equal(heard[[0, 2, 3, 4]], said[[0, 2, 3, 4]])
    torch.testing.assert_close(heard[1], torch.tensor([0.56, 0.55]))
    (gradient,) = torch.autograd.grad(heard[:, 1].sum(), x)
    assert gradient.flatten().tolist() == [10.0] * N  # the coarse one's
    exact.seen.clear()
    told.hear(said.detach(), x, Y, ROWS)  # what is confirmed is not asked about again
    assert exact.seen == [[0.55]]
    exact.seen.clear()
    assert told.hear(said[:1], x[:1], Y[:1], ROWS.rows(slice(0, 1))) is not None
    assert exact.seen == []


def test_nobody_is_asked_about_no_image() -> None:
    exact = Asked(0.56)
    told = Confirmation(exact, X[:1], ThreatModel("linf", 0.1), 1)
    told.settle(X[:1], Asked(0.52), Y[:1], ROWS.rows(slice(0, 1)))
    assert exact.seen == [[0.5]]
    none = Confirmation(exact, X[:0], ThreatModel("linf", 0.1), 1)
    assert none.settle(X[:0], Asked(0.52), Y[:0], ROWS.rows(slice(0, 0))).shape == (0, 1, 1, 1)


def test_what_some_of_the_samples_learn_all_know() -> None:
    exact = Asked(0.56)
    told = Confirmation(exact, X, ThreatModel("linf", 0.1), 9)
    part = told.rows(torch.tensor([4, 1]))
    claimed = torch.tensor([[0.0, 1.0]]).repeat(2, 1)
    part.hear(claimed, images(0.59, 0.55), Y[:2], ROWS.rows(torch.tensor([4, 1])))
    assert exact.draws == [[4, 1]]
    exact.draws.clear()
    told.hear(claimed[:1].repeat(N, 1), X + 0.07, Y, ROWS)
    assert exact.draws == [[0, 1, 2, 3]]  # the last one was confirmed


def test_a_search_that_returns_less_than_it_found_is_given_what_was_confirmed() -> None:
    exact, coarse = Asked(0.56), Asked(0.52)
    told = Confirmation(exact, X, ThreatModel("linf", 0.1), 2)
    told.hear(torch.tensor([[0.0, 1.0]]).repeat(N, 1), images(0.5, 0.57, 0.58, 0.59, 0.6), Y, ROWS)
    exact.seen.clear()
    # Nothing was confirmed of the first. Of the others: right to both, to neither, to float32 alone twice.
    found = images(0.54, 0.5, 0.57, 0.54, 0.55)
    settled = told.settle(found, coarse, Y, ROWS)
    assert exact.seen == [[0.54, 0.5], [0.57, 0.54], [0.55]]
    assert (coarse.seen, coarse.draws) == ([[0.5, 0.54, 0.55]], [[1, 3, 4]])
    torch.testing.assert_close(settled, images(0.54, 0.5, 0.57, 0.59, 0.6))
    assert found.flatten().tolist()[3:] == images(0.54, 0.55).flatten().tolist()


@given(st.integers(1, 4), st.integers(1, 7))
def test_rows_that_nobody_named_are_answered_in_float32(rows: int, batch: int) -> None:
    exact, coarse = Asked(0.56), Asked(0.52, 3.0)
    told = Confirmation(exact, X, ThreatModel("linf", 0.1), batch)
    view = View(coarse, Y, ROWS, confirmation=told, batch=batch)
    torch.testing.assert_close(view(X[:rows] + 0.03), exact(X[:rows] + 0.03, ROWS.rows(slice(rows))))
    assert coarse.seen == []
    view(X)
    assert [v for part in coarse.seen for v in part] == [0.5] * N
    # Parts that are named are coarse, and what is found in them is confirmed.
    coarse.seen.clear()
    exact.seen.clear()
    named = view.rows(torch.tensor([3, 0]))
    named(images(0.55, 0.6))
    assert [v for part in coarse.seen for v in part] == [0.55, 0.6]
    assert [v for part in exact.seen for v in part] == [0.55, 0.6]
    assert view.settle(images(0.5, 0.5, 0.5, 0.5, 0.5)).flatten().tolist() == [0.5] * N
    torch.testing.assert_close(view.settle(images(0.54, 0.5, 0.5, 0.54, 0.5)), images(0.6, 0.5, 0.5, 0.54, 0.5))
