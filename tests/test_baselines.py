"""The formulas of the baseline defences against cases computed by hand, and the selection of the epoch."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from benchbox.plugins.defenses import arn, pcl, uat
from benchbox.plugins.defenses.bag_of_tricks import BagPGDAT, BagTRADES
from benchbox.plugins.defenses.grad_reg import GradReg, squared_gradient
from benchbox.plugins.defenses.pssr import PSSR, PixelSurgery, Regeneration, WithoutARD
from benchbox.plugins.defenses.rice import Rice
from benchbox.plugins.defenses.trades import TRADES, divergence
from torch import Tensor, nn

from benchbox import Batch, Card, Defense, Draws, ImageSpec, Losses, Recipe, ThreatModel
from benchbox.data.dataset import Images
from benchbox.draws import sample_draws
from benchbox.training.loop import fit, rate

BALL = ThreatModel("linf", 0.1)
SPEC = ImageSpec(1, 8, 3)


def batch(n: int = 12, progress: float = 0.9) -> Batch:
    draws = sample_draws(n)
    return Batch(draws.uniform(1, 8, 8), draws.at("y").integers(3), draws, progress, BALL)


def build(cls: Any, **overrides: Any) -> Any:
    torch.manual_seed(0)
    return cls(cls.configure(**overrides), SPEC)


# -- gradient regularisation


def test_the_gradient_penalty_of_a_logistic_model() -> None:
    """CE = log(1 + e^(-w·x)) has the gradient -σ(-w·x) w, whose squared length is σ(-w·x)² ‖w‖²."""
    w = torch.tensor([3.0, -4.0])
    x = torch.tensor([[0.5, 0.2], [0.1, 0.9]]).view(2, 1, 1, 2).requires_grad_()
    score = (x.flatten(1) * w).sum(1)
    losses = F.softplus(-score)
    expected = torch.sigmoid(-score) ** 2 * 25
    torch.testing.assert_close(squared_gradient(losses, x), expected)


def test_the_penalty_is_differentiable_in_the_weights_as_finite_differences_say() -> None:
    defense = build(GradReg, lambda_gradient=2.0).double()
    given = replace(batch(), x=batch().x.double())
    weight = defense.classifier.layers[-1].weight

    def penalty() -> Tensor:
        value: Tensor = defense.losses(given)["classifier"]["gradient"]
        return value

    (gradient,) = torch.autograd.grad(penalty(), weight)
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)).double()
    ends = []
    with torch.no_grad():
        for step in (1e-5, -2e-5):
            weight += step * direction
            with torch.enable_grad():
                ends.append(penalty().item())
    assert (ends[0] - ends[1]) / 2e-5 == pytest.approx((gradient * direction).sum().item(), rel=1e-5)
    assert penalty() > 0


# -- prototypes


def test_prototype_distances_of_a_case_computed_by_hand() -> None:
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    centers = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    y = torch.tensor([0, 2])
    # own: 1 and 9; others: 9 and 16 for the first, 4 + 16 = 20 and 16 for the second
    assert pcl.to_own(features, centers, y).item() == pytest.approx(5)
    assert pcl.to_others(features, centers, y).item() == pytest.approx((9 + 16 + 20 + 16) / 4)
    torch.testing.assert_close(pcl.distances(features, centers)[1], torch.tensor([20.0, 16.0, 9.0]))


def test_the_prototypes_see_the_penultimate_features() -> None:
    defense, x = build(pcl.PCL), batch().x
    features, logits = pcl.penultimate(defense.classifier, x)
    assert features.shape == (12, 200)
    torch.testing.assert_close(defense.classifier.layers[-1](features), logits)
    assert torch.equal(defense.classifier(x), logits)


def test_the_prototype_loss_is_the_sum_of_its_parts() -> None:
    defense, given = build(pcl.PCL, lambda_near=0.5, lambda_far=0.01), batch()
    losses = defense.losses(given)
    features, logits = pcl.penultimate(defense.classifier, given.x)
    near = pcl.to_own(features, defense.near, given.y)
    far = pcl.to_others(features, defense.far, given.y)
    torch.testing.assert_close(losses["classifier"]["ce"], F.cross_entropy(logits, given.y))
    torch.testing.assert_close(losses["classifier"]["near"], 0.5 * near)
    torch.testing.assert_close(losses["classifier"]["far"], -0.01 * far)
    assert set(defense.losses(batch(progress=0.0))["classifier"]) == {"ce"}


# -- unlabelled images


def test_half_of_the_labels_are_hidden_by_index_alone() -> None:
    indices = torch.arange(2000)
    known = uat.labeled(indices, 0.5)
    assert 900 < known.sum() < 1100
    assert torch.equal(uat.labeled(indices[700:800], 0.5), known[700:800])
    assert uat.labeled(indices, 0.0).all()


@pytest.mark.parametrize("cls", [uat.UAT, uat.RST])
@pytest.mark.parametrize("progress", [0.0, 0.9])
def test_hidden_labels_are_never_read(cls: Any, progress: float) -> None:
    defense, given = build(cls, attack_steps=2), batch(progress=progress)
    known = uat.labeled(given.draws.indices, 0.5)
    assert 0 < known.sum() < len(known)

    def losses(y: Tensor) -> list[Tensor]:
        return [value for terms in defense.losses(replace(given, y=y)).values() for value in terms.values()]

    changed = torch.where(known, given.y, (given.y + 1) % 3)
    assert all(map(torch.equal, losses(given.y), losses(changed)))
    seen = torch.where(known, (given.y + 1) % 3, given.y)
    assert not all(map(torch.equal, losses(given.y), losses(seen)))


def test_the_two_terms_of_uat() -> None:
    """In a ball of radius 0 they are the cross-entropy and a divergence of 0."""
    defense = build(uat.UAT, attack_steps=1)
    given = replace(batch(), threat=ThreatModel("linf", 1e-9))
    guessed, labeler = uat.guess(defense.labeler, given, uat.labeled(given.draws.indices, 0.5))
    terms = defense.losses(given)
    expected = F.cross_entropy(defense.classifier(given.x), guessed.y)
    torch.testing.assert_close(terms["classifier"]["ce"], expected, atol=1e-6, rtol=0)
    assert terms["classifier"]["smooth"].item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(terms["labeler"]["labeler"], labeler)


def test_the_smoothness_counts_unlabelled_images_alone() -> None:
    defense, given = build(uat.UAT, attack_steps=3, lambda_smooth=2.0), batch()
    unlabeled = torch.tensor([0.0, 1.0]).repeat(6)
    _, smooth = defense._worst(given, unlabeled)
    assert (smooth[unlabeled == 0] == 0).all()
    assert (smooth[unlabeled == 1] > 0).all()


def test_until_the_labeller_is_of_use_labelled_images_are_trained_on() -> None:
    known = torch.tensor([True, False, True])
    assert uat.in_use(known, labeling_done=False).tolist() == [True, False, True]
    assert uat.in_use(known, labeling_done=True).all()
    assert uat.in_use(~known & known, labeling_done=False).all()  # no label at all in the batch


def test_the_divergence_of_trades() -> None:
    p = torch.tensor([[3.0, 1.0]]).log()  # (3/4, 1/4)
    q = torch.tensor([[0.0, 0.0]])  # (1/2, 1/2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert divergence(p, q).item() == pytest.approx(expected, abs=1e-6)
    assert divergence(q, p).item() == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2), abs=1e-6)


@pytest.mark.parametrize("cls", [TRADES, BagTRADES])
def test_clean_and_attacked_images_share_no_batch_statistics(cls: Any) -> None:
    """They learn in a pass each: in one of both, batch normalisation would mix them."""
    defense, learned = build(cls, attack_steps=1).train(), []
    defense.classifier = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3))
    defense.classifier.register_forward_pre_hook(
        lambda net, args: learned.append(len(args[0])) if net.training else None
    )
    given = batch()
    defense.losses(given)
    assert learned == [len(given.x)] * 2


# -- the bag of tricks


def test_batch_statistics_are_frozen_while_crafting() -> None:
    defense = build(BagPGDAT, attack_steps=2)
    defense.classifier = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3))
    before = defense.train().classifier[1].running_mean.clone()
    defense.attacked(batch())
    assert torch.equal(defense.classifier[1].running_mean, before)
    assert defense.training
    assert defense.classifier.training


@pytest.mark.parametrize(("cls", "term"), [(BagPGDAT, "ce"), (BagTRADES, "ce")])
def test_smoothed_labels(cls: Any, term: str) -> None:
    smooth, plain = (
        build(cls, attack_steps=1, label_smoothing=s).losses(replace(batch(), threat=ThreatModel("linf", 1e-9)))
        for s in (0.3, 0.0)
    )
    logits = build(cls).classifier(batch().x)
    even = -F.log_softmax(logits, 1).mean()
    expected = 0.7 * plain["classifier"][term] + 0.3 * even
    torch.testing.assert_close(smooth["classifier"][term], expected, atol=1e-3, rtol=0)


def test_the_late_steps_are_at_epochs_100_and_105_of_110() -> None:
    assert [rate("step-late", e / 110) for e in (99, 100, 104, 105, 109)] == [1, 0.1, 0.1, 0.01, 0.01]
    assert [rate("step-early", e / 200) for e in (99, 100, 150)] == [1, 0.1, 0.01]
    assert BagPGDAT.configure().weight_decay == BagTRADES.configure().weight_decay == 5e-4


# -- attack-invariant features


def test_the_losses_of_arn_computed_by_hand() -> None:
    sure = torch.tensor([[9.0, -9, -9], [-9, 9, -9], [-9, -9, 9]]) * 10
    assert arn.recognition(sure).item() == pytest.approx(0, abs=1e-6)
    assert arn.recognition(-sure).item() > 50
    third = torch.full((3, 3), math.log(0.5))  # σ = 1/3
    entropy = -(math.log(1 / 3) / 3 + math.log(2 / 3) * 2 / 3)
    assert arn.confusion(third).item() == pytest.approx(entropy, abs=1e-6)
    mean, log_variance = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 1.0]])
    expected = 0.5 * (1 + 1 - 0 - 1) + 0.5 * (4 + math.e - 1 - 1)
    assert arn.divergence_from_normal(mean, log_variance).item() == pytest.approx(expected, abs=1e-5)


def test_the_gradient_penalty_of_a_linear_critic() -> None:
    critic = nn.Sequential(nn.Flatten(), nn.Linear(4, 1, bias=False))
    critic[1].weight.data = torch.tensor([[0.0, 3.0, 4.0, 0.0]])  # its gradient has length 5 everywhere
    real, fake = torch.rand(6, 1, 2, 2), torch.rand(6, 1, 2, 2)
    assert arn.gradient_penalty(critic, real, fake, sample_draws(2)).item() == pytest.approx(16)


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3), (64, 3)])
def test_the_decoder_mirrors_the_encoder(size: int, channels: int) -> None:
    spec, x = ImageSpec(channels, size, 10), torch.rand(2, channels, size, size)
    mean, log_variance = arn.Encoder(spec, 4)(x)
    assert mean.shape == log_variance.shape == (2, 64)
    assert arn.decoder(spec, 4)(mean).shape == x.shape
    assert arn.pixel_discriminator(spec, 4)(x).shape == (2, 1)


# -- the ablations of PSSR


def test_the_ablations_leave_out_what_their_names_say() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).requires_grad_(False).eval()
    x, draws = batch().x, sample_draws(12)
    ps, cae, both = (
        c(c.configure(**({} if c is PixelSurgery else {"width": 8})), SPEC, network).eval()
        for c in (PixelSurgery, Regeneration, WithoutARD)
    )
    for defense in (ps, both):
        defense.threshold.fill_(0.02)
    assert torch.equal(ps.purify(x, draws), ps.remove(x)[0])
    left, _ = ps.remove(x)
    assert ((left == 0) | (left == x)).all()
    assert 0 < (left == 0).sum() < x.numel()
    assert torch.equal(cae.purify(x, draws), cae.extrapolator(cae.conditioned(*cae.remove(x), x)))
    assert torch.equal(both.purify(x, draws), both.extrapolator(both.conditioned(*both.remove(x), x)))
    assert not ps.players()
    made = cae.prepare(batch())
    assert set(made) == {"fgsm", "pgd", "clean logits"}
    assert cae.losses(replace(batch(), prepared=made))["extrapolator"]["ard"] == 0
    assert PSSR.configure().model_dump() | {"lambda_ard": 0.0} == WithoutARD.configure().model_dump()


# -- the selection of the epoch


class Climber(Defense):
    """One number that every step raises by 1, with batches as large as the training set; 3 is best."""

    card = Card("climber", "counts its steps")
    validation = 0.25

    def __init__(self, recipe: Recipe, images: ImageSpec) -> None:
        super().__init__(recipe, images)
        self.classifier = nn.Identity()
        self.number = nn.Parameter(torch.zeros(()))
        self.seen: set[int] = set()
        self.held_out: set[int] = set()

    def players(self) -> dict[str, list[nn.Parameter]]:
        return {"number": [self.number]}

    def learning_rates(self) -> dict[str, float]:
        return {"number": 1.0}

    def losses(self, batch: Batch) -> Losses:
        self.seen |= set(batch.draws.indices.tolist())
        return {"number": {"down": -self.number}}

    def validate(self, batch: Batch) -> Tensor:
        assert not self.training
        self.held_out |= set(batch.draws.indices.tolist())
        return -(self.number.round() - 3).abs().expand(len(batch.y))


def climbed(epochs: int, checkpoint: Path | None = None, report: Any = lambda progress: None) -> Any:
    images = Images(torch.zeros(100, 1, 4, 4, dtype=torch.uint8), torch.zeros(100, dtype=torch.int64))
    recipe = Recipe(epochs=epochs, batch_size=75, learning_rate=123.0)  # Adam's first steps are the rate's length
    defense = Climber(recipe, ImageSpec(1, 4, 2))
    arguments = {"threat": BALL, "seed": 0, "device": torch.device("cpu"), "checkpoint": checkpoint}
    history = fit(defense, recipe, images, report=report, **arguments)  # type: ignore[arg-type]
    return defense, history


def test_training_ends_with_the_weights_of_the_best_epoch() -> None:
    defense, history = climbed(6)
    assert [epoch["validation"] for epoch in history] == [-2, -1, 0, -1, -2, -3]
    assert defense.number.item() == pytest.approx(3, abs=1e-3)


def test_held_out_images_are_never_trained_on() -> None:
    defense, _ = climbed(2)
    assert len(defense.held_out) == 25
    assert len(defense.seen) == 75
    assert not defense.seen & defense.held_out


@pytest.mark.parametrize("killed_in", [2, 4, 6])
def test_the_best_weights_survive_a_kill(tmp_path: Path, killed_in: int) -> None:
    class KilledError(Exception):
        pass

    def kill(progress: Any) -> None:
        if progress.epoch == killed_in:
            raise KilledError

    checkpoint = tmp_path / "c.safetensors"
    with pytest.raises(KilledError):
        climbed(6, checkpoint, kill)
    defense, history = climbed(6, checkpoint)
    assert [epoch["validation"] for epoch in history] == [-2, -1, 0, -1, -2, -3]
    assert defense.number.item() == pytest.approx(3, abs=1e-3)


def test_rice_validates_in_the_full_ball() -> None:
    defense = build(Rice, warm_up=0.5, attack_steps=3, attack_step_size=0.1).eval()
    given = replace(batch(progress=0.0), threat=ThreatModel("linf", 0.5))
    scores = defense.validate(given)
    attacked = defense.attacked(replace(given, progress=1.0))
    assert (attacked - given.x).abs().amax() > 0.4
    assert torch.equal(scores, (defense.classifier(attacked).argmax(1) == given.y).float())
    assert Draws(given.draws.indices).indices.shape == scores.shape
    assert build(Rice).validation == 0.02
