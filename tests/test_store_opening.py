"""Opening a store: what fails is named in one line, and old schemas are brought up to date."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from evidence import CELL, RANDOM, assert_filled, begin, fill, images, outcome
from sqlalchemy import create_engine

from benchbox.errors import StoreError
from benchbox.store import Store, migrations
from benchbox.store.schema import METADATA, REVISION

OLDEST = (
    Path(__file__).parent / "assets" / "store-0001.sqlite"
)  # `evidence.fill` made it, when 0001 was the newest


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results" / "benchbox.sqlite"


@pytest.fixture
def store(path):
    with Store.open(path) as store:
        yield store


def assert_one_line(caught):
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


def refused(where, message, **options):
    with pytest.raises(StoreError, match=message) as caught:
        Store.open(where, **options)
    assert_one_line(caught)
    return str(caught.value)


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "a.sqlite").write_text("some notes of mine, which must survive " * 30)
    before = (tmp_path / "a.sqlite").read_bytes()
    refused(tmp_path / "a.sqlite", "not a database.*name another store")
    assert (tmp_path / "a.sqlite").read_bytes() == before


def test_a_damaged_database(path):
    with Store.open(path) as store:
        fill(store)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\x55" * (len(content) - 4096)  # every page but the first
    path.write_bytes(content)
    refused(path, "malformed.*put back a copy")


def test_a_database_of_something_else_is_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / "a.sqlite") as plain:
        plain.execute("CREATE TABLE bookmark (url TEXT)")
    refused(tmp_path / "a.sqlite", "something else.*'bookmark'")
    with sqlite3.connect(tmp_path / "a.sqlite") as plain:
        assert plain.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmark",)]


def test_a_store_of_a_newer_benchbox_is_left_alone(path):
    with Store.open(path) as store:
        fill(store)
    with sqlite3.connect(path) as plain:
        plain.execute("UPDATE alembic_version SET version_num = '9999'")
    refused(path, f"schema '9999'.*'{REVISION}'; update benchbox")
    with sqlite3.connect(path) as plain:
        assert plain.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)


def test_a_store_that_must_exist(tmp_path):
    refused(tmp_path / "folder" / "a.sqlite", "there is no store .*a.sqlite", must_exist=True)
    assert not (tmp_path / "folder").exists()
    (tmp_path / "b.sqlite").touch()
    refused(tmp_path / "b.sqlite", "empty; fill it with", must_exist=True)


def test_a_path_that_cannot_be_a_file(tmp_path):
    (tmp_path / "file").touch()
    refused(tmp_path, "unable to open database file.*permissions")
    refused(tmp_path / "file" / "a.sqlite", "name another store")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense://host/name", "nonsense.*check the URL"),
        ("sqlite:://x", "is no database URL"),
        ("://user:secret@host", "is no database URL"),
        ("postgresql+nodriver://user:secret@host/name", "nodriver"),
        ("postgresql://user:secret@host:port/name", "is no database URL"),
    ],
)
def test_a_url_that_leads_nowhere_is_named_without_its_password(url, message):
    assert "secret" not in refused(url, message)


def test_a_path_may_hold_what_a_url_may_not(tmp_path):
    odd = tmp_path / "50% of?it#all" / "a b.sqlite"
    with Store.open(odd) as store:
        fill(store)
    assert odd.exists()
    with Store.open(f"sqlite:///{tmp_path}/plain.sqlite") as store:
        assert store.runs() == []
    assert (tmp_path / "plain.sqlite").exists()


def test_a_store_that_may_only_be_read_can_be_read(path):
    with Store.open(path) as store:
        fill(store)
    with Store.open(f"sqlite:///file:{path}?mode=ro&uri=true") as store:
        assert_filled(store)
        with pytest.raises(StoreError, match=r"readonly.*check the permissions") as caught:
            begin(store)
        assert_one_line(caught)


def test_a_full_disk_keeps_what_was_committed(store):
    begin(store, CELL)
    store.commit_batch(CELL, outcome(CELL, [0]), seconds=0, crafted=images(CELL.craft_key, [0]))
    with store._engine.connect() as connection:  # SQLite's own limit raises what a full disk raises
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    large = images("large", [1], shape=(3, 64, 64))
    with pytest.raises(StoreError, match=r"disk is full; make room.*what was committed is kept") as caught:
        store.commit_batch(CELL, outcome(CELL, [1]), seconds=0, crafted=large)
    assert_one_line(caught)
    assert store.positions(CELL).tolist() == [0]
    with store._engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 1000}")
    store.commit_batch(CELL, outcome(CELL, [1]), seconds=0, crafted=large)
    assert store.positions(CELL).tolist() == [0, 1]


# The schema and its history


def test_the_migrations_lead_to_the_tables_in_the_code(store):
    with store._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_the_newest_migration_is_the_one_the_code_knows():
    assert ScriptDirectory(migrations.__path__[0]).get_heads() == [REVISION]


def test_a_store_of_every_earlier_schema_is_brought_up_to_date(tmp_path):
    copy = tmp_path / OLDEST.name
    copy.write_bytes(OLDEST.read_bytes())
    with Store.open(copy) as store:
        assert_filled(store)
        begin(store, RANDOM)
        store.commit_batch(RANDOM, outcome(RANDOM, range(2, 6)), seconds=0)
        assert store.evidence()[1].status == "done"
    engine = create_engine(f"sqlite:///{copy}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()


def test_opening_a_current_store_loads_neither_torch_nor_alembic(path):
    with Store.open(path) as store:
        fill(store)
    code = (
        "import sys; from benchbox.store import Store\n"
        f"with Store.open({str(path)!r}) as store: assert len(store.evidence()) == 2\n"
        "print([m for m in ('torch', 'alembic', 'sqlalchemy.orm') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
