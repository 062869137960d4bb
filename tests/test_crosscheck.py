"""Our attacks against torchattacks 3.5.1: same model, data and start, the same images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import digits
import pytest
import torch
from benchbox.plugins.attacks.bim import BIM
from benchbox.plugins.attacks.fgsm import FGSM
from benchbox.plugins.attacks.mim import MIM
from benchbox.plugins.attacks.pgd import PGD
from torch import Tensor

from benchbox import Attack, Draws, ThreatModel

torchattacks = pytest.importorskip("torchattacks")

N = 200
LINF = ThreatModel("linf", 0.1)
LENGTH = {"eps": 0.1, "alpha": 0.02, "steps": 15}
OURS: dict[str, Any] = {"step": 0.2, "steps": 15, "keep": "last"}


@dataclass(frozen=True, kw_only=True)
class PGDFromTheImage(PGD):
    """PGD without its random start."""

    def start(self, x: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return x


def ours(attack: Attack, threat: ThreatModel = LINF) -> Tensor:
    x, y, rows = digits.held_out(N)
    model, draws = digits.view(digits.classifier(), y, rows)
    return attack(model, x, y, threat, draws).x


def share_equal(a: Tensor, b: Tensor) -> float:
    return float(((a - b).abs().flatten(1).amax(1) <= 1e-5).float().mean())


@pytest.mark.parametrize(
    ("attack", "theirs"),
    [
        (FGSM(), lambda net: torchattacks.FGSM(net, eps=0.1)),
        (BIM(**OURS), lambda net: torchattacks.BIM(net, **LENGTH)),
        (MIM(**OURS), lambda net: torchattacks.MIFGSM(net, **LENGTH)),
        (PGDFromTheImage(**OURS), lambda net: torchattacks.PGD(net, **LENGTH, random_start=False)),
    ],
    ids=["fgsm", "bim", "mim", "pgd"],
)
def test_same_images(attack: Attack, theirs: Callable[[Any], Any]) -> None:
    # torchattacks ascends the mean of the losses and we their sum: in float32 the same direction unless a
    # confident sample's gradient, N times smaller, underflows.
    x, y, _ = digits.held_out(N)
    mine = ours(attack)
    assert share_equal(mine, theirs(digits.classifier())(x, y)) >= 0.99
    assert (LINF.norms(mine - x) > 0.09).float().mean() > 0.99


def test_same_images_from_the_same_random_start(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, rows = digits.held_out(N)
    start = LINF.random_start(x, Draws(rows).at("attack").at("restart", 0))
    # The library adds uniform noise to the image and clamps; handed our noise, it has our start.
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, low, high: self.copy_(start - x))
    found = torchattacks.PGD(digits.classifier(), **LENGTH)(x, y)
    monkeypatch.undo()
    mine = ours(PGD(**OURS))
    assert share_equal(mine, found) >= 0.99
    assert share_equal(mine, ours(PGDFromTheImage(**OURS))) < 0.99  # the start does matter


def test_same_images_in_l2() -> None:
    threat = ThreatModel("l2", 0.5)
    x, y, _ = digits.held_out(N)
    attack = PGDFromTheImage(step=0.2, steps=15, keep="last")
    found = torchattacks.PGDL2(digits.classifier(), eps=0.5, alpha=0.1, steps=15, random_start=False)(x, y)
    # Its division by the gradient's norm is guarded by 1e-10 and its gradient is of the mean: not quite ours.
    assert share_equal(ours(attack, threat), found) >= 0.9
