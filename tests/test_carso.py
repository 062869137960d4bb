"""CARSO: its aggregation against exact arithmetic, its batches counted, its network by its published sizes."""

from __future__ import annotations

import copy
import math
from decimal import Decimal

import digits
import pytest
import torch
from benchbox.plugins.defenses._activations import inner_convolutions, outputs_of, weighted_layers
from benchbox.plugins.defenses._cvae import (
    ConvolutionalCompressor,
    ConvolutionalDecoder,
    DenseDecoder,
    decoder_sizes,
)
from benchbox.plugins.defenses.carso import CARSO, QUARTERS, aggregate, balanced, beta
from purifiers import comes_back, trained
from torch import Tensor, nn

from benchbox import nets
from benchbox.contract.defense import Batch
from benchbox.domain import ImageSpec, ThreatModel
from benchbox.draws import Draws, sample_draws
from benchbox.errors import RequestError

SPEC, BALL = ImageSpec(1, 8, 10), ThreatModel("linf", 0.3)
SMALL = {"compressor": "dense", "code": 24, "hidden": 24, "latent": 8, "attack_steps": 2, "attack_step_size": 0.15}


def built(**overrides: object) -> CARSO:
    torch.manual_seed(0)
    recipe = CARSO.configure(**{**SMALL, **overrides})
    return CARSO(recipe, SPEC, copy.deepcopy(digits.classifier())).eval().requires_grad_(False)


def score(logits: Tensor) -> list[Decimal]:
    """A_i = sum over samples of exp(l_i), for logits (S, K), to 28 digits and without overflow."""
    return [sum((Decimal(v).exp() for v in column), Decimal(0)) for column in logits.double().T.tolist()]


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0, 300.0])
def test_peel_ranks_the_classes_as_exact_arithmetic_does(scale):
    logits = scale * torch.randn(50, 8, 10, generator=torch.Generator().manual_seed(0))
    found = aggregate(logits, "peel")
    assert found.isfinite().all()
    for row, sample in zip(found, logits, strict=True):
        exact = score(sample)
        assert row.argsort().tolist() == sorted(range(10), key=exact.__getitem__)
        assert row.tolist() == pytest.approx([float(a.ln()) for a in exact], rel=1e-5, abs=1e-5)


def test_peel_agrees_with_the_released_expression_where_that_is_finite():
    logits = torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = logits.exp().sum(1).softmax(1)  # the product over samples of exp(exp(l)), normalised
    released = (p / (1 - p)).log()
    assert torch.equal(aggregate(logits, "peel").argsort(1), released.argsort(1))
    # In float32 a top logit of 2 in eight samples is too much for it, and its gradient is no number.
    leaf = torch.tensor([2.0, 0, 0]).expand(1, 8, 3).clone().requires_grad_()
    p = leaf.exp().sum(1).softmax(1)
    (gradient,) = torch.autograd.grad((p / (1 - p)).log().sum(), leaf)
    assert not gradient.isfinite().all()
    (gradient,) = torch.autograd.grad(aggregate(leaf, "peel").sum(), leaf)
    assert torch.allclose(gradient, torch.full_like(gradient, 1 / 8))


def test_the_other_rules_of_a_case_computed_by_hand():
    logits = torch.tensor([[[3.0, 0.0], [-1.0, 0.0], [-1.0, 0.5]]])
    assert aggregate(logits, "mean-logits")[0].tolist() == pytest.approx([1 / 3, 1 / 6])
    assert aggregate(logits, "votes")[0].tolist() == [-2, -1]

    def odds(values: list[float]) -> float:
        p = sum(1 / (1 + math.exp(-v)) for v in values) / len(values)
        return math.log(p / (1 - p))

    expected = [odds([3, -1, -1]), odds([0, 0, 0.5])]
    assert aggregate(logits, "mean-probabilities")[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert aggregate(100 * logits, "mean-probabilities").isfinite().all()


def test_a_vote_has_the_gradient_of_peel():
    leaf = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    votes, peel = (torch.autograd.grad(aggregate(leaf, rule)[:, 0].sum(), leaf)[0] for rule in ("votes", "peel"))
    assert torch.equal(votes, peel)


def test_beta_is_zero_for_an_eighth_and_one_from_a_sixth():
    progress = [0, 0.125, 0.125 + 0.125 / 6, 1 / 6, 0.5, 0.999]
    assert [beta(p) for p in progress] == pytest.approx([0, 0, 0.5, 1, 1, 1])


def test_a_batch_is_balanced_sample_by_sample():
    n = 8000
    x = torch.zeros(n, 1, 1, 1)
    prepared = {
        name: torch.full((n, 1, 1, 1), float(i), dtype=torch.float16) for i, name in enumerate(QUARTERS, 1)
    }
    batch = Batch(x, torch.zeros(n, dtype=torch.int64), sample_draws(n), 0.0, BALL, prepared)
    part = balanced(batch, 0.4).flatten().long()
    share = part.bincount(minlength=5) / n
    assert share.tolist() == pytest.approx([0.6, 0.1, 0.1, 0.1, 0.1], abs=0.02)
    assert balanced(batch, 0.0).max() == 0
    assert balanced(batch, 1.0).min() == 1
    rows = torch.tensor([70, 3])
    few = {name: values[rows] for name, values in prepared.items()}
    alone = Batch(x[rows], batch.y[rows], batch.draws.rows(rows), 0.0, BALL, few)
    assert torch.equal(balanced(alone, 0.4).flatten().long(), part[rows])


@pytest.mark.parametrize(("scale", "step"), [(1.0, 0.15), (0.5, 0.15)])
def test_the_four_attacks_fill_their_balls_and_raise_the_loss(scale, step):
    defense = built(epsilon_scale=scale)
    x, y, rows = digits.held_out(40)
    made = defense.prepare(Batch(x, y, Draws(rows), 0.0, BALL))
    assert set(made) == set(QUARTERS)

    def loss(images: Tensor) -> float:
        return float(nn.functional.cross_entropy(defense.classifier(images.float()), y))

    for name, share in QUARTERS.items():
        change = (made[name].float() - x).abs().amax().item()
        assert change == pytest.approx(0.3 * scale * share, abs=1e-3)
        assert loss(made[name]) > loss(x)
    leaf = x.clone().requires_grad_()
    nn.functional.cross_entropy(defense.classifier(leaf), y).backward()
    expected = (x + 0.3 * scale * leaf.grad.sign()).clamp(0, 1)
    assert torch.allclose(made["fgsm full"].float(), expected, atol=1e-3)


def test_layers_are_recorded_before_their_activation_and_nothing_stays_behind():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(72, 3))
    x = torch.rand(5, 1, 8, 8).requires_grad_()
    maps, logits = outputs_of(network, ["0", "3"], x)
    assert torch.equal(maps, network[0](x))
    assert maps.min() < 0
    assert torch.equal(logits, network(x))
    assert torch.autograd.grad(maps.sum(), x)[0].abs().sum() > 0
    assert not any(module._forward_hooks for module in network.modules())
    with pytest.raises(RequestError, match="unknown layer of Sequential 'conv'"):
        outputs_of(network, ["conv"], x)


def test_the_recorded_layers_of_the_known_networks():
    grey, colour = ImageSpec(1, 28, 10), ImageSpec(3, 32, 10)
    lenet = nets.build("lenet5", grey)
    outputs = outputs_of(lenet, weighted_layers(lenet), torch.zeros(1, 1, 28, 28))
    assert [tuple(o.shape[1:]) for o in outputs] == [(32, 28, 28), (64, 14, 14), (200,), (10,)]
    resnet = inner_convolutions(nets.build("resnet18", colour))
    assert len(resnet) == 19
    assert resnet[0] == "1.layer1.0.conv1"
    assert len(inner_convolutions(nets.build("wrn-28-2", colour))) == 27
    dense = inner_convolutions(nets.build("densenet121", colour))
    assert len(dense) == len(set(dense)) == 27
    with pytest.raises(RequestError, match="Flatten has no Conv2d to record"):
        inner_convolutions(nn.Flatten())


def test_the_convolutional_compressor_has_the_published_size_on_a_wide_resnet():
    shapes = [(160, 32, 32)] * 8 + [(320, 16, 16)] * 9 + [(640, 8, 8)] * 9
    with torch.device("meta"):  # a hundred million weights are not needed to count them
        net = ConvolutionalCompressor([torch.Size(s) for s in shapes], 512)
        decoder = ConvolutionalDecoder(640, 3, 32)
    join = net.join[0]
    assert isinstance(join, nn.Linear)
    assert join.in_features == 147_040
    # 28.4 M, 75.3 M and 2.5 M parameters in the authors' code.
    assert sum(p.numel() for p in net.maps.parameters()) == pytest.approx(28.4e6, rel=2e-3)
    assert join.weight.numel() == pytest.approx(75.3e6, rel=1e-3)
    assert sum(p.numel() for p in decoder.parameters()) == pytest.approx(2.5e6, rel=0.02)


def test_the_decoders_reach_the_published_sizes():
    assert decoder_sizes(28) == [4, 8, 14, 28]
    assert decoder_sizes(32) == [4, 8, 16, 32]
    for size in (4, 6, 8, 10, 28, 30, 32, 64):
        assert DenseDecoder(24, 1, size)(torch.zeros(2, 24)).shape == (2, 1, size, size)
    for size in (16, 32, 64):
        assert ConvolutionalDecoder(24, 3, size)(torch.zeros(2, 24)).shape == (2, 3, size, size)
    with pytest.raises(RequestError, match=r"even size of at least 4, got 29; resize the images to 28"):
        decoder_sizes(29)
    with pytest.raises(RequestError, match=r"divisible by 16, got 28; use the dense compressor"):
        ConvolutionalDecoder(24, 1, 28)
    with pytest.raises(RequestError, match=r"outputs are \(C, H, W\), got \(10,\); record convolutions only"):
        ConvolutionalCompressor([torch.Size([10])], 8)


def test_the_convolutional_design_works_on_a_resnet():
    torch.manual_seed(0)
    images = ImageSpec(3, 32, 10)
    classifier = nets.build("wrn-10-1", images).eval().requires_grad_(False)
    recipe = CARSO.configure(code=16, hidden=8, latent=4, samples=2)
    defense = CARSO(recipe, images, classifier).eval().requires_grad_(False)
    x = sample_draws(2).uniform(3, 32, 32).requires_grad_()
    logits = defense(x, sample_draws(2))
    assert logits.shape == (2, 10)
    assert torch.autograd.grad(logits[:, 0].sum(), x)[0].abs().sum() > 0


def test_randomness_comes_from_the_draws_alone_and_belongs_to_the_sample():
    defense = built()
    x, _, rows = digits.held_out(12)
    draws = Draws(rows, 7)
    with torch.no_grad():
        torch.manual_seed(1)
        logits = defense(x, draws)
        torch.manual_seed(2)
        assert torch.equal(defense(x, draws), logits)
        assert not torch.allclose(defense(x, draws.at("other")), logits)
        order = torch.tensor([9, 2, 5])  # batch norm must not mix them
        assert torch.allclose(defense(x[order], draws.rows(order)), logits[order], atol=1e-5)
        image = defense.purify(x, draws)
        recalled = defense.recall(x, draws)
    assert image.shape == x.shape
    assert image.min() >= 0
    assert image.max() <= 1
    assert recalled.shape == (12, 8, *x.shape[1:])
    assert not torch.allclose(recalled[:, 0], recalled[:, 1])


def test_the_answer_is_the_aggregate_over_the_recalls():
    defense = built(samples=3)
    x, draws = digits.held_out(5)[0], sample_draws(5)
    recalled = defense.recall(x, draws)
    logits = torch.stack([defense.classifier(recalled[:, i]) for i in range(3)], 1)
    assert torch.allclose(defense(x, draws), logits.logsumexp(1), atol=1e-5)
    still = built(samples=0)
    assert torch.equal(still(x, draws), still(x, draws.at("other")))


@pytest.mark.parametrize("aggregation", ["peel", "mean-logits", "votes", "mean-probabilities"])
def test_the_stand_ins_are_exact_forward_and_gradients_reach_the_image(aggregation):
    defense = built(aggregation=aggregation)
    x, _, rows = digits.held_out(6)
    draws = Draws(rows)
    assert set(defense.surrogates()) == set(defense.stand_ins)
    for stand_in in defense.surrogates().values():
        leaf = x.clone().requires_grad_()
        logits = stand_in(leaf, draws)
        assert torch.equal(logits.detach(), defense(x, draws))
        (gradient,) = torch.autograd.grad(logits.square().sum(), leaf)
        assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_autograd_agrees_with_finite_differences():
    defense = built().double()
    x, draws = digits.held_out(8)[0].double(), sample_draws(8)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(defense(leaf, draws)[:, 0].sum(), leaf)
    direction, h = sample_draws(8, 1).normal(1, 8, 8).double(), 1e-6
    ahead, behind = (defense(x + s * h * direction, draws)[:, 0] for s in (1, -1))
    slope = (gradient * direction).flatten(1).sum(1)
    assert torch.allclose((ahead - behind) / (2 * h), slope, rtol=1e-3, atol=1e-9)


def test_a_short_training_recalls_better_and_leaves_the_classifier_alone(tmp_path):
    defense = built(epochs=10, batch_size=20, learning_rate=3e-3)
    history = trained(defense, BALL)
    assert history[-1]["reconstruction"] < 0.85 * history[0]["reconstruction"]
    assert history[0]["divergence"] == 0 < history[-1]["divergence"]
    assert comes_back(defense, SPEC, tmp_path)


def test_a_batch_of_one_is_refused_with_the_remedy():
    defense = built()
    x, y, rows = digits.held_out(1)
    batch = Batch(x, y, Draws(rows), 0.0, BALL)
    prepared = Batch(x, y, Draws(rows), 0.0, BALL, defense.prepare(batch))
    with pytest.raises(RequestError, match="batch of one, and batch_size 640 leaves one image over; use another"):
        defense.losses(prepared)
