"""TRADES: cross-entropy on clean images plus a weighted divergence to the worst nearby prediction.

H. Zhang, Y. Yu, J. Jiao, E. Xing, L. El Ghaoui, M. Jordan. Theoretically Principled Trade-off between
Robustness and Accuracy. ICML 2019 (arXiv 1901.08573), Eq. 5 and Algorithm 1; settings of the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import TypeVar

from benchbox import (
    Batch,
    Card,
    Classifier,
    ClassifierRecipe,
    Count,
    Losses,
    NonNegative,
    Optimizer,
    Positive,
    Schedule,
    Share,
    Whole,
)


class TRADESRecipe(ClassifierRecipe):
    """Hyper-parameters of TRADES; the defaults are those of the MNIST script.

    Attributes:
        beta: Weight 1/λ of the divergence: 1 on MNIST, 6 on CIFAR-10.
        attack_steps: Steps of the inner attack.
        attack_step_size: Length of a step, in units of images in [0, 1].
        warm_up: Share of the training over which epsilon grows from 0 to its full size.
    """

    epochs: Whole = 100
    optimizer: Optimizer = "sgd"
    learning_rate: Positive = 0.01
    schedule: Schedule = "step"
    beta: NonNegative = 1.0
    attack_steps: Count = 40
    attack_step_size: Positive = 0.01
    warm_up: Share = 0.0


R = TypeVar("R", bound=TRADESRecipe, default=TRADESRecipe)


class TRADES(Classifier[R]):
    """CE(f(x), y) + β · max over the ball of KL(f(x) ‖ f(x + δ))."""

    version: ClassVar[int] = 2
    card = Card("trades", "TRADES", paper="Zhang et al., ICML 2019", year=2019, kind="training")
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # The authors' 100 epochs of 40 steps are a day on two cores; see pgd-at for the same departures.
        "mnist": {
            "epochs": 8,
            "optimizer": "adam",
            "learning_rate": 2e-3,
            "schedule": "onecycle",
            "attack_steps": 5,
            "attack_step_size": 0.1,
            "warm_up": 0.3,
        },
        "digits": {"epochs": 40, "batch_size": 64},
        # The authors' script: SGD 0.1, weight decay 2e-4, 10 steps of 0.007; 76 epochs there.
        "cifar": {
            **Classifier.recipes["cifar"],
            "epochs": 30,
            "learning_rate": 0.1,
            "weight_decay": 2e-4,
            "schedule": "onecycle",
            "beta": 6.0,
            "attack_steps": 10,
            "attack_step_size": 0.007,
        },
        "cifar100": Classifier.recipes["cifar100"],
    }

    def losses(self, batch: Batch) -> Losses:
        """The two terms of Eq. 5."""
        attacked = self.attacked(batch)
        # Two passes, as in the authors' code: one batch of both would share its statistics and its dropout.
        clean, nearby = self.classifier(batch.x), self.classifier(attacked)
        return {
            "classifier": {
                "ce": F.cross_entropy(clean, batch.y),
                "kl": self.recipe.beta * divergence(clean, nearby).mean(),
            }
        }

    def attacked(self, batch: Batch) -> Tensor:
        """Ascend the divergence from a small normal offset, with batch statistics frozen (Algorithm 1)."""
        recipe = self.recipe
        scale = min(1.0, batch.progress / recipe.warm_up) if recipe.warm_up else 1.0
        threat = batch.threat.scaled(scale)
        training = self.training
        self.eval()
        with torch.no_grad():
            clean = self.classifier(batch.x)
        x_adv = batch.attack(
            self.classifier,
            threat=threat,
            start=threat.project(batch.x + 0.001 * batch.draws.at("start").normal(*batch.x.shape[1:]), batch.x),
            steps=recipe.attack_steps,
            step_size=recipe.attack_step_size * scale,
            loss=lambda logits, y: divergence(clean, logits),
        )
        self.train(training)
        return x_adv


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(softmax p ‖ softmax q) per sample, for logits (N, K) -> (N,)."""
    log_p = F.log_softmax(p, 1)
    return (log_p.exp() * (log_p - F.log_softmax(q, 1))).sum(1)
