"""Networks that throw the process's dice: dropout that stays on, `torch.randn_like` in the forward pass.

Such a network knows nothing of `Draws`. So it is asked about one image at a time, with torch's, numpy's and
Python's generators seeded by that image's draws: whatever it throws belongs to the sample, and batch size, order
and company change nothing. The price is a call an image.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchbox.contract import border
from benchbox.draws import Draws


def one_by_one(network: Callable[[Tensor], Any], x: Tensor, draws: Draws, what: str) -> Tensor:
    """Logits (N, K) of a network whose randomness is that of the process.

    Args:
        network: Images (1, C, H, W) -> logits (1, K).
        x: (N, C, H, W) images.
        draws: Row i seeds what the network throws for image i.
        what: The network in words, for the message: "defence model.py:net".

    Raises:
        DefenseError: It returned no tensor.
    """
    seeds = draws.at("process").bits(1)[:, 0].tolist()
    logits = []
    with _kept(x.device):
        for row, seed in enumerate(seeds):
            _seed(seed)
            # A copy of its own: what the network does in place to one image must not touch the graph of the next.
            logits.append(border.tensor(network(x[row : row + 1].clone()), what))
    return torch.cat(logits)


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)


@contextmanager
def _kept(device: torch.device) -> Iterator[None]:
    """The generators of the process, afterwards as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
