"""Input transformations: the codec against Pillow's, resizing and padding against torch's own functions."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchbox.plugins.defenses.jpeg import CHROMINANCE, JPEG, LUMINANCE, JPEGRecipe, nearest, quantisation
from benchbox.plugins.defenses.resize_pad import ResizePad, ResizePadRecipe, sizes
from PIL import Image
from torch import Tensor, nn

from benchbox import ImageSpec
from benchbox.draws import sample_draws
from benchbox.errors import RequestError


def pictures(n: int, channels: int, size: int) -> Tensor:
    """Smooth shapes with sharp edges, noise on top, on the eight-bit grid."""
    draws = sample_draws(n)
    coarse = draws.at("coarse").uniform(channels, 4, 4)
    smooth = F.interpolate(coarse, size=(size, size), mode="bilinear")
    edges = (F.interpolate(draws.at("edges").uniform(1, 5, 5), size=(size, size)) > 0.7).float()
    noisy = (smooth * (1 - 0.5 * edges) + 0.05 * draws.at("noise").normal(channels, size, size)).clamp(0, 1)
    return (noisy * 255).round() / 255


def codec(channels: int, size: int, **settings) -> JPEG:
    return JPEG(JPEGRecipe(**settings), ImageSpec(channels, size, 10), nn.Flatten())


def pillow(x: Tensor, quality: int, chroma: str) -> Tensor:
    """Encoded and decoded by libjpeg, one image at a time."""
    decoded = []
    for image in (x * 255).round().byte().permute(0, 2, 3, 1).numpy():
        grey = image.shape[2] == 1
        file = io.BytesIO()
        settings = {} if grey else {"subsampling": chroma}
        Image.fromarray(image[:, :, 0] if grey else image).save(file, "JPEG", quality=quality, **settings)
        back = np.asarray(Image.open(file))
        decoded.append(torch.from_numpy(np.array(back)).view(*image.shape).permute(2, 0, 1))
    return torch.stack(decoded).float() / 255


@pytest.mark.parametrize("quality", [10, 50, 75, 95])
@pytest.mark.parametrize(
    ("channels", "chroma"),
    [(1, "4:4:4"), (3, "4:4:4"), (3, "4:2:0")],
)
@pytest.mark.parametrize("size", [28, 32])
def test_the_codec_is_pillows(size: int, channels: int, chroma: str, quality: int) -> None:
    """To 1.25 of 255 levels on average: a coefficient that is rounded the other way moves a block."""
    x = pictures(32, channels, size)
    ours = codec(channels, size, quality=quality, chroma=chroma).purify(x, sample_draws(32))
    levels = (ours - pillow(x, quality, chroma)).abs() * 255
    assert float(levels.mean()) < 1.25
    assert float((levels > 3.5).float().mean()) < 0.07
    assert (x - ours).abs().mean() * 255 > 1.4, "hardly compressed: nothing was tested"


def test_the_tables_are_libjpegs() -> None:
    x = pictures(1, 3, 32)
    for quality in (1, 30, 50, 75, 100):
        file = io.BytesIO()
        Image.fromarray((x[0] * 255).byte().permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        found = Image.open(file).quantization
        for number, table in enumerate((LUMINANCE, CHROMINANCE)):
            assert sorted(found[number]) == sorted(quantisation(table, quality).flatten().int().tolist())


def test_plain_autograd_through_the_codec_is_zero_and_its_stand_ins_are_not() -> None:
    x = pictures(4, 3, 32) * 0.9 + 0.03
    defense, draws = codec(3, 32), sample_draws(4)
    weights = draws.at("weights").normal(3 * 32 * 32)

    def gradient(forward) -> Tensor:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad((forward(leaf, draws) * weights).sum(), leaf)[0]

    assert not gradient(defense).any()
    for name, forward in defense.surrogates().items():
        assert torch.equal(forward(x, draws), defense(x, draws)), name
        assert (gradient(forward) != 0).float().mean() > 0.9, name


def test_halves_are_rounded_away_from_zero_whatever_the_last_bit() -> None:
    halves = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 7.5])
    expected = torch.tensor([1.0, 2, 3, -1, -2, 8])
    for shaken in (halves, halves - 1e-6, halves + 1e-6):
        assert torch.equal(nearest(shaken), expected)
    assert torch.equal(nearest(torch.tensor([0.4, -0.4, 2.0, 3.6])), torch.tensor([0.0, 0, 2, 4]))


def resized(x: Tensor, side: int, top: int, left: int) -> Tensor:
    """One image (C, H, W), by torch's own functions."""
    canvas = x.shape[2]
    small = F.interpolate(x[None], size=(side, side), mode="bilinear", align_corners=False)[0]
    return F.pad(small, (left, canvas - side - left, top, canvas - side - top))


@pytest.mark.parametrize("size", [28, 32])
def test_every_outcome_of_resizing_is_torchs_own_and_as_likely_as_it_should_be(size: int) -> None:
    recipe = ResizePadRecipe()
    defense = ResizePad(recipe, ImageSpec(1, size, 10), nn.Flatten())
    x = pictures(1, 1, size)
    drawn = defense.purify(x.expand(3000, -1, -1, -1), sample_draws(3000))
    sides = sizes(size, recipe)
    assert list(sides) == ([25, 26, 27] if size == 28 else [29, 30, 31])
    found = 0
    for side in sides:
        places = [(top, left) for top in range(size - side + 1) for left in range(size - side + 1)]
        for top, left in places:
            same = (drawn - resized(x[0], side, top, left)).abs().amax((1, 2, 3)) < 1e-5
            share = float(same.float().mean())
            assert share == pytest.approx(1 / len(sides) / len(places), rel=0.5)
            found += int(same.sum())
    assert found == 3000  # and nothing else comes out


def test_each_sample_is_placed_by_its_own_draws() -> None:
    defense = ResizePad(ResizePadRecipe(), ImageSpec(3, 32, 10), nn.Flatten())
    x, draws = pictures(20, 3, 32), sample_draws(20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(defense.purify(x, draws)[order], defense.purify(x[order], draws.rows(order)))


def test_proportions_that_leave_no_pixel_are_refused() -> None:
    with pytest.raises(RequestError, match=r"between 0\.99 and 0\.991 of 28"):
        sizes(28, ResizePadRecipe(smallest=0.99, largest=0.991))
