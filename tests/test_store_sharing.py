"""Several processes, one store: work is claimed, the dead lose their claims, and no writer fails."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchbox.store import Store

HERE = Path(__file__).parent


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.sqlite"


@pytest.fixture
def pair(path):
    with Store.open(path) as one, Store.open(path) as other:
        yield one, other


def start(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE)


def test_what_one_holds_no_other_gets_until_it_lets_go(pair):
    one, other = pair
    with one.claim("cell/a") as first, other.claim("cell/a") as second, one.claim("cell/a") as again:
        assert (first, second, again) == (True, False, False)
        assert other.claimed_elsewhere(["cell/a", "cell/b"]) == {"cell/a"}
        assert one.claimed_elsewhere(["cell/a"]) == set()
    assert other.claimed_elsewhere(["cell/a"]) == set()
    with other.claim("cell/a") as mine:
        assert mine


def test_an_error_in_the_block_and_closing_let_go(pair):
    one, other = pair
    with pytest.raises(ValueError, match="no"), one.claim("a"):
        raise ValueError("no")
    one.claim("b").__enter__()
    one.close()
    with other.claim("a") as a, other.claim("b") as b:
        assert a
        assert b


def test_a_holder_stays_the_holder_for_longer_than_a_lease(pair):
    one, other = pair
    with one.claim("slow", seconds=0.4):
        for name in map(str, range(10)):  # other claims meanwhile do not keep the first from being renewed
            time.sleep(0.1)
            with one.claim(name), other.claim("slow") as second:
                assert not second


def test_who_waits_gets_it_when_it_is_free(pair):
    one, other = pair
    claim = one.claim("training/a")
    assert claim.__enter__()
    threading.Timer(0.3, claim.__exit__, (None, None, None)).start()
    with other.claim("training/a", wait=10) as mine:
        assert mine
    with one.claim("b"):
        begun = time.monotonic()
        with other.claim("b", wait=0.2) as mine:
            assert not mine
        assert 0.2 <= time.monotonic() - begun < 5


HOLDER = """
import sys
from benchbox.store import Store
with Store.open(sys.argv[1]) as store, store.claim("a", seconds=float(sys.argv[2])) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


def test_the_dead_of_this_machine_lose_their_claims_at_once(path):
    with Store.open(path) as store, start(HOLDER, path, 3600) as holder:
        assert holder.stdout.readline() == "True\n"
        with store.claim("a") as mine:
            assert not mine
        os.kill(holder.pid, signal.SIGKILL)
        time.sleep(0.2)  # nobody has waited for it: a zombie holds nothing
        with store.claim("a") as mine:
            assert mine


def test_who_shows_no_sign_of_life_loses_its_claims_in_the_end(path):
    with Store.open(path) as store, start(HOLDER, path, 0.5) as holder:
        assert holder.stdout.readline() == "True\n"
        os.kill(holder.pid, signal.SIGSTOP)
        with store.claim("a", wait=10) as mine:
            assert mine
        os.kill(holder.pid, signal.SIGKILL)
