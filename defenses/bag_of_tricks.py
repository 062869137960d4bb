"""PGD-AT and TRADES with well-chosen basic settings.

T. Pang, X. Yang, Y. Dong, H. Su, J. Zhu. Bag of Tricks for Adversarial Training. ICLR 2021 (arXiv 2010.00467),
section 4 and the settings of the authors' code.

The tricks: weight decay 5e-4, a schedule that decays late, batch statistics frozen while crafting, and, as an
option, label smoothing. Smooth activations, their last one, would need other networks and are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from benchbox import Batch, Card, Count, Losses, NonNegative, Optimizer, Positive, Schedule, Whole

from .pgd_at import PGDAT, PGDATRecipe
from .trades import TRADES, TRADESRecipe, divergence

PAPER = "Pang et al., ICLR 2021"
# What the paper fixes, on top of the network, augmentation and inner attack of the method at hand. It has no
# other data set than CIFAR; on MNIST the decay stays and the rest is as the method is trained here.
CIFAR: Mapping[str, Any] = {"epochs": 110, "weight_decay": 5e-4, "schedule": "step-late"}
MNIST: Mapping[str, Any] = {"weight_decay": 5e-4}


class BagPGDATRecipe(PGDATRecipe):
    """Hyper-parameters of PGD-AT with the tricks; the defaults are CIFAR-10's.

    Attributes:
        label_smoothing: Share of the probability spread evenly over all classes; the authors try 0.1 to 0.3.
    """

    epochs: Whole = 110
    batch_size: Count = 128
    optimizer: Optimizer = "sgd"
    learning_rate: Positive = 0.1
    weight_decay: NonNegative = 5e-4
    schedule: Schedule = "step-late"
    attack_steps: Count = 10
    attack_step_size: Positive = 2 / 255
    label_smoothing: float = Field(0.0, ge=0, lt=1)


class BagPGDAT(PGDAT[BagPGDATRecipe]):
    """PGD-AT with the tricks."""

    card = Card("bagt-pgd-at", "PGD-AT with a bag of tricks", PAPER, 2021, "training")
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mnist": {**PGDAT.recipes["mnist"], **MNIST, "optimizer": "adam"},
        "digits": PGDAT.recipes["digits"],
        "cifar": {**PGDAT.recipes["cifar"], **CIFAR},
        "cifar100": PGDAT.recipes["cifar100"],
    }

    def losses(self, batch: Batch) -> Losses:
        """Cross-entropy with smoothed labels on the attacked images."""
        logits = self.classifier(self.attacked(batch))
        return {
            "classifier": {"ce": F.cross_entropy(logits, batch.y, label_smoothing=self.recipe.label_smoothing)}
        }

    def attacked(self, batch: Batch) -> Tensor:
        """PGD-AT's, with batch statistics frozen."""
        training = self.training
        self.eval()
        x_adv = super().attacked(batch)
        self.train(training)
        return x_adv


class BagTRADESRecipe(TRADESRecipe):
    """Hyper-parameters of TRADES with the tricks; the defaults are CIFAR-10's.

    Attributes:
        label_smoothing: Share of the probability spread evenly over all classes, in the cross-entropy.
    """

    epochs: Whole = 110
    learning_rate: Positive = 0.1
    weight_decay: NonNegative = 5e-4
    schedule: Schedule = "step-late"
    beta: NonNegative = 6.0
    attack_steps: Count = 10
    attack_step_size: Positive = 2 / 255
    label_smoothing: float = Field(0.0, ge=0, lt=1)


class BagTRADES(TRADES[BagTRADESRecipe]):
    """TRADES with the tricks; its inner attack freezes batch statistics anyway."""

    version: ClassVar[int] = 3
    card = Card("bagt-trades", "TRADES with a bag of tricks", PAPER, 2021, "training")
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # β = 6 is CIFAR's; the TRADES authors have 1 on MNIST.
        "mnist": {**TRADES.recipes["mnist"], **MNIST, "beta": 1.0},
        "digits": TRADES.recipes["digits"],
        "cifar": {**TRADES.recipes["cifar"], **CIFAR, "attack_step_size": 2 / 255},
        "cifar100": TRADES.recipes["cifar100"],
    }

    def losses(self, batch: Batch) -> Losses:
        """The two terms of TRADES, the first with smoothed labels."""
        attacked = self.attacked(batch)
        # Two passes, as TRADES has: with its tricks it is to differ from it in nothing else.
        clean, nearby = self.classifier(batch.x), self.classifier(attacked)
        return {
            "classifier": {
                "ce": F.cross_entropy(clean, batch.y, label_smoothing=self.recipe.label_smoothing),
                "kl": self.recipe.beta * divergence(clean, nearby).mean(),
            }
        }
