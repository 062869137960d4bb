"""The binarisation test: does the attack find adversarial examples that are known to exist?

R. Zimmermann, W. Brendel, F. Tramer, N. Carlini. Increasing Confidence in Adversarial Robustness Evaluations.
NeurIPS 2022 (arXiv 2206.13991). Around each image, points inside the ball and one point on its boundary get
a new linear readout of the defended network's features that tells the one from the others. The boundary point
is an adversarial example by construction; an attack that does not find it, or another, is too weak.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchbox import nets
from benchbox.ascent import ascend
from benchbox.audit.attacks import REACH, Target
from benchbox.audit.measurements import Binarisation
from benchbox.errors import DefenseError
from benchbox.view import View

#: Points inside the ball around each image, the image included; fewer where the features are fewer.
INNER = 1000
#: Inner points lie this share of epsilon away at most.
GAP = 0.95
#: How close to the boundary point the readout turns, on the way from the inner points.
CLOSENESS = 0.999
#: Random points that must not solve it.
RANDOM = 200


def test(target: Target) -> Binarisation:
    """Run it on the first `effort.binarisation` samples.

    Raises:
        RequestError: The classifier has no linear layer to replace.
        DefenseError: The features are too few, or the head is not used once in a forward pass.
    """
    part = target.rows(torch.arange(min(target.effort.binarisation, len(target.y)), device=target.y.device))
    features = _features(part)
    inner = min(INNER, features(part.x, 0).shape[1])
    if inner < 8:
        raise DefenseError(f"{inner} features are too few for a readout that separates one point from the others")
    weights, offsets, ready = _readouts(part, features, inner)
    keep = ready.nonzero().flatten()
    if not len(keep):
        return Binarisation(0.0, 0.0, 0, len(ready), inner)
    # One readout a sample: rows of features meet rows of weights.
    part, weights, offsets = part.rows(keep), weights[keep], offsets[keep]
    found = _attack(part, _features(part), weights, offsets)
    lucky = torch.zeros(len(keep), dtype=torch.bool, device=found.device)
    with torch.no_grad():
        for i in range(RANDOM):
            x = part.threat.random_start(part.x, part.draws.at("audit", "lucky", i))
            lucky |= _score(_features(part)(x, i), weights, offsets) > 0
    missed = part.draws.indices[~found].cpu().tolist()
    failed = len(ready) - len(keep)
    return Binarisation(
        float(found.float().mean()), float(lucky.float().mean()), len(keep), failed, inner, tuple(missed)
    )


test.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it


def _features(target: Target) -> Callable[[Tensor, int], Tensor]:
    """(x, draw) -> penultimate features (n, D) of the defended network, with gradient."""
    head = nets.head(target.defense.classifier)

    def features(x: Tensor, draw: int) -> Tensor:
        seen: list[Tensor] = []
        handle = head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        try:
            target.defense(x, target.draws.at("audit", "features", draw))
        finally:
            handle.remove()
        # A saliency branch runs the classifier first; the last pass is the one that answers.
        if not seen or seen[-1].shape[0] != len(x) or seen[-1].dim() != 2:
            raise DefenseError(f"the head of {target.defense.card.name} does not see one row of features an image")
        return seen[-1]

    return features


def _readouts(
    target: Target, features: Callable[[Tensor, int], Tensor], inner: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (N, D), offsets (N,), and (N,) whether a readout separates the points of the sample."""
    near = target.threat.scaled(GAP)
    columns = []
    with torch.no_grad():
        for i in range(inner):
            x = target.x if i == 0 else near.random_start(target.x, target.draws.at("audit", "inner", i))
            columns.append(features(x, i).cpu())
        columns.append(features(_boundary(target), inner).cpu())
    points = torch.stack(columns, 1).double().numpy()
    solved = [_separate(sample) for sample in points]
    device = target.x.device
    weights = torch.tensor(np.stack([w for w, _, _ in solved]), dtype=torch.float32, device=device)
    offsets = torch.tensor([b for _, b, _ in solved], dtype=torch.float32, device=device)
    return weights, offsets, torch.tensor([ok for _, _, ok in solved], device=device)


def _boundary(target: Target) -> Tensor:
    """(N, C, H, W) a point at distance epsilon, cut with the box."""
    threat, draws = target.threat, target.draws.at("audit", "boundary")
    noise = draws.normal(*target.x.shape[1:])
    noise = noise * (threat.epsilon / threat.norms(noise).clamp_min(1e-12)).view(-1, 1, 1, 1)
    return threat.project(target.x + noise, target.x)


def _separate(points: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """A readout that is positive on the last row alone, turning just before it, scaled to unit range."""
    from sklearn.svm import LinearSVC

    label = np.arange(len(points)) == len(points) - 1
    center, scale = points.mean(0), points.std(0).max() or 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged: what counts is whether it separates
        machine = LinearSVC(C=1e6, max_iter=2000, dual=True, random_state=0).fit((points - center) / scale, label)
    w = machine.coef_[0] / scale
    scores = points @ w
    top, there = float(scores[:-1].max()), float(scores[-1])
    if there - top <= 1e-6 * max(1.0, abs(there)):
        return w, 0.0, False
    turn = top + CLOSENESS * (there - top)
    spread = max(there - float(scores.min()), 1e-12)
    return w / spread, -turn / spread, True


def _score(features: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    return (features * weights).sum(1) + offsets


def _attack(target: Target, features: Callable[[Tensor, int], Tensor], weights: Tensor, offsets: Tensor) -> Tensor:
    """(N,) whether PGD, with the effort of the evaluation, finds a point of the planted class."""
    found = torch.zeros(len(target.y), dtype=torch.bool, device=target.x.device)
    zero = torch.zeros_like(target.y)

    def forward(x: Tensor, draws: object) -> Tensor:
        score = _score(features(x, 0), weights, offsets)
        return torch.stack([torch.zeros_like(score), score], 1)

    for restart in range(target.effort.restarts):
        draws = target.draws.at("audit", "planted", restart)
        view = View(forward, zero, draws)
        start = target.threat.random_start(target.x, draws)
        ascend(
            view,
            target.x,
            zero,
            target.threat,
            start=start,
            steps=target.effort.steps,
            step_size=target.threat.epsilon * REACH / target.effort.steps,
            loss=lambda logits, y: logits[:, 1],
            keep="best",
        )
        found |= view.first_success >= 0
    return found
