"""The low-frequency attack: filters, optimised for each pixel, in the place of noise that a purifier removes.

A. Kassis, U. Hengartner, Y. Yu. DiffBreak: Is Diffusion-Based Purification Robust? arXiv 2411.16598 (2024), and
their code; the filters come from UnMarker (A. Kassis, U. Hengartner, IEEE S&P 2025).

The image and a modification of it pass through a chain of smoothing filters. Each pixel has kernels of its own,
which are symmetric, sum to 1, and weigh neighbours less whose colour in the clean image differs. Kernels and
modification are optimised together by Adam on the margin.

Departures: the authors keep the image close by a penalty on LPIPS; here it is cut back to the ball, whose border
passes the gradient on; and there is no loss that holds the filters to the median of their surroundings. So it is
a search of the usual balls, and no measurement of theirs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchbox import (
    MEAN_GRADIENT,
    Attack,
    Card,
    Count,
    Draws,
    Nature,
    Positive,
    RequestError,
    ThreatModel,
    View,
    margin,
    straight_through,
)


@dataclass(frozen=True, kw_only=True)
class LowFrequency(Attack):
    """Optimised smoothing filters and a modification, on the margin.

    Attributes:
        steps: Number of steps.
        kernels: Sides of the filters' kernels in pixels, odd.
        rate: Adam's learning rate for the modification, as a share of epsilon.
        kernel_rate: Its learning rate for the logarithms of the kernels.
        sigma_color: Difference of colour from which on a neighbour counts less.
    """

    card = Card("low-frequency", "optimised smoothing filters", paper="Kassis et al., arXiv 2411.16598", year=2024,
                kind="gradient")  # fmt: skip
    nature = Nature("iterative", climbs=("margin",))
    averaging = MEAN_GRADIENT

    steps: Count = 100
    kernels: tuple[Count, ...] = (3, 5)
    rate: Positive = 0.1
    kernel_rate: Positive = 0.1
    sigma_color: Positive = 0.1

    def __post_init__(self) -> None:
        """As of any attack.

        Raises:
            RequestError: A kernel has no pixel in its middle.
        """
        super().__post_init__()
        if even := [side for side in self.kernels if side % 2 == 0]:
            raise RequestError(f"low-frequency.kernels has {even[0]}, which has no middle; use odd numbers")

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """`steps` passes each way; the iterate with the highest margin in its own draws is kept."""
        change = torch.zeros_like(x, requires_grad=True)
        weights = [_nearly_one(x, side).requires_grad_() for side in self.kernels]
        alike = [_likeness(x, side, self.sigma_color) for side in self.kernels]
        adam = torch.optim.Adam(
            [
                {"params": [change], "lr": self.rate * max(threat.epsilon, 1e-12)},
                {"params": weights, "lr": self.kernel_rate},
            ]
        )
        best, highest = x, torch.full(y.shape, -torch.inf, device=x.device)
        for _ in range(self.steps):
            with torch.enable_grad():
                filtered = x + change
                for weight, like in zip(weights, alike, strict=True):
                    filtered = smoothed(filtered, weight, like)
                x_adv = straight_through(filtered, threat.project(filtered.detach(), x))
            gradient, found, _ = model.gradient(x_adv.detach(), lambda logits: margin(logits, y))
            better = found > highest
            best = torch.where(better.view(-1, 1, 1, 1), x_adv.detach(), best)
            highest = torch.where(better, found, highest)
            adam.zero_grad()
            x_adv.backward(-gradient)
            adam.step()
        return best


def smoothed(x: Tensor, weight: Tensor, likeness: Tensor) -> Tensor:
    """Each pixel as the mean of its neighbours, weighed by a kernel of its own.

    Args:
        x: (N, C, H, W).
        weight: (N, q², H, W) logarithms of a quarter of the kernels, whose side is 2q - 1.
        likeness: (N, k², H, W) factors on the weights.

    Returns:
        (N, C, H, W).
    """
    side = round(likeness.shape[1] ** 0.5)
    kernel = weight.softmax(1)[:, _quarter(side)] * likeness
    kernel = kernel / kernel.sum(1, keepdim=True)
    return (_neighbours(x, side) * kernel[:, None]).sum(2)


def _quarter(side: int) -> list[int]:
    """Which of the q² weights each place of a kernel has: the one as far from its middle, across and down."""
    middle, q = side // 2, side // 2 + 1
    return [abs(row - middle) * q + abs(column - middle) for row in range(side) for column in range(side)]


def _nearly_one(x: Tensor, side: int) -> Tensor:
    """Weights of kernels that hardly smooth: a Gaussian of 0.2 pixels, cut below as the authors' is."""
    n, _, height, width = x.shape
    away = torch.arange(side // 2 + 1, device=x.device, dtype=x.dtype)
    distance = away[:, None].square() + away.square()
    logarithm = (-distance.flatten() / (2 * 0.2**2)).clamp_min(math.log(1e-5))
    return logarithm.view(1, -1, 1, 1).expand(n, -1, height, width).clone()


def _likeness(x: Tensor, side: int, sigma: float) -> Tensor:
    """(N, k², H, W): how alike in colour the neighbours of each pixel are."""
    distance = (_neighbours(x, side) - x[:, :, None]).abs().sum(1)
    return (-0.5 * (distance / sigma).square()).exp()


def _neighbours(x: Tensor, side: int) -> Tensor:
    """(N, C, k², H, W) the surroundings of each pixel, reflected at the border."""
    n, channels, height, width = x.shape
    pad = side // 2
    columns = F.unfold(F.pad(x, (pad,) * 4, mode="reflect"), side)
    return columns.view(n, channels, side * side, height, width)
