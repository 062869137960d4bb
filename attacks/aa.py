"""AutoAttack, standard version.

F. Croce, M. Hein. Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
Attacks. ICML 2020 (arXiv 2003.01690), section 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from benchbox import MEAN_GRADIENT, Access, Attack, Card, Draws, Nature, ThreatModel, View, Whole

from ._apgd import afresh, apgd
from ._fab import fab
from ._losses import Loss, ce, dlr, targeted_dlr
from ._square import square
from ._survivors import Found, Search, Survivors, batches, runner_up
from .noise import worst


@dataclass(frozen=True, kw_only=True)
class AA(Attack):
    """APGD-CE, targeted APGD, targeted FAB and Square, each on the samples that withstood those before it.

    A sample that withstands all four costs 7,852 forward and 1,910 backward passes inside them (102/101,
    919/909, 1828/900 and 5003/0), and 5 forward passes for asking before the first and after each whether it
    is broken: 7,857 and 1,910, as in the authors' program. Whoever reports fewer did not run AutoAttack.

    A sample leaves targeted APGD, FAB and Square at the image that breaks it. APGD-CE goes on to its last step, as
    the authors' does: most samples of a weak model fall there, and an image at the very boundary of the model it
    was made on would say nothing about another one (gray-box, transfer). Where there is no other one
    (`View.early_stop`) a sample leaves there too.

    With fewer than ten classes there are fewer than nine targets: as many as there are other classes. The
    targeted DLR loss needs four classes; with three, untargeted APGD-DLR takes its place. The DLR loss itself
    needs three; with two, APGD-CE, FAB and Square remain.

    In L1 the authors run APGD-CE five times, and targeted APGD and no other towards five classes (Croce & Hein,
    ICML 2021).

    A randomised view is attacked by the authors' version `rand`, APGD-CE and APGD-DLR with gradients averaged over
    `model.eot` draws, but for three things. No sample is dropped because it erred in a single draw. Iterates are
    compared by their mean loss, not by that in the last draw. And each sample ends at that of the two attacks'
    points of highest loss which the model gets wrong more often in `model.eot` fresh draws.

    With `sure` a sample of a randomised view leaves before that, once an image errs in so many fresh draws, all of
    them, at one of `looks`. An image that is right in a share p of its draws passes a look with (1 - p) ** sure.
    So of a sample for which a worse image would still have been found at most 1.6 % is lost with 100 draws: the
    maximum of p (1 - (1 - (1 - p) ** 100) ** 11) over p, for the 11 looks of both runs.

    Attributes:
        sure: Draws it takes; 0 searches every sample to the end, as the authors do. Of no effect in L1.
    """

    card = Card("aa", "AutoAttack, standard version", paper="Croce & Hein, ICML 2020", year=2020, kind="ensemble")
    nature = Nature(
        "ensemble",
        climbs=("cross-entropy", "dlr", "margin"),
        families=("gradient of the cross-entropy", "targeted", "minimum norm", "score-based"),
        steps=100,
        step=2.0,
        targets=9,
        queries=5000,
        stands_for="AutoAttack",
    )
    drawing = Nature("ensemble", climbs=("cross-entropy", "dlr"), steps=100, step=2.0, stands_for="AutoAttack")
    standard = (Access.GRAY_BOX, Access.TRANSFER, Access.WHITE_BOX)
    averaging = MEAN_GRADIENT
    balls = ("linf", "l2", "l1")
    pooled = True
    version = 3
    unsaid = ("sure",)

    sure: Whole = 0

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """Clean images stay where nothing was found or nothing was to be done."""
        with torch.no_grad():
            if model.randomized:
                return _rand(model, x, y, threat, draws, self.sure)
            return _standard(model, x, y, threat, draws)


def _standard(model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
    survivors = Survivors(model, x, y, threat, draws)
    classes = survivors.ask()
    for name in members(classes):
        before = survivors.standing
        run(name, survivors, classes)
        survivors.confirm(before)
    return survivors.x_adv


def members(classes: int) -> tuple[str, ...]:
    """The attacks that a number of classes admits, in their order; none where nobody stands."""
    if classes >= 4:
        return ("apgd-ce", "apgd-t", "fab-t", "square")
    if classes == 3:
        return ("apgd-ce", "apgd-dlr", "fab-t", "square")
    return ("apgd-ce", "fab-t", "square") if classes else ()


def run(name: str, survivors: Survivors, classes: int) -> None:
    """One member on those who stand, each of its runs on those who withstood the run before.

    Args:
        name: `apgd-ce`, `apgd-dlr`, `apgd-t`, `fab-t` or `square`.
        survivors: Of a deterministic view.
        classes: Number of classes K.
    """
    threat, targets = survivors.threat, range(1, min(9, classes - 1) + 1)
    sparse = threat.norm == "l1"
    match name:
        case "apgd-ce" | "apgd-dlr":
            survivors.ask()
            for restart in range(5 if sparse else 1):
                survivors.attack(_apgd(threat, ce if name == "apgd-ce" else dlr, restart))
        case "apgd-t":
            survivors.ask()
            for rank in targets[:5] if sparse else targets:
                survivors.attack(_targeted_apgd(threat, rank))
        case "fab-t":
            survivors.ask()
            for rank in targets:
                survivors.attack(_fab(threat, rank))
        case "square":
            survivors.attack(_square(threat))


def _apgd(threat: ThreatModel, loss: Loss, restart: int) -> Search:
    def search(model: View, x: Tensor, y: Tensor, draws: Draws) -> Found:
        own = draws.at(loss.__name__, restart) if restart else draws.at(loss.__name__)
        return apgd(model, x, y, threat, own, loss=loss, leave=model.early_stop)

    return search


def _targeted_apgd(threat: ThreatModel, rank: int) -> Search:
    def search(model: View, x: Tensor, y: Tensor, draws: Draws) -> Found:
        target, draws = runner_up(model(x), y, rank), draws.at("targeted", rank)
        return apgd(model, x, y, threat, draws, loss=targeted_dlr, target=target, leave=True)

    return search


def _fab(threat: ThreatModel, rank: int) -> Search:
    return lambda model, x, y, _: fab(model, x, y, threat, runner_up(model(x), y, rank), leave=True)


def _square(threat: ThreatModel) -> Search:
    def search(model: View, x: Tensor, y: Tensor, draws: Draws) -> Found:
        found = square(model, x, y, threat, draws.at("square"))
        return Found(found, (found != x).flatten(1).any(1))

    return search


def _rand(model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, sure: int) -> Tensor:
    found = []
    for rows in batches(torch.arange(len(y), device=y.device), model.batch):
        part, own = (model, draws) if len(rows) == len(y) else (model.rows(rows), draws.rows(rows))
        found.append(_rand_batch(part, x[rows], y[rows], threat, own, sure))
    return torch.cat(found)


def _rand_batch(model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, sure: int) -> Tensor:
    others = (dlr,) if model(x).shape[1] >= 3 else ()
    found, left = apgd(model, x, y, threat, draws.at(ce.__name__), loss=ce, sure=sure)
    rows = (~left).nonzero().flatten()
    if len(rows):
        part = afresh(model, rows, "rest") if sure else model
        x, y, draws = x[rows], y[rows], draws.rows(rows)
        ends = (apgd(part, x, y, threat, draws.at(loss.__name__), loss=loss, sure=sure).x for loss in others)
        found[rows] = worst(part, y, chain((found[rows],), ends))
    return found
