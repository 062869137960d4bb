"""The results store: domain types in, domain types out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, Table, func, insert, select, update

from benchbox.domain import Cell, Evidence, Outcome
from benchbox.errors import StoreError
from benchbox.store import adversarials, cells, leases, outcomes
from benchbox.store.adversarials import Adversarials
from benchbox.store.database import connect, parse, transaction
from benchbox.store.schema import ARTIFACT, ATTACHMENT, BATCH, CELL, OUTCOME, RUN, SETTING, now


@dataclass(frozen=True)
class RunRecord:
    """One call of the runner.

    Attributes:
        id: Its number.
        created: When it began, ISO 8601, UTC.
        finished: When it ended; None while it runs, and for ever if it was killed.
        status: `running`, or what `finish_run` was told.
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


class Store:
    """Keeps runs, cells, outcomes and adversarial images: in an SQLite file, or behind a database URL.

    It guarantees that

    - every method is one transaction: what it writes is there as a whole or not at all, whatever is raised
      and whenever the process is killed (only a power cut may cost an SQLite file its last commits);
    - an outcome is stored once for each position of a cell, and is never changed afterwards;
    - a cell is `done` exactly when every position of its sample list is there, unless `fail` has said
      otherwise since;
    - what is read back equals what was stored, to the bit; adversarial images are checked by their SHA-256;
    - several processes may share a store: writers wait for one another, and one that finds what it was about
      to write takes what is there.

    To share work, claim it. What nobody else holds is yours; what somebody holds is theirs until they let go or
    die; in between, do something else or wait:

        with store.claim(f"cell/{cell.key}") as mine:
            if mine:
                ...  # look what is still to do, and do it
        store.claimed_elsewhere(names)                            # those of the names that others work on
        with store.claim(f"training/{digest}", wait=math.inf):    # yours as soon as it is free
            ...  # look first: the one who had it may have made it

    Every method raises `StoreError` when the database refuses.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._leases = leases.Leases(engine)
        self._runs: dict[str, int] = {}  # the run each cell was last added for: its batches belong to it

    @classmethod
    def open(cls, url_or_path: str | Path, *, must_exist: bool = False) -> Self:
        """Open a store, creating it or bringing an older one up to date.

        Args:
            url_or_path: Path of an SQLite file, whose folder is created, or a database URL.
            must_exist: Refuse to create it.

        Raises:
            StoreError: It is damaged, made by a newer benchbox, not a store, out of reach, or not there.
        """
        return cls(connect(parse(url_or_path), must_exist=must_exist))

    def close(self) -> None:
        """Let go of what is claimed, and of the database."""
        self._leases.close()
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def claim(self, name: str, *, seconds: float = leases.SECONDS, wait: float = 0.0) -> Iterator[bool]:
        """Hold a piece of work while the block runs; gives whether it is held.

        A thread renews the lease meanwhile. A holder that dies loses it: at once for processes of the same
        machine, after `seconds` for others.

        Args:
            name: At most 255 characters: `cell/KEY`, `training/DIGEST`.
            seconds: How long it outlives the holder's last sign of life.
            wait: Seconds to wait for somebody who holds it; `math.inf` for as long as it takes.
        """
        until = time.monotonic() + wait
        while not (held := self._leases.take(name, seconds)) and time.monotonic() < until:
            time.sleep(min(leases.PAUSE, max(0.0, until - time.monotonic())))
        try:
            yield held
        finally:
            if held:
                self._leases.release(name)

    def claimed_elsewhere(self, names: Iterable[str]) -> set[str]:
        """Those of the names that somebody else holds: another process, or another `Store` in this one."""
        return self._leases.elsewhere(names)

    def begin_run(self, request: Mapping[str, Any], provenance: Mapping[str, Any]) -> int:
        """Note that a run begins; returns its number."""
        values = {"status": "running", "request": dict(request), "provenance": dict(provenance)}
        with self._writing() as connection:
            key = connection.execute(insert(RUN).values(values)).inserted_primary_key
            assert key is not None
            return int(key[0])

    def finish_run(self, run: int, status: str) -> None:
        """Note that a run ended, and how."""
        with self._writing() as connection:
            query = update(RUN).where(RUN.c.id == run).values(status=status, finished=now())
            if connection.execute(query).rowcount == 0:
                raise StoreError(f"there is no run {run} in the store; begin it with begin_run")

    def runs(self) -> list[RunRecord]:
        """Every run, oldest first."""
        added = select(func.count()).where(CELL.c.run_id == RUN.c.id).scalar_subquery()
        with self._reading() as connection:
            return [RunRecord(*row) for row in connection.execute(select(RUN, added).order_by(RUN.c.id))]

    def add_cell(self, cell: Cell, run: int) -> None:
        """Make a cell known; batches committed from now on through this object belong to `run`.

        A cell that is there already keeps its first run and its outcomes. If it had failed, the failure is
        forgotten and it is `partial` (or `done`) again.
        """
        with self._writing() as connection:
            cells.settle(connection, cells.add(connection, cell, run), cell)
        self._runs[cell.key] = run

    def positions(self, cell: Cell) -> NDArray[np.int64]:
        """(N,) the positions of a cell that are committed, ascending."""
        query = select(OUTCOME.c.position).join(CELL).where(CELL.c.key == cell.key).order_by(OUTCOME.c.position)
        with self._reading() as connection:
            return np.array(connection.scalars(query).all(), np.int64)

    def commit_batch(
        self, cell: Cell, outcome: Outcome, *, seconds: float, crafted: Adversarials | None = None
    ) -> None:
        """Store what happened to some samples of a cell, with their adversarial images if given.

        Args:
            cell: Added before.
            outcome: Of positions that are not committed yet.
            seconds: What the batch took.
            crafted: Images to keep for other cells of the same craft key; those that are there stay.

        Raises:
            StoreError: Also if a position is committed already, or rows do not fit the cell; then nothing of
                the batch is stored.
        """
        outcomes.check(cell, outcome)
        with self._writing() as connection:
            cell_id, run = cells.find(connection, cell)
            batch = {"cell_id": cell_id, "run_id": self._runs.get(cell.key, run)}
            connection.execute(insert(BATCH).values(**batch, samples=len(outcome), seconds=seconds))
            outcomes.save(connection, cell_id, outcome)
            if crafted is not None:
                adversarials.save(connection, crafted)
            cells.settle(connection, cell_id, cell)

    def crafted(self, craft_key: str, positions: NDArray[np.int64]) -> Adversarials | None:
        """The adversarial images at exactly these positions, in their order; None if one is missing.

        Raises:
            StoreError: Also if an image is not what was stored.
        """
        with self._reading() as connection:
            return adversarials.load(connection, craft_key, positions)

    def fail(self, cell: Cell, error: str) -> None:
        """Note that a cell ended with an error; what it has committed stays."""
        with self._writing() as connection:
            cell_id, _ = cells.find(connection, cell)
            connection.execute(update(CELL).where(CELL.c.id == cell_id).values(status="failed", error=error))

    def evidence(
        self,
        *,
        dataset: str | None = None,
        defenses: Sequence[str] | None = None,
        keys: Sequence[str] | None = None,
    ) -> list[Evidence]:
        """Cells with what is known of them, in the order they were added; None stands for all.

        Args:
            dataset: Name of the data set.
            defenses: Names of defences.
            keys: Keys of cells.
        """
        wanted = select(CELL.c.id)
        if dataset is not None:
            wanted = wanted.where(CELL.c.dataset == dataset)
        if defenses is not None:
            wanted = wanted.where(CELL.c.defense.in_(defenses))
        if keys is not None:
            wanted = wanted.where(CELL.c.key.in_(keys))
        with self._reading() as connection:
            return list(cells.evidence(connection, wanted))

    def put_artifact(self, digest: str, card: Mapping[str, Any]) -> None:
        """Keep what is known of a trained artifact: recipe, provenance, seconds. Replaces the last."""
        self._put(ARTIFACT, {"digest": digest}, {"card": dict(card)})

    def artifacts(self) -> dict[str, Mapping[str, Any]]:
        """The card of every trained artifact that is known here, by digest."""
        with self._reading() as connection:
            return {row.digest: row.card for row in connection.execute(select(ARTIFACT))}

    def artifact(self, digest: str) -> Mapping[str, Any] | None:
        """The card of a trained artifact, None if there is none."""
        card: Mapping[str, Any] | None = self._get(ARTIFACT, "card", digest=digest)
        return card

    def remember(self, key: str, value: Any) -> None:
        """Keep a small JSON value, such as a measured batch size. Replaces an earlier one."""
        self._put(SETTING, {"key": key}, {"value": value})

    def recall(self, key: str) -> Any:
        """What `remember` was told, None if nothing."""
        return self._get(SETTING, "value", key=key)

    def attach(self, subject: str, kind: str, record: Mapping[str, Any]) -> None:
        """Keep a record about a cell or an artifact, one of a kind. Replaces an earlier one.

        Args:
            subject: Key of the cell, digest of the artifact.
            kind: What the record is: an audit's verdict, transfer statistics.
            record: JSON.
        """
        self._put(ATTACHMENT, {"subject": subject, "kind": kind}, {"record": dict(record)})

    def attached(self, subject: str, kind: str) -> Mapping[str, Any] | None:
        """What `attach` was told, None if nothing."""
        record: Mapping[str, Any] | None = self._get(ATTACHMENT, "record", subject=subject, kind=kind)
        return record

    def attachments(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        """Everything that was attached, by subject and kind."""
        with self._reading() as connection:
            return {(row.subject, row.kind): row.record for row in connection.execute(select(ATTACHMENT))}

    def _reading(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, write=False)

    def _writing(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, write=True)

    def _put(self, table: Table, key: Mapping[str, str], values: Mapping[str, Any]) -> None:
        # Update, then insert: every database has its own word for doing both at once.
        with self._writing() as connection:
            if connection.execute(update(table).filter_by(**key).values(values)).rowcount == 0:
                connection.execute(insert(table).values({**key, **values}))

    def _get(self, table: Table, column: str, **key: str) -> Any:
        with self._reading() as connection:
            return connection.scalar(select(table.c[column]).filter_by(**key))
