"""AutoAttack, standard version.

F. Croce, M. Hein. Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
Attacks. ICML 2020 (arXiv 2003.01690), section 6; the searches are those of the authors' package pyautoattack.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchbox import MEAN_GRADIENT, Access, Attack, Card, Draws, Nature, ThreatModel, View

from ._fence import fenced
from ._pyautoattack import APGD, TargetedAPGD, square, targeted_fab
from .noise import worst


@dataclass(frozen=True, kw_only=True)
class AA(Attack):
    """APGD-CE, targeted APGD, targeted FAB and Square, each on the samples that withstood those before it.

    A sample that withstands all four costs 7,852 forward and 1,910 backward passes inside them (102/101,
    919/909, 1828/900 and 5003/0), and 5 forward passes for asking before the first and after each whether it
    is broken: 7,857 and 1,910, as in the authors' program. Whoever reports fewer did not run AutoAttack.

    With fewer than ten classes there are fewer than nine targets: as many as there are other classes. The
    targeted DLR loss needs four classes; with three, untargeted APGD-DLR takes its place. The DLR loss itself
    needs three; with two, APGD-CE, FAB and Square remain.

    A randomised view is attacked by the authors' version `rand`, APGD-CE and APGD-DLR with gradients averaged over
    `model.eot` draws, but for two things. No sample is dropped because it erred in a single draw. And each
    sample ends at that of the two attacks' points of highest loss which the model gets wrong more often in
    `model.eot` fresh draws. (Within a run, the library compares iterates by their loss in the last draw alone.)
    """

    card = Card("aa", "AutoAttack, standard version", paper="Croce & Hein, ICML 2020", year=2020, kind="ensemble")
    nature = Nature(
        "ensemble",
        climbs=("cross-entropy", "dlr", "margin"),
        families=("gradient of the cross-entropy", "targeted", "minimum norm", "score-based"),
        steps=100,
        targets=9,
        queries=5000,
        stands_for="AutoAttack",
    )
    standard = (Access.GRAY_BOX, Access.TRANSFER, Access.WHITE_BOX)
    averaging = MEAN_GRADIENT
    version = 2

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """Clean images stay where nothing was found or nothing was to be done."""
        with torch.no_grad(), fenced(draws.seed):
            if model.randomized:
                return _rand(model, x, y, threat, draws)
            return _standard(model, x, y, threat, draws)


def _standard(model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
    logits = model(x)
    classes = logits.shape[1]
    x_adv = x.clone()
    standing = (logits.argmax(1) == y).nonzero().flatten()
    for name in members(classes):
        if not len(standing):
            break
        rest, truth = x[standing], y[standing]
        found = run(name, model, rest, truth, threat, draws.rows(standing), classes)
        broken = model(found).argmax(1) != truth
        x_adv[standing[broken]] = found[broken]
        standing = standing[~broken]
    return x_adv


def members(classes: int) -> tuple[str, ...]:
    """The attacks that a number of classes admits, in their order."""
    if classes >= 4:
        return ("apgd-ce", "apgd-t", "fab-t", "square")
    return ("apgd-ce", "apgd-dlr", "fab-t", "square") if classes == 3 else ("apgd-ce", "fab-t", "square")


def run(name: str, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, classes: int) -> Tensor:
    """One member on one batch; the clean image where it found nothing.

    Args:
        name: `apgd-ce`, `apgd-dlr`, `apgd-t`, `fab-t` or `square`.
        model: A deterministic view.
        x: (n, C, H, W) images it classifies correctly.
        y: (n,) true classes.
        threat: The ball.
        draws: Row i belongs to sample i.
        classes: Number of classes K.
    """
    draws = draws.at(name)
    targets = min(9, classes - 1)
    match name:
        case "apgd-t":
            found = TargetedAPGD(model, x, threat, draws, targets=targets).perturb(x, y)
        case "fab-t":
            found = targeted_fab(model, x, y, threat, targets=targets)
        case "square":
            found = square(model, x, y, threat, draws)
        case _:
            found = APGD(model, x, threat, draws, loss=name.removeprefix("apgd-")).perturb(x, y)
    return threat.project(found, x)


def _rand(model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
    losses = ("ce", "dlr") if model(x).shape[1] >= 3 else ("ce",)
    attacks = (APGD(model, x, threat, draws.at(loss), loss=loss) for loss in losses)
    return worst(model, y, (threat.project(attack.perturb(x, y, best_loss=True), x) for attack in attacks))
