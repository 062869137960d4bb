"""What Auto-PGD ascends.

F. Croce, M. Hein. Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
Attacks. ICML 2020 (arXiv 2003.01690), Eq. 6 and 7.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

#: (logits (n, K), true classes (n,), targets (n,)) -> losses (n,), ascended.
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def ce(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(logits.float(), y, reduction="none")


def dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Difference of logits ratio (Eq. 6); at least three classes."""
    top = logits.float().topk(3).values
    true = logits.gather(1, y[:, None])[:, 0].float()
    other = torch.where(logits.argmax(1) == y, top[:, 1], top[:, 0])
    return (other - true) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Targeted difference of logits ratio (Eq. 7); at least four classes."""
    top = logits.float().topk(4).values
    pair = logits.gather(1, torch.stack([y, target], 1)).float()
    return (pair[:, 1] - pair[:, 0]) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)
