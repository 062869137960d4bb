"""The projection that FAB rests on, against the authors' by sorting, and its minimum norm on a linear model."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from benchbox.plugins.attacks._fab import fab, onto_hyperplane
from benchbox.plugins.attacks.fab import FABT
from pyautoattack.fab_projections import projection_l2, projection_linf
from torch import Tensor

from benchbox import Draws, ThreatModel, View
from benchbox.draws import sample_draws

THEIRS = {"linf": projection_linf, "l2": projection_l2}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("reach", [0.1, 0.5, 0.9, 2.0], ids=["near", "half", "far", "beyond"])
def test_projection_is_the_authors(norm: Literal["linf", "l2"], reach: float) -> None:
    """Points at walls, weights of zero and hyperplanes that the box does not reach among them."""
    n, draws = 60, sample_draws(60, seed=7)
    points = draws.uniform(3, 6, 6, low=-0.2, high=1.2).clamp(0, 1)
    weights = draws.at("weights").normal(3, 6, 6) * (draws.at("zero").uniform(3, 6, 6) > 0.1)
    sign = torch.where(draws.at("sign").uniform(1) < 0.5, -1.0, 1.0)[:, 0]
    room = torch.where(sign.view(-1, 1, 1, 1) * weights > 0, 1 - points, points)
    rise = sign * reach * (weights.abs() * room).flatten(1).sum(1)
    steps = onto_hyperplane(points[None], weights, rise[None], norm)[0].flatten(1)

    w, flat = weights.flatten(1), points.flatten(1)
    theirs = THEIRS[norm](flat, w, (w * flat).sum(1) + rise)
    size = [ThreatModel(norm, 1).norms(s.view(n, -1, 1, 1)) for s in (steps, theirs)]
    torch.testing.assert_close(size[0], size[1], rtol=2e-3, atol=1e-4)
    if reach < 1:
        torch.testing.assert_close((w * steps).sum(1), rise, rtol=1e-3, atol=1e-4)
    assert (flat + steps).min() >= -1e-6
    assert (flat + steps).max() <= 1 + 1e-6


@pytest.mark.parametrize("scale", [1.0, 1e-20], ids=["ordinary", "tiny"])
def test_steps_do_not_depend_on_the_scale_of_the_gradient(scale: float) -> None:
    points, weights = torch.full((1, 1, 1, 2, 2), 0.5), torch.tensor([1.0, -2, 0, 1]).view(1, 1, 2, 2)
    steps = onto_hyperplane(points, scale * weights, torch.tensor([[0.4 * scale]]), "linf")
    torch.testing.assert_close(steps.flatten(), torch.tensor([0.1, -0.1, 0, 0.1]))
    assert not onto_hyperplane(points, 0 * weights, torch.tensor([[0.4]]), "l2").any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_distance_found_is_that_of_the_boundary(norm: Literal["linf", "l2"]) -> None:
    n, draws = 5, sample_draws(5, seed=3)
    x, y = draws.uniform(1, 4, 4, low=0.45, high=0.55), torch.zeros(5, dtype=torch.int64)
    w = torch.linspace(-1, 1, 16).add(0.05)

    def forward(x: Tensor, _: Draws) -> Tensor:
        score = x.flatten(1) @ w - 1
        return torch.stack([-score, score], 1)

    lead = (1 - x.flatten(1) @ w) / (w.abs().sum() if norm == "linf" else w.norm())
    threat = ThreatModel(norm, 0.9 * float(lead.max()))
    found = fab(View(forward, y, draws), x, y, threat, 1 - y)
    torch.testing.assert_close(threat.norms(found.x - x), lead, rtol=1e-2, atol=0)
    assert torch.equal(found.broken, threat.norms(found.x - x) <= threat.epsilon)
    assert 0 < found.broken.sum() < n
    moved = threat.norms(FABT()(View(forward, y, draws), x, y, threat, draws).x - x)
    torch.testing.assert_close(moved, lead.clamp_max(threat.epsilon), rtol=1e-2, atol=0)
