"""The probes that only ask: does the defence answer the same, whatever was asked before and beside it?"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from benchbox.audit.checks import thresholds
from benchbox.audit.probes.measurements import Behaviour
from benchbox.audit.probes.search import Target

#: Names whose call means that a forward pass computes gradients (AutoAttack, check_dynamic).
GRADIENT_CALLS = ("grad", "backward", "_make_grads")
#: Amplitudes of the noise a look-up of known images is found with: bytes, and one grey level.
WHISPERS = (1e-6, 1 / 255)
#: A sum of probabilities is 1 up to float32 (AutoAttack, check_range_output).
SUM_SLACK = 1e-5


def ask(target: Target) -> Behaviour:
    """Ask repeatedly, in other batches, and with inaudible noise.

    The repeats come first: a defence that remembers what it was asked must meet the images for the first time.
    """
    before = _state(target.defense)
    repeats = torch.stack([_logits(target, target.x) for _ in range(int(thresholds.REPEATS))])
    changed = _state(target.defense) != before
    first = repeats[0]
    regrouped, gap = _regrouped(target, first)
    return Behaviour(
        relabelled=(repeats.argmax(2) != first.argmax(1)).any(0).numpy(),
        repeat_gap=_normalised_gap(repeats).numpy(),
        first_differs=_first_differs(repeats),
        state_changed=changed,
        training=any(module.training for module in target.defense.modules()),
        batch_gap=gap.numpy(),
        batch_relabelled=regrouped.numpy(),
        jump=_jump(target, repeats[-1]).numpy(),
        saturated=(first.float().softmax(1).amax(1) == 1.0).numpy(),
        probabilities=_are_probabilities(first),
        log_probabilities=bool((first.logsumexp(1).abs() < SUM_SLACK).all()),
        dynamic=_computes_gradients(target),
        classes=first.shape[1],
    )


def _logits(target: Target, x: Tensor) -> Tensor:
    """Logits (N, K) on the CPU, always in the same draws, in batches of the effort's size."""
    parts = torch.arange(len(x), device=x.device).split(target.effort.batch)
    source = target.draws.at("audit", "ask")
    with torch.no_grad():
        return torch.cat([target.defense(x[part], source.rows(part)).cpu() for part in parts])


def _normalised_gap(repeats: Tensor) -> Tensor:
    """(N,) largest distance between two of the (R, N, K) logits, each divided by its length."""
    unit = repeats / (repeats.norm(dim=2, keepdim=True) + 1e-10)
    gap: Tensor = (unit[:, None] - unit[None]).norm(dim=3).amax((0, 1)).double()
    return gap


def _first_differs(repeats: Tensor) -> bool:
    limit = float(thresholds.REPEAT_GAP)
    later = float(_normalised_gap(repeats[1:]).max()) <= limit
    return later and float(_normalised_gap(repeats[:2]).max()) > limit


def _regrouped(target: Target, whole: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) whether the class changes, and by how much the logits do, in reversed order and in other batches."""
    n = len(target.y)
    source = target.draws.at("audit", "ask")
    relabelled, gap = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.float64)
    scale = whole.abs().amax().clamp_min(1.0)
    reverse = torch.arange(n - 1, -1, -1)
    for order, size in ((reverse, target.effort.batch), (reverse, 7), (torch.arange(n), 1)):
        for rows in order.split(size):
            at = rows.to(target.y.device)
            with torch.no_grad():
                logits = target.defense(target.x[at], source.rows(at)).cpu()
            relabelled[rows] |= logits.argmax(1) != whole[rows].argmax(1)
            gap[rows] = torch.maximum(gap[rows], ((logits - whole[rows]).abs().amax(1) / scale).double())
    return relabelled, gap


def _jump(target: Target, clean: Tensor) -> Tensor:
    """(N,) largest change of a logit under inaudible noise, over the spread of the sample's logits."""
    spread = (clean.amax(1) - clean.amin(1)).clamp_min(1e-12)
    largest = torch.zeros(len(clean))
    for amplitude in WHISPERS:
        noise = target.draws.at("audit", "whisper").uniform(*target.x.shape[1:], low=-amplitude, high=amplitude)
        heard = _logits(target, (target.x + noise).clamp(0, 1))
        largest = torch.maximum(largest, (heard - clean).abs().amax(1) / spread)
    return largest.double()


def _are_probabilities(logits: Tensor) -> bool:
    """AutoAttack's rule: everything in [0, 1], and rows that sum to 1."""
    inside = bool((logits.max() < 1 + SUM_SLACK) & (logits.min() > -SUM_SLACK))
    return inside and bool(((logits.sum(1) - 1).abs() < SUM_SLACK).all())


def _state(defense: torch.nn.Module) -> str:
    """SHA-256 of parameters and buffers."""
    sha = hashlib.sha256()
    for name, value in defense.state_dict().items():
        sha.update(name.encode())
        sha.update(value.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def _computes_gradients(target: Target) -> bool:
    """Whether one forward pass calls anything by the name of a gradient computation."""
    one = target.rows(torch.arange(1, device=target.y.device))
    called: set[str] = set()
    with _listening(called), torch.no_grad():
        one.defense(one.x, one.draws)
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
