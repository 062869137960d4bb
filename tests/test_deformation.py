"""Threat models that are no ball of images: known answers, what attacks get and give, and a run of the command."""

from __future__ import annotations

import digits
import numpy as np
import pytest
import torch
from benchbox.plugins.attacks.apgd import APGDCE
from benchbox.plugins.attacks.noise import Noise
from benchbox.plugins.attacks.null import Null
from benchbox.plugins.attacks.pgd import PGD
from benchbox.plugins.attacks.square import Square
from torch import Tensor

from benchbox import Attack, RequestError, ThreatModel, View
from benchbox.contract import color
from benchbox.contract.deformation import Deformation, Flow, Recolor, interpolated
from benchbox.draws import sample_draws

FLOW, RECOLOR = ThreatModel("flow", 0.3), ThreatModel("recolor", 0.1)


def picture(n: int, channels: int, size: int = 6) -> Tensor:
    return sample_draws(n).at("x").uniform(channels, size, size)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [Flow, Recolor])
def test_the_middle_of_the_parameters_changes_no_bit(kind: type[Deformation], channels: int) -> None:
    x = picture(3, channels)
    deformation = kind(x, 0.7)
    assert torch.equal(deformation(deformation.still()), x)
    assert (deformation.length(deformation.still()) == 0).all()
    assert torch.equal(deformation.rows(torch.tensor([2]))(deformation.still()[:1]), x[2:])


@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, 1), (-1, 0), (1, -1)])
def test_a_flow_by_whole_pixels_is_a_shift(down: int, right: int) -> None:
    x = picture(2, 3)
    deformation = Flow(x, 1.0)
    parameters = deformation.still()
    parameters[:, 0] += down / 2
    parameters[:, 1] += right / 2
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(deformation(parameters)[inner], torch.roll(x, (-down, -right), (2, 3))[inner])


def test_a_flow_by_half_a_pixel_is_the_mean_of_two() -> None:
    x = picture(2, 1)
    deformation = Flow(x, 0.5)
    parameters = deformation.still()
    parameters[:, 1] = 1.0
    torch.testing.assert_close(deformation(parameters)[..., :-1], (x[..., :-1] + x[..., 1:]) / 2)
    assert (deformation.length(parameters) == 0.5).all()


def test_the_same_colour_becomes_the_same_colour() -> None:
    x = picture(2, 3)
    x[:, :, 3:] = x[:, :, :3]
    deformation = Recolor(x, 0.2)
    changed = deformation(deformation.still() + 0.5 * (sample_draws(2).uniform(3, 16, 1024) - 0.5))
    torch.testing.assert_close(changed[:, :, 3:], changed[:, :, :3])
    assert float((changed - x).abs().max()) > 0.05


def test_a_grey_level_moves_by_the_bound_at_most() -> None:
    x = picture(2, 1)
    deformation = Recolor(x, 0.1)
    torch.testing.assert_close(deformation(torch.ones_like(deformation.still())), (x + 0.1).clamp(0, 1))


def test_colours_are_those_of_the_standard() -> None:
    """White, mid grey, and the primaries red and blue (values of CIE 1976 L*u*v* for sRGB, D65)."""
    rgb = torch.tensor([[1.0, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [0, 0, 1]])[:, :, None, None]
    known = torch.tensor([[100, 0, 0], [53.39, 0, 0], [53.24, 175.01, 37.76], [32.30, -9.40, -130.34]])
    found = color.luv(rgb)[:, :, 0, 0] * torch.tensor([100.0, 200, 200]) - torch.tensor([0.0, 100, 100])
    torch.testing.assert_close(found, known, atol=0.25, rtol=0)
    x = picture(20, 3)
    torch.testing.assert_close(color.rgb(color.luv(x)), x, atol=2e-3, rtol=0)


def test_interpolation_is_linear_between_the_places_of_a_grid() -> None:
    """A linear function of the coordinates comes back everywhere."""
    grid = (3, 4, 5)
    places = torch.stack(torch.meshgrid(*(torch.arange(s) for s in grid), indexing="ij")).flatten(1).float()
    weights = torch.tensor([[1.0, -2.0, 0.5]])
    at = sample_draws(1).uniform(3, 50) * (torch.tensor(grid)[:, None] - 1)
    torch.testing.assert_close(interpolated((weights @ places)[None], at, grid), weights @ at[0][None])


@pytest.mark.parametrize("kind", [Flow, Recolor])
def test_gradients_are_those_of_finite_differences(kind: type[Deformation]) -> None:
    deformation = kind(picture(1, 1, 4), 0.3)
    start = deformation.still() + 0.13
    weights = sample_draws(1).at("w").normal(1, 4, 4)
    leaf = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((deformation(leaf) * weights).sum(), leaf)
    direction = sample_draws(1).at("d").normal(*start.shape[1:])
    ends = [((deformation(start + s * 1e-3 * direction)) * weights).sum() for s in (1, -1)]
    assert float((ends[0] - ends[1]) / 2e-3) == pytest.approx(
        float((gradient * direction).sum()), rel=2e-2, abs=1e-3
    )


@pytest.mark.parametrize("threat", [FLOW, RECOLOR], ids=["flow", "recolor"])
def test_attacks_on_linf_balls_search_these(threat: ThreatModel) -> None:
    x, y, rows = digits.held_out(40)
    net, right = digits.classifier(), {}
    attacks: list[Attack] = [Null(), Noise(draws=5), PGD(), APGDCE(steps=20), Square(queries=100)]
    for attack in attacks:
        model, draws = digits.view(net, y, rows)
        made = attack(model, x, y, threat, draws)
        assert made.x.shape == x.shape
        assert made.distance is not None
        assert float(made.distance.max()) <= threat.epsilon + 1e-6
        right[attack.card.name] = int((net(made.x).argmax(1) == y).sum())
    assert right["null"] > right["noise"] >= right["pgd"]
    assert right["null"] - right["pgd"] >= 5
    assert right["square"] < right["null"]


def test_a_sample_is_deformed_alike_whatever_its_batch() -> None:
    x, y, rows = digits.held_out(6)
    net = digits.classifier()
    model, draws = digits.view(net, y, rows)
    whole = Square(queries=30)(model, x, y, FLOW, draws).x
    for i in range(6):
        model, draws = digits.view(net, y[i : i + 1], rows[i : i + 1])
        torch.testing.assert_close(
            Square(queries=30)(model, x[i : i + 1], y[i : i + 1], FLOW, draws).x, whole[i : i + 1]
        )


def test_a_randomised_view_is_deformed_once_for_each_of_its_draws() -> None:
    x, y, rows = digits.held_out(4)
    net = digits.classifier()
    _, draws = digits.view(net, y, rows)
    noisy = View(lambda x, d: net(x + 0.05 * d.normal(*x.shape[1:])), y, draws, randomized=True, eot=3, batch=12)
    made = PGD(steps=5)(noisy, x, y, FLOW, draws)
    assert (made.backwards == 15).all()


def test_no_image_is_measured_against_them() -> None:
    x = picture(2, 1)
    for asked in (
        lambda: FLOW.project(x, x),
        lambda: FLOW.norms(x),
        lambda: FLOW.random_start(x, sample_draws(2)),
    ):
        with pytest.raises(RequestError, match=r"no image says whether it is inside flow ε = 0\.3"):
            asked()


def test_what_a_run_stores_is_the_largest_displacement(tmp_path: object) -> None:
    import benchbox

    result = benchbox.evaluate(
        "none",
        dataset="digits",
        attacks=["pgd"],
        access=["white-box"],
        samples=20,
        norm="stadv",
        epsilon=0.5,
        set={"none": {"epochs": 1}, "pgd": {"steps": 3}},
        store=f"{tmp_path}/store.sqlite",
    )
    (evidence,) = result.evidence
    assert str(evidence.cell.threat) == "flow ε = 0.5"
    assert evidence.outcome.distance is not None
    assert 0.05 < float(np.max(evidence.outcome.lengths(evidence.cell.threat))) <= 0.5 + 1e-9
