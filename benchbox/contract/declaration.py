"""What the class of a plug-in has to say of itself, checked when it is loaded."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Mapping
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
    card = getattr(cls, "card", None)
    if not isinstance(card, Card):
        found = "has no card" if card is None else f"has a {type(card).__name__} as its card"
        raise RequestError(f"{where} {found}; write card = Card('a-name', 'one line of what it is')")
    check_name(card.name, kind, where)
    words = {"summary": card.summary, "paper": card.paper, "kind": card.kind}
    wrong = next(
        (field for field, said in words.items() if not (isinstance(said, str) and said.isprintable())), None
    )
    if wrong:
        raise RequestError(f"{where}: card.{wrong} is {words[wrong]!r}; give one line of text")
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise RequestError(f"{where} lacks {', '.join(missing)}; write the method that the {kind} base asks for")
    _check_defaults(cls, kind, where)


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


def _check_defaults(cls: type[Any], kind: str, where: str) -> None:
    """Every hyper-parameter has a default, and every default can be written down."""
    family = getattr(cls, "family_field", None)
    if kind == "attack":
        values = {
            f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
            for f in dataclasses.fields(cls)
            if f.name != family
        }
        bare = [name for name, value in values.items() if value is dataclasses.MISSING]
    else:
        recipe = getattr(cls, "recipe_type", None)
        if not (inspect.isclass(recipe) and hasattr(recipe, "model_fields")):
            raise RequestError(f"{where}: recipe_type is {recipe!r}; derive a class from benchbox.Recipe")
        fields = recipe.model_fields
        bare = [name for name, field in fields.items() if field.is_required()]
        values = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
    if bare:
        raise RequestError(f"{where}: {bare[0]} has no default; give every hyper-parameter one")
    for name, value in values.items():
        try:
            json.dumps(value, default=_plain)
        except (TypeError, ValueError):
            raise RequestError(
                f"{where}: the default of {name} is a {type(value).__name__}, which cannot be recorded; use "
                "numbers, texts, truth values, and lists or dicts of them"
            ) from None


def _plain(value: Any) -> Any:
    """What pydantic and dataclasses make plain."""
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError
