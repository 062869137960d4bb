"""Random resizing and padding.

C. Xie, J. Wang, Z. Zhang, Z. Ren, A. Yuille. Mitigating Adversarial Effects Through Randomization. ICLR 2018
(arXiv 1711.01991): an image is resized to a random size, put at a random place on a larger canvas of zeros, and
given to a classifier that was trained without any of this. Nothing is trained here.

Departure: the paper enlarges, from 299 to 299…330 pixels on a canvas of 331, for its classifiers take images of
any size. Those here take one size only. So the canvas has the size of the image, and the image shrinks, in the
paper's proportions: 299/331 to 330/331 of the canvas, that is 25 to 27 pixels of 28 and 29 to 31 of 32. This
leaves small images 29 outcomes where the paper has 12,528; `smallest` makes more. Interpolation is bilinear.

Within one draw the defence is a linear map of the image, so plain autograd is exact; what an attacker has to do is
average over draws (Athalye et al. 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import Parameter

from benchbox import Batch, Card, Draws, ImageSpec, Losses, Purifier, Recipe, RequestError, Whole, stand_in


class ResizePadRecipe(Recipe):
    """Hyper-parameters of random resizing and padding, with the paper's proportions as defaults.

    Attributes:
        smallest: Side of the smallest image over that of the canvas, to the nearest pixel.
        largest: Side of the largest, rounded down.
    """

    epochs: Whole = 0
    smallest: float = Field(299 / 331, gt=0, le=1)
    largest: float = Field(330 / 331, gt=0, le=1)


class ResizePad(Purifier[ResizePadRecipe]):
    """Shrink the image to a random size, pad it with zeros at a random place."""

    card = Card("randomized-resize-pad", "random resizing and padding", "Xie et al., ICLR 2018", 2018, "purifier")
    randomized: ClassVar[bool] = True
    # The proportions are the same whatever the size: no data set departs from them.
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, recipe: ResizePadRecipe, images: ImageSpec, classifier: nn.Module) -> None:
        super().__init__(recipe, images, classifier)
        self.sizes = sizes(images.size, recipe)

    def purify(self, x: Tensor, draws: Draws) -> Tensor:
        """Each image in the size and at the place that its own draws choose."""
        canvas = self.images.size
        side = draws.at("size").integers(len(self.sizes)) + self.sizes.start
        room = (canvas - side)[:, None]
        corner = (draws.at("corner").uniform(2) * (room + 1)).long().minimum(room)
        rows, columns = (placement(canvas, side, corner[:, axis]).to(x.dtype) for axis in (0, 1))
        return torch.einsum("nri,ncij,nsj->ncrs", rows, x, columns)

    @stand_in("autograd", "plain autograd through the interpolation and the classifier", exact=True)
    def autograd(self, x: Tensor, draws: Draws) -> Tensor:
        """The defence as it is."""
        return self(x, draws)  # type: ignore[no-any-return]

    def players(self) -> Mapping[str, list[Parameter]]:
        """Nobody."""
        return {}

    def losses(self, batch: Batch) -> Losses:
        """None."""
        return {}


def sizes(canvas: int, recipe: ResizePadRecipe) -> range:
    """The sides an image may get on a canvas, in whole pixels.

    Raises:
        RequestError: There is none.
    """
    found = range(max(1, round(recipe.smallest * canvas)), int(recipe.largest * canvas) + 1)
    if not found:
        raise RequestError(
            f"no whole number of pixels is between {recipe.smallest:g} and {recipe.largest:g} of {canvas}; "
            "lower randomized-resize-pad.smallest"
        )
    return found


def placement(canvas: int, side: Tensor, offset: Tensor) -> Tensor:
    """Bilinear resizing along one axis and padding with zeros, as one matrix a sample.

    The weights are those of `interpolate(mode="bilinear", align_corners=False)`: output pixel r of k lies at
    (r + 1/2) · canvas/k - 1/2 of the input.

    Args:
        canvas: Pixels of the input and of the output.
        side: (N,) int64, pixels k that the input is resized to, at most `canvas`.
        offset: (N,) int64, zeros before them.

    Returns:
        (N, canvas, canvas) float64, output pixels by input pixels; the rows of padding are zero.
    """
    place = torch.arange(canvas, device=side.device, dtype=torch.float64)
    within = place - offset[:, None]
    source = ((within + 0.5) * canvas / side[:, None] - 0.5).clamp(0, canvas - 1)
    weights = (1 - (source[:, :, None] - place).abs()).clamp_min(0)
    inside = (within >= 0) & (within < side[:, None])
    return weights * inside[:, :, None]
