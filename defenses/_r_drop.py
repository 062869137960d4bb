"""Adversarial R-Drop: what dropout changes of a regenerated image shall not change its class (PSSR, Eq. 11)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def adversarial_r_drop(logits: Tensor, clean: Tensor, passes: int) -> Tensor:
    """L_ARD (Eq. 11): sum over the passes of KL(F(E(x_t)_i) ‖ F(x)), mean over samples.

    Args:
        logits: (passes · N, K), pass by pass.
        clean: (N, K), logits of the clean images.
        passes: k.
    """
    log_p = F.log_softmax(logits, 1)
    log_q = F.log_softmax(clean, 1).repeat(passes, 1)
    return (log_p.exp() * (log_p - log_q)).sum(1).mean() * passes
