"""The convolutional network that CARSO's authors defend on MNIST."""

from __future__ import annotations

from torch import Tensor, nn

from benchbox.domain import ImageSpec
from benchbox.errors import RequestError
from benchbox.nets.normalize import Normalize


class MishCNN(nn.Module):
    """Two strided 4×4 convolutions of 16 and 32 channels, then 100 units; Mish and batch normalisation after each.

    After the authors' code of CARSO (Ballarin et al., arXiv 2306.06081, its scripts of 2023), which ends in a
    log-softmax; here the logits go without. What its four weighted layers compute for a 28×28 grey image are the
    4,814 numbers their purifier is conditioned on.
    """

    def __init__(self, images: ImageSpec) -> None:
        super().__init__()
        if images.size % 4:
            raise RequestError(f"mishcnn halves images twice and needs a multiple of 4 pixels, got {images.size}")
        self.layers = nn.Sequential(
            Normalize(images),
            nn.Conv2d(images.channels, 16, 4, stride=2, padding=1),
            nn.Mish(),
            nn.BatchNorm2d(16),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.Mish(),
            nn.BatchNorm2d(32),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(32 * (images.size // 4) ** 2, 100),
            nn.Mish(),
            nn.BatchNorm1d(100),
            nn.Dropout(0.1),
            nn.Linear(100, images.classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> logits (N, K)."""
        return self.layers(x)  # type: ignore[no-any-return]
