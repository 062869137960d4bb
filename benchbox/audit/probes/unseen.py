"""The probes repeated on images that no test set has: who knows the test images, or has met them, is lost there.

Each image is further than epsilon from every image that was probed. It is met first as an adversarial image of the
bare classifier, made without asking the defence: a memory of what it saw first remembers that one. How an image is
changed is drawn under the secret of the audit, so nobody can have kept its like.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from benchbox.audit.probes.behaviour import POINTS
from benchbox.audit.probes.measurements import Elsewhere, Flags
from benchbox.audit.probes.search import LOSSES, Target, gradient, on_classifier
from benchbox.draws import Draws

#: Degrees that an image is turned by at most, either way.
TURN = 10.0
#: Share of its side that it is shifted by, at least and at most, along each axis: up to a pixel of 28.
SHIFT = (1 / 64, 1 / 28)
#: Share of another image of its class that is mixed in, at least and at most.
BLEND = (0.3, 0.5)
#: Positions that no data set has.
BEYOND = 1 << 40


def examine(target: Target, held: tuple[Tensor, Tensor] | None) -> dict[str, Elsewhere]:
    """Attack images from elsewhere, by where they come from.

    Args:
        target: What is probed.
        held: Images and classes that are in no test set.
    """
    half = (target.effort.elsewhere + 1) // 2
    sources = {
        "shifted or turned": (moved(target, "unseen"), target.y, half),
        "mixed": (*_mixed(target), half),
    }
    if held is not None:
        sources["training images"] = (*held, target.effort.elsewhere)
    found = {}
    for i, (name, (x, y, most)) in enumerate(sources.items()):
        far = torch.stack([_is_far(target, image) for image in x]) if len(x) else torch.zeros(0, dtype=torch.bool)
        rows = far.nonzero().flatten()[:most]
        if len(rows):
            names = torch.arange(len(rows), device=x.device) + BEYOND * (i + 1)
            found[name] = _attacked(replace(target, x=x[rows], y=y[rows], draws=Draws(names, target.draws.seed)))
    return found


def moved(target: Target, purpose: str) -> Tensor:
    """(N, C, H, W) the images, each turned and shifted by a little of its own."""
    x, draws = target.x, _secret(target).at(purpose)
    angle = draws.at("turn").uniform(low=-TURN, high=TURN) * torch.pi / 180
    side = draws.at("side").integers(2, 2) * 2 - 1
    # The grid reaches from -1 to 1.
    shift = side * draws.at("shift").uniform(2, low=2 * SHIFT[0], high=2 * SHIFT[1])
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    grid = F.affine_grid(torch.cat([turn, shift[:, :, None]], 2), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False).clamp(0, 1)


def _mixed(target: Target) -> tuple[Tensor, Tensor]:
    """Each image with some of another one of its class, and the classes; none of images alone in theirs."""
    x, y = target.x, target.y
    share = _secret(target).at("mixed").uniform(low=BLEND[0], high=BLEND[1]).view(-1, 1, 1, 1)
    images, classes = [], []
    for i in range(len(y)):
        others = ((y == y[i]) & (torch.arange(len(y), device=y.device) != i)).nonzero().flatten()
        if len(others):
            # The one most like it: what lies between the two is an image of the class.
            other = others[(x[others] - x[i]).flatten(1).norm(dim=1).argmin()]
            images.append((1 - share[i]) * x[i] + share[i] * x[other])
            classes.append(y[i])
    if not images:
        return x[:0], y[:0]
    return torch.stack(images), torch.stack(classes)


def _secret(target: Target) -> Draws:
    """Draws that nobody can foresee."""
    draws = target.draws.at("audit", "elsewhere")
    return draws.hidden(bytes.fromhex(target.judge.secret)) if target.judge.secret else draws


def _is_far(target: Target, image: Tensor) -> Tensor:
    """Whether an image lies outside the balls of all that were probed."""
    return (target.threat.norms(target.x - image) > target.threat.epsilon).all()


def _attacked(target: Target) -> Elsewhere:
    first, second = on_classifier(target, "unseen")
    carried = first.broken | second.broken
    with torch.no_grad():
        known: Flags = (target.judge.bare(target.x, target.draws).argmax(1) == target.y).cpu().numpy()
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
