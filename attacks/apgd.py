"""Auto-PGD by itself, on each of its three losses: the gradient attacks of AutoAttack, for every access.

F. Croce, M. Hein. Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
Attacks. ICML 2020 (arXiv 2003.01690), sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchbox import MEAN_GRADIENT, Attack, AttackError, Card, Count, Draws, Nature, ThreatModel, View

from ._apgd import apgd
from ._losses import Loss, ce, dlr, targeted_dlr
from ._survivors import runner_up
from .noise import worst


@dataclass(frozen=True, kw_only=True)
class APGDCE(Attack):
    """Auto-PGD on the cross-entropy: every sample, to the last step unless the view lets it stop early.

    Attributes:
        steps: Steps of a run.
        restarts: Runs, each from a point of its own; the end point that errs, then that of the highest margin,
            is kept.
    """

    card = Card("apgd-ce", "Auto-PGD, cross-entropy", paper="Croce & Hein, ICML 2020", year=2020, kind="gradient")
    nature = Nature("iterative", climbs=("cross-entropy",), step=2.0)
    averaging = MEAN_GRADIENT
    balls = ("linf", "l2", "l1")

    steps: Count = 100
    restarts: Count = 1

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """`steps` + 1 passes each way a run; choosing among several, `model.eot` forward passes a run."""
        with torch.no_grad():
            runs, steps = list(self._losses(model, x, y)), self.steps
            # Of several runs each attacks every sample, so that the best of their ends can be chosen.
            leave = model.early_stop and len(runs) * self.restarts == 1
            ends = (
                apgd(model, x, y, threat, draws.at(i, r), loss=loss, target=target, steps=steps, leave=leave).x
                for i, (loss, target) in enumerate(runs)
                for r in range(self.restarts)
            )
            return next(ends) if len(runs) * self.restarts == 1 else worst(model, y, ends)

    def _losses(self, model: View, x: Tensor, y: Tensor) -> Iterator[tuple[Loss, Tensor | None]]:
        """What is ascended, and towards which classes."""
        yield ce, None


@dataclass(frozen=True, kw_only=True)
class APGDDLR(APGDCE):
    """Auto-PGD on the difference of logits ratio, which does not change with the scale of the logits."""

    card = Card(
        "apgd-dlr", "Auto-PGD, ratio of logits", paper="Croce & Hein, ICML 2020", year=2020, kind="gradient"
    )
    nature = Nature("iterative", climbs=("dlr",), step=2.0)

    def _losses(self, model: View, x: Tensor, y: Tensor) -> Iterator[tuple[Loss, Tensor | None]]:
        """One forward pass to count the classes.

        Raises:
            AttackError: There are fewer than three.
        """
        _require(model(x).shape[1], 3, self)
        yield dlr, None


@dataclass(frozen=True, kw_only=True)
class APGDT(APGDCE):
    """Auto-PGD on the targeted difference of logits ratio, towards each of the most likely other classes.

    Attributes:
        targets: Classes aimed at, at most; all others where there are fewer.
    """

    card = Card("apgd-t", "Auto-PGD, targeted", paper="Croce & Hein, ICML 2020", year=2020, kind="gradient")
    nature = Nature("iterative", climbs=("dlr",), families=("targeted",), step=2.0)

    targets: Count = 9

    def _losses(self, model: View, x: Tensor, y: Tensor) -> Iterator[tuple[Loss, Tensor | None]]:
        """One forward pass to rank the classes.

        Raises:
            AttackError: There are fewer than four.
        """
        logits = model(x)
        _require(logits.shape[1], 4, self)
        for rank in range(1, min(self.targets, logits.shape[1] - 1) + 1):
            yield targeted_dlr, runner_up(logits, y, rank)


def _require(classes: int, least: int, attack: Attack) -> None:
    if classes < least:
        raise AttackError(f"{attack.card.name} needs at least {least} classes, got {classes}; use apgd-ce")
