"""Networks: images (N, C, H, W) float32 in [0, 1] -> logits (N, K), normalisation inside.

    lenet5        LeNet-5 as advertorch has it; for 28×28 grey images
    smallcnn      the network of TRADES on MNIST; for 28×28 grey images
    mishcnn       the network of CARSO's authors on MNIST; for grey images
    resnet18      ResNet-18 with the CIFAR stem
    resnet18-16   its first stage has 16 channels, not 64: a sixteenth of the operations; any resnet18-WIDTH
    densenet121   DenseNet-121 with the CIFAR stem
    wrn-28-10     Wide ResNet, 28 layers, 10 times as wide; any wrn-DEPTH-WIDTH

Networks that one defence alone uses lie beside that defence.
"""

from __future__ import annotations

import re

from torch import nn

from benchbox.domain import ImageSpec
from benchbox.errors import RequestError, unknown
from benchbox.nets.normalize import Normalize as Normalize

NAMES = ("lenet5", "smallcnn", "mishcnn", "resnet18", "resnet18-16", "densenet121", "wrn-28-10")


def build(name: str, images: ImageSpec) -> nn.Module:
    """A network with fresh random weights, drawn from torch's global generator.

    Args:
        name: One of `NAMES`, `resnet18-WIDTH` or `wrn-DEPTH-WIDTH`.
        images: What it is built for; its mean and standard deviation are what the network normalises with.

    Raises:
        RequestError: There is no such network, or it cannot be built for such images.
    """
    # torchvision takes a second to import, hence only on demand.
    if name == "lenet5":
        from benchbox.nets.lenet import LeNet5

        return LeNet5(images)
    if name == "smallcnn":
        from benchbox.nets.small_cnn import SmallCNN

        return SmallCNN(images)
    if name == "mishcnn":
        from benchbox.nets.mish_cnn import MishCNN

        return MishCNN(images)
    if name == "resnet18":
        from benchbox.nets.torchvision_nets import resnet18

        return resnet18(images)
    if narrow := re.fullmatch(r"resnet18-(\d{1,3})", name):
        from benchbox.nets.torchvision_nets import NarrowResNet18

        return NarrowResNet18(images, width=int(narrow[1]))
    if name == "densenet121":
        from benchbox.nets.torchvision_nets import densenet121

        return densenet121(images)
    if wide := re.fullmatch(r"wrn-(\d{1,4})-(\d{1,3})", name):
        from benchbox.nets.wide_resnet import WideResNet

        return WideResNet(images, depth=int(wide[1]), widen=int(wide[2]))
    raise unknown("network", name, NAMES)


def head(network: nn.Module) -> nn.Linear:
    """The last linear layer: its input are the penultimate features, its output the logits.

    In a network that is not from here, the linear layer that was registered last is taken for it.

    Raises:
        RequestError: The network has no linear layer.
    """
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise RequestError(
            f"{type(network).__name__} has no nn.Linear, so no penultimate features; use a network that "
            "ends in one"
        )
    return linear[-1]
