"""Purifiers that decide by a threshold, and the attack that keeps what they decide while it climbs."""

from __future__ import annotations

import pytest
import torch
from benchbox.plugins.attacks.pgd import PGD
from benchbox.plugins.attacks.pgd_keep import PGDKeep, decisions, turned
from benchbox.plugins.defenses._surgery import SurgeryRecipe
from benchbox.plugins.defenses.pssr import PixelSurgery
from torch import Tensor, nn

from benchbox import (
    Batch,
    Card,
    DecidingPurifier,
    Draws,
    ImageSpec,
    Losses,
    Recipe,
    ThreatModel,
    Trail,
    sample_draws,
)
from benchbox.engine.judge import Judge
from benchbox.training.layout import Layout

SPEC = ImageSpec(1, 3, 2, (0.0,), (1.0,))
N, THREAT = 12, ThreatModel("linf", 0.3)
#: What is brighter is blackened; nine pixels of at most that sum up to little more than the border of the classes.
CUT, BORDER = 0.65, 5.6


class _Sum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        total = x.flatten(1).sum(1)
        return torch.stack([torch.full_like(total, BORDER), total], 1)


class Blackening(DecidingPurifier):
    """Blackens bright pixels. An image errs only if all are bright and none is too bright."""

    card = Card("blackening", "a hard mask")

    def purify(self, x: Tensor, draws: Draws) -> Tensor:
        return x * (x < CUT)

    def margins(self, x: Tensor, draws: Draws) -> Tensor:
        return (x - CUT).flatten(1)

    def losses(self, batch: Batch) -> Losses:
        return {}


def attacked(attack: PGD, defense: DecidingPurifier) -> tuple[Tensor, Tensor]:
    """Adversarial images, and whether the defence errs on each."""
    x, y, draws = torch.full((N, 1, 3, 3), 0.5), torch.zeros(N, dtype=torch.int64), sample_draws(N)
    judge = Judge(defense, Layout(), "5ec2e7")
    found = attack(judge.view(y, draws), x, y, THREAT, draws).x
    return found, judge.ask(found, draws).argmax(1) != y


@pytest.fixture
def blackening() -> Blackening:
    return Blackening(Recipe(), SPEC, _Sum()).eval().requires_grad_(False)


def test_it_stays_where_the_gradient_holds_and_finds_what_pgd_blunders_past(blackening: Blackening) -> None:
    _, broken = attacked(PGD(), blackening)
    assert broken.sum() <= 1
    found, broken = attacked(PGDKeep(weight=5.0, slack=0.02), blackening)
    assert broken.all()
    assert (found < CUT).all()  # as in the clean images, nothing is blackened


def test_without_weight_or_without_margins_it_is_pgd(blackening: Blackening) -> None:
    plain = attacked(PGD(), blackening)[0]
    assert torch.equal(attacked(PGDKeep(weight=0.0), blackening)[0], plain)
    assert not torch.equal(attacked(PGDKeep(), blackening)[0], plain)
    x, y, draws = torch.full((N, 1, 3, 3), 0.5), torch.zeros(N, dtype=torch.int64), sample_draws(N)
    judge = Judge(blackening, Layout(), "5ec2e7")
    hidden = [
        attack(judge.view(y, draws, stand_in="identity"), x, y, THREAT, draws).x for attack in (PGD(), PGDKeep())
    ]
    assert torch.equal(*hidden)


def test_what_is_turned_is_measured_from_the_side_of_the_clean_image() -> None:
    logits, nothing = torch.zeros(3, 2), torch.zeros(3, 0, 1, 1, 1)
    margins = torch.tensor([[1.0, -1.0], [-3.0, 4.0], [0.05, -1.0]])
    decided = torch.tensor([[1.0, -1.0]]).expand(3, 2)
    missing = turned(Trail(logits, nothing, nothing, margins), decided, 0.1)
    torch.testing.assert_close(missing, torch.tensor([0.0, (3.1**2 + 4.1**2) ** 0.5, 0.05]))


def test_decisions_are_those_of_the_clean_image(blackening: Blackening) -> None:
    x, draws = torch.linspace(0.1, 0.9, 9).view(1, 1, 3, 3), sample_draws(1)
    view = Judge(blackening, Layout(), "5ec2e7").view(torch.zeros(1, dtype=torch.int64), draws)
    assert decisions(view, x).tolist() == [[-1.0] * 6 + [1.0] * 3]
    assert view.spent().flatten().tolist() == [1, 1]


@pytest.mark.parametrize("signed", ["absolute", "signed"])
@pytest.mark.parametrize("threshold", ["sample", "dataset"])
def test_surgery_says_how_far_each_pixel_is_from_being_removed(threshold: str, signed: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(256, 3))
    recipe = SurgeryRecipe(threshold=threshold, saliency=signed)  # type: ignore[arg-type]
    defense = PixelSurgery(recipe, ImageSpec(1, 8, 3), network).eval().requires_grad_(False)
    draws = sample_draws(6)
    x = draws.uniform(1, 8, 8).requires_grad_()
    size, factor = defense.saliency(x)
    defense.threshold.fill_(float((size.flatten(1).mean(1) * factor).mean()))
    _, mask = defense.remove(x)
    margins = defense.margins(x, draws)
    assert torch.equal(margins > 0, mask.flatten(1) == 0)
    assert 0 < (margins > 0).float().mean() < 1
    (slope,) = torch.autograd.grad(margins.sum(), x)
    assert slope.isfinite().all()
    assert (slope.flatten(1).abs().sum(1) > 0).all()
