"""HopSkipJump: known distances, labels alone, every sample by itself, and foolbox's."""

from __future__ import annotations

import digits
import pytest
import torch
from benchbox.plugins.attacks.hopskipjump import HopSkipJump
from torch import Tensor

from benchbox import ThreatModel, View
from benchbox.contract.attack import Crafted
from benchbox.draws import Draws, sample_draws

WEIGHTS = sample_draws(1).at("w").normal(1, 6, 6)


def linear(x: Tensor, _: Draws) -> Tensor:
    """Class 1 where a weighted sum exceeds that of grey by 1; told in one-hot vectors, without a gradient."""
    wrong = ((x - 0.5) * WEIGHTS).flatten(1).sum(1) > 1
    return torch.nn.functional.one_hot(wrong.long(), 2).float().detach()


#: Of the grey image to that boundary.
NEAREST = {"l2": 1 / float(WEIGHTS.norm()), "linf": 1 / float(WEIGHTS.abs().sum())}


def attacked(x: Tensor, threat: ThreatModel, queries: int = 1500, rows: int = 0, **view: object) -> Crafted:
    y, draws = torch.zeros(len(x), dtype=torch.int64), Draws(torch.arange(rows, rows + len(x)))
    return HopSkipJump(queries=queries)(View(linear, y, draws, **view), x, y, threat, draws)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_nearest_error_behind_a_plane_is_found_from_labels(norm: str) -> None:
    x, nearest = torch.full((3, 1, 6, 6), 0.5), NEAREST[norm]
    near = attacked(x, ThreatModel(norm, 1.25 * nearest))  # type: ignore[arg-type]
    assert (linear(near.x, Draws(torch.arange(3))).argmax(1) == 1).all()
    assert (near.first_success > 0).all()
    assert (near.backwards == 0).all()
    far = attacked(x, ThreatModel(norm, 0.95 * nearest))  # type: ignore[arg-type]
    assert (linear(far.x, Draws(torch.arange(3))).argmax(1) == 0).all()


def test_a_sample_is_attacked_alike_whatever_its_batch_and_is_asked_no_more_than_it_may() -> None:
    x, threat = sample_draws(4).uniform(1, 6, 6), ThreatModel("l2", 0.05)
    whole = attacked(x, threat, queries=300)
    alone = [attacked(x[i : i + 1], threat, queries=300, rows=i) for i in range(4)]
    torch.testing.assert_close(whole.x, torch.cat([one.x for one in alone]))
    assert max(float(one.forwards) for one in alone) <= 301


def test_of_a_randomised_view_the_end_is_on_the_surface() -> None:
    x = torch.full((2, 1, 6, 6), 0.5)
    found = attacked(x, ThreatModel("l2", 1.5 * NEAREST["l2"]), queries=600, randomized=True, eot=1)
    torch.testing.assert_close((found.x - x).flatten(1).norm(dim=1), torch.full((2,), 1.5 * NEAREST["l2"]))


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_boundaries_are_found_as_near_as_foolbox_finds_them(norm: str) -> None:
    """The median distance of 20 digits, both with about 3,000 queries."""
    foolbox = pytest.importorskip("foolbox")
    x, y, rows = digits.held_out(20)
    net = digits.classifier()
    right = net(x).argmax(1) == y
    x, y, rows = x[right], y[right], rows[right]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs, _, _ = foolbox.attacks.HopSkipJumpAttack(steps=12, constraint=norm)(
            foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu"),
            x,
            foolbox.criteria.Misclassification(y),
            epsilons=None,
        )
    threat = ThreatModel(norm, 1.0)  # type: ignore[arg-type]
    median = float(threat.norms(theirs - x).median())
    model, draws = digits.view(net, y, rows)
    within = ThreatModel(norm, 1.25 * median)  # type: ignore[arg-type]
    found = HopSkipJump(queries=3000)(model, x, y, within, draws).x
    assert float((net(found).argmax(1) != y).float().mean()) >= 0.5
