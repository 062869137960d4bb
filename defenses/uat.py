"""Adversarial training on labelled and unlabelled images.

UAT: J.-B. Alayrac, J. Uesato, P.-S. Huang, A. Fawzi, R. Stanforth, P. Kohli. Are Labels Required for Improving
Adversarial Robustness? NeurIPS 2019 (arXiv 1905.13725).
RST: Y. Carmon, A. Raghunathan, L. Schmidt, P. Liang, J. Duchi. Unlabeled Data Improves Adversarial Robustness.
NeurIPS 2019 (arXiv 1905.13736).

Both take their unlabelled images from 80 Million Tiny Images, which is withdrawn. Here a fixed half of the
training images, chosen by index, counts as unlabelled and no loss ever reads its labels. So these rows see *fewer*
labels than the others and not more images: they test the method, and cannot show the gain the papers report.

Pseudo-labels come from a labeller of the same network. The papers train it first; here it is trained at the same
time, with cross-entropy on the labelled half alone, and until it is of use only labelled images are trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import Parameter
from typing_extensions import TypeVar

from benchbox import Batch, Card, Classifier, ClassifierRecipe, Draws, ImageSpec, Losses, cross_entropy, nets

from .pgd_at import PGDAT, PGDATRecipe
from .trades import TRADES, TRADESRecipe, divergence

R = TypeVar("R", bound=ClassifierRecipe, default=ClassifierRecipe)


class SelfLabeled(Classifier[R]):
    """A classifier that is trained on the guesses of another of its kind."""

    def __init__(self, recipe: R, images: ImageSpec, *rest: Any) -> None:
        super().__init__(recipe, images, *rest)
        self.labeler = nets.build(recipe.network, images)

    def players(self) -> Mapping[str, list[Parameter]]:
        """The classifier, and the network that labels for it."""
        return {"classifier": list(self.classifier.parameters()), "labeler": list(self.labeler.parameters())}


class UATRecipe(PGDATRecipe):
    """Hyper-parameters of UAT++; the inner attack is that of PGD-AT.

    Attributes:
        unlabeled: Share of the training images whose labels are hidden.
        labeling: Share of the training before pseudo-labels are used; an assumption.
        lambda_smooth: Weight of the smoothness term (OT) against the pseudo-label term (FT); an assumption.
    """

    unlabeled: float = Field(0.5, ge=0, lt=1)
    labeling: float = Field(0.15, ge=0, le=1)
    lambda_smooth: float = Field(1.0, ge=0)


class UAT(SelfLabeled[UATRecipe], PGDAT[UATRecipe]):
    """UAT++: CE(ŷ, f(x + δ)), and on unlabelled images also λ · KL(f(x) ‖ f(x + δ)).

    ŷ is the label where there is one, else the pseudo-label. One δ maximises the sum of both terms; whether the
    authors search one or two is not known. f(x) in the second term is held constant, as theirs is.
    """

    card = Card("uat", "unsupervised adversarial training", "Alayrac et al., NeurIPS 2019", 2019, "training")

    def losses(self, batch: Batch) -> Losses:
        """The loss on known and on guessed labels; the labeller's on known ones."""
        known = labeled(batch.draws.indices, self.recipe.unlabeled)
        guessed, labeler = guess(self.labeler, batch, known)
        used = in_use(known, batch.progress >= self.recipe.labeling)
        ce, smooth = self._worst(_rows(guessed, used), (~known[used]).float())
        terms = {"ce": ce.mean(), "smooth": smooth.mean()}
        return {"classifier": terms, "labeler": {"labeler": labeler}}

    def _worst(self, batch: Batch, unlabeled: Tensor) -> tuple[Tensor, Tensor]:
        """Both terms (N,) at the worst point of the ball."""
        recipe = self.recipe
        threat = batch.threat.scaled(min(1.0, batch.progress / recipe.warm_up) if recipe.warm_up else 1.0)
        with torch.no_grad():
            clean = self.classifier(batch.x)

        def smooth(logits: Tensor) -> Tensor:
            return recipe.lambda_smooth * unlabeled * divergence(clean, logits)

        x_adv = batch.attack(
            self.classifier,
            threat=threat,
            start=threat.random_start(batch.x, batch.draws),
            steps=recipe.attack_steps,
            step_size=recipe.attack_step_size * threat.epsilon / batch.threat.epsilon,
            loss=lambda logits, y: cross_entropy(logits, y) + smooth(logits),
        )
        logits = self.classifier(x_adv)
        return cross_entropy(logits, batch.y), smooth(logits)


class RSTRecipe(TRADESRecipe):
    """Hyper-parameters of robust self-training; the loss and the inner attack are those of TRADES.

    Attributes:
        unlabeled: Share of the training images whose labels are hidden.
        labeling: Share of the training before pseudo-labels are used; an assumption.
    """

    unlabeled: float = Field(0.5, ge=0, lt=1)
    labeling: float = Field(0.15, ge=0, le=1)


class RST(SelfLabeled[RSTRecipe], TRADES[RSTRecipe]):
    """Robust self-training: TRADES on labels and pseudo-labels alike."""

    card = Card("rst", "robust self-training", "Carmon et al., NeurIPS 2019", 2019, "training")
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **TRADES.recipes,
        # The labeller's steps come on top of TRADES'; fewer epochs keep it within three minutes on two cores.
        "digits": {**TRADES.recipes["digits"], "epochs": 30},
        # The authors': a cosine rate and weight decay 5e-4.
        "cifar": {**TRADES.recipes["cifar"], "weight_decay": 5e-4, "schedule": "cosine"},
    }

    def losses(self, batch: Batch) -> Losses:
        """TRADES on known and on guessed labels; the labeller's on known ones."""
        known = labeled(batch.draws.indices, self.recipe.unlabeled)
        guessed, labeler = guess(self.labeler, batch, known)
        used = in_use(known, batch.progress >= self.recipe.labeling)
        return {**super().losses(_rows(guessed, used)), "labeler": {"labeler": labeler}}


def labeled(indices: Tensor, unlabeled: float) -> Tensor:
    """Which images keep their labels: a choice by the index alone, the same in every training; (N,) bool."""
    return Draws(indices).at("unlabeled").uniform(1)[:, 0] >= unlabeled


def guess(labeler: nn.Module, batch: Batch, known: Tensor) -> tuple[Batch, Tensor]:
    """The batch with the labeller's guesses for the labels that are not known, and the labeller's own loss.

    Args:
        labeler: Images (N, C, H, W) -> logits (N, K), with gradients.
        batch: Its labels are read where they are known, and nowhere else.
        known: (N,) bool.
    """
    logits = labeler(batch.x)
    y = torch.where(known, batch.y, logits.detach().argmax(1))
    losses = cross_entropy(logits, y) * known
    return replace(batch, y=y), losses.sum() / known.sum().clamp_min(1)


def in_use(known: Tensor, labeling_done: bool) -> Tensor:
    """Which images are trained on: those with labels, later all; (N,) bool."""
    # A short last batch may hold no label at all; its guesses are better than the mean of nothing.
    return known if not labeling_done and bool(known.any()) else torch.ones_like(known)


def _rows(batch: Batch, used: Tensor) -> Batch:
    return replace(batch, x=batch.x[used], y=batch.y[used], draws=batch.draws.rows(used))
