"""AToP: its masks counted, its transform by hand, and what each phase of its training sees."""

from __future__ import annotations

import copy
import itertools

import digits
import pytest
import torch
from benchbox.plugins.defenses._deepfill import (
    DeepFill,
    GatedConv,
    SNPatchGAN,
    _with_neighbours,
    contextual_attention,
)
from benchbox.plugins.defenses._mae import MaskedAutoencoder
from benchbox.plugins.defenses.atop import AToP, AToPRecipe, missing_patches
from purifiers import comes_back, trained
from torch import Tensor, nn

from benchbox.contract.defense import Batch
from benchbox.domain import ImageSpec, ThreatModel
from benchbox.draws import Draws, sample_draws
from benchbox.errors import RequestError

SPEC, BALL = ImageSpec(1, 8, 10), ThreatModel("linf", 0.3)
SMALL = {"patch": 2, "width": 8, "depth": 1}


def built(**overrides: object) -> AToP:
    torch.manual_seed(0)
    recipe = AToP.configure(**{**SMALL, **overrides})
    return AToP(recipe, SPEC, copy.deepcopy(digits.classifier())).eval().requires_grad_(False)


class Recorder(nn.Module):
    """In place of the generator: notes what it is given, and its i-th image is i/4 - 1 everywhere."""

    def __init__(self, seen: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor]:
        self.seen.append((x, mask))
        return (torch.full_like(x, len(self.seen) / 4 - 1),)


def cells(mask: Tensor, patch: int) -> Tensor:
    """The masks as one number a patch (N, P), having checked that patches are missing whole."""
    small = mask[:, :, ::patch, ::patch]
    assert torch.equal(small.repeat_interleave(patch, 2).repeat_interleave(patch, 3), mask)
    return small.flatten(1)


@pytest.mark.parametrize(("size", "missing"), [(32, 16), (28, 12)])  # of 64 and of 49 patches
def test_a_quarter_of_the_patches_is_missing_exactly(size, missing):
    (mask,) = missing_patches(AToPRecipe(), size, sample_draws(200))
    assert mask.shape == (200, 1, size, size)
    assert cells(mask, 4).sum(1).unique().tolist() == [missing]


def test_every_patch_is_missing_equally_often_and_each_sample_has_its_own():
    (mask,) = missing_patches(AToPRecipe(), 32, sample_draws(4000))
    share = cells(mask, 4).mean(0)
    assert (share - 0.25).abs().max() < 0.04  # five standard deviations
    assert len(cells(mask, 4)[:50].unique(dim=0)) == 50
    pair = (cells(mask, 4)[0::2] * cells(mask, 4)[1::2]).mean()
    assert pair.item() == pytest.approx(0.0625, abs=0.002)  # neighbours in a batch are independent


@pytest.mark.parametrize("masks", [2, 4, 5])
def test_the_masks_of_rt3_are_disjoint_and_cover_the_image(masks):
    recipe = AToPRecipe(transform="rt3", masks=masks)
    made = missing_patches(recipe, 28, sample_draws(20))
    assert len(made) == masks
    assert torch.equal(torch.stack(made).sum(0), torch.ones(20, 1, 28, 28))
    counts = [cells(mask, 4).sum(1).unique().tolist() for mask in made]
    assert all(len(count) == 1 and count[0] in (49 // masks, 49 // masks + 1) for count in counts)


def test_the_transform_is_noise_then_clipping_then_mid_grey_patches():
    defense = built(transform="rt2")
    seen: list[tuple[Tensor, Tensor]] = []
    defense.generator = Recorder(seen)
    x, draws = torch.full((400, 1, 8, 8), 0.5), sample_draws(400)
    defense.purify(x, draws)
    ((sight, mask),) = seen
    assert sight[mask == 1].unique().tolist() == [0]
    kept = sight[mask == 0]
    assert kept.min() >= -1
    assert kept.max() <= 1
    # Twice the noise of 0.25, clipped at two standard deviations: 0.5 * 0.9594.
    assert kept.std().item() == pytest.approx(0.4797, abs=0.01)
    seen.clear()
    quiet = built(transform="rt1")
    quiet.generator = defense.generator
    quiet.purify(torch.full((5, 1, 8, 8), 0.75), sample_draws(5))
    assert seen[0][0][seen[0][1] == 0].unique().tolist() == [0.5]


def test_rt3_keeps_of_each_completion_what_was_missing():
    defense = built(transform="rt3")
    seen: list[tuple[Tensor, Tensor]] = []
    defense.generator = Recorder(seen)
    image = defense.purify(torch.rand(6, 1, 8, 8), sample_draws(6))
    for i, (_, mask) in enumerate(seen, 1):
        assert image[mask == 1].unique().tolist() == [i / 8]


@pytest.mark.parametrize("purifier", ["gan", "mae"])
@pytest.mark.parametrize("transform", ["rt1", "rt2", "rt3"])
def test_randomness_comes_from_the_draws_alone_and_belongs_to_the_sample(purifier, transform):
    defense = built(purifier=purifier, transform=transform)
    x, _, rows = digits.held_out(12)
    draws = Draws(rows, 7)
    with torch.no_grad():
        torch.manual_seed(1)
        logits = defense(x, draws)
        torch.manual_seed(2)
        assert torch.equal(defense(x, draws), logits)
        assert not torch.allclose(defense(x, draws.at("other")), logits)
        order = torch.tensor([9, 2, 5])
        assert torch.allclose(defense(x[order], draws.rows(order)), logits[order], atol=1e-5)
        image = defense.purify(x, draws)
    assert image.shape == x.shape
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.mark.parametrize("purifier", ["gan", "mae"])
def test_the_stand_ins_are_exact_forward_and_autograd_reaches_the_image(purifier):
    defense = built(purifier=purifier)
    x, _, rows = digits.held_out(6)
    draws, gradients = Draws(rows), {}
    assert set(defense.surrogates()) == set(defense.stand_ins)
    for name, stand_in in defense.surrogates().items():
        leaf = x.clone().requires_grad_()
        logits = stand_in(leaf, draws)
        assert torch.equal(logits.detach(), defense(x, draws))
        (gradients[name],) = torch.autograd.grad(logits.square().sum(), leaf)
        assert gradients[name].abs().sum() > 0
    (mask,) = missing_patches(defense.recipe, 8, draws)
    assert gradients["autograd"][mask == 1].abs().max() == 0  # what is not seen has no gradient
    assert gradients["identity"][mask == 1].abs().max() > 0


def test_the_masked_autoencoder_sees_visible_patches_only():
    torch.manual_seed(0)
    net = MaskedAutoencoder(1, 8, patch=2, width=32, depth=1).eval()
    x, (mask,) = torch.rand(3, 1, 8, 8), missing_patches(AToPRecipe(patch=2), 8, sample_draws(3))
    with torch.no_grad():
        (image,) = net(x, mask)
        assert torch.equal(net(x + 5 * mask, mask)[0], image)
        assert not torch.equal(net(x + 0.1 * (1 - mask), mask)[0], image)


def test_a_gated_convolution_of_a_case_computed_by_hand():
    layer = GatedConv(1, 1, 1)
    layer.conv.weight.data = torch.tensor([2.0, 3.0]).view(2, 1, 1, 1)
    layer.conv.bias.data = torch.zeros(2)  # type: ignore[union-attr]
    out = layer(torch.tensor([[[[1.0, -1.0]]]]))
    expected = [2 / (1 + torch.tensor(-3.0).exp()), (torch.tensor(-2.0).exp() - 1) / (1 + torch.tensor(3.0).exp())]
    assert out.flatten().tolist() == pytest.approx([float(e) for e in expected])


def test_the_discriminators_weights_have_a_spectral_norm_of_one():
    torch.manual_seed(0)
    net = SNPatchGAN(1, 28, width=8)
    x, mask = torch.rand(4, 1, 28, 28), torch.zeros(4, 1, 28, 28)
    for _ in range(200):  # each pass in training mode is one power iteration
        scores = net(x, mask)
    assert scores.shape == (4, 32 * 16)
    for layer in net.layers[::2]:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)


def batch_at(defense: AToP, progress: float, n: int = 16) -> Batch:
    x, y, rows = digits.held_out(n)
    batch = Batch(x, y, Draws(rows), progress, BALL)
    return Batch(x, y, Draws(rows), progress, BALL, defense.prepare(batch))


def spied(defense: AToP, progress: float) -> tuple[list[Tensor], Batch, dict[str, Tensor]]:
    """What the generator is asked to complete in one step, and the generator's loss terms."""
    seen: list[Tensor] = []
    complete = defense._complete
    defense._complete = lambda x, mask, draws: seen.append(x) or complete(x, mask, draws)  # type: ignore[method-assign]
    batch = batch_at(defense, progress)
    return seen, batch, dict(defense.losses(batch)["generator"])


def test_training_perturbations_are_fgsm_on_the_classifier_alone():
    defense = built()
    batch = batch_at(defense, 0.0)
    leaf = batch.x.clone().requires_grad_()
    torch.nn.functional.cross_entropy(defense.classifier(leaf), batch.y).backward()
    expected = (batch.x + 0.3 * leaf.grad.sign()).clamp(0, 1)
    assert torch.allclose(batch.prepared["fgsm"], expected, atol=1e-6)


def test_pretraining_restores_clean_images_and_fine_tuning_adds_the_classification():
    seen, batch, terms = spied(built(), 0.49)
    assert len(seen) == 1
    assert seen[0] is batch.x
    assert terms["classification"] == 0
    seen, batch, terms = spied(built(), 0.5)
    assert len(seen) == 1
    assert seen[0] is batch.prepared["fgsm"]
    assert terms["classification"] > 0
    seen, batch, terms = spied(built(consistency="clean"), 0.5)
    assert [x is y for x, y in zip(seen, (batch.x, batch.prepared["fgsm"]), strict=True)] == [True, True]
    assert {"l1 of stage 1", "l1 of stage 2", "adversarial"} < set(terms)


def test_squared_errors_are_for_pretraining_alone():
    x = digits.held_out(16)[0]
    grey = (2 * x - 1).square().mean()
    defense = built(restoring="l2", purifier="mae")
    defense.generator = Recorder([(x, x)] * 3)  # its next image is 0 everywhere
    assert spied(defense, 0.1)[2]["l2 of stage 1"].item() == pytest.approx(grey.item(), rel=1e-5)
    assert "l1 of stage 1" in spied(defense, 0.9)[2]


def test_lambda_scales_the_classification_loss():
    once, twice = (spied(built(lambda_classification=v), 0.9)[2]["classification"] for v in (0.05, 0.1))
    assert twice.item() == pytest.approx(2 * once.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("detach", "progress", "moves"), [(False, 0.9, True), (True, 0.9, False), (True, 0.1, True)]
)
def test_the_discriminator_moves_the_generator_unless_detached(detach, progress, moves):
    defense = built(detach_gan=detach).requires_grad_()
    defense.classifier.requires_grad_(False)
    term = defense.losses(batch_at(defense, progress))["generator"]["adversarial"]
    assert term.requires_grad == moves


@pytest.mark.parametrize("purifier", ["gan", "mae"])
def test_a_short_training_restores_better_and_leaves_the_classifier_alone(purifier, tmp_path):
    defense = built(purifier=purifier, epochs=6, batch_size=20, learning_rate=3e-3)
    history = trained(defense, BALL)
    last = "l1 of stage 2" if purifier == "gan" else "l1 of stage 1"
    assert history[2][last] < 0.8 * history[0][last]  # before fine-tuning changes the task
    assert comes_back(defense, SPEC, tmp_path)


def test_sizes_that_do_not_fit_are_refused_with_the_remedy():
    with pytest.raises(RequestError, match=r"divisible by 4, got 30; resize the images to 28"):
        DeepFill(1, 30)
    with pytest.raises(RequestError, match=r"patch of 4 pixels, got 30; .* resize the images to 28"):
        MaskedAutoencoder(1, 30)
    with pytest.raises(RequestError, match=r"images of 8 pixels into patches of 3; set patch to one of 1, 2, 4"):
        built(patch=3)
    with pytest.raises(RequestError, match=r"atop.missing_rate = 1.5 does not fit"):
        AToP.configure(missing_rate=1.5)


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3)])
def test_the_full_width_generator_fits_the_usual_images(size, channels):
    x, mask = torch.zeros(1, channels, size, size), torch.ones(1, 1, size, size)
    with torch.no_grad():
        coarse, refined = DeepFill(channels, size)(x, mask)
    assert coarse.shape == refined.shape == x.shape


def test_attention_fills_a_missing_cell_from_its_twin():
    torch.manual_seed(0)
    half = torch.randn(1, 16, 5, 4)
    maps, mask = torch.cat([half, half], 3), torch.zeros(1, 1, 20, 32)
    mask[0, 0, 9, 21] = 1  # one pixel of the cell (2, 5), whose twin is (2, 1)
    maps[..., 2, 5] *= 3  # a cosine does not mind
    found = contextual_attention(maps, mask, scale=1000.0)
    assert torch.allclose(found, torch.cat([half, half], 3), atol=1e-4)
    assert not contextual_attention(maps, torch.ones_like(mask)).any()


def test_likeness_of_neighbours_counts_as_in_the_paper():
    h, w = 3, 4
    s = torch.randn(2, h * w, h * w, dtype=torch.float64)
    whole = s.view(2, h, w, h, w)
    across, expected = torch.zeros_like(whole), torch.zeros_like(whole)
    for r, c, i, j in itertools.product(range(h), range(w), range(h), range(w)):
        for d in (-1, 0, 1):
            if 0 <= c + d < w and 0 <= j + d < w:
                across[:, r, c, i, j] += whole[:, r, c + d, i, j + d]
    for r, c, i, j in itertools.product(range(h), range(w), range(h), range(w)):
        for d in (-1, 0, 1):
            if 0 <= r + d < h and 0 <= i + d < h:
                expected[:, r, c, i, j] += across[:, r + d, c, i + d, j]
    assert torch.allclose(_with_neighbours(s, h, w), expected.view_as(s))


def test_the_second_branch_is_there_when_it_is_wanted():
    plain, full = (DeepFill(3, 32, width=8, attention=wanted) for wanted in (False, True))
    assert not any("atten" in name for name, _ in plain.named_parameters())
    x, mask = torch.randn(2, 3, 32, 32, requires_grad=True), torch.zeros(2, 1, 32, 32)
    mask[:, :, :4, :4] = 1
    _, refined = full(x, mask)
    (gradient,) = torch.autograd.grad(refined.sum(), full.refine.attentive[0].conv.weight)
    assert gradient.isfinite().all()
    assert gradient.any()
