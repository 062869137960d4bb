"""Evaluations as the authors of papers ran them, as data: results/paper/protocols.toml.

A protocol is a part of a request: which attacks, under which access, in which ball, on how many images.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from benchbox.errors import unknown


@dataclass(frozen=True)
class Protocol:
    """How somebody evaluated.

    Attributes:
        name: What it is asked for by.
        paper: Whose; as the tables in results/paper are named, empty for a benchmark.
        said: Who attacked what.
        words: The part of a request, by key of a grid file.
    """

    name: str
    paper: str
    said: str
    words: Mapping[str, Any]

    def fill(self, record: Mapping[str, Any], spellings: Mapping[str, frozenset[str]]) -> dict[str, Any]:
        """What a request says, and this where it says nothing; settings are filled in one by one.

        Args:
            record: By key.
            spellings: The keys under which a request may say each of ours.
        """
        filled = dict(record)
        for key, value in self.words.items():
            (given,) = [name for name in spellings[key] if name in record] or [key]
            if key == "set":
                own = record.get(given) or {}
                filled[given] = {**value, **{name: {**value.get(name, {}), **own[name]} for name in own}}
            else:
                filled.setdefault(given, value)
        return filled


@cache
def every() -> Mapping[str, Protocol]:
    """By name, in the order of the file."""
    text = files("benchbox.plugins.paper").joinpath("protocols.toml").read_text(encoding="utf-8")
    return {
        name: Protocol(
            name,
            record.get("paper", ""),
            record["said"],
            {key: value for key, value in record.items() if key not in ("paper", "said")},
        )
        for name, record in tomllib.loads(text).items()
    }


def of(name: str) -> Protocol:
    """One of them.

    Raises:
        RequestError: There is none of that name.
    """
    if name not in every():
        raise unknown("protocol", name, every(), f"known: {', '.join(every())}")
    return every()[name]
