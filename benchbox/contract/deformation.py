"""Threat models that are no ball of images: pixels that move, colours that change.

What is bounded there are the parameters of a deformation. An attack is handed these parameters in the place of the
image, scaled to [0, 1], an L∞ ball of radius 1/2 around 1/2, and the model behind the deformation in the place of
the model. So every attack that searches L∞ balls searches these, and what it finds is inside by construction.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from benchbox.contract import color
from benchbox.domain import Norm, ThreatModel

#: The ball of parameters that an attack is handed.
BALL = ThreatModel("linf", 0.5)


class Deformation(ABC):
    """What may be done to some images; parameters (n, P, Q, R) in [0, 1], 1/2 throughout leaves an image as it is.

    Args:
        x: (n, C, H, W) the images.
        epsilon: What a parameter of 0 or 1 stands for.
    """

    def __init__(self, x: Tensor, epsilon: float) -> None:
        self.x = x
        self.epsilon = epsilon

    def rows(self, keep: Tensor) -> Self:
        """The same for some of the images."""
        return type(self)(self.x[keep], self.epsilon)

    def still(self) -> Tensor:
        """The parameters that change nothing."""
        return torch.full((len(self.x), *self.shape()), 0.5, device=self.x.device)

    def length(self, parameters: Tensor) -> Tensor:
        """(n,) float64: the largest parameter of each image, in the units of epsilon."""
        return (2 * self.epsilon * (parameters - 0.5).flatten(1).abs().amax(1)).double().cpu()

    def __call__(self, parameters: Tensor) -> Tensor:
        """The deformed images (m n, C, H, W) for m sets of parameters, one below the other. Differentiable."""
        copies = len(parameters) // max(len(self.x), 1)
        x = self.x if copies == 1 else self.x.repeat(copies, 1, 1, 1)
        return self.deform(x, (2 * parameters - 1) * self.epsilon)

    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Of the parameters of one image."""

    @abstractmethod
    def deform(self, x: Tensor, change: Tensor) -> Tensor:
        """Images in [0, 1], by parameters in [-epsilon, epsilon]."""


class Flow(Deformation):
    """Each pixel is taken from a place up to epsilon pixels away in each direction, between pixels bilinearly.

    C. Xiao, J.-Y. Zhu, B. Li, W. He, M. Liu, D. Song. Spatially Transformed Adversarial Examples. ICLR 2018
    (arXiv 1801.02612), Eq. 1. The authors keep flows smooth by a penalty; here as in the evaluations that give a
    bound (Laidlaw, Singla & Feizi, ICLR 2021) the bound alone counts, and no penalty holds the attacker back.
    """

    def shape(self) -> tuple[int, int, int]:
        """Down and to the right, for each pixel."""
        return 2, *self.x.shape[2:]

    def deform(self, x: Tensor, change: Tensor) -> Tensor:
        """Beyond the border lies the border."""
        height, width = x.shape[2:]
        down = torch.arange(height, device=x.device)[:, None] + change[:, 0]
        right = torch.arange(width, device=x.device) + change[:, 1]
        place = torch.stack([down.clamp(0, height - 1), right.clamp(0, width - 1)], 1).flatten(2)
        return interpolated(x.flatten(2), place, (height, width)).view_as(x)


class Recolor(Deformation):
    """Each colour becomes another, the same wherever it stands, up to epsilon away in each of its coordinates.

    C. Laidlaw, S. Feizi. Functional Adversarial Attacks. NeurIPS 2019 (arXiv 1906.00001), section 3: a function on
    a grid of colours, 16 × 32 × 32 in CIELUV with coordinates scaled to [0, 1], trilinear between its places. As
    with flows the bound alone counts: the authors' penalty on functions that are not smooth is left out. Grey
    images have intensities in the place of colours, on 32 places; that is ours.
    """

    def shape(self) -> tuple[int, int, int]:
        """A change of each coordinate at each place of the grid."""
        grid = self._grid()
        return len(grid), grid[0], torch.Size(grid[1:]).numel()

    def deform(self, x: Tensor, change: Tensor) -> Tensor:
        """What leaves the box [0, 1] is cut off."""
        grid = self._grid()
        if len(grid) == 1:
            return (x + self._moved(x, change, grid)).clamp(0, 1)
        coordinates = color.luv(x)
        new = coordinates + self._moved(coordinates, change, grid)
        # What the way there and back rounds is taken off: no change is none.
        return (x + (color.rgb(new) - color.rgb(coordinates))).clamp(0, 1)

    def _grid(self) -> tuple[int, ...]:
        return (16, 32, 32) if self.x.shape[1] == 3 else (32,)

    @staticmethod
    def _moved(coordinates: Tensor, change: Tensor, grid: tuple[int, ...]) -> Tensor:
        """(n, d, H, W) change of each pixel's coordinates in [0, 1]."""
        sizes = torch.tensor(grid, device=coordinates.device, dtype=coordinates.dtype)[:, None]
        place = coordinates.flatten(2).clamp(0, 1) * (sizes - 1)
        return interpolated(change.flatten(2), place, grid).view_as(coordinates)


#: By the norm of a threat model.
DEFORMATIONS: Mapping[Norm, type[Deformation]] = {"flow": Flow, "recolor": Recolor}


def interpolated(values: Tensor, place: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Values of a grid between its places, linear in each direction. Differentiable in both.

    Args:
        values: (n, C, product of the grid).
        place: (n, d, m) coordinates in [0, size - 1] of each of the d directions.
        grid: Sizes of the d directions.

    Returns:
        (n, C, m).
    """
    lower = place.detach().floor()
    share = place - lower
    total: Tensor | None = None
    for corner in itertools.product((0, 1), repeat=len(grid)):
        index, weight = torch.zeros_like(lower[:, 0]), torch.ones_like(share[:, 0])
        for axis, (side, size) in enumerate(zip(corner, grid, strict=True)):
            index = index * size + (lower[:, axis] + side).clamp_max(size - 1)
            weight = weight * (share[:, axis] if side else 1 - share[:, axis])
        taken = values.gather(2, index.long()[:, None].expand(-1, values.shape[1], -1)) * weight[:, None]
        total = taken if total is None else total + taken
    assert total is not None
    return total
