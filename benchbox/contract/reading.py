"""What a plug-in declares, read from its file: the checks of who loads it, in the same words, without torch.

Each function is silent about what cannot be told without executing the file: that is found out when it is loaded.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING
from typing import Any

from benchbox.contract import declaration, ranges
from benchbox.contract.recipe import Recipe, configured
from benchbox.contract.source import Source, ours
from benchbox.contract.written import Unreadable, Written
from benchbox.errors import RequestError, unknown


def members(source: Source, base: str) -> list[Written]:
    """The plug-ins of a kind in a file, as `Registry` picks them.

    Args:
        source: The file.
        base: What benchbox calls the class that they derive from.
    """
    derived = [one for one in source.classes() if one.derives(ours("benchbox", base))]
    inherited = {other for one in derived for other in one.order if other is not one}
    return [one for one in derived if _is_complete(one) or not (one.name.startswith("_") or one in inherited)]


def check(written: Written, kind: str, where: str) -> None:
    """Refuse a class that does not say what it has to.

    Args:
        written: The class.
        kind: `defence` or `attack`.
        where: Its file and name.

    Raises:
        RequestError: As `declaration.check`.
    """
    with suppress(Unreadable):
        declaration.check_card(written.get("card"), kind, where)
        if not written.is_whole:
            return
        declaration.check_methods(written.missing(), kind, where)
        if kind == "attack":
            defaults = {name: default for name, (_, default) in settings(written).items()}
        else:
            defaults = declaration.defaults(recipe(written))
        declaration.check_defaults(defaults, where)


def fit(written: Written, kind: str, given: Mapping[str, Any], scopes: tuple[str, ...]) -> None:
    """Refuse settings that a plug-in has not got, or values that do not fit.

    Args:
        written: Its class.
        kind: `defence` or `attack`.
        given: Values by field.
        scopes: The data set's family, its name and the norm, as far as they are known.

    Raises:
        RequestError: One does not fit, in the words of its `configure`.
    """
    with suppress(Unreadable):
        name = written.get("card").name
        if kind == "defence":
            _configure(recipe(written), name, written.get("recipes"), scopes, given)
            return
        known = settings(written)
        for field, value in given.items():
            if field not in known:
                raise unknown(f"setting of attack {name}", field, known)
            ranges.fit(f"{name}.{field}", known[field][0], value)


def recipe(written: Written) -> type[Recipe]:
    """The class of a defence's hyper-parameters, built for real.

    Raises:
        Unreadable: It needs what the file has to be executed for.
    """
    for one in written.order:
        if one.says("recipe_type"):
            found = one.get("recipe_type")
        else:
            given = (getattr(part, "__default__", part) for part in one.brackets)
            found = next((part for part in given if isinstance(part, type) and issubclass(part, Recipe)), None)
        if isinstance(found, type) and issubclass(found, Recipe):
            return found
        if one.blank or found is not None:
            break
    raise Unreadable(written.name)


def settings(written: Written) -> dict[str, tuple[Any, Any]]:
    """The type and the default of an attack's hyper-parameters, by field; `MISSING` for none.

    Raises:
        Unreadable: Something of them needs what the file has to be executed for.
    """
    if not written.is_whole:
        raise Unreadable(written.name)
    found: dict[str, tuple[Any, Any]] = {}
    for one in (one for one in reversed(written.order) if one.is_dataclass):
        for name, hint in one.hints.items():
            if "ClassVar" not in ast.dump(hint):
                found[name] = one.source.evaluate(hint), _default(one.get(name) if one.says(name) else MISSING)
    return found


def stand_ins(written: Written) -> list[str]:
    """Names of a defence's stand-ins, in the order of `stand_ins.declared`.

    Raises:
        Unreadable: Something of them needs what the file has to be executed for.
    """
    if not written.is_whole:
        raise Unreadable(written.name)
    found: list[tuple[bool, str]] = []
    for method in dict.fromkeys(name for one in reversed(written.order) for name in one.methods):
        for source, mark in written.above(method):
            match mark:
                case ast.Call(func=ast.Name("stand_in"), args=[name, *_], keywords=more):
                    exact = any(source.evaluate(one.value) for one in more if one.arg == "exact")
                    found.append((exact, source.evaluate(name)))
                case ast.Call(func=ast.Name("stand_in")):
                    raise Unreadable(method)
    return list(dict.fromkeys(name for _, name in sorted(found, key=lambda one: not one[0])))


def _configure(
    recipe_type: type[Recipe],
    name: str,
    recipes: Mapping[str, Mapping[str, Any]],
    scopes: tuple[str, ...],
    given: Mapping[str, Any],
) -> None:
    try:
        configured(recipe_type, name, recipes, scopes, given)
    except RequestError:
        raise
    except Exception as error:  # a method of the recipe that needs what was not read
        raise Unreadable(name) from error


def _default(value: Any) -> Any:
    if not isinstance(value, dataclasses.Field):
        return value
    return value.default if value.default_factory is MISSING else value.default_factory()


def _is_complete(written: Written) -> bool:
    try:
        return written.get("card") is not None and not written.missing()
    except Unreadable:
        return True
