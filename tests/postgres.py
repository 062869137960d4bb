"""A PostgreSQL server of its own for whoever wants one, where it is installed."""

import getpass
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from uuid import uuid4

import pytest

FOUND = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")) or [
    Path(p) for p in [shutil.which("pg_ctl")] if p
]
#: The server refuses to run as root.
USER = {"user": "postgres"} if os.geteuid() == 0 else {}


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    pytest.importorskip("psycopg", reason="benchbox[postgresql] is not installed")
    if not FOUND:
        pytest.skip("no PostgreSQL server is installed; apt-get install postgresql")
    owner = USER.get("user", getpass.getuser())
    if owner not in [entry.pw_name for entry in pwd.getpwall()]:
        pytest.skip("there is no user postgres for the server to run as")
    # Short: it holds a socket. One for each module of tests that takes this fixture, also in one process.
    folder = Path(tempfile.mkdtemp(prefix="benchbox-postgres-", dir="/tmp"))
    shutil.chown(folder, owner)

    def call(tool, *words):
        subprocess.run([FOUND[-1].with_name(tool), *words], check=True, stdout=subprocess.DEVNULL, cwd="/", **USER)

    call("initdb", "-D", folder / "data", "-A", "trust", "-U", "me")
    call("pg_ctl", "-D", folder / "data", "-w", "-o", f"-k {folder} -c listen_addresses= -c fsync=off", "start")
    yield folder
    call("pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture
def url(server):
    """Of an empty database."""
    import psycopg

    name = f"t{uuid4().hex}"
    with psycopg.connect(host=str(server), user="me", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"postgresql://me@/{name}?host={server}"
