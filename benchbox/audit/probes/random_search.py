"""The probes that need no gradient: random points of the ball, and a random search by squares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchbox.audit.checks import thresholds
from benchbox.audit.evidence import Run
from benchbox.audit.probes.measurements import Flags
from benchbox.audit.probes.search import Target, errs
from benchbox.contract.ascent import margin

#: Points after which, again and again, it is asked whether further ones can find anything.
SETTLING = 1000


def random_points(target: Target, standing: Flags) -> Run:
    """Uniform points of the ball, on samples that still stand; a sample is left alone once it falls.

    It is also left alone when its margins over at least `SETTLING` points lie so far from 0, in standard
    deviations, that the remaining points have nothing to find.
    """
    broken, left = np.zeros(len(target.y), bool), np.flatnonzero(standing)
    moved, draws = np.zeros(len(target.y)), _draws(target)
    sums = torch.zeros(2, len(target.y), dtype=torch.float64)
    for i in range(target.effort.random_points):
        if i and target.is_over():
            target.effort = replace(target.effort, random_points=i)
        if i == target.effort.random_points or not len(left):
            break
        part = target.rows(torch.from_numpy(left).to(target.y.device))
        x = part.threat.random_start(part.x, part.draws.at("audit", "random", i))
        with torch.no_grad():
            logits = part.ask(x, part.draws.at("audit", f"random {i}"))
        margins = margin(logits, part.y).double().cpu()
        sums[:, left] += torch.stack((margins, margins**2))
        fallen: Flags = (logits.argmax(1) != part.y).cpu().numpy()
        if fallen.any():
            # Found in one draw; of a randomised defence it counts only if most fresh draws agree.
            fallen = fallen & part.wrong(x, f"confirm {i}")
            broken[left[fallen]] = True
            if fallen.any() and target.defense.randomized:
                # Those that confirmed it were chosen among many for saying so.
                chosen = torch.from_numpy(np.flatnonzero(fallen)).to(x.device)
                draws[left[fallen]] = part.rows(chosen).right(x[chosen], f"again {i}")
            moved[left[fallen]] = (x - part.x).flatten(1).abs().amax(1).cpu().numpy()[fallen]
            left = left[~fallen]
        if (i + 1) % SETTLING == 0:
            left = left[~_settled(sums[:, left] / (i + 1))]
    return Run("random", "random points", broken, moved, broken.copy(), right=_counted(target, draws))


def _draws(target: Target) -> Flags:
    """(N, R) all right, to be filled in."""
    draws: Flags = np.ones((len(target.y), target.effort.scoring_draws if target.defense.randomized else 1), bool)
    return draws


def _counted(target: Target, draws: Flags) -> Flags | None:
    return draws if target.defense.randomized else None


def _settled(moments: Tensor) -> Flags:
    """(n,) whether a margin of 0 is out of reach, given the means of the margins and of their squares (2, n)."""
    mean, square = moments
    spread = (square - mean**2).clamp_min(0).sqrt()
    flags: Flags = ((mean + float(thresholds.OUT_OF_REACH) * spread) < 0).numpy()
    return flags


def squares(target: Target, standing: Flags) -> Run:
    """Random search by squares on the margin, after Andriushchenko et al. 2020; needs no gradient."""
    n = len(target.y)
    broken, moved, draws = np.zeros(n, bool), np.zeros(n), _draws(target)
    rows = np.flatnonzero(standing)
    if len(rows):
        part = target.rows(torch.from_numpy(rows).to(target.y.device))
        x = _search(part)
        target.effort = part.effort
        draws[rows] = part.right(x, "squares")
        broken[rows] = errs(draws[rows])
        moved[rows] = (x - part.x).flatten(1).abs().amax(1).double().cpu().numpy()
    drawn = _counted(target, draws)
    return Run("score-based", "random search by squares", broken, moved, broken.copy(), right=drawn)


def _search(target: Target) -> Tensor:
    x, y, threat = target.x, target.y, target.threat
    _, channels, size, width = x.shape
    source = target.draws.at("audit", "squares")
    stripes = source.at("stripes").uniform(channels, 1, width).sub(0.5).sign()
    best = threat.project(x + threat.epsilon * stripes, x)
    rows, columns = torch.arange(size, device=x.device), torch.arange(width, device=x.device)
    with torch.no_grad():
        value = margin(target.ask(best, source.at("view")), y)
        queries = target.effort.queries
        for i in range(queries):
            if i and target.is_over():
                target.effort = replace(target.effort, queries=i)
                break
            draw = source.at(i)
            # The share of pixels in a square shrinks from a third to one pixel.
            side = max(1, round((0.33 * (1 - i / queries) ** 2) ** 0.5 * size))
            corner = draw.at("corner").integers(max(size - side, 0) + 1, 2)
            inside_rows = (rows >= corner[:, :1]) & (rows < corner[:, :1] + side)
            inside_columns = (columns >= corner[:, 1:]) & (columns < corner[:, 1:] + side)
            window = (inside_rows[:, None, :, None] & inside_columns[:, None, None, :]).expand_as(x)
            sign = draw.at("sign").uniform(channels, 1, 1).sub(0.5).sign()
            candidate = threat.project(torch.where(window, x + threat.epsilon * sign, best), x)
            new = margin(target.ask(candidate, draw.at("view")), y)
            better = new > value
            best = torch.where(better.view(-1, 1, 1, 1), candidate, best)
            value = torch.where(better, new, value)
    return best
