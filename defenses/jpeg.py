"""JPEG compression.

C. Guo, M. Rana, M. Cissé, L. van der Maaten. Countering Adversarial Images Using Input Transformations. ICLR 2018
(arXiv 1711.00117): the image is compressed and decompressed at quality 75, then classified. Nothing is trained
here; the paper's networks that were trained on compressed images are left out.

The codec is baseline JPEG (ITU-T T.81), in torch so that it runs in batches on any device: eight-bit pixels,
YCbCr, chroma at half the resolution, 8×8 cosine transform, the tables of Annex K scaled as in libjpeg. What is
left out is the entropy coding, which loses nothing. Grey images have luminance alone.

What white-box access means here: rounding has a derivative of zero, so plain autograd through the deployed defence
is *exactly zero*, and a gradient attack stays where it started. Such a white-box number says nothing about the
robustness. No stand-in is exact, for there is no useful derivative to be exact about; the number that counts is
the worst case over the stand-ins (BPDA; Athalye et al. 2018) and the black-box attacks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn import Parameter

from benchbox import Batch, Card, Draws, ImageSpec, Losses, Purifier, Recipe, Whole, stand_in, straight_through

#: Table K.1 of ITU-T T.81: steps of the luminance coefficients at quality 50.
LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
#: Table K.2: chrominance; 99 where it is not listed.
CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99),
    *[99] * 32,
)
#: RGB to Y, Cb, Cr (ITU-R BT.601, full range, as in JFIF).
TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)

#: Rounds coefficients, in units of their step.
Rounding = Callable[[Tensor], Tensor]


class JPEGRecipe(Recipe):
    """Hyper-parameters of the compression.

    Attributes:
        quality: libjpeg's, 1 to 100; 75 in the paper.
        chroma: `4:2:0`, half the resolution along both axes as encoders do at this quality, or `4:4:4`, all of it.
            The paper does not say; `4:2:0` is what its encoder does unless told otherwise.
    """

    epochs: Whole = 0
    quality: int = Field(75, ge=1, le=100)
    chroma: Literal["4:2:0", "4:4:4"] = "4:2:0"


class JPEG(Purifier[JPEGRecipe]):
    """Compress and decompress the image."""

    card = Card("jpeg", "JPEG compression", "Guo et al., ICLR 2018", 2018, "purifier")
    # Quality 75 for all: the paper has one setting.
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    steps: Tensor
    basis: Tensor
    colours: Tensor
    colours_back: Tensor

    def __init__(self, recipe: JPEGRecipe, images: ImageSpec, classifier: nn.Module) -> None:
        super().__init__(recipe, images, classifier)
        self.halved = images.channels == 3 and recipe.chroma == "4:2:0"
        tables = [LUMINANCE] if images.channels == 1 else [LUMINANCE, CHROMINANCE, CHROMINANCE]
        # Constants of the codec: they follow from the recipe and are not saved with the weights.
        self.register_buffer("steps", torch.stack([quantisation(t, recipe.quality) for t in tables]), False)
        self.register_buffer("basis", cosine_basis(), False)
        self.register_buffer("colours", torch.tensor(TO_YCBCR), False)
        self.register_buffer("colours_back", self.colours.inverse(), False)

    def purify(self, x: Tensor, draws: Draws) -> Tensor:
        """The decompressed images, on the grid of 1/255."""
        return self._transcode(x, nearest, nearest)

    @stand_in(
        "cubic-rounding", "coefficients are rounded with the derivative 3 (c - round(c))² (Shin & Song 2017)"
    )
    def cubic_rounding(self, x: Tensor, draws: Draws) -> Tensor:
        """A derivative for the rounding of the coefficients."""
        return self.classifier(self._transcode(x, passing, cubic_rounding))  # type: ignore[no-any-return]

    def players(self) -> Mapping[str, list[Parameter]]:
        """Nobody."""
        return {}

    def losses(self, batch: Batch) -> Losses:
        """None."""
        return {}

    def _transcode(self, x: Tensor, pixels: Rounding, coefficients: Rounding) -> Tensor:
        """Through encoder and decoder.

        Args:
            x: (N, C, H, W) in [0, 1].
            pixels: How samples of images are rounded.
            coefficients: How coefficients are, in units of their step.
        """
        planes = pixels(x * 255)
        if planes.shape[1] == 1:
            return pixels(self._blockwise(planes, self.steps, coefficients)).clamp(0, 255) / 255
        centre = self.steps.new_tensor([0, 128, 128]).view(1, 3, 1, 1)
        planes = pixels(torch.einsum("dc,nchw->ndhw", self.colours, planes) + centre)
        luma = pixels(self._blockwise(planes[:, :1], self.steps[:1], coefficients)).clamp(0, 255)
        chroma = self._halved if self.halved else self._blockwise
        planes = torch.cat([luma, pixels(chroma(planes[:, 1:], self.steps[1:], coefficients)).clamp(0, 255)], 1)
        planes = torch.einsum("dc,nchw->ndhw", self.colours_back, planes - centre)
        return pixels(planes).clamp(0, 255) / 255

    def _halved(self, planes: Tensor, steps: Tensor, rounding: Rounding) -> Tensor:
        """As `_blockwise`, at half the resolution along both axes."""
        height, width = planes.shape[2:]
        # Where blocks overlap the edge libjpeg repeats columns before it averages, rows after.
        even = F.pad(planes, (0, -width % 16, 0, height % 2), mode="replicate")
        small = self._blockwise(F.avg_pool2d(even, 2), steps, rounding)[:, :, :, : (width + 1) // 2]
        # Weights 3/4 and 1/4: what libjpeg calls fancy upsampling.
        large = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
        return large[:, :, :height, :width]

    def _blockwise(self, planes: Tensor, steps: Tensor, rounding: Rounding) -> Tensor:
        """Planes (N, P, H, W) in [0, 255] with their coefficients rounded to multiples of `steps` (P, 8, 8)."""
        height, width = planes.shape[2:]
        planes = F.pad(planes, (0, -width % 8, 0, -height % 8), mode="replicate") - 128
        blocks = planes.unflatten(3, (-1, 8)).unflatten(2, (-1, 8))
        frequencies = torch.einsum("ui,npaibj,vj->npabuv", self.basis, blocks, self.basis)
        steps = steps[:, None, None]
        frequencies = rounding(frequencies / steps) * steps
        blocks = torch.einsum("ui,npabuv,vj->npaibj", self.basis, frequencies, self.basis)
        return blocks.flatten(4, 5).flatten(2, 3)[:, :, :height, :width] + 128


def quantisation(table: tuple[int, ...], quality: int) -> Tensor:
    """Steps of the coefficients (8, 8), float32: a table for quality 50, scaled as libjpeg scales it."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return torch.tensor([min(max((step * percent + 50) // 100, 1), 255) for step in table]).float().view(8, 8)


def cosine_basis() -> Tensor:
    """The orthonormal cosine transform (8, 8), float32: row u is the u-th frequency."""
    u, i = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    basis = torch.cos((2 * i + 1) * u * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis.float()


def nearest(value: Tensor) -> Tensor:
    """The nearest integer, halves away from zero; its derivative is zero.

    Exact halves are common: the mean of a block is a sum of integers over a power of two. They are decided on a
    grid of 1/256, so that the last bits, which differ between devices and batch sizes, decide nothing.
    """
    settled = (value * 256).round() / 256
    return settled.sign() * (settled.abs() + 0.5).floor()


def passing(value: Tensor) -> Tensor:
    """`nearest`, with the derivative of the identity."""
    return straight_through(value, nearest(value))


def cubic_rounding(value: Tensor) -> Tensor:
    """`nearest`, with the derivative of round(c) + (c - round(c))³ (Shin & Song 2017)."""
    rounded = nearest(value.detach())
    return straight_through((value - rounded) ** 3, rounded)
