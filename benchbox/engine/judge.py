"""What the deployed defence says of some images, in fresh draws that no attack has seen."""

from __future__ import annotations

import torch
from torch import Tensor

from benchbox.contract import border
from benchbox.contract.defense import Defense
from benchbox.draws import Draws
from benchbox.errors import DefenseError


def score(defense: Defense, x: Tensor, draws: Draws, repeats: int, classes: int) -> Tensor:
    """Predicted classes (N, R): column r in the r-th fresh draw.

    Args:
        defense: The deployed defence, in evaluation mode.
        x: (N, C, H, W) float32 in [0, 1].
        draws: Source of the fresh draws.
        repeats: R; 1 for a deterministic defence.
        classes: K, for the check of the logits.

    Raises:
        DefenseError: The defence broke its contract.
    """
    columns = []
    with border.crossing(type(defense), DefenseError), torch.no_grad():
        for r in range(repeats):
            logits = defense(x, draws.at(r))
            check_logits(logits, len(x), classes, defense.card.name)
            columns.append(logits.argmax(1))
    return torch.stack(columns, 1)


def check_logits(logits: Tensor, n: int, classes: int, name: str) -> None:
    """Refuse what is no logits.

    The rule for probabilities is AutoAttack's (its checks.py): everything in [0, 1] and rows that sum to 1.

    Raises:
        DefenseError: No tensor of real numbers, wrong shape, NaN or infinity, or probabilities.
    """
    border.tensor(logits, f"defence {name}")
    if logits.shape != (n, classes):
        raise DefenseError(
            f"defence {name} returned shape {tuple(logits.shape)} for {n} images and {classes} classes; "
            f"return logits of shape ({n}, {classes})"
        )
    if not bool(logits.isfinite().all()):
        raise DefenseError(f"defence {name} returned NaN or infinity; guard its divisions and logarithms")
    low, high = logits.min(), logits.max()
    sums = (logits.sum(1) - 1).abs().max()
    if bool((high < 1 + 1e-5) & (low > -1e-5) & (sums < 1e-5)):
        raise DefenseError(f"defence {name} returned probabilities; return the logits before the softmax")
