"""ResNet-18 and DenseNet-121: torchvision's own, with the stem that is customary for 32×32 images.

The ImageNet stem (7×7 convolution of stride 2, then max pooling) would leave 8×8 pixels of a CIFAR image;
it is replaced by one 3×3 convolution of stride 1, initialised the way torchvision initialises its own.
"""

from __future__ import annotations

from typing import Literal

from torch import nn
from torchvision import models

from benchbox.domain import ImageSpec
from benchbox.nets.normalize import Normalize


def resnet18(images: ImageSpec) -> nn.Module:
    """ResNet-18 (He et al. 2016, arXiv:1512.03385): 11,173,962 parameters for CIFAR-10."""
    network: nn.Module = models.resnet18(weights=None, num_classes=images.classes)
    network.conv1 = _stem(images, mode="fan_out")
    network.maxpool = nn.Identity()
    return nn.Sequential(Normalize(images), network)


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
