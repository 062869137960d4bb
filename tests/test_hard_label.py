"""RayS: known distances, labels alone, any shape, and every sample by itself."""

from __future__ import annotations

import pytest
import torch
from benchbox.plugins.attacks.rays import RayS
from torch import Tensor

from benchbox import ThreatModel, View
from benchbox.contract.attack import Crafted
from benchbox.draws import Draws, sample_draws

SHAPES = [(1, 8, 8), (3, 6, 5), (1, 1, 1)]


def brighter(by: float, classes: int = 2) -> object:
    """Wrong where an image is brighter than the grey it was by more than `by`: a label, no scores, no gradient."""

    def forward(x: Tensor, _: Draws) -> Tensor:
        wrong = x.flatten(1).mean(1) > 0.5 + by
        return torch.nn.functional.one_hot(wrong.long(), classes).float().detach()

    return forward


def attacked(forward: object, x: Tensor, threat: ThreatModel, queries: int = 200, **view: object) -> Crafted:
    y, draws = torch.zeros(len(x), dtype=torch.int64), sample_draws(len(x))
    return RayS(queries=queries)(View(forward, y, draws, **view), x, y, threat, draws)  # type: ignore[arg-type]


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_nearest_error_of_a_mean_is_found_from_labels(shape: tuple[int, ...], classes: int) -> None:
    x = torch.full((3, *shape), 0.5)
    inside = attacked(brighter(0.1, classes), x, ThreatModel("linf", 0.1002))
    assert (inside.x.flatten(1).mean(1) > 0.6).all()
    assert (inside.first_success >= 0).all()
    assert (inside.backwards == 0).all()
    outside = attacked(brighter(0.1, classes), x, ThreatModel("linf", 0.09))
    assert (outside.x.flatten(1).mean(1) < 0.6).all()
    assert (outside.forwards <= 201).all()


def test_a_direction_with_both_signs_is_found_by_halving() -> None:
    # Left half darker, right half brighter: an error at 0.2, and none along all pixels alike.
    weights = torch.cat([-torch.ones(1, 8, 4), torch.ones(1, 8, 4)], dim=2).transpose(1, 2)

    def forward(x: Tensor, _: Draws) -> Tensor:
        score = ((x - 0.5) * weights).flatten(1).mean(1)
        return torch.stack([torch.full_like(score, 0.2), score], 1)

    found = attacked(forward, torch.full((2, 1, 8, 8), 0.5), ThreatModel("linf", 0.201))
    assert (forward(found.x, None).argmax(1) == 1).all()  # type: ignore[arg-type]


def test_in_l2_it_spends_the_radius() -> None:
    x = torch.full((2, 3, 4, 4), 0.5)
    threat = ThreatModel("l2", 0.1 * 48**0.5 + 1e-3)
    assert (attacked(brighter(0.1), x, threat).x.flatten(1).mean(1) > 0.6).all()


def test_a_sample_is_attacked_alike_whatever_its_batch() -> None:
    x, threat = sample_draws(6).uniform(1, 8, 8), ThreatModel("linf", 0.15)
    weights = sample_draws(1).at("w").normal(1, 8, 8)

    def forward(x: Tensor, _: Draws) -> Tensor:
        score = ((x - 0.5) * weights).flatten(1).sum(1)
        return torch.stack([torch.zeros_like(score), score - 2], 1)

    whole = attacked(forward, x, threat, queries=150)
    alone = torch.cat([attacked(forward, x[i : i + 1], threat, queries=150).x for i in range(6)])
    torch.testing.assert_close(whole.x, alone)


def test_a_randomised_view_is_wrong_where_most_draws_are() -> None:
    def forward(x: Tensor, draws: Draws) -> Tensor:
        wrong = x.flatten(1).mean(1) + 0.02 * draws.normal() > 0.6
        return torch.nn.functional.one_hot(wrong.long(), 2).float()

    x = torch.full((8, 1, 4, 4), 0.5)
    found = attacked(forward, x, ThreatModel("linf", 0.15), randomized=True, eot=9, queries=60)
    assert (found.x.flatten(1).mean(1) > 0.62).all()
    assert (found.forwards == 9 * 61).all()
