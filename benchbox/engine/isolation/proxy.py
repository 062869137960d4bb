"""The class of a stranger's defence on this side: says what was declared, and asks for what is to be computed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import create_model

from benchbox.contract.defense import Batch, Defense, Losses
from benchbox.contract.pretrained import Checkpoint, Pretrained, PretrainedRecipe, Shelf
from benchbox.contract.recipe import Recipe
from benchbox.domain import ImageSpec
from benchbox.engine.isolation.declaration import Declaration
from benchbox.errors import DefenseError

#: What a class says of its defences and every part of benchbox reads there.
DECLARED = ("randomized", "base", "stand_ins", "exact", "ablations", "version", "deployable", "learns", "square")


class Ask(Protocol):
    """Lets the process of a plug-in do something of its class."""

    def __call__(self, do: str, **words: Any) -> Any:
        """What comes of it, JSON."""


class _Told:
    """A recipe whose fields hold what another process said of them."""

    ask: ClassVar[Ask]

    def identity(self) -> dict[str, Any]:
        """What makes two recipes one or two, JSON."""
        said = self.ask("identity", values=self.model_dump())  # type: ignore[attr-defined]
        return _mapping(said, "identity")


class Proxy(Defense):
    """Stands for a class that is trained here; nobody builds it."""

    ask: ClassVar[Ask]
    advice: ClassVar[str]

    def __init__(self, recipe: Recipe, images: ImageSpec, classifier: Any = None) -> None:
        raise AssertionError(f"{self.card.name} is isolated, and not built in this process")

    @classmethod
    def configure(cls, *scopes: str, **overrides: Any) -> Recipe:
        """The recipe for a data set.

        Raises:
            RequestError: An override names no field, or its value does not fit.
        """
        said = _mapping(cls.ask("configure", scopes=list(scopes), overrides=overrides), "configure")
        return cls.recipe_type.model_construct(**{name: _frozen(value) for name, value in said.items()})

    @classmethod
    def is_randomized(cls, arguments: Mapping[str, Any]) -> bool:
        """Whether two calls on one image may differ, given the recipe that a result is keyed by."""
        return bool(cls.ask("is_randomized", arguments=dict(arguments)))

    @classmethod
    def how_to_randomize(cls) -> str:
        """What its author does so that answers which differ are taken for what they are, in words."""
        return cls.advice

    def losses(self, batch: Batch) -> Losses:
        """None: it is trained where it is built."""
        return {}


class GivenProxy(Proxy, Pretrained):
    """Stands for a class whose weights come from a file."""

    @classmethod
    def file(cls, recipe: PretrainedRecipe, shelf: Shelf) -> Path:
        """The file of its weights.

        Raises:
            RequestError: None is named.
            ArtifactError: It is not there, or no weights file.
        """
        said = cls.ask(
            "file", values=_values(recipe), folder=str(shelf.folder.absolute()), download=shelf.download
        )
        for sentence in said["announced"]:
            shelf.announce(str(sentence))
        return Path(str(said["file"]))

    @classmethod
    def identity(cls, recipe: PretrainedRecipe, file: Path) -> dict[str, Any]:
        """What stands for the recipe in the identity of results."""
        return _mapping(cls.ask("weights", values=_values(recipe), file=str(file)), "identity")


class HeldProxy(GivenProxy, Checkpoint):
    """Stands for a factory, which may hold the weights itself."""


_BASES: Mapping[str, type[Proxy]] = {"trained": Proxy, "given": GivenProxy, "held": HeldProxy}


def proxy(declared: Declaration, ask: Ask) -> type[Proxy]:
    """A class that stands for another.

    Args:
        declared: What that says of itself.
        ask: Lets its process do what its class methods do.
    """
    base = _BASES[declared.weights]
    kept = Recipe if declared.weights == "trained" else PretrainedRecipe
    fields: dict[str, Any] = {name: (Any, _frozen(value)) for name, value in declared.defaults.items()}
    recipe: Any = create_model("Recipe", __base__=(_Told, kept), **fields)
    recipe.ask, recipe.forward_only = staticmethod(ask), tuple(declared.forward_only)
    said = {
        "card": declared.card,
        "__doc__": declared.doc,
        "__module__": __name__,
        "recipe_type": recipe,
        "ask": staticmethod(ask),
        "advice": declared.advice,
        **({"family_field": declared.family_field} if declared.family_field else {}),
    }
    made = type(declared.name, (base,), said)
    for name in DECLARED:
        setattr(made, name, _frozen(getattr(declared, name)))
    return made


def _values(recipe: PretrainedRecipe) -> dict[str, Any]:
    """Of a recipe, for a process whose working folder is another."""
    values = recipe.model_dump()
    if recipe.weights:
        values["weights"] = str(Path(recipe.weights).expanduser().absolute())
    return values


def _mapping(said: object, what: str) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise DefenseError(f"a plug-in's {what} is {said!r}, no mapping; mend it")
    return said


def _frozen(value: Any) -> Any:
    """Lists as the tuples they were before they were sent."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
