"""The L1 ball: its projection against a solver, its steps, and the attacks that search it."""

from __future__ import annotations

import digits
import numpy as np
import pytest
import torch
from benchbox.plugins.attacks._fab import onto_hyperplane
from benchbox.plugins.attacks.fgsm import FGSM
from benchbox.plugins.attacks.pgd import PGD
from benchbox.plugins.attacks.rays import RayS
from pyautoattack import AutoAttack
from scipy.optimize import linprog, minimize
from torch import Tensor

from benchbox import RequestError, ThreatModel, View, sparse_sign
from benchbox.draws import sample_draws

L1 = ThreatModel("l1", 4.0)


def some(n: int, pixels: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images, a third of their pixels black or white, and points far and near."""
    draws = sample_draws(n, seed)
    x = draws.at("x").uniform(1, 1, pixels)
    x = torch.where(draws.at("extreme").uniform(1, 1, pixels) < 0.3, x.round(), x)
    return x, x + (3 * draws.at("far").uniform(1, 1, 1)) * draws.at("delta").normal(1, 1, pixels)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0, 2.5])
def test_the_projection_is_the_nearest_point_of_ball_and_box(epsilon: float) -> None:
    """As a general solver finds it, which knows neither kinks nor walls."""
    x, far = some(8, 5)
    found = ThreatModel("l1", epsilon).project(far, x)
    for i in range(len(x)):
        a, b = x[i].flatten().double().numpy(), far[i].flatten().double().numpy()
        # The change as the difference of two parts that are not negative: all is smooth and linear then.
        reference = minimize(
            lambda z, a=a, b=b: float(((a + z[:5] - z[5:] - b) ** 2).sum()),
            np.zeros(10),
            jac=lambda z, a=a, b=b: np.concatenate([s * 2 * (a + z[:5] - z[5:] - b) for s in (1, -1)]),
            bounds=[*((0, 1 - v) for v in a), *((0, v) for v in a)],
            constraints={"type": "ineq", "fun": lambda z: epsilon - z.sum(), "jac": lambda z: -np.ones(10)},
            options={"maxiter": 500, "ftol": 1e-14},
        ).x
        expected = a + reference[:5] - reference[5:]
        np.testing.assert_allclose(found[i].flatten().numpy(), expected, atol=2e-4)


def test_no_image_leaves_the_ball_whatever_float32_rounds() -> None:
    x, far = some(40, 3072)
    for epsilon in (0.01, 0.1, 12.0):
        exact = (ThreatModel("l1", epsilon).project(far, x).double() - x.double()).abs().flatten(1).sum(1)
        assert (exact <= epsilon).all()
        assert (exact >= epsilon - 4e-4).all()  # and it does reach its surface


def test_inner_points_stay_and_so_does_the_image_itself() -> None:
    x, _ = some(10, 30)
    near = (x + 0.01 * sample_draws(10).normal(1, 1, 30)).clamp(0, 1)
    torch.testing.assert_close(L1.project(near, x), near)
    assert torch.equal(ThreatModel("l1", 0.0).project(near, x), x)


def test_random_points_fill_the_ball_evenly() -> None:
    """In d dimensions a share (1/2)^d of the ball lies within half its radius, and each axis gets its part."""
    x = torch.full((4000, 1, 1, 2), 0.5)
    delta = ThreatModel("l1", 0.4).random_start(x, sample_draws(4000)) - x
    length = delta.abs().flatten(1).sum(1)
    assert float((length <= 0.2).float().mean()) == pytest.approx(0.25, abs=0.03)
    share = delta.abs().flatten(1)[:, 0] / length  # uniform along a side of the diamond
    assert float((share < 0.25).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float((delta > 0).float().mean()) == pytest.approx(0.5, abs=0.03)


def test_a_sparse_step_moves_the_steepest_pixels_alone() -> None:
    gradient = torch.tensor([3.0, -5.0, 0.5, 0.0]).view(1, 1, 2, 2)
    assert sparse_sign(gradient, torch.tensor([0.5])).flatten().tolist() == [0.5, -0.5, 0.0, 0.0]
    assert sparse_sign(gradient, torch.tensor([0.01])).flatten().tolist() == [0.0, -1.0, 0.0, 0.0]
    assert not sparse_sign(torch.zeros(1, 1, 2, 2), torch.tensor([1.0])).any()


def test_steps_do_not_push_pixels_through_the_wall() -> None:
    """The steepest pixel is black and should be blacker: the next one moves in its place."""
    x = torch.full((1, 1, 2, 2), 0.5)
    x[0, 0, 0, 0] = 0
    weights = torch.tensor([[-9.0, 5.0, 1.0, 0.1], [0.0, 0.0, 0.0, 0.0]])
    view = View(lambda x, _: x.flatten(1) @ weights.T, torch.tensor([1]), sample_draws(1))
    found = FGSM()(view, x, torch.tensor([1]), ThreatModel("l1", 0.25), sample_draws(1)).x
    torch.testing.assert_close(found - x, torch.tensor([0.0, 0.25, 0.0, 0.0]).view(1, 1, 2, 2), atol=1e-6, rtol=0)


def test_the_hyperplane_is_reached_by_the_shortest_step() -> None:
    """As linear programming finds it."""
    x, _ = some(6, 6)
    normal = sample_draws(6).at("w").normal(1, 1, 6)
    rise = torch.tensor([0.3, -0.4, 0.8, 0.05, -1.0, 0.6])
    steps = onto_hyperplane(x[None], normal, rise[None], "l1")[0].flatten(1)
    for i in range(6):
        w, a = normal[i].flatten().double().numpy(), x[i].flatten().double().numpy()
        bounds = [*((0, 1 - v) for v in a), *((0, v) for v in a)]
        best = linprog(np.ones(12), A_eq=[np.concatenate([w, -w])], b_eq=[float(rise[i])], bounds=bounds)
        if best.success:
            assert float(steps[i].abs().sum()) == pytest.approx(best.fun, abs=1e-5)
            assert float(steps[i].double() @ torch.from_numpy(w)) == pytest.approx(float(rise[i]), abs=1e-5)


@pytest.mark.parametrize(
    "name", ["apgd-ce", "apgd-t", *(pytest.param(n, marks=pytest.mark.slow) for n in ("fab-t", "square"))]
)
def test_each_member_of_autoattack_breaks_what_the_authors_does(name: str) -> None:
    """Up to the samples that one random start breaks and another does not."""
    n, threat = 40, ThreatModel("l1", 1.4)
    x, y, _ = digits.held_out(n)
    with torch.random.fork_rng():
        program = AutoAttack(digits.classifier(), eps=threat.epsilon, norm="L1", seed=0, version="standard")
        program.attacks_to_run = [name]
        x_adv, _ = program.run_standard_evaluation(x, y, batch_size=n)
    digits.as_robust(name, threat, n, x_adv)


def test_what_does_not_search_it_says_so_in_one_line() -> None:
    x, y, rows = digits.held_out(2)
    model, draws = digits.view(digits.classifier(), y, rows)
    with pytest.raises(RequestError, match="rays searches linf and l2 balls, not l1; `benchbox list"):
        RayS()(model, x, y, L1, draws)


def test_the_distance_in_the_ball_comes_with_the_images() -> None:
    x, y, rows = digits.held_out(10)
    model, draws = digits.view(digits.classifier(), y, rows)
    made = PGD(steps=5, step=0.3)(model, x, y, L1, draws)
    assert made.distance is not None
    torch.testing.assert_close(made.distance, (made.x - x).abs().double().flatten(1).sum(1), rtol=1e-6, atol=1e-6)
    assert float(made.distance.max()) > 3.9
