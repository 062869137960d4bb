"""Whether a forward pass computes gradients of its own, which makes a defence dynamic in AutoAttack's words."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from benchbox.draws import Draws

#: Names whose call means that a forward pass computes gradients (AutoAttack, check_dynamic).
GRADIENT_CALLS = ("grad", "backward", "_make_grads")


def computes_gradients(forward: Callable[[Tensor, Draws], Tensor], x: Tensor, draws: Draws) -> bool:
    """Whether one forward pass calls anything by the name of a gradient computation."""
    called: set[str] = set()
    with _listening(called), torch.no_grad():
        forward(x, draws)
    return bool(called)


@contextmanager
def _listening(called: set[str]) -> Iterator[None]:
    def hear(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_name in GRADIENT_CALLS:
            called.add(frame.f_code.co_name)

    # The profiler in force, a coverage tool say, gets its place back.
    former = sys.getprofile()
    sys.setprofile(hear)
    try:
        yield
    finally:
        sys.setprofile(former)
