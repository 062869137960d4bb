"""The parts of CARSO's conditional variational autoencoder (Ballarin et al., arXiv:2306.06081).

Two designs, both the authors' own. The *dense* one of 2023 flattens what it is given of the classifier; it is the
one they used on MNIST. The *convolutional* one (2024 on) compresses every map by convolutions of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from benchbox import ImageSpec, RequestError
from benchbox.nets import Normalize

#: Channels of the convolutional decoder from its smallest map to its largest.
WIDTHS = (256, 256, 128, 64, 32)


class DenseCompressor(nn.Module):
    """All layer outputs, flattened, through two linear layers: the condition c in (0, 1).

    Args:
        shapes: Shape of each layer's output for one image.
        code: r, the length of c; the layer before has twice as many units.
    """

    def __init__(self, shapes: Sequence[torch.Size], code: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(sum(math.prod(shape) for shape in shapes), 2 * code),
            nn.LeakyReLU(),
            nn.BatchNorm1d(2 * code),
            nn.Linear(2 * code, code),
            nn.LeakyReLU(),
            nn.BatchNorm1d(code),
            nn.Sigmoid(),
        )

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        """The outputs of the layers, each (N, ...) -> c (N, r)."""
        return self.layers(torch.cat([output.flatten(1) for output in outputs], 1))  # type: ignore[no-any-return]


class ConvolutionalCompressor(nn.Module):
    """Each map through convolutions of its own, each of which halves its channels; then one linear layer.

    As in the paper the 3×3 convolutions take a border of one off the map; where that would leave less than 2×2
    they are padded instead, which the 4×4 maps of a ResNet-18 need and those of a Wide ResNet do not.

    Args:
        shapes: Shape (C, H, W) of each layer's output for one image.
        code: The length of c.
        stages: Convolutions a map: 3 for images of 32 pixels, 4 for 64.

    Raises:
        RequestError: A layer's output is no map.
    """

    def __init__(self, shapes: Sequence[torch.Size], code: int, *, stages: int = 3) -> None:
        super().__init__()
        self.maps = nn.ModuleList()
        total = 0
        for shape in shapes:
            if len(shape) != 3:
                raise RequestError(
                    f"a convolutional compressor needs layers whose outputs are (C, H, W), got {tuple(shape)}; "
                    "record convolutions only, or use the dense compressor"
                )
            channels, size = shape[0], shape[1]
            layers: list[nn.Module] = []
            for _ in range(stages):
                padding = 0 if size >= 4 else 1
                layers += _block(channels, -(-channels // 2), stride=1, padding=padding)
                channels, size = -(-channels // 2), size - 2 + 2 * padding
            self.maps.append(nn.Sequential(*layers, nn.Flatten()))
            total += channels * size**2
        self.join = nn.Sequential(nn.Linear(total, code, bias=False), nn.BatchNorm1d(code), nn.LeakyReLU(0.2))

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        """The outputs of the layers, each (N, C, H, W) -> c (N, code)."""
        codes = [net(output) for net, output in zip(self.maps, outputs, strict=True)]
        return self.join(torch.cat(codes, 1))  # type: ignore[no-any-return]


class Posterior(nn.Module):
    """q(z | x, c), needed in training only: two convolutions for the image, one layer for image and c, two heads.

    The authors' older code speaks of a "detail size" of 4 for its small convolution; taken for its last channels.

    Args:
        images: What images look like; they are normalised first.
        code: Length of c.
        hidden: Units of the joint layer.
        latent: Length of z.
        tanh: The joint layer of the dense design (bias and tanh) instead of the convolutional one's.
    """

    def __init__(self, images: ImageSpec, *, code: int, hidden: int, latent: int, tanh: bool) -> None:
        super().__init__()
        channels, quarter = images.channels, (images.size + 3) // 4
        self.image = nn.Sequential(
            Normalize(images),
            *_block(channels, 2 * channels, stride=2, padding=1),
            *_block(2 * channels, 4 * channels, stride=2, padding=1),
            nn.Flatten(),
        )
        joint = 4 * channels * quarter**2 + code
        self.joint = (
            nn.Sequential(nn.Linear(joint, hidden), nn.Tanh())
            if tanh
            else nn.Sequential(nn.Linear(joint, hidden, bias=False), nn.BatchNorm1d(hidden), nn.LeakyReLU(0.2))
        )
        self.mean, self.log_variance = nn.Linear(hidden, latent), nn.Linear(hidden, latent)

    def forward(self, x: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) in [0, 1] and c -> mean and log-variance of z, each (N, latent)."""
        joint = self.joint(torch.cat([self.image(x), code], 1))
        return self.mean(joint), self.log_variance(joint)


class DenseDecoder(nn.Module):
    """(z, c) as one pixel of many channels, doubled in size by 4×4 transposed convolutions up to the image.

    28 is reached as the authors do, 1 → 4 → 8 → 14 → 28: where half a size is odd, that stage falls two short
    of doubling. The channels halve with each stage.

    Args:
        inputs: Length of z and c together.
        channels: Of the images.
        size: Their height and width, even.
        norm: Batch norm after every convolution, as the authors have it on CIFAR and not on MNIST.

    Raises:
        RequestError: The size is odd or less than 4.
    """

    def __init__(self, inputs: int, channels: int, size: int, *, norm: bool = False) -> None:
        super().__init__()
        sizes = decoder_sizes(size)
        widths = [max(inputs // 2**i, 8) for i in range(1, len(sizes))] + [channels]
        layers: list[nn.Module] = [nn.Unflatten(1, (inputs, 1, 1)), nn.ConvTranspose2d(inputs, widths[0], 4)]
        for (before, after), (inside, outside) in zip(pairwise(sizes), pairwise(widths), strict=True):
            layers += [*_norm(norm, inside), nn.LeakyReLU()]
            layers.append(nn.ConvTranspose2d(inside, outside, 4, stride=2, padding=1 + (2 * before - after) // 2))
        self.layers = nn.Sequential(*layers, *_norm(norm, channels), nn.Sigmoid())

    def forward(self, inputs: Tensor) -> Tensor:
        """z and c (N, inputs) -> images (N, C, H, W) in [0, 1]."""
        return self.layers(inputs)  # type: ignore[no-any-return]


class ConvolutionalDecoder(nn.Module):
    """z and c through a linear layer to a small map, doubled four times by 3×3 transposed convolutions.

    3 → 5 → 9 → 17 → 33 → 32 for images of 32 pixels; a sixteenth of the size, doubled, for others.

    Args:
        inputs: Length of z and c together.
        channels: Of the images.
        size: Their height and width, divisible by 16.

    Raises:
        RequestError: It is not.
    """

    def __init__(self, inputs: int, channels: int, size: int) -> None:
        super().__init__()
        if size < 16 or size % 16:
            raise RequestError(
                "the convolutional decoder doubles its maps four times and needs images whose size is divisible "
                f"by 16, got {size}; use the dense compressor or resize the images to {max(16, size - size % 16)}"
            )
        first, extra, kernel = (3, 0, 2) if size == 32 else (size // 16, 1, 3)
        layers: list[nn.Module] = [
            nn.Linear(inputs, WIDTHS[0] * first**2),
            nn.LeakyReLU(0.2),
            nn.Unflatten(1, (WIDTHS[0], first, first)),
        ]
        for inside, outside in pairwise(WIDTHS):
            double = nn.ConvTranspose2d(inside, outside, 3, 2, padding=1, output_padding=extra, bias=False)
            layers += [double, nn.BatchNorm2d(outside), nn.LeakyReLU(0.2)]
        layers += [nn.ConvTranspose2d(WIDTHS[-1], channels, kernel, padding=1), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """z and c (N, inputs) -> images (N, C, H, W) in [0, 1]."""
        return self.layers(inputs)  # type: ignore[no-any-return]


def decoder_sizes(size: int) -> list[int]:
    """The sizes of the dense decoder's maps from 4 to `size`: [4, 8, 14, 28], or [4, 8, 16, 32].

    Raises:
        RequestError: The size is odd or less than 4.
    """
    if size < 4 or size % 2:
        raise RequestError(
            f"the dense decoder doubles its maps and needs images of an even size of at least 4, got {size}; "
            f"resize the images to {max(4, size - size % 2)}"
        )
    sizes = [size]
    while sizes[0] > 4:
        half = sizes[0] // 2
        sizes.insert(0, half + half % 2)
    return sizes


def _block(inside: int, outside: int, *, stride: int, padding: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inside, outside, 3, stride, padding, bias=False)
    return [convolution, nn.BatchNorm2d(outside), nn.LeakyReLU(0.2)]


def _norm(wanted: bool, channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels)] if wanted else []
