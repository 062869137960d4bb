"""Wide residual networks (Zagoruyko & Komodakis 2016, arXiv:1605.07146), the backbone of RobustBench."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from benchbox.domain import ImageSpec
from benchbox.errors import RequestError
from benchbox.nets.normalize import Normalize


class WideResNet(nn.Module):
    """WRN-depth-widen, pre-activation, without dropout: 36,479,194 parameters for WRN-28-10 on CIFAR-10.

    Args:
        images: What it is built for.
        depth: Number of convolutions, 6n + 4: the stem, three groups of n blocks of two, three shortcuts.
        widen: How many times as wide as 16, 32 and 64 channels the three groups are.

    Raises:
        RequestError: The depth is not 6n + 4, or the width is 0.
    """

    def __init__(self, images: ImageSpec, *, depth: int = 28, widen: int = 10) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4 or widen < 1:
            raise RequestError(
                f"there is no wrn-{depth}-{widen}; the depth is 6n + 4 (10, 16, 22, 28, 34, …), "
                "the width at least 1"
            )
        blocks = (depth - 4) // 6
        widths = [16, 16 * widen, 32 * widen, 64 * widen]
        self.normalize = Normalize(images)
        self.stem = nn.Conv2d(images.channels, widths[0], 3, padding=1, bias=False)
        self.groups = nn.Sequential(
            *(
                _Block(widths[group] if block == 0 else widths[group + 1], widths[group + 1], stride)
                for group, first in enumerate((1, 2, 2))
                for block, stride in enumerate([first] + [1] * (blocks - 1))
            )
        )
        self.norm = nn.BatchNorm2d(widths[3])
        self.linear = nn.Linear(widths[3], images.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> logits (N, K)."""
        maps = F.relu(self.norm(self.groups(self.stem(self.normalize(x)))))
        return self.linear(F.adaptive_avg_pool2d(maps, 1).flatten(1))  # type: ignore[no-any-return]


class _Block(nn.Module):
    """Two times norm, ReLU, 3×3 convolution; the paper's "basic" block B(3, 3)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        same = inside == outside and stride == 1
        self.shortcut = None if same else nn.Conv2d(inside, outside, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        # Where the shape changes, the shortcut starts from the activated maps, as in the authors' code.
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return shortcut + self.conv2(F.relu(self.norm2(self.conv1(active))))  # type: ignore[no-any-return]
