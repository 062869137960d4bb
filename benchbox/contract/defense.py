"""The interface of a defence: a classifier that claims robustness."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, get_args

from torch import Tensor, nn
from torch.nn import Parameter
from typing_extensions import TypeVar

from benchbox.contract import registry, stand_ins
from benchbox.contract.ascent import Loss, ascend, cross_entropy
from benchbox.contract.recipe import Recipe as Recipe
from benchbox.contract.recipe import configured
from benchbox.contract.stand_ins import stand_in, straight_through
from benchbox.contract.view import View
from benchbox.domain import Card, ImageSpec, ThreatModel
from benchbox.draws import Draws, sample_draws
from benchbox.errors import DefenseError, RequestError

#: Terms of a loss by name, for each set of parameters that is trained ("player"): one player for a plain
#: network, two for a GAN. A player's terms are summed; its gradient reaches its own parameters only.
Losses = Mapping[str, Mapping[str, Tensor]]


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

    def attack(
        self,
        model: Callable[[Tensor], Tensor],
        *,
        steps: int,
        step_size: float,
        start: Tensor | None = None,
        y: Tensor | None = None,
        threat: ThreatModel | None = None,
        loss: Loss = cross_entropy,
    ) -> Tensor:
        """Training images: where projected gradient ascent on a loss ends (`benchbox.ascend`).

        Args:
            model: Images (N, C, H, W) -> logits (N, K), in the mode it is in.
            steps: Number of steps.
            step_size: Length of a step in the norm of the ball.
            start: (N, C, H, W) first iterate, inside the ball; the images themselves if None.
            y: (N,) classes to lead away from; those of the batch if None.
            threat: The ball; that of the batch if None.
            loss: (logits, y) -> per-sample losses, ascended.

        Returns:
            (N, C, H, W) images inside the ball, without a gradient.
        """
        y = self.y if y is None else y
        view = View(lambda x, draws: model(x), y, self.draws)
        return ascend(
            view,
            self.x,
            y,
            threat or self.threat,
            start=self.x if start is None else start,
            steps=steps,
            step_size=step_size,
            loss=loss,
        )


#: The recipe of a defence.
R = TypeVar("R", bound=Recipe, default=Recipe)


def _recipe_in_brackets(cls: type) -> type[Recipe] | None:
    """`MyRecipe` of `class Mine(Base[MyRecipe])`; of a type variable its default; None without brackets."""
    for base in vars(cls).get("__orig_bases__", ()):
        for given in get_args(base):
            found = getattr(given, "__default__", given)
            if isinstance(found, type) and issubclass(found, Recipe):
                return found
    return None


class Defense(nn.Module, ABC, Generic[R]):
    """A classifier that claims robustness: images (N, C, H, W) float32 in [0, 1] -> logits (N, K).

    Normalisation is inside. The module is in evaluation mode and its parameters need no gradient whenever
    it is attacked or scored.

    `class Mine(Defense[MyRecipe])` has `MyRecipe` as its hyper-parameters; plain `Defense` has those of the loop
    alone. Methods marked with `@stand_in` are what an adaptive attacker may differentiate instead of it.

    Attributes:
        card: Name, paper, year, kind.
        randomized: Whether two calls on one image may differ. Then `forward` takes all its randomness from
            `draws`, so that a sample's result depends on its own draws alone.
        recipe_type: The class of its hyper-parameters; follows from the class in brackets.
        recipes: Departures from the defaults, by data set or by family (`mnist`, `cifar`), each with its reason
            in a comment.
        base: Name of the defence whose trained classifier this one builds on; None if it trains its own.
        stand_ins: Name -> what its backward pass does; follows from the marked methods.
        exact: The stand-in that is plain autograd through the deployed defence, if there is one; likewise.
        ablations: Names of the defences that are this one with parts left out; the audit compares them.
        version: Raised when a change to the code changes its results.
        deployable: False for an oracle that knows what no defence can know; never ranked.
        learns: What it trains, in words, where that is not itself but something that knows neither the base nor
            the ball, as a score model of images is: defences that learn the same from the same fields of their
            recipes share the weights, which are trained once.
        square: Whether it is built for square images alone; False where it takes `images.shape` as it is.
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
    learns: ClassVar[str] = ""
    square: ClassVar[bool] = True
    # Of the instance: a defence that selects its epoch takes it from its recipe.
    validation: float = 0.0

    recipe: R
    """Its hyper-parameters."""

    classifier: nn.Module
    """The target classifier F_w: what a gray-box attacker knows."""

    def __init_subclass__(cls, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        for name in ("stand_ins", "exact"):
            if name in vars(cls):
                raise DefenseError(f"{cls.__name__} sets {name}; mark the methods with @benchbox.stand_in instead")
        if "recipe_type" not in vars(cls) and (found := _recipe_in_brackets(cls)) is not None:
            cls.recipe_type = found
        for name in getattr(cls.recipe_type, "forward_only", ()):  # what is no recipe is refused by who loads it
            if name not in cls.recipe_type.model_fields or name in Recipe.model_fields:
                why = "every training reads it" if name in Recipe.model_fields else "its recipe has no such field"
                raise DefenseError(f"{cls.__name__}: forward_only names {name!r}, but {why}; leave it out")
        declared = stand_ins.declared(cls)
        cls.stand_ins = {name: one.backward for name, one in declared.items()}
        cls.exact = next((name for name, one in declared.items() if one.exact), None)

    def __init__(self, recipe: R, images: ImageSpec, classifier: nn.Module | None = None) -> None:
        """Build it untrained.

        Args:
            recipe: Of this class's `recipe_type`.
            images: What it is built for.
            classifier: The trained classifier of `base`, frozen; None if `base` is None.
        """
        super().__init__()
        self.recipe = recipe
        self.images = images
        if classifier is not None:
            self.classifier = classifier

    @classmethod
    def configure(cls, *scopes: str, **overrides: Any) -> Recipe:
        """The recipe for a data set: defaults, then the departures of each scope, then the overrides.

        Raises:
            RequestError: An override names no field, or its value does not fit.
        """
        return configured(cls.recipe_type, cls.card.name, cls.recipes, scopes, overrides)

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        """Logits (N, K)."""
        return self.classifier(x)  # type: ignore[no-any-return]

    @classmethod
    def is_randomized(cls, arguments: Mapping[str, Any]) -> bool:
        """Whether two calls on one image may differ, given the recipe that a result is keyed by."""
        return cls.randomized

    @classmethod
    def how_to_randomize(cls) -> str:
        """What its author does so that answers which differ are taken for what they are, in words."""
        return "derive a benchbox.Defense with randomized = True that takes its randomness from `draws`"

    def surrogates(self) -> Mapping[str, Callable[[Tensor, Draws], Tensor]]:
        """One (x, draws) -> logits for each name in `stand_ins`."""
        return {name: getattr(self, one.method) for name, one in stand_ins.declared(type(self)).items()}

    def cost(self) -> tuple[int, int]:
        """Forward and backward passes of the classifier that the prediction of one image takes at most."""
        return 1, 0

    def certified(self, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
        """Whether it proves its answers; optional, for a defence that can.

        It is asked after an image was scored, and about the class that it has given the image itself: nobody tells
        it a label. One proven image that any attack takes to another class refutes all of its proofs.

        Args:
            x: (N, C, H, W) images in [0, 1].
            y: (N,) int64 classes.
            threat: The ball around each image, cut with [0, 1].

        Returns:
            (N,) bool: True where it is proven that the defence as deployed, in every draw, gives every image of
            the ball class y; False where it is not proven.

        Raises:
            RequestError: It proves nothing in this ball. The images have no certificate then, and nothing fails.
        """
        raise RequestError(f"{self.card.name} proves nothing in {threat}; write its certified(x, y, threat)")

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


class Purifier(Defense[R]):
    """Rewrites the image, then asks a frozen classifier."""

    base: ClassVar[str | None] = registry.undefended()

    @abstractmethod
    def purify(self, x: Tensor, draws: Draws) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> images of the same shape and range."""

    def stages(self, x: Tensor, draws: Draws) -> Mapping[str, Tensor]:
        """Images (N, C or 1, H, W) in [0, 1] on their way to the classifier, by what they are; figures show them.

        The last are what `purify` returns.
        """
        return {"purified": self.purify(x, draws)}

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        """Logits (N, K) of the purified images."""
        return self.classifier(self.purify(x, draws or sample_draws(len(x), device=x.device)))  # type: ignore[no-any-return]

    @stand_in("identity", "the purifier's backward pass is the identity (BPDA; Athalye et al. 2018, section 4.1)")
    def identity(self, x: Tensor, draws: Draws) -> Tensor:
        """Logits (N, K); a subclass with more structure adds stand-ins of its own."""
        return self.classifier(straight_through(x, self.purify(x.detach(), draws)))  # type: ignore[no-any-return]

    def players(self) -> Mapping[str, list[Parameter]]:
        """Everything but the classifier, which stays frozen."""
        frozen = {id(p) for p in self.classifier.parameters()}
        return {"purifier": [p for p in self.parameters() if id(p) not in frozen]}


def bare(defense: Defense[Any]) -> Callable[[Tensor, Draws], Tensor]:
    """The classifier in a defence, asked about images in the type of its weights."""
    classifier = defense.classifier

    def forward(x: Tensor, draws: Draws) -> Tensor:
        types = (parameter.dtype for parameter in classifier.parameters() if parameter.is_floating_point())
        return classifier(x.to(next(types, x.dtype)))  # type: ignore[no-any-return]

    return forward
