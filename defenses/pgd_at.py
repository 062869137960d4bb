"""PGD adversarial training.

A. Madry, A. Makelov, L. Schmidt, D. Tsipras, A. Vladu. Towards Deep Learning Models Resistant to
Adversarial Attacks. ICLR 2018 (arXiv 1706.06083), Eq. 2.1 and section 5; settings of the authors'
mnist_challenge and cifar10_challenge configurations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import TypeVar

from benchbox import Batch, Card, Classifier, ClassifierRecipe, Count, Losses, Positive, Share, Whole


class PGDATRecipe(ClassifierRecipe):
    """Hyper-parameters of adversarial training; the defaults are MNIST's.

    Attributes:
        attack_steps: Steps of the inner attack.
        attack_step_size: Length of a step, in units of images in [0, 1].
        warm_up: Share of the training over which epsilon grows from 0 to its full size.
    """

    epochs: Whole = 84  # 100,000 steps of 50 images
    batch_size: Count = 50
    learning_rate: Positive = 1e-4
    attack_steps: Count = 40
    attack_step_size: Positive = 0.01
    warm_up: Share = 0.0


R = TypeVar("R", bound=PGDATRecipe, default=PGDATRecipe)


class PGDAT(Classifier[R]):
    """min over θ of E max over the ball of CE(f(x + δ), y); the inner maximum by PGD with a random start."""

    card = Card(
        "pgd-at", "adversarial training on PGD", paper="Madry et al., ICLR 2018", year=2018, kind="training"
    )
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # The authors' 100,000 steps of PGD-40 are a day on two cores. Five longer steps cover the same ball
        # and the one-cycle rate needs far fewer epochs; epsilon grows at first because LeNet-5 otherwise
        # settles on a constant prediction at epsilon 0.3.
        "mnist": {
            "epochs": 8,
            "batch_size": 128,
            "learning_rate": 2e-3,
            "schedule": "onecycle",
            "attack_steps": 5,
            "attack_step_size": 0.1,
            "warm_up": 0.3,
        },
        # As MNIST; small enough for more passes.
        "digits": {"epochs": 40, "batch_size": 64},
        # cifar10_challenge: SGD 0.1, batches of 128, 10 steps of 2/255; 80,000 steps there, 30 epochs of
        # one-cycle here (Rice et al. 2020 find the best robust accuracy long before the end).
        "cifar": {
            **Classifier.recipes["cifar"],
            "epochs": 30,
            "batch_size": 128,
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "weight_decay": 2e-4,
            "schedule": "onecycle",
            "attack_steps": 10,
            "attack_step_size": 2 / 255,
        },
        "cifar100": Classifier.recipes["cifar100"],
    }

    def losses(self, batch: Batch) -> Losses:
        """Cross-entropy on the attacked images."""
        return {"classifier": {"ce": F.cross_entropy(self.classifier(self.attacked(batch)), batch.y)}}

    def attacked(self, batch: Batch) -> Tensor:
        """PGD on the classifier as it is, in the ball of this moment of the training."""
        recipe = self.recipe
        threat = batch.threat.scaled(min(1.0, batch.progress / recipe.warm_up) if recipe.warm_up else 1.0)
        return batch.attack(
            self.classifier,
            threat=threat,
            start=threat.random_start(batch.x, batch.draws),
            steps=recipe.attack_steps,
            step_size=recipe.attack_step_size * threat.epsilon / batch.threat.epsilon,
        )
