"""The data sets benchbox knows by name. Standard library only: `benchbox list` must not wait for torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Family = Literal["mnist", "cifar"]


@dataclass(frozen=True)
class Entry:
    """What is known of a data set before it is loaded.

    Attributes:
        name: What the user types.
        summary: One line for lists.
        channels: 1 for grey images, 3 for colour.
        size: Height and width in pixels.
        classes: Number of classes.
        family: Which settings attacks and recipes fall back to.
        train: Images in the published training set.
        test: Images in the published test set.
    """

    name: str
    summary: str
    channels: int
    size: int
    classes: int
    family: Family
    train: int
    test: int


KNOWN: Mapping[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("digits", "small hand-written digits, 28×28, no download", 1, 28, 10, "mnist", 1437, 360),
        Entry("mnist", "hand-written digits", 1, 28, 10, "mnist", 60_000, 10_000),
        Entry("fashion-mnist", "articles of clothing", 1, 28, 10, "mnist", 60_000, 10_000),
        Entry("cifar10", "small photographs, 10 classes", 3, 32, 10, "cifar", 50_000, 10_000),
        Entry("cifar100", "small photographs, 100 classes", 3, 32, 100, "cifar", 50_000, 10_000),
        Entry("svhn", "house numbers in street photographs", 3, 32, 10, "cifar", 73_257, 26_032),
        Entry("imagenette", "10 ImageNet classes, cropped to 160×160", 3, 160, 10, "cifar", 9_469, 3_925),
    )
}

#: Customary radii of images in [0, 1] in norms other than a data set's own. Others are named by the request.
RADIUS: Mapping[str, Mapping[str, float]] = {
    "l2": {"cifar10": 0.5},  # RobustBench, AutoAttack
    "l1": {
        "mnist": 10.0,  # Tramèr & Boneh, NeurIPS 2019; Maini et al., ICML 2020
        "cifar10": 12.0,  # Maini et al., ICML 2020; Croce & Hein, ICML 2021
    },
    # Of the half width of an image 0.05, of a colour's coordinates 0.06: the program of Laidlaw et al., ICLR 2021.
    "flow": {"cifar10": 0.8},
    "recolor": {"cifar10": 0.06},
}
