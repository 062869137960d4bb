"""The gradient-ascent loop against one that is written out, sample by sample; and which iterate it keeps."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchbox import Draws, ThreatModel, View, ascend, margin
from benchbox.contract.ascent import SPARSITY, cross_entropy, direction, sparse_sign, unit
from benchbox.contract.view import Trail
from benchbox.draws import sample_draws

BALLS = {"linf": 0.1, "l2": 0.5, "l1": 1.5}
SEEDS = st.integers(0, 200)
N, SHAPE = 4, (1, 3, 3)
ROWS = sample_draws(N)


def curved(seed: int, n: int = N, classes: int = 3) -> tuple[object, Tensor, Tensor]:
    """A few classes with logits that bend, n images in the box, and classes for them."""
    draws = sample_draws(classes, seed)
    weights, bends = draws.at("w").normal(9), draws.at("b").normal(9)
    x = sample_draws(n, seed).at("x").uniform(*SHAPE)

    def forward(x: Tensor, _: Draws) -> Tensor:
        flat = x.flatten(1)
        return flat @ weights.T + 2 * (4 * flat).sin() @ bends.T

    return forward, x, forward(x, draws).argmax(1)


def one_step(x_adv: Tensor, gradient: Tensor, x: Tensor, threat: ThreatModel, size: float) -> Tensor:
    if threat.norm == "l1":
        free = torch.tensor(
            [0 <= float(a + g.sign()) <= 1 or 0 < float(a) < 1 for a, g in zip(x_adv, gradient, strict=True)]
        )
        gradient = gradient * free
        largest = int(gradient.abs().argmax())
        step = torch.zeros_like(gradient)
        step[largest] = gradient[largest].sign()
    else:
        step = gradient.sign() if threat.norm == "linf" else gradient / gradient.norm().clamp_min(1e-12)
    moved = x_adv + size * step
    return threat.project(moved.view(1, *SHAPE), x.view(1, *SHAPE)).flatten()


@pytest.mark.parametrize("norm", BALLS)
@pytest.mark.parametrize("momentum", [None, 0.7])
@pytest.mark.parametrize("keep", ["last", "best"])
@settings(max_examples=8)
@given(SEEDS)
def test_it_is_the_loop_that_the_papers_print(norm: str, momentum: float | None, keep: str, seed: int) -> None:
    threat, size = ThreatModel(norm, BALLS[norm]), BALLS[norm] / 3  # type: ignore[arg-type]
    forward, x, y = curved(seed)
    start = threat.random_start(x, sample_draws(N, seed).at("s"))
    view = View(forward, y, ROWS)  # type: ignore[arg-type]
    found = ascend(
        view, x, y, threat, start=start, steps=4, step_size=size, loss=margin, momentum=momentum, keep=keep,  # type: ignore[arg-type]
    )  # fmt: skip
    assert view.passes() == (4 + (keep == "best"), 4)
    for i in range(N):
        here, velocity, seen = start[i].flatten(), torch.zeros(9), []
        for _ in range(4):
            leaf = here.clone().requires_grad_()
            loss = margin(forward(leaf[None], ROWS), y[i : i + 1])  # type: ignore[operator]
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
            seen.append((float(loss.detach()), here))
            if momentum is not None:
                velocity = gradient = momentum * velocity + gradient / gradient.abs().mean()
            here = one_step(here, gradient, x[i].flatten(), threat, size)
        seen.append((float(margin(forward(here[None], ROWS), y[i : i + 1])), here))  # type: ignore[operator]
        expected = max(seen, key=lambda pair: pair[0])[1] if keep == "best" else here
        torch.testing.assert_close(found[i].flatten(), expected, atol=2e-5, rtol=0)


OUTCOMES = st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=6)


@given(st.lists(OUTCOMES.filter(lambda o: len(o) == 4), min_size=1, max_size=3))
def test_the_best_iterate_errs_if_any_does_and_then_has_the_highest_loss(
    told: list[list[tuple[bool, int]]],
) -> None:
    """A loss may be high where the model is still right: that breaks nothing. Of equals, the first is kept."""
    n, steps = len(told), 3
    asked = iter(range(steps + 1))

    def forward(x: Tensor, _: Draws) -> Tensor:
        k = next(asked)
        score = torch.tensor([1.0 if one[k][0] else -1.0 for one in told]) + 0 * x.flatten(1).sum(1)
        height = torch.tensor([float(one[k][1]) for one in told]) + 1e-6 * x.flatten(1)[:, 0]
        return torch.stack([torch.zeros(n), score, height - 100], 1)

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return (logits[:, 2] + 100).detach().round() + 0 * logits[:, 2] + (logits[:, 2] - logits[:, 2].detach())

    x, y = torch.full((n, 1, 1, 1), 0.5), torch.zeros(n, dtype=torch.int64)
    view = View(forward, y, sample_draws(n))
    found = ascend(
        view, x, y, ThreatModel("linf", 0.4), start=x, steps=steps, step_size=0.1, loss=loss, keep="best"
    )
    for i, one in enumerate(told):
        expected = max(range(4), key=lambda k: (one[k][0], one[k][1], -k))
        assert found[i].item() == pytest.approx(0.5 + 0.1 * expected, abs=1e-5)


def test_a_gradient_of_zero_keeps_the_momentum_and_freezes_nothing() -> None:
    slopes = iter([1.0, 0.0, 0.0])

    def forward(x: Tensor, _: Draws) -> Tensor:
        slope = next(slopes)
        return torch.stack([torch.zeros(1), slope * x.flatten()], 1)

    x, y = torch.full((1, 1, 1, 1), 0.2), torch.zeros(1, dtype=torch.int64)
    made = ascend(
        View(forward, y, sample_draws(1)), x, y, ThreatModel("linf", 0.5), start=x, steps=3, step_size=0.1,
        loss=lambda logits, y: logits[:, 1], momentum=1.0,
    )  # fmt: skip
    assert made.item() == pytest.approx(0.5)


def test_along_the_steps_of_a_model_another_loss_climbs_and_the_usual_one_chooses() -> None:
    def walk(x: Tensor, _: Draws) -> Trail:
        logits = torch.stack([x.flatten(), torch.zeros(len(x))], 1)
        return Trail(logits, -x[:, None], x[:, None])

    def forward(x: Tensor, d: Draws) -> Tensor:
        return walk(x, d).logits

    x, y = torch.full((1, 1, 1, 1), 0.5), torch.zeros(1, dtype=torch.int64)
    settings = {
        "start": x,
        "steps": 2,
        "step_size": 0.1,
        "along": lambda trail, y: -trail.states.sum((1, 2, 3, 4)),
    }
    for keep, expected in (("last", 0.7), ("best", 0.5)):  # it climbs into safety: the start is the best
        view = View(forward, y, sample_draws(1), walk=walk)
        made = ascend(view, x, y, ThreatModel("linf", 0.4), loss=margin, keep=keep, **settings)  # type: ignore[arg-type]
        assert made.item() == pytest.approx(expected)


@given(SEEDS)
def test_losses_are_what_their_names_say(seed: int) -> None:
    logits = sample_draws(3, seed).at("z").normal(4)
    y = torch.tensor([0, 3, 2])
    for row, k, m, ce in zip(
        logits.tolist(), y.tolist(), margin(logits, y), cross_entropy(logits, y), strict=True
    ):
        others = [v for j, v in enumerate(row) if j != k]
        assert float(m) == pytest.approx(max(others) - row[k], abs=1e-6)
        assert float(ce) == pytest.approx(math.log(sum(math.exp(v) for v in row)) - row[k], abs=1e-5)


@given(SEEDS, st.floats(0.01, 1.0))
def test_a_sparse_step_has_length_one_and_takes_the_largest(seed: int, share: float) -> None:
    gradient = sample_draws(2, seed).at("g").normal(1, 3, 7)
    step = sparse_sign(gradient, torch.tensor([share, 1.0])).flatten(1)
    count = min(max(math.ceil(share * 21 - 1e-6), 1), 21)
    kept = step[0].nonzero().flatten().tolist()
    assert len(kept) in (count, count + 1)  # float32 may round a whole number up
    assert set(gradient[0].flatten().abs().argsort(descending=True)[: len(kept)].tolist()) == set(kept)
    assert torch.equal(step[0][kept].sign(), gradient[0].flatten()[kept].sign())
    assert float(step[0].abs().sum()) == pytest.approx(1, abs=1e-6)
    assert float(step[1].abs().min()) == pytest.approx(1 / 21)


def test_the_steepest_direction_of_each_norm() -> None:
    gradient = torch.zeros(2, 1, 10, 20)
    gradient[0, 0, 0, :4] = torch.tensor([3.0, -4.0, 0.1, 0.0])
    assert SPARSITY == 0.01
    assert direction(gradient, ThreatModel("linf", 1.0))[0, 0, 0, :4].tolist() == [1, -1, 1, 0]
    steepest = direction(gradient, ThreatModel("l1", 1.0))[0, 0, 0, :4]  # two of two hundred
    assert steepest.tolist() == [0.5, -0.5, 0, 0]
    length = direction(gradient, ThreatModel("l2", 1.0))
    torch.testing.assert_close(length[0, 0, 0, :4], torch.tensor([3.0, -4.0, 0.1, 0.0]) / math.sqrt(25.01))
    assert not length[1].any()
    faint = direction(gradient * 1e-12, ThreatModel("l2", 1.0))  # and still a gradient
    torch.testing.assert_close(faint, length)
    assert (sparse_sign(gradient[:1] + 1, torch.tensor([1.5])) != 0).all()  # a share of more than all is all


@given(SEEDS, st.integers(-148, 127))
def test_a_gradient_of_any_size_has_a_unit_step_in_l2(seed: int, power: int) -> None:
    gradient = sample_draws(3, seed).at("g").uniform(1, 3, 3, low=-1.0, high=1.0)
    gradient[0] = 0
    scaled = (gradient.double() * 2.0**power).float()
    found = unit(scaled)
    assert not found[0].any()
    assert found.isfinite().all()
    exact = scaled[1:].double().flatten(1)
    exact = exact / exact.norm(dim=1, keepdim=True).clamp_min(1e-300)
    torch.testing.assert_close(found[1:].double().flatten(1), exact, atol=1e-6, rtol=0)
    if abs(power) < 20:  # no digit of it hangs on the power of two
        assert torch.equal(found[1:], gradient[1:] / gradient[1:].flatten(1).norm(dim=1).view(-1, 1, 1, 1))


@pytest.mark.parametrize("scale", [1.0, 120.0, 200.0])
def test_a_confident_model_is_climbed_as_far_as_any_other_in_l2(scale: float) -> None:
    """Of two classes the cross-entropy has the direction of the margin, however little of it is left."""
    threat, w = ThreatModel("l2", 0.3), sample_draws(1, 5).at("w").normal(*SHAPE)
    x, y = sample_draws(N, 1).at("x").uniform(*SHAPE, low=0.4, high=0.6), torch.zeros(N, dtype=torch.int64)

    def forward(x: Tensor, _: Draws) -> Tensor:
        score = scale * ((x - 0.5) * w / w.norm()).flatten(1).sum(1) - 0.3 * scale
        return torch.stack([-score / 2, score / 2], 1)

    if scale > 1:
        slope, _, _ = View(forward, y, ROWS).gradient(x, lambda logits: cross_entropy(logits, y))
        assert 0 < float(slope.abs().amax()) < 1e-12
    found = ascend(View(forward, y, ROWS), x, y, threat, start=x, steps=1, step_size=0.3)
    torch.testing.assert_close(found, x + 0.3 * w / w.norm(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", BALLS)
@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_search_stays_on_its_device(norm: str, keep: str) -> None:
    x, y = torch.zeros(2, 1, 3, 3, device="meta"), torch.zeros(2, dtype=torch.int64, device="meta")
    view = View(lambda x, _: x.flatten(1)[:, :3], y, sample_draws(2, device="meta"))
    found = ascend(
        view, x, y, ThreatModel(norm, 0.3), start=x, steps=2, step_size=0.1, momentum=0.5, keep=keep,  # type: ignore[arg-type]
    )  # fmt: skip
    assert found.is_meta
