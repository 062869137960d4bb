"""The base of the defences that are a network and nothing else: what differs is the loss they train with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn
from typing_extensions import TypeVar

from benchbox import nets
from benchbox.contract.defense import Defense, Recipe
from benchbox.domain import ImageSpec


class ClassifierRecipe(Recipe):
    """Hyper-parameters of a trained classifier.

    Attributes:
        network: One of the networks in `benchbox.nets`.
    """

    network: str = "lenet5"


#: The recipe of a classifier.
C = TypeVar("C", bound=ClassifierRecipe, default=ClassifierRecipe)


class Classifier(Defense[C]):
    """A network trained from scratch. The networks are those of the PSSR paper, section 4.1."""

    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar": {"network": "resnet18", "augment": True},
        "cifar100": {"network": "densenet121"},
    }

    def __init__(self, recipe: C, images: ImageSpec, classifier: nn.Module | None = None) -> None:
        super().__init__(recipe, images)
        self.classifier = nets.build(recipe.network, images)
