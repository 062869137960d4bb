"""LeNet-5 as advertorch's examples have it, the network of most purification papers on MNIST."""

from __future__ import annotations

from torch import Tensor, nn

from benchbox.domain import ImageSpec
from benchbox.errors import RequestError


class LeNet5(nn.Module):
    """Two 3×3 convolutions of 32 and 64 channels, each halved by max pooling, then 200 hidden units.

    After advertorch's `LeNet5` (Ding et al. 2019, arXiv:1902.07623), which does not normalise. The sizes
    follow from the images: 648,226 parameters for 28×28 grey images and 10 classes.
    """

    def __init__(self, images: ImageSpec) -> None:
        super().__init__()
        if images.size < 4:
            raise RequestError(f"lenet5 halves images twice and needs at least 4×4 pixels, got {images.size}")
        self.layers = nn.Sequential(
            # ReLU after the pooling: the same logits and the same gradients, from a quarter of the elements.
            nn.Conv2d(images.channels, 32, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * (images.size // 4) ** 2, 200),
            nn.ReLU(),
            nn.Linear(200, images.classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> logits (N, K)."""
        return self.layers(x)  # type: ignore[no-any-return]
