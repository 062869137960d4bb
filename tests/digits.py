"""A small classifier of real images, trained in a second: what the attack tests attack."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from benchbox.plugins.attacks._survivors import Survivors
from benchbox.plugins.attacks.aa import run
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchbox import Defense, Draws, ThreatModel, View
from benchbox.contract.ascent import ascend, cross_entropy
from benchbox.engine.judge import Judge, Streams
from benchbox.training.layout import Layout


@cache
def images() -> tuple[Tensor, Tensor]:
    """All 1,797 digits: (N, 1, 8, 8) in [0, 1] and their classes."""
    found = load_digits()
    return torch.tensor(found.images / 16, dtype=torch.float32)[:, None], torch.tensor(found.target)


@cache
def classifier() -> nn.Module:
    """A convolutional network trained on the first 1,400 digits, frozen."""
    x, y = (t[:1400] for t in images())
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10),
        )  # fmt: skip
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(16):
            for rows in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                F.cross_entropy(net(x[rows]), y[rows]).backward()
                optimizer.step()
    return net.eval().requires_grad_(False)


def held_out(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """n digits the classifier has not seen, their classes and their indices in the data set."""
    x, y = images()
    rows = torch.arange(1400, 1400 + n)
    return x[rows], y[rows], rows


def view(net: nn.Module, y: Tensor, indices: Tensor, seed: int = 0) -> tuple[View, Draws]:
    """A deterministic view of a network, and the draws that go with it."""
    draws = Draws(indices, seed)
    return View(lambda x, _: net(x), y, draws), draws


def stands(x: Tensor, y: Tensor) -> Tensor:
    """(N,) whether the classifier is right."""
    return classifier()(x).argmax(1) == y


def as_robust(member: str, threat: ThreatModel, n: int, x_adv: Tensor) -> Survivors:
    """Runs a member of AutoAttack, and holds what it breaks against the authors' own adversarial images.

    They may differ in the samples that one random start breaks and another does not.
    """
    x, y, rows = held_out(n)
    model, draws = view(classifier(), y, rows)
    survivors = Survivors(model, x, y, threat, draws)
    with torch.no_grad():
        run(member, survivors, survivors.ask())
    theirs, mine = stands(x_adv, y), stands(survivors.x_adv, y)
    assert 0 < theirs.sum() < n
    assert (mine & ~theirs).sum() <= 1
    assert (mine != theirs).sum() <= 3
    return survivors


def withstanding(defense: Defense, threat: ThreatModel, n: int, steps: int) -> float:
    """The share of digits that withstand PGD, attacked and scored as a run does it."""
    x, y, rows = held_out(n)
    judge, streams = Judge(defense, Layout(), "5ec2e7"), Streams(rows.tolist(), 0, x.device)
    clean = judge.score(x, streams.clean, 1)[:, 0] == y
    view = judge.view(y, streams.attacked("pgd"))
    start = threat.random_start(x, streams.crafting("pgd"))
    x_adv = ascend(view, x, y, threat, start=start, steps=steps, step_size=0.05, loss=cross_entropy)
    return float((clean & (judge.score(x_adv, streams.adversarial, 1)[:, 0] == y)).float().mean())
