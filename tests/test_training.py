"""One loop: it learns, resumes after a kill to the same weights, and keeps the players apart."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchbox.contract.defense import Batch, Defense, Recipe
from benchbox.data.dataset import Images
from benchbox.domain import Card, ImageSpec, Spec, ThreatModel
from benchbox.draws import sample_draws
from benchbox.errors import ArtifactError
from benchbox.training import checkpoint
from benchbox.training.artifacts import Artifacts, Training, load_tensors, save_tensors
from benchbox.training.loop import crop_and_flip, fit, rate

CPU, BALL = torch.device("cpu"), ThreatModel("linf", 0.1)


class Linear(Defense):
    card = Card("linear", "logistic regression with dropout")

    def __init__(self, recipe: Recipe, images: ImageSpec) -> None:
        super().__init__(recipe, images)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(16, images.classes))

    def losses(self, batch: Batch):
        return {"classifier": {"ce": F.cross_entropy(self.classifier(batch.x), batch.y)}}


class Duel(Linear):
    """Two players with opposite wishes for one number each, and a loss that flows through both."""

    card = Card("duel", "a game")

    def __init__(self, recipe: Recipe, images: ImageSpec) -> None:
        super().__init__(recipe, images)
        self.a, self.b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def players(self):
        return {"a": [self.a], "b": [self.b]}

    def losses(self, batch: Batch):
        both = self.a + self.b
        return {"a": {"up": -both.sum()}, "b": {"down": both.sum()}}


class Tied(Linear):
    """One network by two names, two layers with one weight, and a part of one beside the whole."""

    card = Card("tied", "shares memory")

    def __init__(self, recipe: Recipe, images: ImageSpec) -> None:
        super().__init__(recipe, images)
        self.net, self.head = self.classifier, nn.Linear(16, images.classes)
        self.head.weight = self.classifier[2].weight
        self.register_buffer("bias", self.classifier[2].bias.detach()[:1])


@pytest.fixture
def images() -> Images:
    draws = sample_draws(200)
    x = draws.at("x").integers(256, 1, 4, 4).to(torch.uint8)
    return Images(x, (x[:, 0, 0, 0] > 127).long())


def trained(images: Images, epochs: int, checkpoint: Path | None = None, cls=Linear, optimizer="adam"):
    torch.manual_seed(0)
    recipe = Recipe(epochs=epochs, batch_size=32, learning_rate=0.05, optimizer=optimizer)
    defense = cls(recipe, ImageSpec(1, 4, 2))
    history = fit(defense, recipe, images, threat=BALL, seed=3, device=CPU, checkpoint=checkpoint)
    return defense, history


def test_the_loss_falls_and_the_problem_is_learned(images):
    defense, history = trained(images, 40)
    assert history[-1]["ce"] < 0.8 * history[0]["ce"]
    x, y = images.batch(torch.arange(200))
    assert (defense.eval()(x).argmax(1) == y).float().mean() > 0.9


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_killed_training_resumes_to_the_same_weights(images, tmp_path, optimizer):
    checkpoint = tmp_path / "c.safetensors"
    whole, _ = trained(images, 6, optimizer=optimizer)

    class KilledError(Exception):
        pass

    def kill(progress):
        if progress.epoch == 4:
            raise KilledError

    torch.manual_seed(0)
    recipe = Recipe(epochs=6, batch_size=32, learning_rate=0.05, optimizer=optimizer)
    arguments = {"threat": BALL, "seed": 3, "device": CPU, "checkpoint": checkpoint}
    with pytest.raises(KilledError):
        fit(Linear(recipe, ImageSpec(1, 4, 2)), recipe, images, report=kill, **arguments)
    torch.manual_seed(99)  # other initial weights: they must not matter any more
    resumed = Linear(recipe, ImageSpec(1, 4, 2))
    history = fit(resumed, recipe, images, **arguments)
    assert len(history) == 6
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_training_killed_inside_every_epoch_gets_on_and_ends_in_the_same_weights(
    images, tmp_path, monkeypatch, optimizer
):
    whole, expected = trained(images, 2, optimizer=optimizer)
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)

    class KilledError(Exception):
        pass

    class Once(Linear):
        """One step, and the next one is not survived."""

        steps = 0

        def losses(self, batch: Batch):
            self.steps += 1
            if self.steps > 2:
                raise KilledError
            return super().losses(batch)

    for seed in range(12):
        torch.manual_seed(seed)
        recipe = Recipe(epochs=2, batch_size=32, learning_rate=0.05, optimizer=optimizer)
        defense, file = Once(recipe, ImageSpec(1, 4, 2)), tmp_path / "c.safetensors"
        try:
            history = fit(defense, recipe, images, threat=BALL, seed=3, device=CPU, checkpoint=file)
            break
        except KilledError:
            pass
    assert seed == 6  # 7 steps an epoch, two a life
    assert history == expected
    for a, b in zip(whole.parameters(), defense.parameters(), strict=True):
        assert torch.equal(a, b)


def test_one_network_by_two_names_is_trained_and_kept_like_any_other(images, tmp_path):
    kept, wanted = Artifacts(tmp_path), Training(Spec("tied", {}, ""), "tiny", "", 0, BALL)
    tied, _ = trained(images, 2, kept.checkpoint(wanted.weights), cls=Tied)
    resumed, _ = trained(images, 4, kept.checkpoint(wanted.weights), cls=Tied)
    plain, _ = trained(images, 4)
    assert not torch.equal(tied.classifier[2].weight, plain.classifier[2].weight)
    kept.save(wanted, resumed, {"losses": []})
    again = Tied(Recipe(), ImageSpec(1, 4, 2))
    kept.load_into(wanted, again)
    assert again.net is again.classifier
    for name in ("classifier.2.weight", "net.2.weight", "head.weight"):
        assert torch.equal(again.state_dict()[name], plain.classifier[2].weight), name
    for key, value in resumed.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_training_leaves_the_global_random_state_alone(images):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    recipe = Recipe(epochs=1, batch_size=32)
    defense = Linear.__new__(Linear)
    with torch.random.fork_rng(devices=[]):
        defense = Linear(recipe, ImageSpec(1, 4, 2))
    fit(defense, recipe, images, threat=BALL, seed=0, device=CPU)
    assert torch.equal(torch.rand(3), expected)


def test_a_player_moves_by_its_own_loss_alone(images):
    defense, _ = trained(images, 2, cls=Duel, optimizer="sgd")
    assert defense.a.item() > 0.1
    assert defense.b.item() < -0.1


def test_crop_and_flip_moves_whole_images():
    x = torch.zeros(64, 2, 8, 8)
    x[:, :, 3, 2] = 1
    moved = crop_and_flip(x, sample_draws(64))
    assert moved.sum() == 128  # a shift by at most one pixel loses no inner pixel
    rows, columns = (moved[:, 0] == 1).nonzero()[:, 1:].unbind(1)
    assert set(rows.tolist()) == {2, 3, 4}
    assert set(columns.tolist()) == {1, 2, 3, 4, 5, 6}
    assert torch.equal(crop_and_flip(x[5:9], sample_draws(64).rows(torch.arange(5, 9))), moved[5:9])


def test_the_schedules_are_what_they_say():
    assert rate("constant", 0.99) == 1
    assert [rate("step", p) for p in (0.74, 0.76, 0.91)] == [1, 0.1, 0.01]
    assert rate("cosine", 0.5) == pytest.approx(0.5)
    assert rate("onecycle", 0.3) == pytest.approx(1)
    assert rate("onecycle", 0.15) == pytest.approx(0.5)


def test_damaged_weights_are_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "w.safetensors"
    save_tensors(path, {"w": torch.arange(4.0)}, {"note": 1})
    assert load_tensors(path)[1] == {"note": 1}
    body = bytearray(path.read_bytes())
    body[-2] ^= 1
    path.write_bytes(body)
    with pytest.raises(ArtifactError, match=r"w\.safetensors is corrupt"):
        load_tensors(path)
    path.write_bytes(body[:20])
    with pytest.raises(ArtifactError, match="delete it to train again"):
        load_tensors(path)
