"""ResNet-18 and DenseNet-121 of torchvision's blocks, with the stem that is customary for 32×32 images.

The ImageNet stem (7×7 convolution of stride 2, then max pooling) would leave 8×8 pixels of a CIFAR image;
it is replaced by one 3×3 convolution of stride 1, initialised the way torchvision initialises its own.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import BasicBlock

from benchbox.domain import ImageSpec
from benchbox.errors import RequestError
from benchbox.nets.normalize import Normalize


def resnet18(images: ImageSpec) -> nn.Module:
    """ResNet-18 (He et al. 2016, arXiv:1512.03385): 11,173,962 parameters for CIFAR-10."""
    network: nn.Module = models.resnet18(weights=None, num_classes=images.classes)
    network.conv1 = _stem(images, mode="fan_out")
    network.maxpool = nn.Identity()
    return nn.Sequential(Normalize(images), network)


class NarrowResNet18(nn.Module):
    """ResNet-18 with stages of 1, 2, 4 and 8 times width channels: 701,466 parameters at width 16 for CIFAR-10.

    Torchvision's has 64 and cannot be built narrower; with 16 a pass takes a sixteenth of its multiplications.

    Args:
        images: What it is built for.
        width: Channels of the first stage.

    Raises:
        RequestError: The width is 0.
    """

    def __init__(self, images: ImageSpec, *, width: int) -> None:
        super().__init__()
        if width < 1:
            raise RequestError(f"there is no resnet18-{width}; the width is at least 1")
        widths = [width * 2**stage for stage in range(4)]
        self.normalize = Normalize(images)
        self.stem = nn.Sequential(
            nn.Conv2d(images.channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.stages = nn.Sequential(
            _stage(width, width, stride=1),
            *(_stage(inside, outside, stride=2) for inside, outside in pairwise(widths)),
        )
        self.linear = nn.Linear(widths[-1], images.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> logits (N, K)."""
        maps = self.stages(self.stem(self.normalize(x)))
        return self.linear(F.adaptive_avg_pool2d(maps, 1).flatten(1))  # type: ignore[no-any-return]


def _stage(inside: int, outside: int, stride: int) -> nn.Sequential:
    # Where the shape changes, the shortcut is a 1×1 convolution (option B of the paper, torchvision's).
    shortcut = None
    if stride > 1:
        shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
    return nn.Sequential(BasicBlock(inside, outside, stride, shortcut), BasicBlock(outside, outside))


def densenet121(images: ImageSpec) -> nn.Module:
    """DenseNet-121 (Huang et al. 2017, arXiv:1608.06993): 6,956,426 parameters for CIFAR-10."""
    network = models.densenet121(weights=None, num_classes=images.classes)
    network.features.conv0 = _stem(images, mode="fan_in")
    network.features.pool0 = nn.Identity()
    return nn.Sequential(Normalize(images), network)


def _stem(images: ImageSpec, mode: Literal["fan_in", "fan_out"]) -> nn.Conv2d:
    convolution = nn.Conv2d(images.channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode=mode, nonlinearity="relu")
    return convolution
