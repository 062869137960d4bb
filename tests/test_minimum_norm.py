"""Minimum-norm and targeted attacks on linear networks, whose nearest errors are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from benchbox.plugins.attacks.cw_l2 import CWL2
from benchbox.plugins.attacks.fmn import FMN, errs
from benchbox.plugins.attacks.targeted import PGDT, MultiTargeted
from torch import Tensor

from benchbox import Attack, ThreatModel, View
from benchbox.contract.attack import Crafted
from benchbox.draws import Draws, sample_draws

SHAPES = [(1, 6, 6), (3, 4, 5)]
CWL2_SHORT = CWL2(steps=60, searches=5, constant=0.1)


class Linear:
    """Logits W·(x - ½), of images in the middle of the box."""

    def __init__(self, classes: int, shape: tuple[int, ...], n: int = 5) -> None:
        self.draws = sample_draws(n, seed=1)
        self.w = sample_draws(classes, seed=2).at("w").normal(*shape).flatten(1)
        own = self.w[torch.arange(n) % classes].view(n, *shape)
        self.x = 0.5 + 0.1 * own / own.flatten(1).abs().amax(1).view(n, 1, 1, 1)
        self.y = self(self.x).argmax(1)

    def __call__(self, x: Tensor, _: Draws | None = None) -> Tensor:
        return (x - 0.5).flatten(1) @ self.w.T

    def nearest(self, norm: str) -> Tensor:
        """Distance (n,) of the nearest error; the box plays no part."""
        logits, true = self(self.x), self.w[self.y]
        gap = logits.gather(1, self.y[:, None]) - logits
        length = (true[:, None] - self.w).norm(p=1 if norm == "linf" else 2, dim=2)
        return (gap / length.clamp_min(1e-9)).scatter(1, self.y[:, None], torch.inf).amin(1)

    def attacked(self, attack: Attack, threat: ThreatModel) -> Crafted:
        view = View(self, self.y, self.draws)
        return attack(view, self.x, self.y, threat, self.draws)


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize(
    ("attack", "norm", "room"),
    [(CWL2_SHORT, "l2", 0.4), (FMN(steps=60), "l2", 0.15), (FMN(steps=60), "linf", 0.03)],
)
def test_the_distance_is_that_of_the_nearest_error(attack: Attack, norm: Any, room: float, classes: int) -> None:
    net = Linear(classes, SHAPES[classes == 10])
    threat = ThreatModel(norm, 0.4 if norm == "linf" else 2.0)
    found = net.attacked(attack, threat)
    assert (net(found.x).argmax(1) != net.y).all()
    # Never nearer than there is an error, and hardly farther.
    distance, least = threat.norms(found.x - net.x), net.nearest(norm)
    assert (distance >= 0.999 * least).all()
    assert (distance <= (1 + room) * least).all()


class Remarked(Linear):
    """The same network with something added to all its logits, and classes that nobody uses far below."""

    def __init__(self, shift: float, mask: float, unused: int) -> None:
        self.shift, self.mask, self.unused = shift, mask, unused
        super().__init__(10, (1, 6, 6))

    def __call__(self, x: Tensor, _: Draws | None = None) -> Tensor:
        logits = super().__call__(x) + self.shift
        return torch.cat([logits, logits.new_full((len(x), self.unused), self.mask)], 1)


@pytest.mark.parametrize(("attack", "room"), [(CWL2_SHORT, 0.4), (FMN(steps=60), 0.15)])
@pytest.mark.parametrize(
    ("shift", "mask", "unused"), [(1e4, 0, 0), (-1e4, -1e9, 2), (0, -1e4, 2), (0, -1e9, 2), (0, -1e9, 40)]
)
def test_neither_a_common_shift_nor_an_unused_class_hides_an_error(
    attack: Attack, room: float, shift: float, mask: float, unused: int
) -> None:
    plain, net, threat = Linear(10, (1, 6, 6)), Remarked(shift, mask, unused), ThreatModel("l2", 2.0)
    found = net.attacked(attack, threat)
    assert (net(found.x).argmax(1) != net.y).all()
    assert (threat.norms(found.x - net.x) <= (1 + room) * plain.nearest("l2")).all()


def test_a_lead_that_rounding_may_undo_is_no_error() -> None:
    """Of logits about 1 apart a ten-thousandth is in doubt, and of large ones what float32 cannot tell apart."""
    logits, y = torch.tensor([[4.0, 4.0, 3.0, 2.0, 1.0]]), torch.tensor([0])
    lead = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]])
    assert not errs(logits + 0.9e-4 * lead, y)
    assert errs(logits + 1.2e-4 * lead, y)
    assert errs(-(2.0**13) + logits + 0.05 * lead, y)
    assert not errs(2.0**13 + logits + 0.02 * lead, y)
    assert errs(torch.tensor([[5.0, 5.00003]]), y)
    assert not errs(torch.tensor([[5.0, 5.00001]]), y)


@pytest.mark.parametrize("attack", [CWL2_SHORT, FMN()])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_lies_outside_the_ball_is_brought_to_its_surface(attack: Attack, norm: Any) -> None:
    net = Linear(10, (1, 6, 6))
    threat = ThreatModel(norm, float(net.nearest(norm).min()) / 2)
    found = net.attacked(attack, threat)
    assert (net(found.x).argmax(1) == net.y).all()
    torch.testing.assert_close(threat.norms(found.x - net.x), torch.full((5,), threat.epsilon))


@pytest.mark.parametrize(("kind", "classes"), [(PGDT, 2), (MultiTargeted, 2), (MultiTargeted, 10)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_targets_break_whatever_can_be_broken(kind: type[PGDT], norm: Any, classes: int) -> None:
    # In a linear network the margin of each class has its optimum at a corner of its own.
    net = Linear(classes, (3, 4, 5))
    least = net.nearest(norm)
    threat = ThreatModel(norm, float(least.median()) * 1.02)
    found = net.attacked(kind(step=1 / 4), threat)
    assert ((net(found.x).argmax(1) != net.y) == (least <= threat.epsilon)).all()


def test_a_hundred_classes_are_cut_down_to_the_likely_ones() -> None:
    net, threat = Linear(100, (1, 6, 6)), ThreatModel("linf", 0.05)
    found = net.attacked(MultiTargeted(step=1 / 4, steps=10, targets=3), threat)
    assert (found.backwards == 30).all()


def test_the_target_is_the_class_that_is_aimed_at() -> None:
    logits, y = torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([0])
    target = torch.tensor([2])
    assert MultiTargeted().towards(logits, y, target).tolist() == [-3.0]
    assert PGDT().towards(logits, y, target)[0] < PGDT().towards(logits, y, torch.tensor([1]))[0]


def test_they_say_what_they_are() -> None:
    for attack in (FMN(), CWL2()):
        assert "minimum norm" in attack.declare().families  # type: ignore[union-attr]
    for attack in (PGDT(), MultiTargeted()):
        nature = attack.declare()
        assert nature is not None
        assert (nature.families, nature.targets, nature.steps) == (("targeted",), 9, 40)
