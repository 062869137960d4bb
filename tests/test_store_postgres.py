"""The store on a PostgreSQL server of its own, where one is installed."""

import getpass
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest
from evidence import CELL, RANDOM, assert_filled, begin, fill, outcome
from test_store_sharing import assert_written, write_at_once

from benchbox.errors import StoreError
from benchbox.store import Store

pytest.importorskip("psycopg", reason="benchbox[postgresql] is not installed")
FOUND = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")) or [
    Path(p) for p in [shutil.which("pg_ctl")] if p
]
#: The server refuses to run as root.
USER = {"user": "postgres"} if os.geteuid() == 0 else {}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not FOUND:
        pytest.skip("no PostgreSQL server is installed; apt-get install postgresql")
    owner = USER.get("user", getpass.getuser())
    if owner not in [entry.pw_name for entry in pwd.getpwall()]:
        pytest.skip("there is no user postgres for the server to run as")
    folder = Path("/tmp") / f"benchbox-postgres-{os.getpid()}"  # short: it holds a socket
    folder.mkdir()
    shutil.chown(folder, owner)

    def call(tool, *words):
        subprocess.run([FOUND[-1].with_name(tool), *words], check=True, stdout=subprocess.DEVNULL, cwd="/", **USER)

    call("initdb", "-D", folder / "data", "-A", "trust", "-U", "me")
    call("pg_ctl", "-D", folder / "data", "-w", "-o", f"-k {folder} -c listen_addresses= -c fsync=off", "start")
    yield folder
    call("pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture
def url(server, request):
    import psycopg

    name = f"t{abs(hash(request.node.name))}"
    with psycopg.connect(host=str(server), user="me", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"postgresql://me@/{name}?host={server}"


def test_what_goes_in_comes_out(url):
    with Store.open(url) as store:
        fill(store)
    with Store.open(url, must_exist=True) as store:
        assert_filled(store)
        assert store.examine(repair=True).damaged == []
        assert_filled(store)
        begin(store, RANDOM)
        store.commit_batch(RANDOM, outcome(RANDOM, range(6)), seconds=1)
        assert store.evidence(defenses=["carso"])[0].status == "done"
        store.remove_run(1)
        assert store.cells() == []


def test_what_one_holds_no_other_gets(url):
    with Store.open(url) as one, Store.open(url) as other:
        with one.claim("a") as first, other.claim("a") as second:
            assert (first, second) == (True, False)
            assert other.claimed_elsewhere(["a"]) == {"a"}
        with other.claim("a") as mine:
            assert mine
        run = begin(one, CELL)
        assert other.runs()[0].status == "running"
        one.close()
        assert other.runs()[run - 1].status == "killed"


def test_many_writers_of_the_same_lose_nothing_and_none_fails(url):
    assert write_at_once(url, 12) == f"{[0] * 12}\n"
    assert_written(url, 12)


def test_a_wrong_password_is_not_said(server):
    with pytest.raises(StoreError, match="check the host") as caught:
        Store.open(f"postgresql://me:hunter2@/nowhere?host={server}")
    assert "hunter2" not in str(caught.value)
