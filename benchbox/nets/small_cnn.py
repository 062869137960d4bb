"""The small network that TRADES publishes its MNIST numbers on."""

from __future__ import annotations

from torch import Tensor, nn

from benchbox.domain import ImageSpec
from benchbox.errors import RequestError


class SmallCNN(nn.Module):
    """Two pairs of 3×3 convolutions of 32 and 64 channels, each halved by max pooling, then 200 and 200 units.

    After `SmallCNN` in the authors' code of TRADES (Zhang et al., ICML 2019), itself after Carlini & Wagner 2017;
    no padding, no normalisation, dropout of a half before the second hidden layer, and a last layer that starts at
    zero. 312,202 parameters for 28×28 grey images and 10 classes.
    """

    def __init__(self, images: ImageSpec) -> None:
        super().__init__()
        side = ((images.size - 4) // 2 - 4) // 2
        if side < 1:
            raise RequestError(f"smallcnn shrinks images to nothing below 16×16 pixels, got {images.size}")
        last = nn.Linear(200, images.classes)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(
            nn.Conv2d(images.channels, 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3),
            # ReLU after the pooling, as in `lenet5`: the same function and gradients.
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * side**2, 200),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(200, 200),
            nn.ReLU(),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> logits (N, K)."""
        return self.layers(x)  # type: ignore[no-any-return]
