"""What an attacker learns who is told classes alone."""

from __future__ import annotations

import torch
from torch import Tensor

from benchbox import View


def errs(model: View, x: Tensor, y: Tensor) -> Tensor:
    """(n,) whether images are misclassified; of a randomised model, by most of `eot` draws."""
    errors = torch.stack([model(x).argmax(1) != y for _ in range(model.eot)]).sum(0)
    return errors * 2 > model.eot
