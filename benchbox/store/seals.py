"""Seals: a digest of each row, made when it is written and checked whenever it is read.

A number that changed on the disk must not come out as a result, so nothing is believed that does not fit its
seal. Rows of schema 0001 have none: they are read as they are, and `benchbox doctor` says how many there are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import Row, Table

from benchbox.canonical import canonical
from benchbox.domain import DECLARED
from benchbox.errors import StoreError
from benchbox.store.schema import CELL, now

#: What mends it, at the end of every message about damage.
REMEDY = "`benchbox doctor --repair` drops what is damaged, and the same command runs it again"

#: What the key of a cell omits, and is sealed as null where a cell lacks it. A field that came later is sealed
#: only where it stands, so that the seals of before it still fit.
_SEALED_AS_NULL = frozenset({"averaging", "nature"})

#: The number of a row is no content, and whom it belongs to is sealed by key (`of`).
_UNSEALED = frozenset({"id", "seal", "cell_id", "crafting_id"})


class Damaged:
    """What the store gives in place of JSON that cannot be read."""


def read_json(text: Any) -> Any:
    """JSON out of the database; a `Damaged` if it is none."""
    if isinstance(text, int | float):
        return text  # SQLite makes a number of a column of JSON that looks like one
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return Damaged()


def plain(record: Any) -> Any:
    """A record as it will be read back: lists for tuples, text for keys."""
    return json.loads(canonical(record))


def seal(table: Table, values: Mapping[str, Any], of: str = "") -> str:
    """The digest of a row.

    Args:
        table: Where it lies.
        values: Every column of it; JSON as `plain` gives it.
        of: Key of the cell or crafting that it belongs to.
    """
    content = {name: values[name] for name in _sealed(table)}
    if table is CELL:
        # The key is the digest of the record, and is checked as such; what the key omits is sealed here.
        record = content["record"]
        content["record"] = {n: record.get(n) for n in DECLARED if n in record or n in _SEALED_AS_NULL}
    parts = {k: hashlib.sha256(v).hexdigest() if isinstance(v, bytes) else v for k, v in content.items()}
    return hashlib.sha256(canonical([table.name, of, parts]).encode()).hexdigest()


def sealed(table: Table, values: Mapping[str, Any], of: str = "") -> dict[str, Any]:
    """A row ready to be written: with its time, its seal, and NULL in what is not given."""
    given = {"created": now(), **values}
    row = {name: given.get(name) for name in _names(table) if name not in ("id", "seal")}
    return {**row, "seal": seal(table, row, of)}


def is_intact(table: Table, row: Row[Any], of: str = "") -> bool:
    """Whether a row fits its seal, or has none."""
    values: Mapping[str, Any] = dict(row._mapping)
    if values["seal"] is None:
        return not any(isinstance(value, Damaged) for value in values.values())
    try:
        return bool(values["seal"] == seal(table, values, of))
    except (TypeError, ValueError, AttributeError, RecursionError):
        return False  # something that no seal can be made of stands in its place


@cache
def _names(table: Table) -> tuple[str, ...]:
    return tuple(column.name for column in table.c)


@cache
def _sealed(table: Table) -> tuple[str, ...]:
    return tuple(name for name in _names(table) if name not in _UNSEALED)


def check(table: Table, row: Row[Any], what: str, of: str = "") -> None:
    """Refuse a row that does not fit its seal.

    Raises:
        StoreError: It does not.
    """
    if not is_intact(table, row, of):
        raise damaged(what)


def damaged(what: str) -> StoreError:
    """The error for something that is not what was stored."""
    return StoreError(f"{what} is damaged in the store; {REMEDY}")
