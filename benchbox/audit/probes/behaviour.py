"""The probes that only ask: does the defence answer the same, whatever was asked before and beside it?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchbox.audit.checks import thresholds
from benchbox.audit.probes.history import change
from benchbox.audit.probes.measurements import Behaviour
from benchbox.audit.probes.search import Target
from benchbox.draws import Draws, stack
from benchbox.engine.dynamic import computes_gradients
from benchbox.engine.isolation.stranger import Stranger

#: Amplitudes of the noise a look-up of known images is found with: bytes, and one grey level.
WHISPERS = (1e-6, 1 / 255)
#: Amplitudes of noise between which what hangs on many decisions is seen to grow.
FAINT, LOUD = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3), 1 / 255
#: Images of one ball that are asked about together.
ALIKE = 4
#: Random points at which logits are compared to the last bit.
POINTS = 4
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
    # Who changes after the first call does so whatever comes next: all else is held against the last one.
    last = repeats[-1]
    regrouped, gap = _regrouped(target, last)
    jump, beside, dimmed = _jump(target, last)
    constant, refuses = _inside(target, last)
    return Behaviour(
        logits=last.numpy(),
        beside=beside.numpy(),
        dimmed=dimmed.numpy(),
        growth=_growth(target, last).numpy(),
        shifted=_shifted_jump(target).numpy(),
        constant=constant.numpy(),
        refuses=refuses.numpy(),
        mode_gap=change(last, _without_gradient(target)).numpy(),
        name_gap=_renamed(target).numpy(),
        relabelled=(repeats.argmax(2) != first.argmax(1)).any(0).numpy(),
        repeat_gap=_repeat_gap(repeats).numpy(),
        first_differs=_first_differs(repeats),
        state_changed=changed,
        training=any(module.training for module in target.defense.modules()),
        batch_gap=gap.numpy(),
        batch_relabelled=regrouped.numpy(),
        jump=jump.numpy(),
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
        return torch.cat([target.ask(x[part], source.rows(part)).cpu() for part in parts])


def _repeat_gap(repeats: Tensor) -> Tensor:
    """(N,) largest distance between two of the (R, N, K) logits: each divided by its length, or as they are."""
    unit = repeats / (repeats.norm(dim=2, keepdim=True) + 1e-10)
    gap: Tensor = (unit[:, None] - unit[None]).norm(dim=3).amax((0, 1)).double()
    return torch.stack([gap, *(change(repeats[0], again) for again in repeats[1:])]).amax(0)


def _first_differs(repeats: Tensor) -> bool:
    limit = float(thresholds.REPEAT_GAP)
    later = float(_repeat_gap(repeats[1:]).max()) <= limit
    return later and float(_repeat_gap(repeats[:2]).max()) > limit


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
                logits = target.ask(target.x[at], source.rows(at)).cpu()
            relabelled[rows] |= logits.argmax(1) != whole[rows].argmax(1)
            gap[rows] = torch.maximum(gap[rows], ((logits - whole[rows]).abs().amax(1) / scale).double())
    for rows, logits in _among_their_like(target, source):
        relabelled[rows] |= logits.argmax(1) != whole[rows].argmax(1)
        gap[rows] = torch.maximum(gap[rows], ((logits - whole[rows]).abs().amax(1) / scale).double())
    return relabelled, gap


def _among_their_like(target: Target, source: Draws) -> Iterator[tuple[Tensor, Tensor]]:
    """Some rows and their logits (n, K), beside copies of the same images, and beside others of their balls.

    As attacks ask that average over draws, or try several points at once; a scoring of other images never does.
    """
    copies = max(2, min(target.effort.eot if target.defense.randomized else ALIKE, target.effort.batch))
    for rows in torch.arange(len(target.y)).split(max(target.effort.batch // copies, 1)):
        at = rows.to(target.y.device)
        x, draws = target.x[at], stack([source.rows(at)] * copies)
        part = target.rows(at)
        near = [
            target.threat.random_start(x, part.draws.at("audit", "like", i)) for i in range(min(copies, ALIKE) - 1)
        ]
        with torch.no_grad():
            yield rows, target.ask(x.repeat(copies, 1, 1, 1), draws).cpu()[: len(rows)]
            beside = stack([source.rows(at)] * (1 + len(near)))
            yield rows, target.ask(torch.cat([x, *near]), beside).cpu()[: len(rows)]


def _jump(target: Target, clean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N,) each: largest change of a logit under inaudible noise, between two such images, and when dimmed.

    Over the spread of the sample's logits. Who knows the images answers otherwise right beside them, and there
    alike; who hashes them answers otherwise everywhere. Dimming leaves equal pixels equal: it spares who decides
    between them, as a mask over a flat background does, and no hash.
    """
    spread = (clean.amax(1) - clean.amin(1)).clamp_min(1e-12)
    largest, beside, dimmed = (torch.zeros(len(clean)) for _ in range(3))
    for amplitude in WHISPERS:
        heard = []
        for i in range(2):
            source = target.draws.at("audit", "whisper", i)
            noise = source.uniform(*target.x.shape[1:], low=-amplitude, high=amplitude)
            heard.append(_logits(target, (target.x + noise).clamp(0, 1)))
        dark = _logits(target, target.x * (1 - amplitude))
        largest = torch.maximum(largest, (heard[0] - clean).abs().amax(1) / spread)
        beside = torch.maximum(beside, (heard[0] - heard[1]).abs().amax(1) / spread)
        dimmed = torch.maximum(dimmed, (dark - clean).abs().amax(1) / spread)
    return largest.double(), beside.double(), dimmed.double()


def _growth(target: Target, clean: Tensor) -> Tensor:
    """(N, 5) what faint noise changes of the logits, to what a grey level of it does.

    What a hash draws from bytes jumps as far under the faintest noise; what it draws from grey levels, not at all
    until it jumps. Who decides about many pixels decides otherwise about few, then about more.
    """
    noise = target.draws.at("audit", "growth").uniform(*target.x.shape[1:], low=-1.0, high=1.0)
    *faint, loud = (
        (_logits(target, (target.x + size * noise).clamp(0, 1)) - clean).abs().amax(1) for size in (*FAINT, LOUD)
    )
    return torch.stack([torch.where(loud > 0, part / loud.clamp_min(1e-12), 1.0) for part in faint], 1).double()


def _shifted_jump(target: Target) -> Tensor:
    """(N,) as `jump`, of the images shifted by a pixel: in no data set, and of the same whole grey levels."""
    x = target.x.roll(1, 3)
    clean = _logits(target, x)
    noise = target.draws.at("audit", "whisper").uniform(*x.shape[1:], low=-WHISPERS[-1], high=WHISPERS[-1])
    spread = (clean.amax(1) - clean.amin(1)).clamp_min(1e-12)
    return ((_logits(target, (x + noise).clamp(0, 1)) - clean).abs().amax(1) / spread).double()


def _inside(target: Target, clean: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) whether the logits are the very same at random points of the ball, and whether all are equal at one."""
    same, refuses = torch.ones(len(clean), dtype=torch.bool), torch.zeros(len(clean), dtype=torch.bool)
    for i in range(POINTS):
        there = _logits(target, target.threat.random_start(target.x, target.draws.at("audit", "constant", i)))
        same &= (there == clean).all(1)
        refuses |= there.amax(1) == there.amin(1)
    return same, refuses


def _without_gradient(target: Target) -> Tensor:
    parts = torch.arange(len(target.y), device=target.y.device).split(target.effort.batch)
    source = target.draws.at("audit", "ask")
    return torch.cat([target.judge.without_gradient(target.x[p], source.rows(p)).cpu() for p in parts])


def _renamed(target: Target) -> Tensor:
    """(N,) what other names and another seed change in a deterministic defence, which needs neither."""
    if target.defense.randomized or not target.defense.deployable:
        return torch.zeros(len(target.y), dtype=torch.float64)
    answers = []
    for names in (Draws(target.draws.indices, 0), Draws(target.draws.indices.flip(0) + 1, 1)):
        with torch.no_grad():
            answers.append(target.defense(target.x.clone(), names).cpu())
    return change(*answers)


def later(target: Target, answers: Behaviour) -> NDArray[np.float64]:
    """(N,) how much the logits of the images have changed since they were asked first."""
    gap: NDArray[np.float64] = change(torch.from_numpy(answers.logits), _logits(target, target.x)).numpy()
    return gap


def _are_probabilities(logits: Tensor) -> bool:
    """AutoAttack's rule: everything in [0, 1], and rows that sum to 1."""
    inside = bool((logits.max() < 1 + SUM_SLACK) & (logits.min() > -SUM_SLACK))
    return inside and bool(((logits.sum(1) - 1).abs() < SUM_SLACK).all())


def _state(defense: torch.nn.Module) -> str:
    """SHA-256 of parameters and buffers, by name: those of another process come in any order."""
    sha = hashlib.sha256()
    for name, value in sorted(defense.state_dict().items(), key=lambda item: item[0]):
        sha.update(name.encode())
        # A quantised network keeps a type, or packed numbers, among its tensors.
        plain = isinstance(value, Tensor) and not value.is_quantized
        flat = value.detach().cpu().contiguous().flatten() if plain else value
        sha.update(flat.view(torch.uint8).numpy().tobytes() if plain else repr(value).encode())
    return sha.hexdigest()


def _computes_gradients(target: Target) -> bool:
    """Whether one forward pass computes gradients; of an isolated defence its own process says it."""
    one = target.rows(torch.arange(1, device=target.y.device))
    if isinstance(one.defense, Stranger):
        return one.defense.is_dynamic(one.x, one.draws)
    return computes_gradients(one.defense, one.x, one.draws)
