"""The generator and the discriminator of DeepFill v2, for small images (Yu et al. 2019, arXiv:1806.03589).

Gated convolutions, a coarse and a refining stage, and a spectrally normalised PatchGAN, as AToP uses them.
Three departures. **Contextual attention compares single cells**: the paper's images have 256 pixels a side,
their smallest maps 64, and it compares 3×3 patches of those maps, halved once more, that miss no pixel. That is
six cells of 64, hence not quite one of the 8 that an image of 32 pixels has; with a quarter of such an image
missing in random squares, next to no larger patch misses nothing. Dilations that reach beyond the map are left
out, for they would see nothing but padding: 7×7 maps keep 1, 2, 4, 1, 1 of 1, 2, 4, 8, 16, 1, 1. And the
discriminator halves its input down to 4×4 cells, thus three times rather than six.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from benchbox import RequestError

DILATIONS = (1, 2, 4, 8, 16, 1, 1)
#: The second moment of ELU(a) · sigmoid(b) is 0.19 for standard normal a and b; its root undoes that. As torch
#: initialises convolutions, fourteen of these in a row turn every image into the same grey.
GAIN = 2.3


class GatedConv(nn.Module):
    """ELU of one half of a convolution's channels times the sigmoid of the other (section 3.1).

    Args:
        inside: Channels of the input.
        outside: Channels of the output.
        kernel: Its height and width, odd.
        stride: 2 halves an even size.
        dilation: Distance of the kernel's taps.
    """

    def __init__(self, inside: int, outside: int, kernel: int = 3, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(inside, 2 * outside, kernel, stride, padding, dilation)
        nn.init.normal_(self.conv.weight, std=GAIN / math.sqrt(inside * kernel**2))
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, inside, H, W) -> (N, outside, H / stride, W / stride)."""
        value, gate = self.conv(x).chunk(2, 1)
        return F.elu(value) * gate.sigmoid()  # type: ignore[no-any-return]


class DeepFill(nn.Module):
    """The generator: an image with missing pixels and its mask in, a coarse and a refined image out.

    Args:
        channels: Of the images.
        size: Their height and width, divisible by 4.
        width: Channels at half the size; half of them at full size, twice as many at a quarter.
        attention: Whether the refinement has its second branch, with contextual attention.

    Raises:
        RequestError: The size cannot be halved twice.
    """

    def __init__(self, channels: int, size: int, *, width: int = 48, attention: bool = True) -> None:
        super().__init__()
        if size < 4 or size % 4:
            raise RequestError(
                f"deepfill halves its maps twice and needs images whose size is divisible by 4, got {size}; "
                f"resize the images to {max(4, size - size % 4)}"
            )
        dilations = [d for d in DILATIONS if d < max(size // 4, 2)]
        self.coarse = nn.Sequential(*_down(channels + 2, width, dilations), *_up(width, channels))
        self.refine = Refinement(channels, width, dilations, attention=attention)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Complete images.

        Args:
            x: (N, C, H, W) in [-1, 1], 0 where missing.
            mask: (N, 1, H, W), 1 where missing.

        Returns:
            The coarse and the refined image (N, C, H, W) in [-1, 1]; both are regenerated everywhere.
        """
        coarse: Tensor = self.coarse(torch.cat([x, torch.ones_like(mask), mask], 1))
        return coarse, self.refine(coarse * mask + x * (1 - mask), mask)


class Refinement(nn.Module):
    """The second stage: a dilated branch, beside it one with contextual attention, and the way up from both.

    Args:
        channels: Of the images.
        width: As `DeepFill` has it.
        dilations: Of the dilated branch.
        attention: Whether there is a second branch.
    """

    def __init__(self, channels: int, width: int, dilations: list[int], *, attention: bool) -> None:
        super().__init__()
        self.dilated = nn.Sequential(*_down(channels, width, dilations))
        self.attentive = nn.Sequential(*_down(channels, width, [])) if attention else None
        self.attended = nn.Sequential(*(GatedConv(2 * width, 2 * width) for _ in range(2))) if attention else None
        joined = [GatedConv(4 * width, 2 * width)] if attention else []
        self.up = nn.Sequential(*joined, *_up(width, channels))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Coarsely completed images (N, C, H, W) and what was missing (N, 1, H, W) -> refined images."""
        maps = self.dilated(x)
        if self.attentive is not None and self.attended is not None:
            found = contextual_attention(self.attentive(x), mask)
            maps = torch.cat([maps, self.attended(found)], 1)
        return self.up(maps)  # type: ignore[no-any-return]


def contextual_attention(maps: Tensor, mask: Tensor, *, scale: float = 10.0) -> Tensor:
    """Each cell as a mixture of the cells that miss no pixel, the more alike the more (Yu et al. 2018, Eq. 2).

    Likeness is the cosine, and that of neighbours counts as well (Eq. 3): cells next to each other are taken
    from cells next to each other.

    Args:
        maps: (N, C, h, w).
        mask: (N, 1, H, W), 1 where pixels are missing.
        scale: Of the softmax.

    Returns:
        (N, C, h, w); 0 for an image without a single cell that misses nothing.
    """
    n, _, h, w = maps.shape
    known = F.adaptive_max_pool2d(mask, (h, w)).flatten(1) == 0
    cells = maps.flatten(2)
    direction = F.normalize(cells, dim=1)
    likeness = _with_neighbours(direction.transpose(1, 2) @ direction, h, w)
    weight = (scale * likeness).masked_fill(~known[:, None], -torch.inf).softmax(2)
    weight = torch.where(known.any(1).view(n, 1, 1), weight, 0.0)
    return (cells @ weight.transpose(1, 2)).view_as(maps)


def _with_neighbours(likeness: Tensor, h: int, w: int) -> Tensor:
    """Of all pairs of cells (N, h·w, h·w): the sum over both moved left and right, then up and down, by one."""
    n = len(likeness)
    diagonal = torch.eye(3, device=likeness.device, dtype=likeness.dtype).view(1, 1, 3, 3)
    by_row = likeness.view(n, h, w, h, w).transpose(2, 3)  # (N, row, row', column, column')
    across = F.conv2d(by_row.reshape(-1, 1, w, w), diagonal, padding=1).view(n, h, h, w, w)
    by_column = across.permute(0, 3, 4, 1, 2)
    along = F.conv2d(by_column.reshape(-1, 1, h, h), diagonal, padding=1).view(n, w, w, h, h)
    return along.permute(0, 3, 1, 4, 2).reshape_as(likeness)


class SNPatchGAN(nn.Module):
    """The discriminator: 5×5 convolutions of stride 2, each spectrally normalised (section 3.3).

    Every feature of the last map is a score of its own.

    Args:
        channels: Of the images.
        size: Their height and width.
        width: Channels after the first convolution; they double up to four times as many.
    """

    def __init__(self, channels: int, size: int, *, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inside, factor = channels + 1, 1
        while size > 4 or not layers:
            outside = width * min(factor, 4)
            halve = spectral_norm(nn.Conv2d(inside, outside, 5, stride=2, padding=2))
            layers += [halve, nn.LeakyReLU(0.2)]
            inside, factor, size = outside, 2 * factor, -(-size // 2)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] and their masks (N, 1, H, W) -> scores (N, S), high for real images."""
        return self.layers(torch.cat([x, mask], 1)).flatten(1)  # type: ignore[no-any-return]


def _down(inside: int, width: int, dilations: list[int]) -> list[nn.Module]:
    return [
        GatedConv(inside, width // 2, 5),
        GatedConv(width // 2, width, stride=2),
        GatedConv(width, width),
        GatedConv(width, 2 * width, stride=2),
        GatedConv(2 * width, 2 * width),
        *(GatedConv(2 * width, 2 * width, dilation=d) for d in dilations),
    ]


def _up(width: int, channels: int) -> list[nn.Module]:
    return [
        nn.Upsample(scale_factor=2),
        GatedConv(2 * width, width),
        GatedConv(width, width),
        nn.Upsample(scale_factor=2),
        GatedConv(width, width // 2),
        GatedConv(width // 2, width // 4),
        nn.Conv2d(width // 4, channels, 3, padding=1),
        nn.Tanh(),
    ]
