"""The probes of gradients: are there any, are they right, and what do a defence's own draws do to them?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchbox.audit.checks import thresholds
from benchbox.audit.probes.measurements import Differences, Flags, Gradients, Randomness
from benchbox.audit.probes.search import LOSSES, Target, gradient
from benchbox.contract.ascent import Loss, margin
from benchbox.contract.border import is_without_gradient
from benchbox.contract.view import Forward

#: Half the distances of the finite differences, from afar to as near as float32 lets them be told from rounding.
STEPS = (1e-3, 1e-4, 1e-5)
#: Half the distance that is tried where all of these fail: bfloat16 has eight bits, and sees no shorter one.
COARSE = 1e-2
#: Probability of a wrong class below which float32 may have rounded its gradient away.
FAINTEST = 1e-12
#: Noise that keeps two pixels from being equal.
LOOSE = 0.02


def examine(target: Target) -> Gradients:
    """Gradients at the clean images and at random points of the ball, through every model."""
    zero: dict[str, Flags] = {}
    broken: dict[str, Flags] = {}
    refused: dict[str, str] = {}
    zero_pixels = 0.0
    for name, forward in target.models().items():
        try:
            largest, share, broken[name] = _largest(target, forward)
        except RuntimeError as error:
            if not is_without_gradient(error):
                raise
            refused[name], largest, share = " ".join(str(error).split())[:200], torch.zeros(len(target.y)), 1.0
        zero[name] = (largest == 0).cpu().numpy()
        if name == "deployed":
            zero_pixels = share
    differences = Differences() if "deployed" in refused else _differences(target)
    unstable = _instability(target).numpy()
    return Gradients(
        zero, refused, zero_pixels, unstable, differences, broken,
        _forward_gaps(target), None if "deployed" in refused else _exact_gap(target),
        {name: _bent(target, forward) for name, forward in target.models().items() if name not in refused},
    )  # fmt: skip


def _forward_gaps(target: Target) -> dict[str, float]:
    """By stand-in, how far its logits are from the deployed defence's, at the images and at random points."""
    start = target.threat.random_start(target.x, target.draws.at("audit", "forward"))
    models, gaps = target.models(), {}
    deployed = models.pop("deployed")
    with torch.no_grad():
        for name, forward in models.items():
            pairs = [(deployed(x, target.draws), forward(x, target.draws)) for x in (target.x, start)]
            gaps[name] = max(float((a - b).abs().max() / a.abs().max().clamp_min(1e-6)) for a, b in pairs)
    return gaps


def _exact_gap(target: Target) -> float | None:
    """How far the gradient of the stand-in that is called exact is from that of the deployed defence."""
    if (exact := target.defense.exact) is None:
        return None
    x = target.threat.random_start(target.x, target.draws.at("audit", "exact"))
    pair = [
        target.view(model, "exact", eot=1).gradient(x, partial(_of, margin, target.y))[0].flatten(1)
        for model in (target.judge.through(None), target.judge.through(exact))
    ]
    length = torch.stack([one.norm(dim=1) for one in pair]).amax(0)
    return float(((pair[0] - pair[1]).norm(dim=1) / length.clamp_min(1e-12)).median())


def _bent(target: Target, forward: Forward) -> float:
    """How far a backward pass is from linear in what comes in: the cross-entropy against the parts it consists of.

    These are the margin, times the probability of the class that leads among the wrong ones, and all that is left.
    Every derivative is linear: a backward pass that is not looks at the loss, or at its size, and may lie to one.
    Median distance over the longest of the three.
    """
    leaf = target.threat.random_start(target.x, target.draws.at("audit", "bent")).requires_grad_()
    with torch.enable_grad():
        logits = forward(leaf, target.draws)
        held = logits.detach().requires_grad_()
        whole, plain = (torch.autograd.grad(loss(held, target.y).sum(), held)[0] for loss in LOSSES.values())
        share = (whole * (plain > 0)).amax(1, keepdim=True)
        pulls = [
            torch.autograd.grad(logits, leaf, one, retain_graph=True)[0].flatten(1)
            for one in (whole, plain, whole - share * plain)
        ]
    parts = torch.stack([pulls[0], share * pulls[1], pulls[2]])
    longest = parts.norm(dim=2).amax(0).clamp_min(1e-30)
    gap = (parts[0] - parts[1] - parts[2]).norm(dim=1) / longest
    return float(torch.where(share[:, 0] < FAINTEST, 0.0, gap).nan_to_num().median())


def _largest(target: Target, forward: Forward) -> tuple[Tensor, float, Flags]:
    """(N,) sum of absolute gradients, larger of both losses, smaller of two points; share of zero pixels; (N,)
    whether any of them had a NaN or an infinity.
    """
    start = target.threat.random_start(target.x, target.draws.at("audit", "gradient"))
    sums, zeros, broken = [], [], np.zeros(len(target.y))
    for x in (target.x, start):
        each = []
        for loss in LOSSES.values():
            view = target.view(forward, "gradient", eot=1)
            found, _, _ = view.gradient(x, partial(_of, loss, target.y))
            each.append(found.abs().flatten(1).sum(1))
            zeros.append(float((found == 0).float().mean()))
            broken += view.broken()[0].numpy()
        sums.append(torch.stack(each).amax(0))
    return torch.stack(sums).amin(0), min(zeros), broken > 0


def _of(loss: Loss, y: Tensor, logits: Tensor) -> Tensor:
    return loss(logits, y)


def _differences(target: Target) -> Differences:
    """Median over directions of |FD - <g, d>| over the median of |FD|, of the margin, at each of `STEPS`.

    A correlation would be dominated by the few directions that jump. A wrong gradient is wrong at every distance;
    the kinks of a wide network and the jumps of a hard threshold, of which a longer difference crosses more, are
    not. At random points of the ball, where attacks start: in the flat regions of an image max pooling has ties,
    and no gradient, and so has a median where pixels were cut to 0 or 1: hence the noise. They are drawn into the
    box, so that no difference leaves it, and the draws of a randomised defence are held.
    """
    differences = _compared(target, STEPS)
    if differences.error is None or differences.error <= thresholds.FIDELITY_FAIL:
        return differences
    coarse = _compared(target, (COARSE,))
    nearer = coarse.error is not None and coarse.error < differences.error / 2
    return replace(coarse, afar=None) if nearer else differences


def _compared(target: Target, steps: Sequence[float]) -> Differences:
    start = target.threat.random_start(target.x, target.draws.at("audit", "fidelity", "point"))
    loose = target.draws.at("audit", "fidelity", "loose").uniform(*target.x.shape[1:], high=LOOSE)
    x = start * (1 - LOOSE - 4 * max(steps)) + loose + 2 * max(steps)
    held = target.draws.at("audit", "fidelity")

    def loss(at: Tensor) -> Tensor:
        return margin(target.ask(at, held), target.y)

    leaf = x.clone().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(loss(leaf).sum(), leaf)
    slope = slope.nan_to_num(0.0, 0.0, 0.0)  # told elsewhere; what is finite is compared
    found = [_error(target, loss, x, slope, step) for step in steps]
    # Where nothing moves there is nothing to compare: that says no more than any step that sees something.
    error, size = min(found, key=lambda one: float("inf") if one[0] is None else one[0])
    d = target.draws.at("audit", "direction", 0).uniform(*x.shape[1:]).sub(0.5).sign()
    promised = float((slope * d).flatten(1).sum(1).abs().median())
    return Differences(error, size, promised, min((e for e, _ in found[:-1] if e is not None), default=None))


def _error(
    target: Target, loss: Callable[[Tensor], Tensor], x: Tensor, slope: Tensor, step: float
) -> tuple[float | None, float]:
    """The relative error at one distance, and the median size of the differences; None if both are 0."""
    errors, sizes = [], []
    with torch.no_grad():
        for i in range(target.effort.directions):
            d = target.draws.at("audit", "direction", i).uniform(*x.shape[1:]).sub(0.5).sign()
            difference = (loss(x + step * d) - loss(x - step * d)) / (2 * step)
            errors.append((difference - (slope * d).flatten(1).sum(1)).abs())
            sizes.append(difference.abs())
    error, size = float(torch.cat(errors).median()), float(torch.cat(sizes).median())
    return (error / size if size > 0 else None if error == 0 else float("inf")), size


def _instability(target: Target) -> Tensor:
    """(N,) indicator I2 on the margin: mean of |L(x) - L(x + u)| / |L(x)| over small noise, clipped at 1."""
    radius = float(thresholds.UNSTABLE_RADIUS)
    held = target.draws.at("audit", "unstable")
    total = torch.zeros(len(target.y), device=target.y.device)
    with torch.no_grad():
        here = margin(target.ask(target.x, held), target.y)
        scale = torch.where(here == 0, torch.ones_like(here), here.abs())
        for i in range(target.effort.noise):
            noise = held.at("noise", i).uniform(*target.x.shape[1:], low=-radius, high=radius)
            there = margin(target.ask(target.x + noise, held), target.y)
            total += (here - there).abs() / scale
    return (total / max(target.effort.noise, 1)).clamp_max(1).double().cpu()


def randomness(target: Target, forward: Forward, through: str, subset: Target) -> Randomness:
    """What the draws of a randomised defence do to its attack; for B18 and B19.

    Args:
        target: All samples.
        forward: The model to differentiate.
        through: What it is called.
        subset: The samples on which the EOT draws are doubled.
    """
    eot = target.effort.eot
    x = target.threat.random_start(target.x, target.draws.at("audit", "eot"))
    pair = [
        target.view(forward, f"eot {i}").gradient(x, lambda logits: margin(logits, target.y))[0].flatten(1)
        for i in (0, 1)
    ]
    cosine = float(F.cosine_similarity(pair[0], pair[1], dim=1).mean())
    robust = [
        1 - gradient(subset, forward, f"eot {n}", "margin", through=through, eot=n).run.broken.mean()
        for n in (eot, 2 * eot)
    ]
    frozen = _held(subset, through)
    return Randomness(cosine, float(robust[1]), float(robust[0]), frozen, float(robust[0]))


def _held(target: Target, through: str) -> float:
    """Accuracy of the defence with its draws known and held, under both losses and every start."""
    held = target.draws.at("audit", "frozen")
    right = torch.ones(len(target.y), dtype=torch.bool, device=target.y.device)
    for loss in LOSSES:
        for start in range(target.effort.restarts):
            found = gradient(
                target,
                lambda x, draws: target.ask(x, held),
                f"frozen {loss} {start}",
                loss,
                through=through,
                eot=1,
            )
            with torch.no_grad():
                right &= target.ask(found.x, held).argmax(1) == target.y
    return float(right.float().mean())
