"""A defence in one line: every pixel is rounded to black or white, and the gradient of rounding is zero."""

from torch import Tensor

from benchbox import Batch, Card, Draws, Losses, Purifier


class Rounding(Purifier):
    """Asks the plain classifier about the rounded image; there is nothing to train."""

    card = Card("rounding", "rounds each pixel to black or white")

    def purify(self, x: Tensor, draws: Draws) -> Tensor:
        """Images (N, C, H, W) float32 in [0, 1] with every pixel 0 or 1."""
        return x.round()

    def losses(self, batch: Batch) -> Losses:
        """None."""
        return {}
