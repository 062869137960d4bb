"""The binarisation test: a working attack finds what was planted, through a stand-in and under noise too."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from broken_defenses import SPEC, THREAT, DeclaredNoise, Detached, Wrapped
from digits import classifier, held_out

from benchbox import Card, Draws, Purifier, Recipe, stand_in
from benchbox.audit import Effort
from benchbox.audit.probes import binarisation
from benchbox.audit.probes.search import Target
from benchbox.engine.judge import Judge
from benchbox.training.layout import Layout

EFFORT = Effort(steps=20, restarts=2, binarisation=8, eot=2, scoring_draws=4)


class Rounded(Purifier):
    """Rounds the image to twenty levels; the identity stands in for the missing gradient."""

    card = Card("rounded", "twenty grey levels")

    def __init__(self) -> None:
        super().__init__(Recipe(), SPEC, classifier())
        self.eval().requires_grad_(False)

    def purify(self, x, draws):
        return (x * 20).round() / 20

    def losses(self, batch):
        return {}


class Torn(Rounded):
    """As it is, its stand-in looks at nothing: BPDA through it gets no gradient either."""

    @stand_in("identity", "nothing but zeros")
    def identity(self, x, draws):
        return self.classifier(self.purify(x.detach(), draws) + 0 * x)


def target(defense) -> Target:
    x, y, indices = held_out(16)
    right = (defense(x, Draws(indices)).argmax(1) == y).nonzero().flatten()
    return Target(Judge(defense, Layout()), x[right], y[right], Draws(indices[right]), THREAT, EFFORT)


@pytest.mark.parametrize(
    ("defense", "through"), [(Wrapped, "deployed"), (Rounded, "identity"), (DeclaredNoise, "deployed")]
)
def test_a_working_attack_finds_what_was_planted(defense, through) -> None:
    found = binarisation.test(target(defense()), through)
    assert found.samples > 0
    assert found.success >= 0.8


@pytest.mark.parametrize(
    ("defense", "through"), [(Detached, "deployed"), (Rounded, "deployed"), (Torn, "identity")]
)
def test_an_attack_without_gradient_does_not(defense, through) -> None:
    found = binarisation.test(target(defense()), through)
    assert found.samples > 0
    assert found.success < 0.8
    assert len(found.missed) == round((1 - found.success) * found.samples)


def test_noise_that_drowns_the_planted_point_sets_nothing_up() -> None:
    class Loud(DeclaredNoise):
        def forward(self, x, draws=None):
            return self.classifier(30 * draws.at("noise").normal(*x.shape[1:]))

    x, y, indices = held_out(8)
    found = binarisation.test(Target(Judge(Loud(), Layout()), x, y, Draws(indices), THREAT, EFFORT), "deployed")
    assert (found.samples, found.failed) == (0, 8)


def test_the_readout_of_a_sample_follows_its_row() -> None:
    readouts = binarisation._Readouts(torch.tensor([7, 3]), torch.eye(2), torch.tensor([0.0, 10.0]))
    scores = readouts.score(torch.tensor([[1.0, 2.0], [1.0, 2.0]]), Draws(torch.tensor([3, 7])))
    assert scores.tolist() == [12.0, 1.0]
    assert replace(readouts, offsets=torch.zeros(2)).score(
        torch.ones(1, 2), Draws(torch.tensor([3]))
    ).tolist() == [1]
