"""The generator and the discriminator of pix2pix, for small images (Isola et al. 2017, arXiv:1611.07004)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchbox.draws import Draws
from benchbox.errors import RequestError

NORMS = {
    "batch": nn.BatchNorm2d,
    "instance": lambda c: nn.InstanceNorm2d(c, affine=True),
    "group": lambda c: nn.GroupNorm(min(8, c), c),
    "none": lambda c: nn.Identity(),
}


class UNet(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, size: int, *, width: int = 32, depth: int = 2,
        dropout: float = 0.5, norm: str = "batch", init: bool = True,
    ) -> None:
        super().__init__()
        _check(size, depth)
        widths = [width * 2**level for level in range(depth)]
        n = NORMS[norm]
        bias = norm == "none"
        self.down = nn.ModuleList(
            nn.Conv2d(in_channels, width, 4, 2, 1) if level == 0 else
            nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(widths[level - 1], widths[level], 4, 2, 1, bias=bias), n(widths[level]))
            for level in range(depth)
        )
        self.bottleneck = nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(widths[-1], widths[-1], 3, padding=1, bias=bias), n(widths[-1]))
        self.up = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(2 * widths[level], widths[level - 1], 4, 2, 1, bias=bias), n(widths[level - 1]))
            for level in range(depth - 1, 0, -1)
        )
        self.last = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(2 * width, out_channels, 4, 2, 1))
        self.p = dropout
        if init:
            for m in self.modules():
                if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
                    nn.init.normal_(m.weight, 0, 0.02)

    def encode(self, x):
        maps = []
        for d in self.down:
            x = d(x)
            maps.append(x)
        return tuple(maps)

    def decode(self, features, dropout=None):
        x = self._drop(self.bottleneck(features[-1]), 0, dropout)
        for i, up in enumerate(self.up):
            x = self._drop(up(torch.cat([x, features[-1 - i]], 1)), i + 1, dropout)
        return self.last(torch.cat([x, features[0]], 1)).sigmoid()

    def _drop(self, x, level, draws):
        if draws is None or not self.training:
            return x
        bits = draws.at("dropout", level).bits(-(-x[0].numel() // 8))
        q = round(self.p * 256)
        keep = bits.view(torch.uint8)[:, : x[0].numel()].view(len(x), *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2) >= q
        return x * keep * (256 / (256 - q))

    def forward(self, x, dropout=None):
        return self.decode(self.encode(x), dropout)


def _check(size, depth):
    pass
