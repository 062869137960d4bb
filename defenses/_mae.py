"""A masked autoencoder for small images (He et al. 2022, arXiv:2111.06377; with noise, Wu et al. 2023).

A vision transformer encodes the patches that are there, and a shallower one decodes all of them, with one
learned token in place of every missing patch. Sizes are ours: AToP's authors published none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbox import RequestError


class MaskedAutoencoder(nn.Module):
    """Completes images of which whole patches are missing, as many in every image of a batch.

    Args:
        channels: Of the images.
        size: Their height and width, divisible by `patch`.
        patch: Height and width of a patch.
        width: Length of a token, divisible by `heads`.
        depth: Blocks of the encoder; the decoder has a third of them.
        heads: Of the attention.

    Raises:
        RequestError: The images do not divide into patches, or the tokens into heads.
    """

    def __init__(
        self, channels: int, size: int, *, patch: int = 4, width: int = 192, depth: int = 6, heads: int = 4
    ) -> None:
        super().__init__()
        if size < patch or size % patch:
            raise RequestError(
                f"a masked autoencoder needs images whose size is divisible by the patch of {patch} pixels, got "
                f"{size}; use another patch or resize the images to {max(patch, size - size % patch)}"
            )
        if width % heads:
            raise RequestError(
                f"tokens of {width} numbers do not divide into {heads} heads; use a multiple of {heads}"
            )
        self.patch = patch
        count = (size // patch) ** 2
        self.embed = nn.Linear(channels * patch**2, width)
        self.place = nn.Parameter(0.02 * torch.randn(count, width))
        self.missing = nn.Parameter(torch.zeros(width))
        self.encoder = nn.Sequential(*(_Block(width, heads) for _ in range(depth)), nn.LayerNorm(width))
        self.decoder = nn.Sequential(
            *(_Block(width, heads) for _ in range(max(1, depth // 3))),
            nn.LayerNorm(width),
            nn.Linear(width, channels * patch**2),
        )

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor]:
        """Complete images.

        Args:
            x: (N, C, H, W) in [-1, 1]; what it holds where pixels are missing is not looked at.
            mask: (N, 1, H, W), 1 where missing; whole patches, the same number in each image.

        Returns:
            The regenerated image (N, C, H, W) in [-1, 1], alone in a tuple as the only stage.
        """
        absent = F.max_pool2d(mask, self.patch).flatten(1)
        # Visible patches first, each group in its order of place.
        order = absent.argsort(dim=1, stable=True)
        visible = order[:, : absent.shape[1] - int(absent[0].sum())]
        tokens = self.embed(F.unfold(x, self.patch, stride=self.patch).transpose(1, 2)) + self.place
        rows = torch.arange(len(x), device=x.device)[:, None]
        code = self.encoder(tokens[rows, visible])
        every = self.missing.expand_as(tokens).clone()
        every[rows, visible] = code
        pixels = self.decoder(every + self.place).tanh().transpose(1, 2)
        return (F.fold(pixels, x.shape[2:], self.patch, stride=self.patch),)


class _Block(nn.Module):
    """Pre-norm attention and a perceptron four times as wide, each with its residual connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(heads.transpose(1, 2).reshape(n, tokens, width))
        return x + self.perceptron(self.norm2(x))  # type: ignore[no-any-return]
