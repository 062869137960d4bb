"""What the class of a plug-in has to say of itself, checked when it is loaded."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING
from typing import Any

from benchbox import text
from benchbox.domain import Card
from benchbox.errors import RequestError


def check(cls: type[Any], kind: str, where: str) -> None:
    """Refuse a class that does not say what it has to.

    Args:
        cls: Derived from `Defense` or `Attack`.
        kind: `defence` or `attack`.
        where: Its file and name.

    Raises:
        RequestError: Its card is missing or of the wrong type, its name is none, a method or a default is
            missing, or a default cannot be recorded.
    """
    check_card(getattr(cls, "card", None), kind, where)
    check_flags(cls, where)
    check_methods(getattr(cls, "__abstractmethods__", ()), kind, where)
    check_defaults(_of_attack(cls) if kind == "attack" else _of_recipe(cls, where), where)


def check_card(card: object, kind: str, where: str) -> None:
    """Refuse what is no card, or one with anything but lines of text.

    Raises:
        RequestError: It is.
    """
    if not isinstance(card, Card):
        found = "has no card" if card is None else f"has a {type(card).__name__} as its card"
        raise RequestError(f"{where} {found}; write card = Card('a-name', 'one line of what it is')")
    if isinstance(card.name, str) and type(card.name) is not str:
        raise RequestError(f"{where}: card.name is a {type(card.name).__name__}; give plain text")
    check_name(card.name, kind, where)
    words = {"summary": card.summary, "paper": card.paper, "kind": card.kind}
    # Who derives from text may be equal to whatever it likes.
    wrong = next((field for field, said in words.items() if not (type(said) is str and said.isprintable())), None)
    if wrong:
        raise RequestError(f"{where}: card.{wrong} is {words[wrong]!r}; give one line of text")


def check_flags(cls: type[Any], where: str) -> None:
    """Refuse what is no plain True or False, for it would be another in each place that reads it.

    Raises:
        RequestError: One is, or the class of the class answers in its place.
    """
    for name in ("randomized", "deployable", "square"):
        found = inspect.getattr_static(cls, name, False)
        if not isinstance(found, bool) or getattr(cls, name, False) is not found:
            kind = type(found).__name__ if not isinstance(found, bool) else "question to its metaclass"
            remedy = f"write {name} = True or False in the class"
            if name == "randomized":
                remedy += ", and is_randomized(arguments) where it hangs on the recipe"
            raise RequestError(f"{where}: {name} is a {kind}; {remedy}")


def check_methods(missing: Iterable[str], kind: str, where: str) -> None:
    """Refuse a class that leaves abstract methods unwritten.

    Raises:
        RequestError: Some are missing.
    """
    if names := sorted(missing):
        raise RequestError(f"{where} lacks {', '.join(names)}; write the method that the {kind} base asks for")


def check_name(name: object, kind: str, where: str) -> None:
    """Refuse what is no name, or no names with `:` between them as a family writes its members.

    Raises:
        RequestError: It is not.
    """
    try:
        for part in str(name).split(":") if isinstance(name, str) else [repr(name) + "()"]:
            text.check_name(kind, part)
    except RequestError as error:
        raise RequestError(f"{where}: {error}") from None


def check_path(name: str) -> None:
    """Refuse `path/to/file.py:Class` that is more than a line of text.

    Raises:
        RequestError: It holds control characters.
    """
    if not name.isprintable():
        raise RequestError(f"the name {name!r} has control characters; rename the file")


def check_defaults(values: Mapping[str, Any], where: str) -> None:
    """Refuse a hyper-parameter without a default, or with one that cannot be written down.

    Args:
        values: The defaults by field; `MISSING` for none.
        where: The class.

    Raises:
        RequestError: One is.
    """
    for name, value in values.items():
        if value is MISSING:
            raise RequestError(f"{where}: {name} has no default; give every hyper-parameter one")
    for name, value in values.items():
        try:
            json.dumps(value, default=plain)
        except (TypeError, ValueError):
            raise RequestError(
                f"{where}: the default of {name} is a {type(value).__name__}, which cannot be recorded; use "
                "numbers, texts, truth values, and lists or dicts of them"
            ) from None


def _of_attack(cls: type[Any]) -> dict[str, Any]:
    """The defaults of an attack's settings."""
    return {
        f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        for f in dataclasses.fields(cls)
        if f.name != getattr(cls, "family_field", None)
    }


def _of_recipe(cls: type[Any], where: str) -> dict[str, Any]:
    """The defaults of a defence's recipe."""
    recipe = getattr(cls, "recipe_type", None)
    if not (inspect.isclass(recipe) and hasattr(recipe, "model_fields")):
        raise RequestError(f"{where}: recipe_type is {recipe!r}; derive a class from benchbox.Recipe")
    return defaults(recipe)


def defaults(recipe: type[Any]) -> dict[str, Any]:
    """The defaults of a recipe's fields; `MISSING` for none."""
    return {
        name: MISSING if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in recipe.model_fields.items()
    }


def plain(value: Any) -> Any:
    """What pydantic and dataclasses make plain."""
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError
