"""Normalisation as the first layer, so that attacks and defences see images in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchbox.domain import ImageSpec


class Normalize(nn.Module):
    """(x - mean) / std per channel, with the training set's statistics; the identity where there are none.

    The statistics are buffers and thus saved with the weights: trained weights keep the ones they were
    trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, images: ImageSpec) -> None:
        super().__init__()
        mean = images.mean or (0.0,) * images.channels
        std = images.std or (1.0,) * images.channels
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> the same shape, in standard deviations from the mean."""
        return (x - self.mean) / self.std
