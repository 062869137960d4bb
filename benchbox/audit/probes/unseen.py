"""The probes repeated on images that no test set has: who knows the test images, or has met them, is lost there.

Each image is further than epsilon from every image that was probed. It is met first as an adversarial image of the
bare classifier, made without asking the defence: a memory of what it saw first remembers that one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchbox.audit.probes.behaviour import POINTS
from benchbox.audit.probes.measurements import Elsewhere, Flags
from benchbox.audit.probes.search import LOSSES, Target, gradient, on_classifier
from benchbox.draws import Draws

#: Degrees that every other image is turned by; the others are shifted by one pixel.
TURN = 8.0
#: Positions that no data set has.
BEYOND = 1 << 40


def examine(target: Target, held: tuple[Tensor, Tensor] | None) -> dict[str, Elsewhere]:
    """Attack images from elsewhere, by where they come from.

    Args:
        target: What is probed.
        held: Images and classes that are in no test set.
    """
    sources = {"shifted or turned": (_moved(target.x), target.y)}
    if held is not None:
        sources["training images"] = held
    found = {}
    for i, (name, (x, y)) in enumerate(sources.items()):
        far = torch.stack([_is_far(target, image) for image in x]) if len(x) else torch.zeros(0, dtype=torch.bool)
        rows = far.nonzero().flatten()[: target.effort.doubled]
        if len(rows):
            names = torch.arange(len(rows), device=x.device) + BEYOND * (i + 1)
            found[name] = _attacked(replace(target, x=x[rows], y=y[rows], draws=Draws(names, target.draws.seed)))
    return found


def _is_far(target: Target, image: Tensor) -> Tensor:
    """Whether an image lies outside the balls of all that were probed."""
    return (target.threat.norms(target.x - image) > target.threat.epsilon).all()


def _moved(x: Tensor) -> Tensor:
    angle = torch.tensor(TURN * np.pi / 180)
    turn = torch.tensor([[angle.cos(), -angle.sin(), 0.0], [angle.sin(), angle.cos(), 0.0]], device=x.device)
    grid = F.affine_grid(turn.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    turned = F.grid_sample(x, grid, padding_mode="border", align_corners=False).clamp(0, 1)
    shifted = F.pad(x, (1, 0, 0, 0), mode="replicate")[..., :-1]
    odd = (torch.arange(len(x), device=x.device) % 2 == 1).view(-1, 1, 1, 1)
    return torch.where(odd, turned, shifted)


def _attacked(target: Target) -> Elsewhere:
    bare = target.defense.classifier
    first, second = on_classifier(target, "unseen")
    carried = first.broken | second.broken
    with torch.no_grad():
        known: Flags = (bare(target.x).argmax(1) == target.y).cpu().numpy()
    right = ~target.wrong(target.x, "unseen")
    broken = carried & (known | right)
    for name, forward in target.models().items():
        for loss in LOSSES:
            label = f"unseen {name} {loss}"
            broken |= gradient(target, forward, label, loss, through=name, on=right & ~broken).run.broken
    correct = right | (broken & known)
    return Elsewhere(int(correct.sum()), int((correct & ~broken).sum()), int((_constant(target) & correct).sum()))


def _constant(target: Target) -> Flags:
    source = target.draws.at("audit", "constant")
    with torch.no_grad():
        first = target.ask(target.x, source)
        same = torch.ones(len(target.y), dtype=torch.bool, device=target.y.device)
        for i in range(POINTS):
            same &= (target.ask(target.threat.random_start(target.x, source.at(i)), source) == first).all(1)
    flags: Flags = same.cpu().numpy()
    return flags
