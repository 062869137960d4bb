"""The results store: domain types in, domain types out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Self, Unpack

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, Row, Select, Table, select, update

from benchbox.domain import Cell, Evidence, Outcome
from benchbox.store import adversarials, arrays, batches, cells, leases, outcomes, removal, runs, seals, siblings
from benchbox.store.batches import Batch
from benchbox.store.cells import CellRecord, Progress
from benchbox.store.database import connect, insert_missing, parse, transaction
from benchbox.store.images import Adversarials
from benchbox.store.repair import Diagnosis, examine
from benchbox.store.runs import RunRecord
from benchbox.store.schema import ARTIFACT, ATTACHMENT, CELL, SETTING
from benchbox.store.which import WhichStored
from benchbox.text import masked_record, printable


class Store:
    """Keeps runs, cells, outcomes and adversarial images: in an SQLite file, or behind a database URL.

    It guarantees that

    - every method is one transaction: what it writes is there as a whole or not at all, whatever is raised
      and whenever the process is killed (only a power cut may cost an SQLite file its last commits);
    - an outcome is stored once for each position of a cell, and is never changed afterwards;
    - a cell is `done` exactly when every position of its sample list is there, unless `fail` has said
      otherwise since;
    - what is read back equals what was stored, to the bit: every row has a seal, which is checked, and one
      that does not fit is a `StoreError` that names the cell and what mends it;
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
        while not (held := bool(self._leases.take([name], seconds))) and time.monotonic() < until:
            time.sleep(min(leases.PAUSE, max(0.0, until - time.monotonic())))
        try:
            yield held
        finally:
            if held:
                self._leases.release(name)

    def claim_all(self, names: Iterable[str]) -> set[str]:
        """Hold those of some pieces of work that nobody holds, until they are released; gives which."""
        return self._leases.take(names, leases.SECONDS)

    def exchange(
        self, made: Sequence[Batch], done: Iterable[str], names: Iterable[str], cells_of: Iterable[Cell]
    ) -> tuple[set[str], dict[str, Progress]]:
        """`commit`, `claim_all` and `progress` in one transaction, as what is done makes room for the next.

        On a server it takes two. A name that ends with what is committed and is wanted again is held all along.

        Args:
            made: What happened, to samples of cells that were added before.
            done: Names of claims that end with it.
            names: Of the pieces of work to hold next.
            cells_of: Their cells.

        Returns:
            Those of the names that are held, and how far each cell is, by key.

        Raises:
            StoreError: Also if rows do not fit their cell; then nothing is stored.
        """
        ending, wanted, looked_at = set(done), set(names), list(cells_of)
        kept = ending & wanted
        ending, wanted = ending - kept, wanted - kept
        if wanted and (made or ending) and self._engine.dialect.name != "sqlite":
            # Two that give back what the other takes would wait for each other for ever; a file has one writer.
            self.commit(made, ending)
            made, ending = (), set()
        for batch in made:
            outcomes.check(batch.cell, batch.outcome)
        if not (made or ending or wanted):
            return kept, self.progress(looked_at) if looked_at else {}
        with self._leases.taking(wanted, leases.SECONDS) as take, self._writing() as connection:
            known = batches.commit(connection, made, self._runs) if made else {}
            self._leases.give_back(connection, sorted(ending))
            held = take(connection)
            found = cells.progress(connection, looked_at, known)
        self._leases.forget(ending)
        return held | kept, found

    def release(self, names: Iterable[str]) -> None:
        """Let go of what `claim_all` gave; what is not held is left alone."""
        self._leases.release(*names)

    def claimed_elsewhere(self, names: Iterable[str]) -> set[str]:
        """Those of the names that somebody else holds: another process, or another `Store` in this one."""
        return self._leases.elsewhere(names)

    def begin_run(self, request: Mapping[str, Any], provenance: Mapping[str, Any]) -> int:
        """Note that a run begins; returns its number. It is `running` while this store is open and lives."""
        with self._writing() as connection:
            run = runs.begin(connection, request, provenance)
        self._leases.take([runs.lease(run)], leases.SECONDS)
        return run

    def finish_run(self, run: int, status: str) -> None:
        """Note that a run ended, and how."""
        with self._writing() as connection:
            runs.finish(connection, run, status)
        self._leases.release(runs.lease(run))

    def runs(self) -> list[RunRecord]:
        """Every run, oldest first."""
        with self._reading() as connection:
            rows = runs.rows(connection)
        alive = self._leases.alive(runs.lease(row.id) for row in rows if row.status == "running")
        return [runs.record(row, is_alive=runs.lease(row.id) in alive) for row in rows]

    def add_cell(self, cell: Cell, run: int) -> Cell:
        """Make a cell known; batches committed from now on through this object belong to `run`.

        A cell that is there already keeps its first run and its outcomes. If it had failed, the failure is
        forgotten and it is `partial` (or `done`) again.

        Returns:
            The cell as the store has it, with images under the name they were begun under.
        """
        with self._writing() as connection:
            known = cells.add(connection, cell, run)
        self._runs[cell.key] = run
        return known

    def positions(self, cell: Cell) -> NDArray[np.int64]:
        """(N,) the positions of a cell that are committed, ascending."""
        with self._reading() as connection:
            row = connection.execute(select(CELL).where(CELL.c.key == cell.key)).one_or_none()
        return arrays.positions(None if row is None else cells.checked(row).committed)

    def progress(self, cells_of: Iterable[Cell]) -> dict[str, Progress]:
        """How far some cells are, by key; all are looked at in one state of the store."""
        with self._reading() as connection:
            return cells.progress(connection, cells_of)

    def commit_batch(
        self, cell: Cell, outcome: Outcome, *, seconds: float, crafted: Adversarials | None = None
    ) -> None:
        """Store what happened to some samples of a cell, with their adversarial images; see `commit`."""
        self.commit([Batch(cell, outcome, seconds, crafted)])

    def commit(self, made: Sequence[Batch], done: Iterable[str] = ()) -> None:
        """Store batches: all of them, or none.

        What is there already stays: of two processes that ran the same samples, the second takes what the first
        has stored and goes on.

        Args:
            made: What happened, to samples of cells that were added before.
            done: Names of claims that end with it.

        Raises:
            StoreError: Also if rows do not fit their cell; then nothing is stored.
        """
        self.exchange(made, done, (), ())

    def crafted(self, craft_key: str, positions: NDArray[np.int64]) -> Adversarials | None:
        """The adversarial images at exactly these positions, in their order; None if one is missing.

        Raises:
            StoreError: Also if an image is not what was stored.
        """
        with self._reading() as connection:
            return adversarials.load(connection, craft_key, positions)

    def siblings(self, cell: Cell) -> list[Cell]:
        """Cells that differ in nothing but their sample list, of the same data set and split; newest first."""
        with self._reading() as connection:
            return siblings.siblings(connection, cell)

    def take_over(self, cell: Cell, other: Cell, source: NDArray[np.int64], target: NDArray[np.int64]) -> int:
        """Copy outcomes and adversarial images from a sibling; what is there already stays.

        Args:
            cell: Gets them.
            other: Has them. That its images are the cell's is for the caller to check.
            source: (N,) positions on the other's list.
            target: (N,) positions of the same images on the cell's list.

        Returns:
            How many outcomes the cell got.
        """
        with self._writing() as connection:
            return siblings.take_over(connection, cell, other, source, target)

    def fail(self, cell: Cell, error: str) -> None:
        """Note that a cell ended with an error; what it has committed stays."""
        with self._writing() as connection:
            cells.change(connection, cells.find(connection, cell), status="failed", error=printable(error))

    def cells(self, **which: Unpack[WhichStored]) -> list[CellRecord]:
        """Cells and how far they have come, without their outcomes; narrowed as `evidence` is."""
        query = select(CELL).where(CELL.c.id.in_(_wanted(**which))).order_by(CELL.c.id)
        with self._reading() as connection:
            return [cells.record(row) for row in connection.execute(query)]

    def evidence(self, **which: Unpack[WhichStored]) -> list[Evidence]:
        """Cells with what is known of them, in the order they were added.

        Outcomes are unpacked when they are looked at, so that thousands fit into memory.

        Args:
            which: The cells that are meant; all by default.

        Raises:
            StoreError: Also if something of them is not what was stored.
        """
        with self._reading() as connection:
            return list(cells.evidence(connection, _wanted(**which)))

    def remove_cells(self, keys: Sequence[str]) -> None:
        """Take cells out, with everything that only they used: outcomes, attachments, adversarial images."""
        with self._writing() as connection:
            removal.remove_cells(connection, keys)

    def remove_run(self, run: int) -> None:
        """Take a run out, with the cells that it added and the batches that it computed for cells of others."""
        with self._writing() as connection:
            removal.remove_run(connection, run)

    def put_artifact(self, digest: str, card: Mapping[str, Any]) -> None:
        """Keep what is known of a trained artifact: recipe, provenance, seconds. Replaces the last."""
        self._put(ARTIFACT, {"digest": digest}, {"card": dict(card)})

    def artifacts(self) -> dict[str, Mapping[str, Any]]:
        """The card of every trained artifact that is known here, by digest."""
        with self._reading() as connection:
            rows = [_record(ARTIFACT, row) for row in connection.execute(select(ARTIFACT))]
        return {row.digest: masked_record(row.card) for row in rows}

    def artifact(self, digest: str) -> Mapping[str, Any] | None:
        """The card of a trained artifact, None if there is none."""
        card: Mapping[str, Any] | None = self._get(ARTIFACT, "card", digest=digest)
        return card

    def remember(self, key: str, value: Any) -> None:
        """Keep a small JSON value, such as a measured batch size. Replaces an earlier one."""
        # In a list: SQLite would store a number that stands alone as its own kind of number.
        self._put(SETTING, {"key": key}, {"value": [value]})

    def recall(self, key: str) -> Any:
        """What `remember` was told, None if nothing."""
        kept = self._get(SETTING, "value", key=key)
        return None if kept is None else kept[0]

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
            rows = [_record(ATTACHMENT, row) for row in connection.execute(select(ATTACHMENT))]
        return {(row.subject, row.kind): masked_record(row.record) for row in rows}

    def examine(self, *, repair: bool = False) -> Diagnosis:
        """Look through everything.

        Args:
            repair: Drop what is damaged, so that it is run again, and seal what an earlier benchbox stored.
        """
        with transaction(self._engine, write=repair) as connection:
            return examine(connection, repair=repair)

    def _reading(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, write=False)

    def _writing(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, write=True)

    def _put(self, table: Table, key: Mapping[str, str], values: Mapping[str, Any]) -> None:
        row = seals.sealed(table, {**key, **{name: seals.plain(value) for name, value in values.items()}})
        with self._writing() as connection:
            if connection.execute(insert_missing(connection, table).values(row)).rowcount != 1:
                connection.execute(update(table).filter_by(**key).values(row))

    def _get(self, table: Table, column: str, **key: str) -> Any:
        with self._reading() as connection:
            row = connection.execute(select(table).filter_by(**key)).one_or_none()
        return None if row is None else masked_record(getattr(_record(table, row), column))


def _record(table: Table, row: Row[Any]) -> Row[Any]:
    """A row with a record in it, if it is what was stored."""
    named = " ".join(str(row._mapping[column.name])[:80] for column in table.primary_key)
    seals.check(table, row, f"{table.name} {named!r}")
    return row


def _wanted(
    dataset: str | None = None,
    defenses: Sequence[str] | None = None,
    attacks: Sequence[str] | None = None,
    access: str | None = None,
    status: str | None = None,
    run: int | None = None,
    keys: Sequence[str] | None = None,
    prefix: str | None = None,
) -> Select[tuple[int]]:
    """The numbers of the cells that fit; None stands for all."""
    exact = {CELL.c.dataset: dataset, CELL.c.access: access, CELL.c.status: status, CELL.c.run_id: run}
    lists = {CELL.c.defense: defenses, CELL.c.attack: attacks, CELL.c.key: keys}
    query = select(CELL.c.id).where(*(column == value for column, value in exact.items() if value is not None))
    query = query.where(*(column.in_(names) for column, names in lists.items() if names is not None))
    return query if prefix is None else query.where(CELL.c.key.startswith(prefix, autoescape=True))
