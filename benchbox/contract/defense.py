"""The interface of a defence: a classifier that claims robustness."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn
from torch.nn import Parameter

from benchbox.contract import registry
from benchbox.domain import Card, ImageSpec, ThreatModel
from benchbox.draws import Draws, sample_draws
from benchbox.errors import RequestError, unknown

#: Terms of a loss by name, for each set of parameters that is trained ("player"): one player for a plain
#: network, two for a GAN. A player's terms are summed; its gradient reaches its own parameters only.
Losses = Mapping[str, Mapping[str, Tensor]]


Optimizer = Literal["adam", "sgd"]
Schedule = Literal["constant", "cosine", "onecycle", "step", "step-early", "step-late"]


class Recipe(BaseModel):
    """Hyper-parameters of a defence: the fields of a subclass, with the paper's values as defaults.

    Attributes:
        epochs: Passes over the training set.
        batch_size: Images a step.
        optimizer: `adam` or `sgd` (momentum 0.9, Nesterov).
        learning_rate: At its highest.
        weight_decay: As torch's optimisers take it.
        schedule: `constant`, `cosine` (to 0), `onecycle` (linear up to 30 %, then cosine), or `step` (a tenth
            at 75 % and a hundredth at 90 % of the epochs); `step-early` steps at 50 and 75 %, `step-late` at
            100/110 and 105/110.
        augment: Random crop (padding of one eighth) and horizontal flip; for natural images.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = 200
    batch_size: int = 128
    optimizer: Optimizer = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    augment: bool = False


@dataclass(frozen=True)
class Batch:
    """What a training step sees.

    Attributes:
        x: (N, C, H, W) float32 in [0, 1].
        y: (N,) int64.
        draws: This step's randomness; row i belongs to sample i.
        progress: Share of the training that is done, in [0, 1).
        threat: The ball that training attacks keep to.
        prepared: What `Defense.prepare` made of these samples, by name; row i belongs to sample i.
    """

    x: Tensor
    y: Tensor
    draws: Draws
    progress: float
    threat: ThreatModel
    prepared: Mapping[str, Tensor] = field(default_factory=dict)


class Defense(nn.Module, ABC):
    """A classifier that claims robustness: images (N, C, H, W) float32 in [0, 1] -> logits (N, K).

    Normalisation is inside. The module is in evaluation mode and its parameters need no gradient whenever
    it is attacked or scored.

    Attributes:
        card: Name, paper, year, kind.
        randomized: Whether two calls on one image may differ. Then `forward` takes all its randomness from
            `draws`, so that a sample's result depends on its own draws alone.
        recipe_type: The class of its hyper-parameters.
        recipes: Departures from the defaults, by data set or by family (`mnist`, `cifar`), each with its reason
            in a comment.
        base: Name of the defence whose trained classifier this one builds on; None if it trains its own.
        stand_ins: Differentiable stand-ins for an adaptive attacker: name -> what its backward pass does.
        exact: The stand-in that is plain autograd through the deployed defence, if there is one.
        ablations: Names of the defences that are this one with parts left out; the audit compares them.
        version: Raised when a change to the code changes its results.
        deployable: False for an oracle that knows what no defence can know; never ranked.
        validation: Share of the training images that no step sees. After each epoch `validate` scores them, and
            the training ends with the weights of the epoch that scored best.
    """

    card: ClassVar[Card]
    randomized: ClassVar[bool] = False
    recipe_type: ClassVar[type[Recipe]] = Recipe
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    base: ClassVar[str | None] = None
    stand_ins: ClassVar[Mapping[str, str]] = {}
    exact: ClassVar[str | None] = None
    ablations: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1
    deployable: ClassVar[bool] = True
    # Of the instance: a defence that selects its epoch takes it from its recipe.
    validation: float = 0.0

    classifier: nn.Module
    """The target classifier F_w: what a gray-box attacker knows."""

    def __init__(self, recipe: Recipe, images: ImageSpec, classifier: nn.Module | None = None) -> None:
        """Build it untrained.

        Args:
            recipe: Of this class's `recipe_type`.
            images: What it is built for.
            classifier: The trained classifier of `base`, frozen; None if `base` is None.
        """
        super().__init__()
        self.images = images
        if classifier is not None:
            self.classifier = classifier

    @classmethod
    def configure(cls, *scopes: str, **overrides: Any) -> Recipe:
        """The recipe for a data set: defaults, then the departures of each scope, then the overrides.

        Raises:
            RequestError: An override names no field, or its value does not fit.
        """
        for name in overrides:
            if name not in cls.recipe_type.model_fields:
                raise unknown(f"recipe field of {cls.card.name}", name, cls.recipe_type.model_fields)
        departures: dict[str, Any] = {}
        for scope in scopes:
            departures |= cls.recipes.get(scope, {})
        try:
            return cls.recipe_type(**departures | overrides)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise RequestError(
                f"{cls.card.name}.{where} = {first['input']!r} does not fit: {first['msg']}"
            ) from None

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        """Logits (N, K)."""
        return self.classifier(x)  # type: ignore[no-any-return]

    def surrogates(self) -> Mapping[str, Callable[[Tensor, Draws], Tensor]]:
        """One (x, draws) -> logits for each name in `stand_ins`. The forward pass of each must be exact."""
        return {}

    def cost(self) -> tuple[int, int]:
        """Forward and backward passes of the classifier that the prediction of one image takes at most."""
        return 1, 0

    def reveal(self, x: Tensor, draws: Draws) -> None:
        """Be shown the clean images (N, C, H, W) before they are attacked, and the draws that name them.

        Only what is not `deployable` ever looks.
        """

    def prepare(self, batch: Batch) -> Mapping[str, Tensor]:
        """What training needs of each image, made once before the first epoch with the frozen networks.

        Typically adversarial images against a frozen classifier. Row i belongs to sample i; the engine keeps
        it in memory and hands it back in `Batch.prepared`.
        """
        return {}

    def calibrate(self, prepared: Mapping[str, Tensor]) -> None:
        """Set buffers from what was prepared of the whole training set; called once before the first epoch."""

    def players(self) -> Mapping[str, list[Parameter]]:
        """The sets of parameters that are trained, each by an optimiser of its own."""
        return {"classifier": list(self.classifier.parameters())}

    def learning_rates(self) -> Mapping[str, float]:
        """The highest learning rate of a player where it is not the recipe's."""
        return {}

    def validate(self, batch: Batch) -> Tensor:
        """Scores (N,) of held-out images, higher is better, computed in evaluation mode.

        The draws are the same after every epoch, so epochs are compared on equal terms. Only called if
        `validation` is above 0.
        """
        raise NotImplementedError(f"{self.card.name} holds images out; write its validate(batch)")

    @abstractmethod
    def losses(self, batch: Batch) -> Losses:
        """What training minimises, computed with the module in training mode; the loop is the engine's."""


class Purifier(Defense):
    """Rewrites the image, then asks a frozen classifier."""

    base: ClassVar[str | None] = registry.undefended()
    stand_ins: ClassVar[Mapping[str, str]] = {
        "identity": "the purifier's backward pass is the identity (BPDA; Athalye et al. 2018, section 4.1)"
    }

    @abstractmethod
    def purify(self, x: Tensor, draws: Draws) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> images of the same shape and range."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        """Logits (N, K) of the purified images."""
        return self.classifier(self.purify(x, draws or sample_draws(len(x), device=x.device)))  # type: ignore[no-any-return]

    def surrogates(self) -> Mapping[str, Callable[[Tensor, Draws], Tensor]]:
        """The identity stand-in; a subclass with more structure adds its own."""
        return {"identity": lambda x, draws: self.classifier(straight_through(x, self.purify(x.detach(), draws)))}

    def players(self) -> Mapping[str, list[Parameter]]:
        """Everything but the classifier, which stays frozen."""
        frozen = {id(p) for p in self.classifier.parameters()}
        return {"purifier": [p for p in self.parameters() if id(p) not in frozen]}


def straight_through(x: Tensor, value: Tensor) -> Tensor:
    """`value` in the forward pass, the identity on `x` in the backward pass (the core of BPDA).

    The forward value is exact: it is not computed as x + (value - x), which would round.
    """
    return _StraightThrough.apply(x, value)  # type: ignore[no-any-return]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value.detach().clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
