"""What a step of training sees, and how far it goes: the loop against one that is written out."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
from torch import Tensor, nn

from benchbox import Card, Defense, Draws, ImageSpec, Recipe, ThreatModel
from benchbox.data.dataset import Images
from benchbox.draws import sample_draws
from benchbox.training.loop import crop_and_flip, fit, rate

CPU, BALL = torch.device("cpu"), ThreatModel("linf", 0.1)
N = 37
X = sample_draws(N).at("x").integers(256, 1, 8, 8).to(torch.uint8)
IMAGES = Images(X, torch.arange(N) % 3)


class Watching(Defense):
    """One number, whose loss is what it says; writes down every batch."""

    card = Card("watching", "notes its batches")

    def __init__(self, recipe: Recipe, scores: tuple[float, ...] = ()) -> None:
        super().__init__(recipe, ImageSpec(1, 8, 3))
        self.a, self.b = nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.tensor([-2.0]))
        self.scores = scores
        self.validation = 0.2 if scores else 0.0  # type: ignore[misc]
        self.seen: list[object] = []
        self.validated: list[object] = []
        self.calibrated: object = None
        self.modes: list[bool] = []

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return x.flatten(1)[:, :3] * self.a

    def players(self):
        return {"first": [self.a], "nobody": [], "second": [self.b]}

    def learning_rates(self):
        return {"second": 0.5}

    def losses(self, batch):
        self.seen.append(batch)
        self.modes.append(self.training)
        return {
            "first": {"half": self.a.square().sum() / 2, "flat": (0 * self.a).sum() + float(len(batch.x))},
            "second": {"both": (self.a * self.b).sum() + self.b.square().sum()},
        }

    def prepare(self, batch):
        assert not self.training
        return {"index": batch.draws.indices, "image": batch.x, "noise": batch.draws.at("n").uniform(2)}

    def calibrate(self, prepared):
        self.calibrated = prepared

    def validate(self, batch):
        assert not self.training
        self.validated.append(batch)
        epoch = len({id(b) for b in self.seen}) // math.ceil((N - 7) / self.recipe.batch_size) - 1
        return torch.full((len(batch.x),), self.scores[epoch])


def trained(scores: tuple[float, ...] = (), report=lambda progress: None, **recipe) -> tuple[Watching, list]:
    made = Recipe(**{"epochs": 2, "batch_size": 10, "learning_rate": 0.1} | recipe)
    defense = Watching(made, scores)
    return defense, fit(defense, made, IMAGES, threat=BALL, seed=5, device=CPU, report=report)


def order(epoch: int, rows: Tensor) -> Tensor:
    """As the seed of the epoch shuffles them."""
    seed = int.from_bytes(hashlib.blake2b(f"5/epoch/{epoch}".encode(), digest_size=6).digest(), "big")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return rows[torch.randperm(len(rows))]


@pytest.mark.parametrize("augment", [False, True])
def test_every_image_is_seen_once_an_epoch_with_what_belongs_to_it(augment: bool) -> None:
    defense, history = trained(augment=augment)
    assert [len(b.x) for b in defense.seen] == 2 * [10, 10, 10, 7]
    assert all(defense.modes)
    for epoch in (0, 1):
        batches = defense.seen[4 * epoch : 4 * epoch + 4]
        expected = order(epoch, torch.arange(N))
        assert torch.cat([b.draws.indices for b in batches]).tolist() == expected.tolist()
        for step, (batch, rows) in enumerate(zip(batches, expected.split(10), strict=True)):
            draws = Draws(rows, 5).at("epoch", epoch)
            assert batch.draws.seed == draws.seed
            x, y = IMAGES.batch(rows)
            moved = crop_and_flip(x, draws.at("augment")) if augment else x
            assert torch.equal(batch.x, moved)
            assert torch.equal(batch.y, y)
            assert torch.equal(batch.prepared["image"], moved)
            assert torch.equal(batch.prepared["index"], rows)
            assert torch.equal(batch.prepared["noise"], Draws(rows, 5).at("prepare").at("n").uniform(2))
            assert batch.progress == pytest.approx((epoch + step / 4) / 2)
            assert batch.threat == BALL
    assert torch.equal(defense.calibrated["index"], torch.arange(N))
    assert [sorted(epoch) for epoch in history] == 2 * [["both", "flat", "half"]]
    assert history[0]["flat"] == pytest.approx(37 / 4)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle", "step"])
def test_each_player_takes_the_steps_of_its_own_optimiser(optimizer: str, schedule: str) -> None:
    defense, history = trained(optimizer=optimizer, schedule=schedule, weight_decay=0.01)
    ours = [torch.tensor([3.0], requires_grad=True), torch.tensor([-2.0], requires_grad=True)]
    steps = []
    for p, length in zip(ours, (0.1, 0.5), strict=True):
        kinds = {
            "sgd": lambda p, lr: torch.optim.SGD([p], lr, momentum=0.9, nesterov=True, weight_decay=0.01),
            "adam": lambda p, lr: torch.optim.Adam([p], lr, weight_decay=0.01),
        }
        steps.append((kinds[optimizer](p, length), length))
    halves, boths = [], []
    for step in range(8):
        a, b = ours
        halves.append(float(a.detach() ** 2 / 2))
        boths.append(float((a * b + b**2).detach()))
        a.grad, b.grad = a.detach().clone(), (a + 2 * b).detach()
        for optimiser, length in steps:
            optimiser.param_groups[0]["lr"] = length * max(rate(schedule, step / 8), 1e-4)
            optimiser.step()
    torch.testing.assert_close(defense.a.data, ours[0].data)
    torch.testing.assert_close(defense.b.data, ours[1].data)
    for epoch in (0, 1):
        assert history[epoch]["half"] == pytest.approx(sum(halves[4 * epoch : 4 * epoch + 4]) / 4, rel=1e-5)
        assert history[epoch]["both"] == pytest.approx(sum(boths[4 * epoch : 4 * epoch + 4]) / 4, rel=1e-5)


@pytest.mark.parametrize(("scores", "best"), [((0.5, 0.9, 0.7), 1), ((0.9, 0.9, 0.1), 0), ((0.1, 0.2, 0.3), 2)])
def test_the_first_of_the_best_epochs_is_kept_and_its_judges_are_never_trained_on(scores, best: int) -> None:
    defense, history = trained(scores, epochs=3, optimizer="sgd")
    assert [epoch["validation"] for epoch in history] == pytest.approx(scores)
    held_out = defense.validated[0].draws.indices
    chosen = Draws(torch.arange(N), 5).at("validation").uniform(1)[:, 0].argsort(stable=True)[:7]
    assert held_out.tolist() == chosen.tolist()
    assert defense.validated[0].draws.seed == Draws(chosen, 5).at("validation").seed
    assert all(b.progress == 0 for b in defense.validated)
    seen = torch.cat([b.draws.indices for b in defense.seen])
    assert sorted(seen.tolist()) == sorted(3 * [i for i in range(N) if i not in held_out])
