"""Adversarial training that stops before it overfits.

L. Rice, E. Wong, J. Z. Kolter. Overfitting in Adversarially Robust Deep Learning. ICML 2020 (arXiv 2002.11569),
sections 2 and 3.3; settings of the authors' CIFAR-10 script.

The loss is PGD-AT's; the weights are those of the epoch with the best robust accuracy. The paper's tables select
it on the test set. Here it is the honest variant of the authors' repository: on training images that no step saw.
Departure: their network is a pre-activation ResNet-18, ours the plain one all defences here share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from benchbox import Batch, Card, Count, ImageSpec, NonNegative, Optimizer, Positive, Schedule, Whole

from .pgd_at import PGDAT, PGDATRecipe


class RiceRecipe(PGDATRecipe):
    """Hyper-parameters of early-stopped adversarial training; the defaults are CIFAR-10's.

    Attributes:
        validation: Share of the training images held out to select the epoch; 1,000 of CIFAR's 50,000.
    """

    epochs: Whole = 200
    batch_size: Count = 128
    optimizer: Optimizer = "sgd"
    learning_rate: Positive = 0.1
    weight_decay: NonNegative = 5e-4
    schedule: Schedule = "step-early"
    attack_steps: Count = 10
    attack_step_size: Positive = 2 / 255
    validation: float = Field(0.02, gt=0, lt=1)


class Rice(PGDAT[RiceRecipe]):
    """PGD adversarial training, and of all epochs the one that held-out images survive best."""

    card = Card(
        "rice", "early-stopped adversarial training", paper="Rice et al., ICML 2020", year=2020, kind="training"
    )
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Theirs is CIFAR only; on MNIST, PGD-AT as it is trained here. The one-cycle rate leaves little to
        # overfit: expect the last epochs to win.
        "mnist": {**PGDAT.recipes["mnist"], "optimizer": "adam", "weight_decay": 0.0},
        # 144 of 1,437 images: with 29 a single one would decide.
        "digits": {**PGDAT.recipes["digits"], "validation": 0.1},
        # The best of their 200 epochs is the 106th, soon after the first step of the rate at the 100th; half the
        # epochs with the steps at the same shares keep that shape.
        "cifar": {**PGDAT.recipes["cifar"], "epochs": 100, "weight_decay": 5e-4, "schedule": "step-early"},
        "cifar100": PGDAT.recipes["cifar100"],
    }

    def __init__(self, recipe: RiceRecipe, images: ImageSpec, *rest: Any) -> None:
        super().__init__(recipe, images, *rest)
        self.validation = recipe.validation

    def validate(self, batch: Batch) -> Tensor:
        """1 for an image that is classified correctly under the training attack in the full ball, else 0."""
        # At progress 1 the warm-up of epsilon is over.
        x_adv = self.attacked(replace(batch, progress=1.0))
        right: Tensor = self.classifier(x_adv).argmax(1) == batch.y
        return right.float()
