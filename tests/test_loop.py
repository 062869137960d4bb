"""What a step of training sees, and how far it goes: the loop against one that is written out."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from benchbox import Card, Defense, DefenseError, Draws, ImageSpec, Recipe, ThreatModel
from benchbox.data.dataset import Images
from benchbox.draws import sample_draws
from benchbox.training import loop
from benchbox.training.loop import STEPS, Progress, crop_and_flip, fit, rate

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
    then, _ = trained(scores, epochs=best + 1, optimizer="sgd")
    assert defense.a.item() == then.a.item()


def test_how_far_it_is_is_told_every_ten_steps_and_at_the_end() -> None:
    told: list[Progress] = []
    trained(report=told.append, batch_size=3, epochs=2)
    assert [(p.phase, p.done, p.total, p.epoch) for p in told] == [
        ("prepare", 37, 37, 0),
        ("train", 10, 26, 1), ("train", 13, 26, 1), ("train", 23, 26, 2), ("train", 26, 26, 2),
    ]  # fmt: skip
    assert told[0].terms is None
    assert told[1].terms is not None
    assert told[1].terms["flat"] == 3.0
    assert told[2].terms is not None
    assert told[2].terms["flat"] == pytest.approx(37 / 13)
    assert (loop.REPORT_EVERY, loop.PREPARE_BATCH) == (10, {"cpu": 125, "cuda": 500})


def test_one_image_at_least_is_held_out() -> None:
    class Careful(Watching):
        def __init__(self, recipe: Recipe) -> None:
            super().__init__(recipe, (0.5,))
            self.validation = 0.001  # type: ignore[misc]

        def validate(self, batch):
            self.validated.append(batch)
            return torch.ones(len(batch.x))

    recipe = Recipe(epochs=1, batch_size=10)
    defense = Careful(recipe)
    fit(defense, recipe, IMAGES, threat=BALL, seed=5, device=CPU)
    assert [len(batch.x) for batch in defense.validated] == [1]


def test_what_is_prepared_and_validated_comes_in_parts_that_fit_a_cache() -> None:
    many = Images(X[torch.arange(300) % N], torch.zeros(300, dtype=torch.int64))
    sizes: list[int] = []

    class Counting(Watching):
        def prepare(self, batch):
            sizes.append(len(batch.x))
            return super().prepare(batch)

        def validate(self, batch):
            self.validated.append(batch)
            return batch.prepared["noise"][:, 0]

    recipe = Recipe(epochs=1, batch_size=100)
    defense = Counting(recipe, (0.5,))
    defense.validation = 0.45  # type: ignore[misc]
    told: list[Progress] = []
    history = fit(defense, recipe, many, threat=BALL, seed=5, device=CPU, report=told.append)
    assert sizes == [125, 125, 50]
    assert [(p.done, p.total) for p in told if p.phase == "prepare"] == [(125, 300), (250, 300), (300, 300)]
    assert [len(batch.x) for batch in defense.validated] == [125, 10]
    rows = torch.cat([batch.draws.indices for batch in defense.validated])
    noise = Draws(rows, 5).at("prepare").at("n").uniform(2)[:, 0]
    assert history[0]["validation"] == pytest.approx(float(noise.double().mean()))


def test_who_has_no_parameters_is_not_trained_and_what_a_loss_does_not_touch_stays() -> None:
    class Frozen(Watching):
        def players(self):
            return {"nobody": []}

    class Partly(Watching):
        def __init__(self, recipe: Recipe) -> None:
            super().__init__(recipe)
            self.idle = nn.Parameter(torch.tensor([7.0]))

        def players(self):
            return {"first": [self.a, self.idle], "second": [self.b]}

    recipe = Recipe(epochs=2, batch_size=10)
    frozen, partly = Frozen(recipe), Partly(recipe)
    assert fit(frozen, recipe, IMAGES, threat=BALL, seed=5, device=CPU) == []
    fit(partly, recipe, IMAGES, threat=BALL, seed=5, device=CPU)
    assert partly.idle.item() == 7.0
    assert partly.a.item() != 3.0


def test_the_classifier_of_a_base_stays_in_evaluation_mode() -> None:
    seen: list[tuple[bool, bool]] = []

    class Purifying(Watching):
        base = "none"

        def losses(self, batch):
            seen.append((self.training, self.classifier.training))
            return super().losses(batch)

    class Own(Purifying):
        base = None

    for cls, expected in ((Purifying, (True, False)), (Own, (True, True))):
        seen.clear()
        recipe = Recipe(epochs=1, batch_size=20)
        defense = cls(recipe)
        defense.classifier = nn.Dropout(0.5)
        fit(defense, recipe, IMAGES, threat=BALL, seed=5, device=CPU)
        assert seen == [expected, expected]


@pytest.mark.parametrize("refuses", [False, True])
def test_weights_lie_channels_last_unless_that_is_seen_to_raise(refuses: bool) -> None:
    class Convolving(Watching):
        def __init__(self, recipe: Recipe) -> None:
            super().__init__(recipe)
            self.net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Dropout(0.5))
            self.asked: list[Tensor] = []

        def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
            assert draws is not None
            self.asked.append(draws.indices)
            found = self.net(x.repeat(1, 2, 1, 1))
            if refuses and self.net[0].weight.is_contiguous(memory_format=torch.channels_last):
                raise RuntimeError("view size is not compatible")
            return found.flatten(1)[:, :3]

    recipe = Recipe(epochs=1, batch_size=20)
    defense = Convolving(recipe)
    fit(defense, recipe, IMAGES, threat=BALL, seed=5, device=CPU)
    weight = defense.net[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) is not refuses
    assert [indices.tolist() for indices in defense.asked] == [list(range(8))]
    # It was only looked at: no statistics were taken.
    assert defense.net[1].running_mean.tolist() == [0.0] * 3


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_killed_training_remembers_which_of_its_epochs_was_the_best(epoch: int, tmp_path: Path) -> None:
    class Moody(Watching):
        """The better the less it has learnt."""

        def validate(self, batch):
            return self.a.detach().expand(len(batch.x))

    class KilledError(Exception):
        pass

    def kill(progress: Progress) -> None:
        if progress.epoch == epoch:
            raise KilledError

    recipe = Recipe(epochs=3, batch_size=30, learning_rate=0.5, optimizer="sgd")
    words = {"threat": BALL, "seed": 5, "device": CPU}
    whole, resumed = Moody(recipe, (0.0,)), Moody(recipe, (0.0,))
    expected = fit(whole, recipe, IMAGES, **words)
    file = tmp_path / "c.safetensors"
    with pytest.raises(KilledError):
        fit(Moody(recipe, (0.0,)), recipe, IMAGES, report=kill, checkpoint=file, **words)
    assert fit(resumed, recipe, IMAGES, checkpoint=file, **words) == expected
    assert (resumed.a.item(), resumed.b.item()) == (whole.a.item(), whole.b.item())
    assert fit(Moody(recipe, (0.0,)), recipe, IMAGES, checkpoint=file, **words) == expected


def test_training_in_no_epochs_changes_nothing() -> None:
    defense, history = trained(epochs=0)
    assert (history, defense.a.item()) == ([], 3.0)


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (3.0, "returned float and no terms for 'first'"),
        ({"first": {}}, r"returned \['first'\] and no terms for 'first'"),
        ({"second": {"a": torch.zeros(())}}, r"returned \['second'\] and no terms for 'first'"),
        ({"first": {"a": torch.zeros(2)}}, r"loss 'a' has shape \(2,\); reduce it to one number"),
    ],
)
def test_what_cannot_be_minimised_is_refused(losses: object, said: str) -> None:
    class Odd(Watching):
        def losses(self, batch):
            return losses

    recipe = Recipe(epochs=1, batch_size=10)
    with pytest.raises(DefenseError, match=f"defence watching: .*{said}"):
        fit(Odd(recipe), recipe, IMAGES, threat=BALL, seed=5, device=CPU)


@given(st.integers(0, 500), st.sampled_from([8, 16, 32]), st.integers(1, 3))
def test_an_image_is_cropped_from_black_and_flipped_as_its_draws_say(seed: int, size: int, channels: int) -> None:
    draws = sample_draws(5, seed)
    x = draws.at("x").uniform(channels, size, size)
    pad = size // 8
    offset = draws.at("crop").integers(2 * pad + 1, 2)
    flips = draws.at("flip").uniform(1)[:, 0] < 0.5
    found = crop_and_flip(x, draws)
    for i in range(5):
        padded = torch.zeros(channels, size + 2 * pad, size + 2 * pad)
        padded[:, pad : pad + size, pad : pad + size] = x[i]
        top, left = offset[i].tolist()
        crop = padded[:, top : top + size, left : left + size]
        assert torch.equal(found[i], crop.flip(2) if flips[i] else crop)


def test_every_other_image_is_flipped_and_every_place_is_taken_alike() -> None:
    x = torch.zeros(4000, 1, 16, 16)
    x[:, :, 8, 5] = 1
    at = crop_and_flip(x, sample_draws(4000)).flatten(1).argmax(1)
    row, column = at // 16, at % 16
    flipped = (column >= 8).float().mean()
    assert float(flipped) == pytest.approx(0.5, abs=0.03)
    for value in range(6, 11):
        assert float((row == value).float().mean()) == pytest.approx(0.2, abs=0.025)
    assert set(column.tolist()) == {3, 4, 5, 6, 7, 8, 9, 10, 11, 12}


@given(st.floats(0, 1, exclude_max=True))
def test_a_rate_is_the_formula_of_its_schedule(progress: float) -> None:
    assert rate("constant", progress) == 1
    assert rate("cosine", progress) == pytest.approx((1 + math.cos(math.pi * progress)) / 2)
    up, down = progress / 0.3, (1 + math.cos(math.pi * (progress - 0.3) / 0.7)) / 2
    assert rate("onecycle", progress) == pytest.approx(up if progress < 0.3 else down)
    steps = {"step": (0.75, 0.9), "step-early": (0.5, 0.75), "step-late": (10 / 11, 21 / 22)}
    assert set(STEPS) == set(steps)
    for name, expected in steps.items():
        first, second = STEPS[name]
        assert (first, second) == pytest.approx(expected)
        assert rate(name, progress) == (1 if progress < first else 0.1 if progress < second else 0.01)


def test_a_step_falls_where_it_says_and_not_an_epoch_later() -> None:
    assert [rate("step", p) for p in (0.75, 0.9)] == [0.1, 0.01]
    assert rate("cosine", 0.0) == 1
    assert rate("onecycle", 0.0) == 0
