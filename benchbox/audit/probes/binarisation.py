"""The binarisation test: does the attack find adversarial examples that are known to exist?

R. Zimmermann, W. Brendel, F. Tramer, N. Carlini. Increasing Confidence in Adversarial Robustness Evaluations.
NeurIPS 2022 (arXiv 2206.13991). Around each image, points inside the ball and one point on its boundary get
a new linear readout of the defended network's features that tells the one from the others. The boundary point
is an adversarial example by construction; an attack that does not find it, or another, is too weak.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchbox.audit.probes.climb import climb
from benchbox.audit.probes.measurements import Binarisation, Flags
from benchbox.audit.probes.search import REACH, Target
from benchbox.contract.ascent import ascend
from benchbox.contract.features import penultimate
from benchbox.contract.view import Forward, View
from benchbox.draws import Draws
from benchbox.engine.isolation.stranger import Stranger
from benchbox.errors import DefenseError

#: Points inside the ball around each image, the image included; fewer where the features are fewer.
INNER = 1000
#: Inner points lie this share of epsilon away at most.
GAP = 0.95
#: How close to the boundary point the readout turns, on the way from the inner points.
CLOSENESS = 0.999
#: Random points that must not solve it.
RANDOM = 200


def test(target: Target, through: str) -> Binarisation:
    """Run it on the first `effort.binarisation` samples.

    Of a randomised defence every point gets draws of its own, the boundary point several, and a point counts as
    found if at least half of its fresh draws call it the planted class. Gradients come through the model that the
    evaluation attacks; what was found is judged on the deployed defence.

    Args:
        target: The defence and its images.
        through: The model to differentiate: `deployed` or the name of a stand-in.

    Raises:
        RequestError: The classifier has no linear layer to replace.
        DefenseError: The features are too few, or the head is not used in a forward pass.
    """
    part = target.rows(torch.arange(min(target.effort.binarisation, len(target.y)), device=target.y.device))
    inner = min(INNER, _features(part, "deployed")(part.x, part.draws).shape[1])
    if inner < 8:
        raise DefenseError(f"{inner} features are too few for a readout that separates one point from the others")
    readouts, ready = _readouts(part, inner)
    keep = torch.from_numpy(np.flatnonzero(ready)).to(part.y.device)
    failed = len(ready) - len(keep)
    if not len(keep):
        return Binarisation(0.0, 0.0, 0, len(ready), inner)
    part = part.rows(keep)
    found = _attack(part, readouts, through)
    lucky = np.zeros(len(keep), bool)
    for i in range(RANDOM):
        x = part.threat.random_start(part.x, part.draws.at("audit", "lucky", i))
        draws = _draws(part, "lucky", i)
        with torch.no_grad():
            once = readouts.score(_features(part, "deployed")(x, draws), draws) > 0
        if (once.cpu().numpy() & ~lucky).any():
            lucky |= _planted(part, readouts, x, f"lucky {i}")
    missed = part.draws.indices.cpu().numpy()[~found].tolist()
    return Binarisation(float(found.mean()), float(lucky.mean()), len(keep), failed, inner, tuple(missed))


test.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it


@dataclass(frozen=True)
class _Readouts:
    """A linear readout for each sample: positive means the planted class.

    Attributes:
        indices: (N,) position in the data set of each.
        weights: (N, D).
        offsets: (N,).
    """

    indices: Tensor
    weights: Tensor
    offsets: Tensor

    def score(self, features: Tensor, draws: Draws) -> Tensor:
        """(n,) for features (n, D) of some of the samples; their draws say of which."""
        row = (draws.indices[:, None] == self.indices).int().argmax(1)
        return (features * self.weights[row]).sum(1) + self.offsets[row]


def _features(target: Target, through: str) -> Forward:
    """(x, draws) -> penultimate features (n, D) of the defended network, with the gradient of a model."""
    defense, stand_in = target.defense, None if through == "deployed" else through
    if isinstance(defense, Stranger):
        features = defense.features(stand_in)
    else:
        features = penultimate(defense, defense.surrogates()[stand_in] if stand_in else defense)

    def asked(x: Tensor, draws: Draws) -> Tensor:
        target.keep_time()
        return target.judge.asked(features, x, draws)

    return asked


def _draws(target: Target, *purpose: str | int) -> Draws:
    """Fresh draws for a randomised defence; always the same for any other."""
    source = target.draws.at("audit", "features")
    return source.at(*purpose) if target.defense.randomized else source


def _repeats(target: Target) -> int:
    return target.effort.scoring_draws if target.defense.randomized else 1


def _planted(target: Target, readouts: _Readouts, x: Tensor, purpose: str) -> Flags:
    """(N,) whether at least half of the fresh draws call an image the planted class."""
    features, votes = _features(target, "deployed"), torch.zeros(len(x), device=x.device)
    with torch.no_grad():
        for r in range(_repeats(target)):
            draws = _draws(target, purpose, r)
            votes += readouts.score(features(x, draws), draws) > 0
    flags: Flags = (votes >= _repeats(target) / 2).cpu().numpy()
    return flags


def _readouts(target: Target, inner: int) -> tuple[_Readouts, Flags]:
    """The readouts, and (N,) whether each separates its points and keeps its planted one in fresh draws."""
    near, features = target.threat.scaled(GAP), _features(target, "deployed")
    boundary = _boundary(target)
    inside, outside = [], []
    with torch.no_grad():
        for i in range(inner):
            x = target.x if i == 0 else near.random_start(target.x, target.draws.at("audit", "inner", i))
            inside.append(features(x, _draws(target, "inner", i)).cpu())
        for r in range(_repeats(target)):
            outside.append(features(boundary, _draws(target, "outer", r)).cpu())
    points = (torch.stack(part, 1).double().numpy() for part in (inside, outside))
    solved = []
    for both in zip(*points, strict=True):
        target.keep_time()
        solved.append(_separate(*both))
    device = target.x.device
    weights = torch.tensor(np.stack([w for w, _, _ in solved]), dtype=torch.float32, device=device)
    offsets = torch.tensor([b for _, b, _ in solved], dtype=torch.float32, device=device)
    readouts = _Readouts(target.draws.indices, weights, offsets)
    ready = np.array([ok for _, _, ok in solved])
    # Draws that the readout was not fitted to may tell another story: then nothing was planted.
    return readouts, ready & _planted(target, readouts, boundary, "check") if target.defense.randomized else ready


def _boundary(target: Target) -> Tensor:
    """(N, C, H, W) a point at distance epsilon, cut with the box."""
    threat, draws = target.threat, target.draws.at("audit", "boundary")
    noise = draws.normal(*target.x.shape[1:])
    noise = noise * (threat.epsilon / threat.norms(noise).clamp_min(1e-12)).view(-1, 1, 1, 1)
    return threat.project(target.x + noise, target.x)


def _separate(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """A readout that is positive on `outside` (R, D) alone, turning just before it, scaled to unit range."""
    from sklearn.svm import LinearSVC

    points = np.concatenate([inside, outside])
    label = np.arange(len(points)) >= len(inside)
    center, scale = points.mean(0), points.std(0).max() or 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged: what counts is whether it separates
        machine = LinearSVC(C=1e6, max_iter=2000, dual=True, random_state=0).fit((points - center) / scale, label)
    w = machine.coef_[0] / scale
    scores = points @ w
    top, there = float(scores[~label].max()), float(scores[label].min())
    if there - top <= 1e-6 * max(1.0, abs(there)):
        return w, 0.0, False
    turn = top + CLOSENESS * (there - top)
    spread = max(there - float(scores.min()), 1e-12)
    return w / spread, -turn / spread, True


def _attack(target: Target, readouts: _Readouts, through: str) -> Flags:
    """(N,) whether PGD, with the effort of the evaluation, finds a point of the planted class."""
    found = np.zeros(len(target.y), bool)
    for restart in range(target.effort.restarts):
        left = np.flatnonzero(~found)
        if len(left):
            part = target.rows(torch.from_numpy(left).to(target.y.device))
            found[left] = _planted(part, readouts, _search(part, readouts, through, restart), f"found {restart}")
    return found


def _search(target: Target, readouts: _Readouts, through: str, restart: int) -> Tensor:
    """Images (N, C, H, W) on which the score of the planted class is as high as PGD gets it."""
    zero, source = torch.zeros_like(target.y), target.draws.at("audit", "planted", restart)
    randomized = target.defense.randomized

    def scored(name: str) -> Forward:
        features = _features(target, name)

        def forward(x: Tensor, draws: Draws) -> Tensor:
            fixed = draws if randomized else _draws(target).rows(_rows(target, draws))
            score = readouts.score(features(x, fixed), fixed)
            return torch.stack([torch.zeros_like(score), score], 1)

        return forward

    view = View(scored(through), zero, source, randomized=randomized, eot=target.effort.eot)
    start = target.threat.random_start(target.x, source)
    steps, length = target.effort.steps, target.threat.epsilon * min(REACH / target.effort.steps, 1.0)
    if randomized:
        return ascend(
            view,
            target.x,
            zero,
            target.threat,
            start=start,
            steps=steps,
            step_size=length,
            loss=_rise,
            keep="best",
        )
    deployed = None if through == "deployed" else scored("deployed")
    return climb(
        view, target.x, target.threat, start=start, steps=steps, step_size=length, loss=_rise, deployed=deployed
    ).x


def _rise(logits: Tensor, y: Tensor) -> Tensor:
    return logits[:, 1]


def _rows(target: Target, draws: Draws) -> Tensor:
    return (draws.indices[:, None] == target.draws.indices).int().argmax(1)
