"""Prototype conformity: features close to the centre of their own class and away from those of the others.

A. Mustafa, S. Khan, M. Hayat, R. Goecke, J. Shen, L. Shao. Adversarial Defense by Restricting the Hidden Space of
Deep Neural Networks. ICCV 2019 (arXiv 1904.00887); the loss as in the authors' code.

The paper's Eq. 5 has one set of centres, distances that are not squared, and a term between centres; the code,
followed here, has two sets of learned centres and squared distances. Departures: the centres already follow the
features while the network is trained with cross-entropy alone; one schedule of the rate runs through both phases,
where the authors start a second one; no adversarial training (their "PCL + AT" rows). It is known to fail under
AutoAttack (0.28 % on CIFAR-10): what it reports under single-step attacks is gradient masking.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn import Parameter

from benchbox import Batch, Card, Classifier, ClassifierRecipe, ImageSpec, Losses, Optimizer, Recipe


class PCLRecipe(ClassifierRecipe):
    """Hyper-parameters of prototype conformity, with the authors' values as defaults.

    Attributes:
        pretraining: Share of the training with cross-entropy alone; 164 epochs of 564.
        lambda_near: Weight of the distances to the own centre.
        lambda_far: Weight of the distances to the other classes' centres; 1e-5 in the adversarial variants.
        near_rate: Learning rate of the centres that attract.
        far_rate: Learning rate of the centres that repel.
    """

    epochs: int = 564
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.01
    weight_decay: float = 1e-4
    pretraining: float = Field(164 / 564, ge=0, le=1)
    lambda_near: float = 1.0
    lambda_far: float = 1e-4
    near_rate: float = 0.5
    far_rate: float = 1e-4


class PCL(Classifier):
    """CE + Σ over layers of the mean ‖h - c_y‖² - w · the mean of ‖h - c'_j‖² over the other classes j.

    The layers are the inputs of all linear layers of the network, which in the authors' ResNet-110 are the pooled
    maps and the hidden layer after them.
    """

    card = Card("pcl", "prototype conformity loss", "Mustafa et al., ICCV 2019", 2019, "training")
    recipe_type: ClassVar[type[Recipe]] = PCLRecipe
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # The authors train on CIFAR only, for days. A decaying rate gets there in fewer passes.
        "mnist": {"epochs": 12, "learning_rate": 0.02, "schedule": "onecycle"},
        # As MNIST; 1,437 images need more passes.
        "digits": {"epochs": 60, "batch_size": 64},
        "cifar": {**Classifier.recipes["cifar"], "epochs": 60, "learning_rate": 0.1, "schedule": "onecycle"},
        "cifar100": Classifier.recipes["cifar100"],
    }

    def __init__(self, recipe: PCLRecipe, images: ImageSpec, *rest: Any) -> None:
        super().__init__(recipe, images, *rest)
        self.recipe = recipe
        layers = linear_layers(self.classifier)
        self.near = nn.ParameterList(Parameter(_centers(images, layer)) for layer in layers)
        self.far = nn.ParameterList(Parameter(_centers(images, layer)) for layer in layers)

    def players(self) -> Mapping[str, list[Parameter]]:
        """The network and the two sets of centres, each with a rate of its own."""
        return {
            "classifier": list(self.classifier.parameters()),
            "near": list(self.near),
            "far": list(self.far),
        }

    def learning_rates(self) -> Mapping[str, float]:
        """The authors' rates of the centres."""
        return {"near": self.recipe.near_rate, "far": self.recipe.far_rate}

    def losses(self, batch: Batch) -> Losses:
        """Cross-entropy, and after the pre-training the two distances as well."""
        features, logits = features_of(self.classifier, batch.x)
        pairs = list(zip(features, self.near, self.far, strict=True))
        near = sum((to_own(h, near, batch.y) for h, near, _ in pairs), logits.new_zeros(()))
        far = sum((to_others(h, far, batch.y) for h, _, far in pairs), logits.new_zeros(()))
        near, far = self.recipe.lambda_near * near, -self.recipe.lambda_far * far
        classifier = {"ce": F.cross_entropy(logits, batch.y)}
        if batch.progress >= self.recipe.pretraining:
            classifier |= {"near": near, "far": far}
        return {"classifier": classifier, "near": {"near": near}, "far": {"far": far}}


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    """The linear layers of a network in the order they are registered."""
    return [module for module in network.modules() if isinstance(module, nn.Linear)]


def features_of(network: nn.Module, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """What enters each linear layer, (N, D) each, and the logits (N, K), in one forward pass."""
    features: list[Tensor] = []
    handles = [
        layer.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
        for layer in linear_layers(network)
    ]
    try:
        logits = network(x)
    finally:
        for handle in handles:
            handle.remove()
    return features, logits


def distances(features: Tensor, centers: Tensor) -> Tensor:
    """Squared Euclidean distances: (N, D), (K, D) -> (N, K)."""
    # Multiplied out, so that no (N, K, D) is made; rounding may leave a zero slightly negative.
    square = features.square().sum(1, keepdim=True) + centers.square().sum(1)
    return (square - 2 * features @ centers.T).clamp_min(0)


def to_own(features: Tensor, centers: Tensor, y: Tensor) -> Tensor:
    """Mean over samples of the squared distance to the centre of the own class."""
    return (features - centers[y]).square().sum(1).mean()


def to_others(features: Tensor, centers: Tensor, y: Tensor) -> Tensor:
    """Mean over samples and other classes of the squared distance to their centres."""
    other = F.one_hot(y, len(centers)) == 0
    return distances(features, centers)[other].mean()


def _centers(images: ImageSpec, layer: nn.Linear) -> Tensor:
    # Standard normal, as in the authors' code.
    return layer.weight.new_empty(images.classes, layer.in_features).normal_()
