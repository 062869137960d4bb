"""Runs as rows: when each began, how it ended, what was asked for, and on which machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from benchbox.errors import StoreError
from benchbox.store import seals
from benchbox.store.schema import CELL, RUN, now
from benchbox.text import masked_record

#: The status of a run that was neither finished nor is alive.
KILLED = "killed"


@dataclass(frozen=True)
class RunRecord:
    """One call of the runner.

    Attributes:
        id: Its number.
        created: When it began, ISO 8601, UTC.
        finished: When it ended; None while it runs, and for ever if it was killed.
        status: `running`, `killed` if it stopped living before it ended, or what `finish_run` was told.
        request: What was asked for.
        provenance: On what machine, with what code.
        cells: How many cells it added; cells it found in the store belong to the run that added them.
    """

    id: int
    created: str
    finished: str | None
    status: str
    request: Mapping[str, Any]
    provenance: Mapping[str, Any]
    cells: int


def lease(run: int) -> str:
    """What a run holds while it lives."""
    return f"run/{run}"


def begin(connection: Connection, request: Mapping[str, Any], provenance: Mapping[str, Any]) -> int:
    """Note that a run begins; returns its number."""
    record = {"request": seals.plain(dict(request)), "provenance": seals.plain(dict(provenance))}
    values = seals.sealed(RUN, {"status": "running", **record})
    key = connection.execute(insert(RUN).values(values)).inserted_primary_key
    assert key is not None
    return int(key[0])


def finish(connection: Connection, run: int, status: str) -> None:
    """Note that a run ended, and how.

    Raises:
        StoreError: There is none of this number, or it is damaged.
    """
    row = connection.execute(select(RUN).where(RUN.c.id == run).with_for_update()).one_or_none()
    if row is None:
        raise StoreError(f"there is no run {run} in the store; begin it with begin_run")
    seals.check(RUN, row, f"run {run}")
    values = {"status": status, "finished": now()}
    seal = row.seal and seals.seal(RUN, {**row._mapping, **values})
    connection.execute(update(RUN).where(RUN.c.id == run).values(**values, seal=seal))


def rows(connection: Connection) -> Sequence[Row[Any]]:
    """Every run, oldest first, with the number of `cells` that it added."""
    added = select(func.count()).where(CELL.c.run_id == RUN.c.id).scalar_subquery()
    return connection.execute(select(RUN, added.label("cells")).order_by(RUN.c.id)).all()


def record(row: Row[Any], *, is_alive: bool) -> RunRecord:
    """A run as others see it.

    Raises:
        StoreError: It is not what was stored.
    """
    seals.check(RUN, row, f"run {row.id}")
    status = KILLED if row.status == "running" and not is_alive else row.status
    provenance = masked_record(row.provenance)
    return RunRecord(row.id, row.created, row.finished, status, row.request, provenance, row.cells)
