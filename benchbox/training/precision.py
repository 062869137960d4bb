"""Mixed precision: large products in bfloat16, everything between them in float32.

For training, and for a search whose finds are confirmed (`benchbox.contract.confirmation`). What is scored or used
to select an epoch is computed in float32, for a rounding error would be taken for robustness or its absence.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from benchbox.domain import Precision as Precision
from benchbox.domain import known_precision


def choose(name: str | None, device: torch.device) -> Precision:
    """The precision asked for, or else bfloat16 on a device that computes in it, and float32 on everything else.

    Such a device trains in two thirds of the time; others emulate it slowly. In float32 and in bfloat16, `pgd-at`
    leaves 63.1 and 62.0 % of 287 held-out digits under PGD-20, `trades` 59.6 and 62.0 %: no more than chance
    apart.

    Raises:
        RequestError: It is none that training knows.
    """
    if name is None:
        return "bfloat16" if _computes_in_bfloat16(device) else "float32"
    return known_precision(name)


def is_emulated(name: str | None, device: torch.device) -> bool:
    """Whether a precision is slower than float32 on this device, as far as torch can tell."""
    return name == "bfloat16" and not _computes_in_bfloat16(device)


def _computes_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # Not public, and about x86 alone: where torch does not say so, float32 is never wrong.
    said = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return device.type == "cpu" and bool(said())


def reduced(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Where convolutions and matrix products take their inputs in this precision."""
    if precision == "float32":
        return nullcontext()
    # No cache of converted weights: a step mixes passes with and without gradients, and nothing has to rely on the
    # cache keeping them apart (in torch 2.15 it does).
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


@contextmanager
def float32_outputs(parent: nn.Module) -> Iterator[None]:
    """Every network directly below hands out float32, so that losses, attacks and statistics stay in it."""
    handles = [child.register_forward_hook(_as_float32) for child in parent.children()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _as_float32(module: nn.Module, inputs: Any, output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float()
    return tuple(part.float() for part in output)
