"""What the words of a request mean, as the command line gives them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin

from benchbox.engine import request as requests
from benchbox.engine.request import Grid, says
from benchbox.errors import RequestError

#: Every word is read by the request itself, so that a mistake is refused in the same words wherever it is made.
Words = list[str] | None


def request(file: Path | None, given: Mapping[str, Any]) -> Grid:
    """The grid file, if any, with what was given beside it; None means not given.

    Raises:
        RequestError: A value does not fit.
    """
    base = requests.read(file) if file else Grid()
    return base.with_options(words(given))


def words(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given of the options of a request, by field; None means not given.

    Raises:
        RequestError: An option that stands for one value is repeated.
    """
    return {field: _word(field, value) for field, value in given.items() if value is not None}


def _word(field: str, value: Any) -> Any:
    """What an option that may be repeated says.

    Raises:
        RequestError: It is one that may not.
    """
    if field == "overrides":
        return settings(value)
    if not isinstance(value, list | tuple):
        return value
    flag = says(Grid.model_fields[field])["flags"][0]
    if get_origin(Grid.model_fields[field].annotation) is tuple:
        return names(value, flag)
    if len(value) > 1:
        raise RequestError(f"{flag} is given {len(value)} times: {', '.join(value)}; give it once")
    return value[0]


def names(values: Sequence[str] | None, flag: str) -> tuple[str, ...]:
    """Repeated options and comma lists as one tuple, each name once.

    Args:
        values: As they were given.
        flag: The option, for the message.

    Raises:
        RequestError: One is empty, as `--epsilon "$UNSET"` is: the default is not what was meant.
    """
    for value in values or ():
        if not value.replace(",", "").strip():
            raise RequestError(f"{flag} is given {value!r}, which names nothing; leave it out for its default")
    parts = [part.strip() for value in values or () for part in value.split(",")]
    return tuple(dict.fromkeys(filter(None, parts)))


def stored(place: str) -> str:
    """Where results lie, as it was given.

    Raises:
        RequestError: It is no place that outlives the command.
    """
    if place.strip().rstrip("/") in ("", ":memory:", "sqlite:", "sqlite:///:memory:"):
        raise RequestError(
            f"--store {place!r} names no file, so that nothing would be kept; leave it out for its default"
        )
    return place


def own_store(place: str) -> str:
    """As `stored`, for a command that reads and writes a store itself.

    Raises:
        RequestError: It is no such place, or a published file.
    """
    if place.endswith(".json"):
        raise RequestError(f"--store {place} is called like a published file, which is only read; name a store")
    return stored(place)


def settings(texts: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """`["pssr.epochs=5"]` as `{"pssr": {"epochs": 5}}`.

    Raises:
        RequestError: A text is not of that form.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts or ():
        target, equals, value = text.partition("=")
        # The last stop: the name of a plug-in may be the path of a file.
        plugin, _, field = target.strip().rpartition(".")
        if not (plugin and field and equals):
            raise RequestError(f"--set {text!r} has no plug-in, field or value; write --set pssr.epochs=5")
        said = found.setdefault(plugin, {}).setdefault(field, scalar(value.strip()))
        if said != scalar(value.strip()):
            raise RequestError(f"--set {plugin}.{field} is given twice, as {said} and as {value}; give it once")
    return found


def scalar(text: str) -> Any:
    """A number, a truth value, a list or null as TOML or JSON writes them; any other text as it stands."""
    try:
        read = tomllib.loads(f"value = {text}")
        if read.keys() == {"value"} and isinstance(read["value"], bool | int | float | str | list):
            return read["value"]
    except tomllib.TOMLDecodeError:
        pass
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
