"""What a view counts, draws and averages, each against a count by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchbox import AttackError, Draws, ThreatModel, View
from benchbox.contract.confirmation import Confirmation
from benchbox.contract.deformation import DEFORMATIONS
from benchbox.contract.view import MEAN_GRADIENT, Trail, joined
from benchbox.draws import sample_draws, stack

N = 5
Y = torch.tensor([0, 1, 0, 1, 0])
ROWS = Draws(torch.tensor([11, 7, 5, 3, 2]), 9)


class Model:
    """Logits (0, pixel + noise), and a note of how it was asked."""

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise
        self.seen: list[tuple[Tensor, Draws]] = []

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        self.seen.append((x.detach().clone(), draws))
        score = x.flatten(1)[:, 0] + self.noise * draws.at("noise").normal(1)[:, 0]
        return torch.stack([torch.zeros_like(score), score], 1)


def images(*pixels: float) -> Tensor:
    return torch.tensor([float(pixel) for pixel in pixels]).view(-1, 1, 1, 1)


def view(model: Model, **settings: object) -> View:
    return View(model, Y, ROWS, **settings)  # type: ignore[arg-type]


def square(logits: Tensor) -> Tensor:
    return logits[:, 1] ** 2


@given(st.lists(st.lists(st.booleans(), min_size=N, max_size=N), max_size=6))
def test_the_first_pass_that_errs_is_the_one_that_counts(errs: list[list[bool]]) -> None:
    """Whether or not a later one is right again: an attack has succeeded when it first did."""
    asked = view(Model())
    for wrong in errs:
        asked(images(*(1.0 if w == (y == 0) else -1.0 for w, y in zip(wrong, Y.tolist(), strict=True))))
    columns = [[pass_[i] for pass_ in errs] for i in range(N)]
    assert asked.first_success.tolist() == [c.index(True) + 1 if any(c) else -1 for c in columns]
    assert asked.passes() == (len(errs), 0)


@given(st.permutations(range(N)), st.integers(1, N - 1), st.booleans())
def test_passes_of_a_part_come_after_those_of_the_whole(order: list[int], size: int, mask: bool) -> None:
    asked, keep = view(Model()), torch.tensor(sorted(order[:size]))
    right = images(*(-1.0 if y == 0 else 1.0 for y in Y.tolist()))
    asked(right)
    asked(right)
    part = asked.rows(torch.isin(torch.arange(N), keep) if mask else keep)
    part(right[keep])
    part.gradient(-right[keep], square)  # the fourth pass of these, and it errs
    part(right[keep])
    chosen = set(keep.tolist())
    assert asked.first_success.tolist() == [4 if i in chosen else -1 for i in range(N)]
    assert part.first_success.tolist() == [2] * size
    assert asked.spent().tolist() == [
        [5.0 if i in chosen else 2.0 for i in range(N)],
        [1.0 if i in chosen else 0.0 for i in range(N)],
    ]
    assert part.spent().tolist() == [[3.0] * size, [1.0] * size]
    assert torch.equal(part.draws.indices, ROWS.indices[keep])


def test_who_erred_before_is_not_counted_again_in_a_part() -> None:
    asked = view(Model())
    asked(images(1, 1, -1, 1, -1))  # the first sample errs
    part = asked.rows(torch.tensor([0, 2]))
    part(images(1, -1))
    inner = part.rows(torch.tensor([1]))
    inner(images(1))
    assert asked.first_success.tolist() == [1, -1, 3, -1, -1]


def test_passes_that_nobody_named_are_shared_out() -> None:
    asked = view(Model())
    asked(images(1, 1))
    asked.gradient(images(1, 1, 1), square)
    assert asked.spent().tolist() == [[1.0] * N, [0.6] * N]
    assert asked.first_success.tolist() == [-1] * N  # nobody knows whose they were
    assert (asked.whole, asked.partial) == ([0, 0], [5, 3])


@given(st.integers(1, 4), st.one_of(st.none(), st.integers(1, 12)))
def test_gradients_are_averaged_over_draws_of_their_own(eot: int, batch: int | None) -> None:
    model = Model(noise=1.0)
    asked = view(model, randomized=True, eot=eot, batch=batch)
    x = images(0.1, 0.2, 0.3, 0.4, 0.5)
    found = asked.gradient(x, square)
    noise = [ROWS.at("view", i).at("noise").normal(1)[:, 0] for i in range(eot)]
    scores = [x.flatten() + z for z in noise]
    gradient, losses, logits = found
    torch.testing.assert_close(gradient.flatten(), sum(2 * s for s in scores) / eot)
    torch.testing.assert_close(losses, sum(s**2 for s in scores) / eot)
    torch.testing.assert_close(logits[:, 1], sum(scores) / eot)
    assert asked.spent().tolist() == [[eot] * N, [eot] * N]
    assert not any(part.requires_grad for part in found)
    assert all(len(images) <= (batch or N) for images, _ in model.seen)
    # The next call goes on where this one ended.
    asked(x)
    assert torch.equal(model.seen[-1][1].bits(1)[-1:], ROWS.at("view", eot).rows(slice(4, 5)).bits(1))


def test_a_deterministic_model_takes_one_draw_whatever_was_asked() -> None:
    model = Model()
    asked = view(model, eot=7)
    assert asked.eot == 1
    asked.gradient(images(*[0.1] * N), square)
    asked(images(*[0.1] * N))
    assert [draws.seed for _, draws in model.seen] == [ROWS.seed, ROWS.seed]
    assert all(torch.equal(draws.indices, ROWS.indices) for _, draws in model.seen)


@pytest.mark.parametrize("batch", [None, 2, 3])
def test_every_row_keeps_its_own_draws_in_every_batch(batch: int | None) -> None:
    model = Model(noise=1.0)
    asked = view(model, randomized=True, batch=batch)
    logits = asked(images(*[0.0] * N))
    expected = ROWS.at("view", 0).at("noise").normal(1)[:, 0]
    assert torch.equal(logits[:, 1], expected)
    assert len(set(expected.tolist())) == N
    assert [len(x) for x, _ in model.seen] == {None: [5], 2: [2, 2, 1], 3: [3, 2]}[batch]


def test_rows_that_nobody_named_have_draws_apart_from_one_another() -> None:
    model = Model(noise=1.0)
    asked = view(model, randomized=True)
    few = asked(images(0, 0, 0))[:, 1]
    assert torch.equal(few, ROWS.rows(torch.arange(3)).at("view", 0).at("noise").normal(1)[:, 0])
    many = asked(images(*[0] * 7))[:, 1]
    assert torch.equal(model.seen[-1][1].indices, ROWS.indices[[0, 1, 2, 3, 4, 0, 1]])
    assert len(many) == 7


def test_draws_taken_together_are_counted_once_each() -> None:
    model = Model(noise=1.0)
    asked = view(model, randomized=True, eot=3, batch=10)
    asked.gradient(images(*[0.1] * N), square)
    assert [len(x) for x, _ in model.seen] == [10, 5]
    assert asked.whole == [3, 3]
    both = stack([ROWS.at("view", 0), ROWS.at("view", 1)])
    assert torch.equal(model.seen[0][1].bits(1), both.bits(1))


@pytest.mark.parametrize(
    ("rows", "batch", "sizes"), [(5, 2, [2, 2, 1] * 3), (5, 10, [10, 5]), (1, 3, [3]), (1, 2, [2, 1]), (0, 4, [0])]
)
def test_as_many_draws_are_taken_together_as_fit(rows: int, batch: int, sizes: list[int]) -> None:
    model = Model(noise=1.0)
    asked = View(model, Y[:rows], ROWS.rows(slice(rows)), randomized=True, eot=3, batch=batch)
    gradient, losses, _ = asked.gradient(torch.full((rows, 1, 1, 1), 0.1), square)
    assert [len(x) for x, _ in model.seen] == sizes
    assert (len(gradient), len(losses)) == (rows, rows)


def test_who_wants_no_gradient_may_bring_images_that_ask_for_one() -> None:
    asked = view(Model())
    with torch.no_grad():
        logits = asked(images(*[0.1] * N).requires_grad_())
    assert not logits.requires_grad
    assert asked.passes() == (1, 0)


def test_of_one_sample_all_rows_are_its_own() -> None:
    asked = View(Model(), Y[:1], ROWS.rows(slice(1)))
    asked(images(1, 1, 1))
    assert asked.spent().tolist() == [[3.0], [0.0]]


def test_what_is_not_finite_becomes_zero_and_is_counted() -> None:
    def model(x: Tensor, draws: Draws) -> Tensor:
        return (x.flatten(1) * torch.tensor([1.0, 2.0])).sqrt()

    x = torch.tensor([[0.0, 0.25], [0.0, 0.0], [0.25, 0.25], [1.0, 1.0], [0.25, 0.0]]).view(N, 1, 1, 2)
    asked = View(model, Y, ROWS)
    gradient = asked.gradient(x, lambda logits: (logits.square() - logits.square() + logits).sum(1))[0]
    assert gradient.isfinite().all()
    assert asked.broken().tolist() == [[1, 1, 0, 0, 1], [0, 1, 0, 0, 0]]
    asked.rows(torch.tensor([1, 3])).gradient(x[[1, 3]], lambda logits: logits.sum(1))
    assert asked.broken().tolist() == [[1, 2, 0, 0, 1], [0, 2, 0, 0, 0]]
    asked.gradient(x[:2], lambda logits: logits.sum(1))  # of two of the five, whose is not said
    expected = torch.tensor([[1.4, 2.4, 0.4, 0.4, 1.4], [0.2, 2.2, 0.2, 0.2, 0.2]], dtype=torch.float64)
    torch.testing.assert_close(asked.broken(), expected)


def walk(x: Tensor, draws: Draws) -> Trail:
    steps = torch.stack([x, 2 * x], 1)
    return Trail(torch.stack([0 * x.flatten(), x.flatten()], 1), steps, steps + 1)


def test_along_its_steps_a_model_shows_them_and_another_shows_none() -> None:
    x = images(0.1, 0.2, 0.3, 0.4, 0.5)
    asked = view(Model(), walk=walk, batch=2)
    gradient, losses, logits = asked.along(x, lambda trail: trail.states.sum((1, 2, 3, 4)) + trail.logits[:, 1])
    assert torch.equal(gradient, torch.full_like(x, 4.0))
    torch.testing.assert_close(losses, 4 * x.flatten())
    torch.testing.assert_close(logits[:, 1], x.flatten())
    hidden = view(Model())

    def loss(trail: Trail) -> Tensor:
        assert trail.states.shape == trail.faithful.shape == (N, 0, 1, 1, 1)
        return trail.logits[:, 1]

    assert torch.equal(hidden.along(x, loss)[1], x.flatten())
    part = asked.rows(torch.tensor([1, 2]))
    assert part.walk is walk
    assert asked.whole == [1, 1]


def test_trails_are_joined_and_split_row_by_row() -> None:
    x = images(0.1, 0.2, 0.3)
    whole = walk(x, ROWS)
    parts = whole.split(2)
    assert [len(part.logits) for part in parts] == [2, 1]
    settled = Trail(*whole.parts[:3], torch.arange(6.0).view(3, 2))
    for one in (whole, settled):
        for again in (joined(one.split(2)), joined([one])):
            for name in ("logits", "states", "faithful", "margins"):
                assert torch.equal(getattr(again, name), getattr(one, name))
    assert whole.margins.shape == (3, 0)
    assert torch.equal(joined([x, x + 1]), torch.cat([x, x + 1]))
    assert MEAN_GRADIENT == "mean of the gradients of the per-draw losses"


def test_behind_a_deformation_the_model_sees_images_and_counts_anew() -> None:
    model = Model()
    x = sample_draws(N).at("x").uniform(3, 8, 8)
    bent = DEFORMATIONS["recolor"](x, 0.1)
    whole = view(model, batch=2, walk=walk)
    whole(x)
    asked = whole.deformed(bent)
    assert asked.passes() == (0, 0)
    assert (asked.batch, asked.walk, asked.forward, asked.draws) == (2, walk, model, ROWS)
    asked(bent.still())
    torch.testing.assert_close(torch.cat([images for images, _ in model.seen[-3:]]), x, atol=1e-5, rtol=0)
    part = asked.rows(torch.tensor([3, 1]))
    part(bent.still()[[3, 1]])
    torch.testing.assert_close(model.seen[-1][0], x[[3, 1]], atol=1e-5, rtol=0)
    with pytest.raises(AttackError, match="drops samples on its own"):
        asked(bent.still()[:2])


def test_a_find_in_low_precision_is_confirmed_row_by_row() -> None:
    """The coarse model errs on every image; the exact one on those above a half."""
    exact = Model()

    def coarse(x: Tensor, draws: Draws) -> Tensor:
        return torch.stack([torch.zeros(len(x)), torch.ones(len(x)) + x.flatten()], 1)

    x, y = images(0.1, 0.2, 0.3, 0.4, 0.5), torch.zeros(N, dtype=torch.int64)
    referee = Confirmation(lambda x, d: exact(x - 0.5, d), x, ThreatModel("linf", 0.3), 2)
    asked = View(coarse, y, ROWS, confirmation=referee)
    tried = x + images(0.3, 0.3, 0.3, 0.3, 0.4)  # the last is outside of the ball
    heard = asked(tried)
    assert [len(images) for images, _ in exact.seen] == [2, 2]
    assert [draws.indices.tolist() for _, draws in exact.seen] == [[11, 7], [5, 3]]
    assert heard.argmax(1).tolist() == [0, 0, 1, 1, 1]
    torch.testing.assert_close(heard[:2, 1], tried.flatten()[:2] - 0.5)
    assert asked.first_success.tolist() == [-1, -1, 1, 1, 1]
    exact.seen.clear()
    asked(tried)  # whom one has broken is not asked about again
    assert sum(len(images) for images, _ in exact.seen) == 2
    part = asked.rows(torch.tensor([4, 2]))
    part(images(0.75, 0.6))
    assert exact.seen[-1][0].flatten().tolist() == [0.25]
    # What the search returns: the confirmed image where it breaks nothing but the coarse model.
    found = asked.settle(x)
    torch.testing.assert_close(found.flatten(), torch.tensor([0.1, 0.2, 0.6, 0.7, 0.75]))
    assert torch.equal(asked.settle(tried)[2:4], tried[2:4])


def test_long_searches_are_counted_to_the_end() -> None:
    """Notes are added up now and then: nothing is lost where that happens."""
    asked = View(lambda x, d: Model()(x, d), torch.zeros(4, dtype=torch.int64), sample_draws(4))
    for step in range(1, 151):
        leaf = torch.tensor([step - 64.5, step - 65.5, step - 149.5, -1.0]).view(-1, 1, 1, 1)
        asked.gradient(leaf, lambda logits, step=step: logits[:, 1] * (torch.nan if step % 50 == 0 else 1.0))
        if step in (64, 65):
            assert asked.first_success.tolist() == [-1 if step == 64 else 65, -1, -1, -1]
    assert asked.first_success.tolist() == [65, 66, 150, -1]
    assert asked.broken().tolist() == [[3.0] * 4] * 2
    assert asked.passes() == (150, 150)


def test_of_no_samples_nothing_is_counted() -> None:
    asked = View(lambda x, d: x.flatten(1), Y[:0], ROWS.rows(slice(0, 0)))
    asked(torch.zeros(0, 1, 1, 2))
    assert asked.spent().shape == asked.broken().shape == (2, 0)
    assert asked.passes() == (0.0, 0.0)
    assert asked.first_success.tolist() == []


def test_a_gradient_is_of_one_draw_unless_more_are_asked_for() -> None:
    calls: list[int] = []

    def forward(x: Tensor, draws: Draws) -> Tensor:
        calls.append(len(x))
        return x.flatten(1)

    y = torch.zeros(2, dtype=torch.int64)
    view = View(forward, y, Draws(torch.arange(2)), randomized=True)
    view.gradient(torch.zeros(2, 1, 2, 2), lambda logits: logits[:, 0])
    assert (view.eot, view.batch, view.walk, view.confirmation, view.deformation) == (1, None, None, None, None)
    assert calls == [2]
    assert View(forward, y, Draws(torch.arange(2)), eot=3).randomized is False


def test_a_part_of_a_view_and_a_view_behind_a_deformation_ask_as_it_does() -> None:
    y, draws = torch.tensor([0, 1, 1]), Draws(torch.tensor([5, 7, 9]), 3)
    whole = View(lambda x, d: x, y, draws, randomized=True, eot=4, batch=6, walk=lambda x, d: Trail(x, x, x))
    part = whole.rows(torch.tensor([2, 0]))
    bent = whole.deformed(DEFORMATIONS["recolor"](torch.zeros(3, 1, 2, 2), 0.1))
    for other in (part, bent):
        kept = ("forward", "randomized", "eot", "batch", "walk")
        assert [getattr(other, name) for name in kept] == [getattr(whole, name) for name in kept]
        assert other.passes() == (0.0, 0.0)
    assert (part.y.tolist(), part.draws.indices.tolist(), part.draws.seed) == ([1, 0], [9, 5], 3)
    assert bent.y is y
    assert bent.draws is draws
    assert bent.deformation is not None
    assert part.deformation is None
