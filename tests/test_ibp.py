"""Interval bounds against what they bound, and against a case computed by hand."""

from __future__ import annotations

import pytest
import torch
from benchbox.plugins.defenses.ibp import IBP, IBPRecipe, layers_of, margins
from torch import nn

from benchbox import Batch, ImageSpec, ThreatModel, nets
from benchbox.draws import sample_draws
from benchbox.errors import RequestError

BALL = ThreatModel("linf", 0.1)
SPEC = ImageSpec(1, 16, 3)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nets.build("lenet5", SPEC).requires_grad_(False)


def test_a_case_computed_by_hand() -> None:
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    x = torch.tensor([0.6, 0.5]).view(1, 1, 1, 2)
    found = margins(nn.Sequential(nn.Flatten(), layer), x, torch.tensor([0]), BALL)
    # 2 (0.6 - 0.1) - (0.5 + 0.1) = 0.4 at the worst corner.
    assert torch.allclose(found, torch.tensor([[0.0, 0.4]]))


def test_no_image_of_the_ball_gets_below_a_bound(network: nn.Module) -> None:
    draws = sample_draws(20)
    x, y = draws.uniform(1, 16, 16), draws.integers(3, 1)[:, 0]
    lower = margins(network, x, y, BALL)
    for i in range(50):
        logits = network(BALL.random_start(x, draws.at(i)))
        assert bool((logits.gather(1, y[:, None]) - logits >= lower - 1e-5).all())


def test_bounds_are_exact_where_there_is_no_ball(network: nn.Module) -> None:
    x, y = sample_draws(20).uniform(1, 16, 16), torch.zeros(20, dtype=torch.int64)
    logits = network(x)
    assert torch.allclose(margins(network, x, y, ThreatModel("linf", 0.0)), logits[:, :1] - logits, atol=1e-5)


def test_training_proves_what_plain_training_does_not() -> None:
    torch.manual_seed(0)
    small = BALL.scaled(0.5)
    n = 60
    y = torch.arange(n) % 3
    x = 0.2 * sample_draws(n).uniform(1, 16, 16)
    x[torch.arange(n), 0, 5 * y] += 0.6
    proven = {}
    for kappa in (1.0, 0.0):
        defense = IBP(IBPRecipe(kappa=kappa, warm_up=0.1, ramp=0.7), SPEC)
        optimizer = torch.optim.Adam(defense.parameters(), 1e-3)
        for step in range(70):
            batch = Batch(x, y, sample_draws(n), step / 70, small)
            optimizer.zero_grad()
            sum(defense.losses(batch)["classifier"].values()).backward()
            optimizer.step()
        proven[kappa] = float(defense.certified(x, y, small).float().mean())
        assert bool((defense(x).argmax(1) == y)[defense.certified(x, y, small)].all())
    assert proven[0.0] > 0.9 > 0.5 > proven[1.0], proven


def test_a_network_with_side_paths_is_refused_before_it_is_trained() -> None:
    with pytest.raises(RequestError, match="cannot bound"):
        list(layers_of(nets.build("resnet18", ImageSpec(3, 32, 10))))


def test_another_ball_is_refused(network: nn.Module) -> None:
    with pytest.raises(RequestError, match="L-infinity"):
        margins(network, torch.zeros(1, 1, 16, 16), torch.zeros(1, dtype=torch.int64), ThreatModel("l2", 1.0))
