"""A fence around libraries that reach for the global random state: what they do to it stays inside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def fenced(seed: int) -> Iterator[None]:
    """Seed the global generators of torch (CPU and every CUDA device) and NumPy; restore them afterwards."""
    state = np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(state)
