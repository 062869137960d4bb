"""The generator and the discriminator of pix2pix, for small images (Isola et al. 2017, arXiv:1611.07004).

Three departures, measured on MNIST. Group instead of batch normalisation: an output then depends on its own
image alone, in training as well, and there are no running statistics for clean and adversarial batches to
mix in; it reconstructs as well, while no normalisation at all gets stuck on a black image. Weights start as
torch initialises them, not from N(0, 0.02): lower error after 200 steps. Dropout takes its masks from
`Draws`, and only in training mode.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from benchbox import Draws, RequestError


class UNet(nn.Module):
    """The generator: images in, images in [0, 1] out, with skip connections (section 3.2.1 and appendix 6.1).

    4×4 convolutions of stride 2 halve the maps `depth` times, a 3×3 convolution works at the smallest size,
    and transposed ones lead back up; each stage on the way up also sees the maps of its size from the way
    down. Images of 28 pixels are halved twice, to 7.

    Args:
        in_channels: Of the input; say 2 for a grey image and a mask.
        out_channels: Of the output.
        size: Height and width of the images, divisible by 2^depth.
        width: Channels after the first convolution; they double with each halving.
        depth: How often the maps are halved.
        dropout: Share of the activations that is dropped after each stage but the last on the way up, to the
            nearest 1/256.

    Raises:
        RequestError: The size cannot be halved so often, or the dropout is not in [0, 1).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        *,
        width: int = 32,
        depth: int = 2,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        _check_size(size, depth)
        if not 0 <= dropout < 1:
            raise RequestError(f"dropout must be at least 0 and less than 1, got {dropout}")
        self.dropout = dropout
        widths = [width * 2**level for level in range(depth)]
        # The first convolution has neither activation before nor norm after it, as in the paper.
        self.down = nn.ModuleList([nn.Conv2d(in_channels, width, 4, stride=2, padding=1)])
        for inside, outside in pairwise(widths):
            halve = nn.Conv2d(inside, outside, 4, stride=2, padding=1, bias=False)
            self.down.append(nn.Sequential(nn.LeakyReLU(0.2), halve, _Norm(outside)))
        middle = nn.Conv2d(widths[-1], widths[-1], 3, padding=1, bias=False)
        self.up = nn.ModuleList([nn.Sequential(nn.LeakyReLU(0.2), middle, _Norm(widths[-1]))])
        for outside, inside in reversed(list(pairwise(widths))):
            double = nn.ConvTranspose2d(2 * inside, outside, 4, stride=2, padding=1, bias=False)
            self.up.append(nn.Sequential(nn.ReLU(), double, _Norm(outside)))
        self.last = nn.Sequential(
            nn.ReLU(), nn.ConvTranspose2d(2 * width, out_channels, 4, stride=2, padding=1), nn.Sigmoid()
        )

    def forward(self, x: Tensor, dropout: Draws | None = None) -> Tensor:
        """`decode` of `encode`."""
        return self.decode(self.encode(x), dropout)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Images (N, in_channels, H, W) -> the maps after each halving, largest first; free of dropout."""
        maps: list[Tensor] = []
        for stage in self.down:
            x = stage(x)
            maps.append(x)
        return maps

    def decode(self, maps: list[Tensor], dropout: Draws | None = None) -> Tensor:
        """The maps of `encode` -> images (N, out_channels, H, W) in [0, 1].

        One encoding serves any number of decodings, each with a dropout of its own:
        `[net.decode(maps, draws.at("pass", k)) for k in range(2)]`.

        Args:
            maps: What `encode` returned.
            dropout: Where the masks come from; row i belongs to sample i. None for no dropout. In evaluation
                mode there is none in any case.
        """
        x = maps[-1]
        for level, (stage, skip) in enumerate(zip(self.up, reversed(maps), strict=True)):
            x = stage(x)
            if dropout is not None and self.training:
                x = drop(x, self.dropout, dropout.at("dropout", level))
            x = torch.cat([x, skip], dim=1)
        return self.last(x)  # type: ignore[no-any-return]


class PatchGAN(nn.Module):
    """The discriminator: tells, patch by patch, whether one image belongs to another (section 3.2.2).

    With two halvings a logit sees 22×22 pixels, and 28×28 images have 6×6 of them.

    Args:
        channels: Of both images together.
        width: Channels after the first convolution; they double with each halving.
        depth: How often the maps are halved; the images need at least 2^(depth + 1) pixels a side.
    """

    def __init__(self, channels: int, *, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for level in range(1, depth):
            inside, outside = width * 2 ** (level - 1), width * 2**level
            halve = nn.Conv2d(inside, outside, 4, stride=2, padding=1, bias=False)
            layers += [halve, _Norm(outside), nn.LeakyReLU(0.2)]
        layers.append(nn.Conv2d(width * 2 ** (depth - 1), 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, condition: Tensor, image: Tensor) -> Tensor:
        """Two batches of images (N, ·, H, W) in [0, 1] -> logits (N, 1, h, w), high for a real pair."""
        return self.layers(torch.cat([condition, image], dim=1))  # type: ignore[no-any-return]


class _Norm(nn.GroupNorm):
    """Over eight groups of channels, if they divide so.

    It is given them first: where they come last, torch 2.14 is slow at it on a CPU, and far slower in bfloat16.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(8, channels), channels)

    def forward(self, input: Tensor) -> Tensor:
        """Maps (N, C, H, W) -> maps of mean 0 and variance 1 in each group, scaled and shifted."""
        last = input.is_contiguous(memory_format=torch.channels_last)
        found = super().forward(input.contiguous())
        return found.contiguous(memory_format=torch.channels_last) if last else found


def drop(x: Tensor, share: float, draws: Draws) -> Tensor:
    """Inverted dropout. Eight activations share the 64 bits of one draw, which makes its cost negligible."""
    threshold = min(round(share * 256), 255)
    n, channels, height, width = x.shape
    count = channels * height * width
    numbers = draws.bits(-(-count // 8)).view(torch.uint8)[:, :count]
    # Laid out channels-last, which is how these maps usually lie in memory; the numbers do not depend on it.
    keep = (numbers >= threshold).view(n, height, width, channels).permute(0, 3, 1, 2)
    return x * keep * (256 / (256 - threshold))


def _check_size(size: int, depth: int) -> None:
    if depth < 1:
        raise RequestError(f"a U-Net halves its maps at least once, got depth {depth}")
    if size > 0 and size % 2**depth == 0:
        return
    possible = (size & -size).bit_length() - 1 if size > 0 else 0
    remedy = (
        f"use depth {possible}" if possible else f"resize the images to {max(2**depth, size - size % 2**depth)}"
    )
    raise RequestError(
        f"a U-Net of depth {depth} needs images whose size is divisible by {2**depth}, got {size}; {remedy}"
    )
