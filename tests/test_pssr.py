"""PSSR's formulas against hand-made cases."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from benchbox.plugins.defenses._surgery import SurgeryRecipe, softly
from benchbox.plugins.defenses.pssr import (
    PSSR,
    PixelSurgery,
    PSSRRecipe,
    adversarial_r_drop,
    saliency,
    trivial_mask,
)
from torch import nn

from benchbox import Batch
from benchbox.domain import ImageSpec, ThreatModel
from benchbox.draws import sample_draws

SPEC = ImageSpec(1, 8, 3)


def linear(weights: torch.Tensor) -> nn.Module:
    layer = nn.Linear(weights.shape[1], weights.shape[0], bias=False)
    layer.weight.data = weights
    return nn.Sequential(nn.Flatten(), layer).requires_grad_(False)


@pytest.fixture
def pssr() -> PSSR:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(256, 3)
    ).requires_grad_(False)
    defense = PSSR(PSSRRecipe(width=8), SPEC, network).eval().requires_grad_(False)
    gradient, factor = saliency(network, sample_draws(50).uniform(1, 8, 8))
    defense.threshold.fill_(1.5 * (gradient.flatten(1).mean(1) * factor).mean())
    return defense


def test_the_saliency_is_the_derivative_of_the_probability():
    weights = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    x = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    leaf = x.clone().requires_grad_()
    top = linear(weights)(leaf).softmax(1).amax(1)
    (expected,) = torch.autograd.grad(top.sum(), leaf)
    gradient, factor = saliency(linear(weights), x)
    assert torch.allclose(gradient * factor.view(-1, 1, 1, 1), expected.abs(), atol=1e-6)


def test_the_saliency_is_the_largest_over_the_channels():
    weights = torch.tensor([[3.0, 1.0], [0.0, 0.0]])  # two channels of one pixel
    gradient, _ = saliency(linear(weights), torch.tensor([[[[0.5]], [[0.5]]]]))
    assert gradient.item() == 3.0


def test_the_mask_of_a_case_computed_by_hand():
    # odds = (2, 0, 6, 0) . x, so the gradient is (2, 0, 6, 0), its mean 2, and 1.5 times the mean is 3.
    network = linear(torch.tensor([[2.0, 0, 6, 0], [0, 0, 0, 0]]))
    gradient, factor = saliency(network, torch.full((1, 1, 2, 2), 0.5))
    sample = trivial_mask(gradient, factor, PSSRRecipe(threshold="sample"), torch.zeros(()))
    assert sample.flatten().tolist() == [1, 1, 0, 1]
    # P = sigmoid(4): S is the gradient times P (1 - P) = 0.01766; a constant of 0.03 spares nothing above 1.7.
    constant = trivial_mask(gradient, factor, PSSRRecipe(threshold="dataset"), torch.tensor(0.03))
    assert constant.flatten().tolist() == [0, 1, 0, 1]


def test_the_mask_survives_a_probability_of_one():
    # With logits 200 apart P is 1 in float32 and the plain derivative of the softmax is exactly 0.
    network = linear(torch.tensor([[200.0, 0, 600, 0], [0, 0, 0, 0]]))
    x = torch.full((1, 1, 2, 2), 0.5)
    assert network(x).softmax(1)[0, 0] == 1
    gradient, factor = saliency(network, x)
    mask = trivial_mask(gradient, factor, PSSRRecipe(threshold="sample"), torch.zeros(()))
    assert mask.flatten().tolist() == [1, 1, 0, 1]
    # For a constant threshold, S is below any positive one, as it is in exact arithmetic.
    assert trivial_mask(gradient, factor, PSSRRecipe(threshold="dataset"), torch.tensor(1e-9)).min() == 1


def test_an_image_without_any_gradient_loses_no_pixel():
    gradient, factor = saliency(linear(torch.zeros(2, 4)), torch.rand(1, 1, 2, 2))
    assert trivial_mask(gradient, factor, PSSRRecipe(threshold="sample"), torch.zeros(())).min() == 1


def test_r_drop_of_a_case_computed_by_hand():
    clean = torch.tensor([[0.0, 0.0]])  # F(x) = (1/2, 1/2)
    first = torch.tensor([[3.0, 1.0]]).log()  # (3/4, 1/4): KL = 3/4 ln 3/2 + 1/4 ln 1/2
    expected = 0.75 * torch.tensor(1.5).log() + 0.25 * torch.tensor(0.5).log()
    both = torch.cat([first, clean])  # the second pass agrees with the clean image
    assert adversarial_r_drop(both, clean, 2).item() == pytest.approx(expected.item(), abs=1e-6)


def test_every_stand_in_has_the_exact_forward_pass(pssr):
    x, draws = sample_draws(20).uniform(1, 8, 8), sample_draws(20)
    assert set(pssr.surrogates()) == set(pssr.stand_ins)
    for stand_in in pssr.surrogates().values():
        assert torch.equal(stand_in(x, draws), pssr(x))


def test_the_mask_removes_some_pixels_and_not_all(pssr):
    share = (pssr.remove(torch.ones(20, 1, 8, 8) - 0.5 * sample_draws(20).uniform(1, 8, 8))[0] == 0).float().mean()
    assert 0.05 < share < 0.95


def test_autograd_with_the_mask_held_constant_agrees_with_finite_differences(pssr):
    pssr.double()
    x = sample_draws(20).uniform(1, 8, 8).double()
    y = pssr(x).argmax(1)
    leaf = x.clone().requires_grad_()
    loss = nn.functional.cross_entropy(pssr(leaf), y, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    direction = sample_draws(20, 1).normal(1, 8, 8).double()
    h = 1e-6

    def at(step: float) -> torch.Tensor:
        return nn.functional.cross_entropy(pssr(x + step * direction), y, reduction="none")

    difference = (at(h) - at(-h)) / (2 * h)
    product = (gradient * direction).flatten(1).sum(1)
    # A mask flip between the two points is a jump; almost every sample has none.
    assert ((difference - product).abs() < 1e-4 * product.abs().clamp_min(1e-6)).float().mean() >= 0.9


def test_identity_through_removal_reaches_the_removed_pixels(pssr):
    x = sample_draws(20).uniform(1, 8, 8)
    removed = pssr.remove(x)[0] == 0
    gradients = {}
    for name, stand_in in pssr.surrogates().items():
        leaf = x.clone().requires_grad_()
        (gradients[name],) = torch.autograd.grad(stand_in(leaf, sample_draws(20)).square().sum(), leaf)
    assert gradients["mask-constant"][removed].abs().max() == 0
    assert gradients["identity-removal"][removed].abs().max() > 0
    assert gradients["identity-purifier"][removed].abs().max() > 0


def test_the_soft_mask_differentiates_the_saliency_once_more(pssr):
    x = sample_draws(20).uniform(1, 8, 8)
    removed = pssr.remove(x)[0] == 0
    leaf = x.clone().requires_grad_()
    logits = pssr.soft(leaf, sample_draws(20))
    assert torch.equal(logits, pssr(x))
    (gradient,) = torch.autograd.grad(logits.square().sum(), leaf)
    assert gradient.isfinite().all()
    # With the mask held constant these are exactly zero: all of it comes through the second derivative.
    assert (gradient[removed].abs() > 0).float().mean() > 0.5


def test_the_soft_mask_is_the_derivative_of_a_sigmoid_of_the_saliency():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    x = torch.rand(3, 3, 2, 2, dtype=torch.float64)
    direction = torch.randn_like(x)
    for recipe in (SurgeryRecipe(alpha=1.0), SurgeryRecipe(threshold="dataset")):
        constant = torch.tensor(0.05, dtype=torch.float64)
        scale = saliency(net, x)[0].mean((1, 2, 3), keepdim=True)

        def mask(x, recipe=recipe, constant=constant):
            factors = saliency(net, x, again=True)
            return softly(torch.zeros(3, 1, 2, 2, dtype=torch.float64), *factors, recipe, constant)

        def sigmoid(x, recipe=recipe, constant=constant, scale=scale):
            size, factor = saliency(net, x)
            if recipe.threshold == "dataset":
                return 1 - (5 * (size * factor.view(-1, 1, 1, 1) - constant) / constant).sigmoid()
            return 1 - (5 * (size - size.mean((1, 2, 3), keepdim=True)) / scale).sigmoid()

        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(mask(leaf).sum(), leaf)
        h = 1e-5
        difference = (sigmoid(x + h * direction) - sigmoid(x - h * direction)).sum() / (2 * h)
        assert float((gradient * direction).sum()) == pytest.approx(float(difference), rel=1e-4)
        assert gradient.abs().max() > 1e-3


def test_it_works_where_gradients_are_switched_off(pssr):
    x = sample_draws(4).uniform(1, 8, 8)
    with torch.no_grad():
        inside = pssr(x)
    assert torch.equal(inside, pssr(x))


def test_a_signed_saliency_spares_what_speaks_against_the_class():
    network = linear(torch.tensor([[2.0, -8, 6, 0], [0, 0, 0, 0]]))
    x = torch.tensor([0.9, 0.1, 0.9, 0.1]).view(1, 1, 2, 2)
    signed, factor = saliency(network, x, signed=True)
    assert signed.flatten().tolist() == [2, -8, 6, 0]
    # The mean is 0: everything that speaks for the class is removed, and nothing else.
    recipe = PSSRRecipe(threshold="sample", saliency="signed")
    assert trivial_mask(signed, factor, recipe, torch.zeros(())).flatten().tolist() == [0, 1, 0, 1]
    # Without signs the mean is 4 and its 1.5-fold 6.
    absolute, _ = saliency(network, x)
    recipe = PSSRRecipe(threshold="sample")
    assert trivial_mask(absolute, factor, recipe, torch.zeros(())).flatten().tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("condition", "channels", "beside"), [("none", 1, None), ("mask", 2, "mask"), ("input", 2, "x")]
)
def test_the_generator_sees_what_its_reading_says(condition: str, channels: int, beside: str | None):
    torch.manual_seed(0)
    network = linear(torch.randn(3, 64))
    pssr = PSSR(PSSRRecipe(width=8, condition=condition), SPEC, network).eval()
    x = sample_draws(4).uniform(1, 8, 8)
    trivial, mask = pssr.remove(x)
    seen = pssr.conditioned(trivial, mask, x)
    assert seen.shape[1] == channels
    assert torch.equal(seen[:, :1], x * mask)
    if beside is not None:
        assert torch.equal(seen[:, 1:], {"mask": mask, "x": x}[beside])
    assert pssr(x).shape == (4, 3)


@pytest.mark.parametrize("threshold", ["sample", "dataset"])
def test_surgery_alone_reads_no_training_image_unless_the_threshold_is_theirs(threshold):
    draws = sample_draws(6)
    batch = Batch(draws.uniform(1, 8, 8), torch.arange(6) % 3, draws, 0.0, ThreatModel("linf", 0.1))
    recipe = SurgeryRecipe(threshold=threshold, attack_steps=2)
    surgery = PixelSurgery(recipe, SPEC, linear(torch.randn(3, 64)))
    assert bool(surgery.prepare(batch)) == (threshold == "dataset")


@pytest.mark.parametrize(
    "reading", [{}, {"dropout_at": "output"}, {"pixel": "sum"}, {"benign": False}, {"saliency": "signed"}], ids=str
)
def test_every_reading_can_be_trained(reading: dict[str, object]):
    torch.manual_seed(0)
    recipe = PSSRRecipe(width=8, attack_steps=2, passes=3, **reading)
    pssr = PSSR(recipe, SPEC, linear(torch.randn(3, 64)))
    draws = sample_draws(6)
    batch = Batch(draws.uniform(1, 8, 8), torch.arange(6) % 3, draws, 0.0, ThreatModel("linf", 0.1))
    batch = replace(batch, prepared=pssr.prepare(batch))
    pssr.calibrate(batch.prepared)
    losses = pssr.train().losses(batch)
    total = sum(losses["extrapolator"].values())
    gradients = torch.autograd.grad(total, list(pssr.extrapolator.parameters()))
    assert all(bool(g.isfinite().all()) for g in gradients)
    assert any(bool(g.any()) for g in gradients)
    kinds = set(pssr.drawn_kinds(replace(batch, draws=sample_draws(200))).tolist())
    assert kinds == ({1, 2} if reading.get("benign") is False else {0, 1, 2})


def test_the_pixel_loss_is_a_sum_or_a_mean_of_the_same():
    losses = {}
    for pixel in ("sum", "mean"):
        torch.manual_seed(0)
        pssr = PSSR(PSSRRecipe(width=8, attack_steps=1, pixel=pixel), SPEC, linear(torch.randn(3, 64)))
        draws = sample_draws(6)
        batch = Batch(draws.uniform(1, 8, 8), torch.arange(6) % 3, draws, 0.0, ThreatModel("linf", 0.1))
        losses[pixel] = pssr.losses(replace(batch, prepared=pssr.prepare(batch)))["extrapolator"]["pixel"].item()
    assert losses["sum"] == pytest.approx(64 * losses["mean"], rel=1e-5)
