"""sRGB and CIELUV, on tensors and differentiable.

CIE 15:2004 (CIE 1976 L*u*v*) and IEC 61966-2-1 (sRGB, white point D65). Coordinates are scaled as C. Laidlaw and
S. Feizi scale them (NeurIPS 2019, their program): L*/100, (u* + 100)/200 and (v* + 100)/200.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Linear RGB to XYZ, and back.
TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9504))
FROM_XYZ = ((3.2406, -1.5372, -0.4986), (-0.9689, 1.8758, 0.0415), (0.0557, -0.2040, 1.0570))
#: u' and v' of white.
WHITE = (0.1978, 0.4683)
#: Where roots have infinite slopes, and quotients none.
TINY = 1e-8


def luv(x: Tensor) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] as scaled L*, u* and v*."""
    linear = torch.where(x < 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    x_, y, z = _mixed(linear, TO_XYZ).unbind(1)
    whole = x_ + 15 * y + 3 * z + TINY
    light = torch.where(y < (6 / 29) ** 3, (29 / 3) ** 3 * y, 116 * y.clamp_min(TINY) ** (1 / 3) - 16)
    u, v = (13 * light * (part / whole - white) for part, white in zip((4 * x_, 9 * y), WHITE, strict=True))
    return torch.stack([light / 100, (u + 100) / 200, (v + 100) / 200], 1)


def rgb(coordinates: Tensor) -> Tensor:
    """Inverse of `luv`, cut with [0, 1]."""
    light, u, v = coordinates[:, 0] * 100, coordinates[:, 1] * 200 - 100, coordinates[:, 2] * 200 - 100
    dark = light.clamp_min(TINY)
    up, vp = u / (13 * dark) + WHITE[0], (v / (13 * dark) + WHITE[1]).clamp_min(TINY)
    y = torch.where(light <= 8, light * (3 / 29) ** 3, ((light + 16) / 116) ** 3)
    xyz = torch.stack([y * 9 * up / (4 * vp), y, y * (12 - 3 * up - 20 * vp) / (4 * vp)], 1).clamp(0, 1.1)
    linear = _mixed(xyz, FROM_XYZ)
    bright = 1.055 * linear.clamp_min(TINY) ** (1 / 2.4) - 0.055
    return torch.where(linear < 0.0031308, 12.92 * linear, bright).clamp(0, 1)


def _mixed(channels: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.einsum("dc,nchw->ndhw", torch.tensor(matrix, device=channels.device), channels)
