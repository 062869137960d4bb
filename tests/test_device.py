"""What a process does with the memory of its tensors."""

from __future__ import annotations

import ctypes
import sys

import pytest
import torch

from benchbox.engine import device

resource = pytest.importorskip("resource")
#: Numbers of a tensor of 12 MB, as a layer of LeNet-5 makes of 125 images, and how many a pass has of them.
SIZE, HELD = 3_000_000, 8


def faults() -> int:
    """Pages that the system has handed out so far."""
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library's memory"
)
def test_what_a_pass_frees_is_there_for_the_next() -> None:
    device.choose("cpu")
    torch.set_num_threads(1)

    def asked_for() -> int:
        before = faults()
        for _ in range(4):
            _ = [torch.ones(SIZE) for _ in range(HELD)]
        return faults() - before

    asked_for()
    assert asked_for() < HELD * SIZE * 4 / 4096  # once over, at most, where it would be four times
