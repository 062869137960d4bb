"""Opening a database: its connections, its transactions, its schema, and what their failures mean."""

from __future__ import annotations

import shutil
import sqlite3
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

from sqlalchemy import Connection, Engine, Table, create_engine, event, func, inspect, make_url, select, text
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError, StatementError
from sqlalchemy.pool import ConnectionPoolEntry

from benchbox.canonical import canonical
from benchbox.errors import StoreError
from benchbox.store import readonly
from benchbox.store.schema import REVISION
from benchbox.store.seals import read_json
from benchbox.text import MASK, masked

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

#: Seconds to wait for other processes that are writing to the same file.
PATIENCE = 120
#: The lock that PostgreSQL's processes take before they bring a schema up to date; any number does.
_UPGRADING = 20250131

#: What a driver's message contains -> what the user can do; the first that fits.
_REMEDIES = (
    (
        ("not a database", "malformed"),
        "the file is damaged or no store; put back a copy, or name another store",
    ),
    (
        ("disk is full", "disk i/o error", "no space left"),
        "make room and run the same command again: what was committed is kept",
    ),
    (("locked",), "another process is writing to it; run the same command again when that has ended"),
    (
        ("readonly", "read-only", "unable to open", "permission denied", "access permission"),
        "check the permissions of the file and its folder, or name another store",
    ),
    (
        ("connect", "could not translate", "password", "authentication"),
        "check the host, the name and the password in the URL, and that the server runs",
    ),
)


def parse(url_or_path: str | Path) -> URL:
    """The URL of a store; what has no `://` is the path of an SQLite file.

    Raises:
        StoreError: It looks like a URL and is none.
    """
    if isinstance(url_or_path, Path) or "://" not in url_or_path:
        return URL.create("sqlite", database=str(url_or_path))
    try:
        url = make_url(url_or_path)
        return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url
    except (ArgumentError, ValueError):
        raise StoreError(
            f"{masked(url_or_path)!r} is no database URL; write a path, or dialect://user@host/name"
        ) from None


def describe(url: URL) -> str:
    """The store's name in messages: a file's path, or the URL without its password."""
    if url.get_backend_name() == "sqlite" and url.database:
        return f"store {masked(url.database.removeprefix('file:'))}"
    return f"store {masked(url.render_as_string(hide_password=True))}"


def connect(url: URL, *, must_exist: bool) -> Engine:
    """Open the database and bring its schema up to date.

    Raises:
        StoreError: It cannot be reached, created, read or upgraded.
    """
    _prepare_folder(url, must_exist)
    if (file := readonly.file_of(url)) is not None:
        return _connect_to_read(file)
    engine = _engine(url)
    _bring_up_to_date(engine, must_exist)
    return engine


def _connect_to_read(file: Path) -> Engine:
    if not readonly.has_log(file):
        engine = _engine(readonly.url_of(file))
        with transaction(engine, write=False) as connection:
            revision = _revision(connection)
        if revision == REVISION:
            return engine
        engine.dispose()
    # An older schema, or a log that cannot be read without being written: a copy is brought up to date, and read.
    try:
        copy = readonly.copy_of(file)
    except OSError as error:
        raise StoreError(f"store {file}: {error.strerror}; copy it to where it can be written") from error
    try:
        writable = _engine(URL.create("sqlite", database=str(copy)))
        _bring_up_to_date(writable, must_exist=True)
        writable.dispose()
    except BaseException:
        shutil.rmtree(copy.parent)
        raise
    engine = _engine(readonly.url_of(copy))
    weakref.finalize(engine, shutil.rmtree, copy.parent, ignore_errors=True)
    return engine


def _bring_up_to_date(engine: Engine, must_exist: bool) -> None:
    try:
        with transaction(engine, write=False) as connection:
            revision = _revision(connection)
        if revision is None and must_exist:
            raise StoreError(f"{describe(engine.url)} is empty; fill it with `benchbox run`")
        if revision != REVISION:
            with transaction(engine, write=True) as connection:
                _upgrade(connection)
    except BaseException:
        engine.dispose()
        raise


@contextmanager
def transaction(engine: Engine, *, write: bool) -> Iterator[Connection]:
    """A connection whose work is committed at the end, or undone if anything is raised meanwhile.

    Raises:
        StoreError: In place of what the database or its driver raised. A value that cannot be stored at all
            (an object that is not JSON) is the caller's mistake and keeps its own exception.
    """
    try:
        with engine.connect() as connection:
            connection.execution_options(benchbox_write=write)
            if connection.dialect.name == "postgresql" and not write:
                # Several statements read one state, as they do in SQLite.
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection
    except UnicodeDecodeError as error:  # SQLite quotes a schema that is no text any more
        raise StoreError(f"{describe(engine.url)}: malformed schema; {_REMEDIES[0][1]}") from error
    except StatementError as error:
        if not isinstance(error, DBAPIError):
            raise
        raise _explain(error, engine.url) from error
    except SQLAlchemyError as error:
        raise StoreError(
            f"{describe(engine.url)}: {_first_line(error, engine.url)}; check that the URL is right"
        ) from error


def insert_missing(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that leaves a row whose key is there as it is: of two writers, the second takes what is there.

    Its `rowcount` says whether the row is new.
    """
    return _insert_missing(connection.dialect.name, table)


@cache  # building a statement takes longer than running it
def _insert_missing(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table).on_conflict_do_nothing().execution_options(preserve_rowcount=True)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table).on_conflict_do_nothing()


def _explain(error: DBAPIError, url: URL) -> StoreError:
    reason = _first_line(error.orig or error, url)
    if isinstance(error, IntegrityError):
        remedy = "another process stored the same first, or a value is missing; run the same command again"
    else:
        known = (remedy for words, remedy in _REMEDIES if any(word in reason.lower() for word in words))
        remedy = next(known, "see whether the database works with its own tools")
    return StoreError(f"{describe(url)}: {reason}; {remedy}")


def _first_line(error: BaseException, url: URL) -> str:
    lines = str(error).strip().splitlines()
    line = lines[0].strip() if lines else type(error).__name__
    for secret in filter(
        None, (url.password and str(url.password), url.password and quote_plus(str(url.password)))
    ):
        line = line.replace(secret, MASK)  # a driver may quote it in any form of its own
    return masked(line)


def _prepare_folder(url: URL, must_exist: bool) -> None:
    file = url.database
    if url.get_backend_name() != "sqlite" or not file or file == ":memory:" or file.startswith("file:"):
        return
    try:
        if must_exist and not Path(file).exists():
            raise StoreError(f"there is no store {file}; make it with `benchbox run`, or name another")
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"store {file}: {error.strerror} ({error.filename}); name another store") from error


def _engine(url: URL) -> Engine:
    try:
        engine = create_engine(url, json_serializer=canonical, json_deserializer=read_json)
    except ImportError as error:
        driver = error.name or str(error)
        raise StoreError(f"{describe(url)} needs the driver {driver}; pip install {driver}") from error
    except (SQLAlchemyError, TypeError, ValueError) as error:
        raise StoreError(f"{describe(url)}: {_first_line(error, url)}; check the URL") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite if "uri" not in url.query else _configure_reading)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    _configure_reading(connection, entry)
    cursor = connection.cursor()
    # Readers and the one writer do not wait for each other; a killed process loses nothing it committed, and a
    # power cut costs the last commits at most.
    _write_ahead(cursor)
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _write_ahead(cursor: DBAPICursor) -> None:
    """Give the file a log. That takes a new file for oneself, for a moment, and SQLite does not wait for it."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.01)


def _configure_reading(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # The driver's own idea of when a transaction begins omits reads and DDL; `_begin_sqlite` replaces it.
    connection.isolation_level = None
    # Text that is no text any more is damage like any other: its seal does not fit.
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {PATIENCE * 1000}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later fails at once if another wrote in between, without
    # waiting: so one that will write takes its place in the queue at the start.
    write = connection.get_execution_options().get("benchbox_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _revision(connection: Connection) -> str | None:
    tables = inspect(connection).get_table_names()
    if "alembic_version" in tables:
        revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return revision
    if tables:
        raise StoreError(
            f"{describe(connection.engine.url)} belongs to something else (it has a table {tables[0]!r}); "
            "name another store"
        )
    return None


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":  # in SQLite the writer is alone anyway
        connection.execute(select(func.pg_advisory_xact_lock(_UPGRADING)))
    revision = _revision(connection)
    if revision == REVISION:
        return  # another process was first
    # Importing Alembic takes longer than opening a current store, so only a new or an old one pays for it.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", "benchbox.store:migrations")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(
            f"{describe(connection.engine.url)} has schema {revision!r}, and this benchbox knows none after "
            f"{REVISION!r}; update benchbox, or name another store"
        ) from error
