"""Honest networks on other images than grey digits: colour, two classes, a hundred. None is accused."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from broken_defenses import THREAT
from digits import images
from test_audit_cheats import EFFORT
from torch import nn

from benchbox import Card, Defense, ImageSpec, Recipe
from benchbox.audit import Stored, Subject, audit, summary
from benchbox.audit.probes.probe import probe
from benchbox.engine.judge import Judge
from benchbox.training.layout import Layout


def two_classes():
    """Small digits against large ones."""
    x, y = images()
    return x, (y >= 5).long()


def a_hundred():
    """Two digits in two colours, their mean in the third: the class is the number that they make."""
    x, y = images()
    other = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return torch.cat([x, x[other], (x + x[other]) / 2], 1), 10 * y + y[other]


@cache
def trained(made):
    x, y = made()
    classes = int(y.max()) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 128), nn.ReLU(), nn.Linear(128, classes))
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(30):
            for rows in torch.randperm(1400).split(64):
                optimizer.zero_grad()
                F.cross_entropy(net(x[rows]), y[rows]).backward()
                optimizer.step()
    return net


@pytest.mark.parametrize("made", [two_classes, a_hundred], ids=lambda made: made.__name__)
def test_other_images_and_classes_are_no_offence(made) -> None:
    x, y = made()
    net, rows = trained(made), torch.arange(1400, 1440)

    class Plain(Defense):
        card = Card("plain", "a network")

        def losses(self, batch):
            return {}

    defense = Plain(Recipe(), ImageSpec(x.shape[1], 8, int(y.max()) + 1), None)
    defense.classifier = net
    judge = Judge(defense.eval().requires_grad_(False), Layout(), "5ec2e7")
    probes = probe(judge, x[rows], y[rows], rows, THREAT, EFFORT, held=(x[:40], y[:40]))
    found = {f.check: f for f in audit(Stored(Subject("plain", "a"), THREAT, tuple(x.shape[1:])), probes)}
    assert probes.panel.correct.mean() > 0.7
    told = summary(list(found.values()))
    assert told["integrity"] == told["masking"] == [], [f.sentence for f in found.values() if f.verdict == "FAIL"]
