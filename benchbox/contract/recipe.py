"""The hyper-parameters of a defence. Read and checked without torch, so that a mistake is answered at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from benchbox.contract import ranges
from benchbox.contract.ranges import Count, NonNegative, Positive, Whole
from benchbox.errors import RequestError, unknown

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
        base: For a purifier: the defence whose trained classifier it stands on, by any name that `--defense`
            takes; empty for its own usual one.
        training_norm: Norm of the ball that training attacks keep to; empty for the data set's own ball. With
            another one, steps (`attack_step_size`) keep their share of the radius unless their length is given.
        training_epsilon: Radius of that ball; 0 for the customary one in that norm.
        unsaid: Fields that are no part of the recipe's identity while they have their default: they came later,
            and results of old keep theirs.
        forward_only: Fields that no training reads: recipes that differ in these alone are trained once.
    """

    unsaid: ClassVar[tuple[str, ...]] = ("base", "training_norm", "training_epsilon")
    forward_only: ClassVar[tuple[str, ...]] = ()

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: Whole = 200
    batch_size: Count = 128
    optimizer: Optimizer = "adam"
    learning_rate: Positive = 1e-3
    weight_decay: NonNegative = 0.0
    schedule: Schedule = "constant"
    augment: bool = False
    base: str = ""
    training_norm: Literal["", "linf", "l2", "l1"] = ""
    training_epsilon: NonNegative = 0.0

    def identity(self) -> dict[str, Any]:
        """What makes two recipes one or two, JSON."""
        fields = type(self).model_fields
        return self.model_dump(exclude={k for k in self.unsaid if getattr(self, k) == fields[k].default})

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name is not None:
            ranges.refuse_truth(cls.model_fields[info.field_name].annotation, value)
        return value


def configured(
    recipe_type: type[Recipe],
    name: str,
    recipes: Mapping[str, Mapping[str, Any]],
    scopes: tuple[str, ...],
    overrides: Mapping[str, Any],
) -> Recipe:
    """The recipe of a defence for a data set: defaults, then the departures of each scope, then the overrides.

    Args:
        recipe_type: The class of its hyper-parameters.
        name: Of the defence, for messages.
        recipes: Its departures by scope.
        scopes: The data set's family, its name, the norm.
        overrides: What was asked for.

    Raises:
        RequestError: An override names no field, or its value does not fit.
    """
    if "weights" in overrides and "weights" not in recipe_type.model_fields:
        raise RequestError(
            f"{name} is trained here; weights belong to a factory, as in --defense model.py:net, and to one that "
            "it stands before by --set model.py:net.weights=FILE"
        )
    for field in overrides:
        if field not in recipe_type.model_fields:
            raise unknown(f"recipe field of {name}", field, recipe_type.model_fields)
    departures: dict[str, Any] = {}
    for scope in scopes:
        departures |= recipes.get(scope, {})
    try:
        return recipe_type(**{**departures, **overrides})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        found = recipe_type.model_fields.get(str(first["loc"][0])) if first["loc"] else None
        range_ = ranges.allowed(found.annotation, found.metadata) if found else ""
        raise RequestError(
            f"{name}.{where} = {first['input']!r} does not fit: "
            f"{f'it has to be {range_}' if range_ else first['msg']}"
        ) from None
