"""Several processes, one store: work is claimed, the dead lose their claims, and no writer fails."""

import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evidence import CELL, RANDOM, assert_same, begin, images, outcome

from benchbox.errors import StoreError
from benchbox.store import Batch, Store, database

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


def test_many_claims_are_taken_at_once_and_end_with_what_is_committed_for_them(pair):
    one, other = pair
    begin(one, CELL, RANDOM)
    with other.claim("b"):
        assert one.claim_all(["a", "b", "c"]) == {"a", "c"}
        assert other.claim_all(["c", "d"]) == {"d"}
        made = [
            Batch(CELL, outcome(CELL, [0, 1]), 1.0, images(CELL.craft_key, [0, 1])),
            Batch(RANDOM, outcome(RANDOM, [2]), 1.0),
            Batch(CELL, outcome(CELL, [1, 3], seed=1), 1.0, images(CELL.craft_key, [1, 3], seed=1)),
        ]
        one.commit(made, ["a"])
        assert other.claim_all(["a"]) == {"a"}
        assert other.claimed_elsewhere(["c"]) == {"c"}
        one.release(["c"])
        assert other.claim_all(["c"]) == {"c"}
    known = other.progress([CELL, RANDOM])
    assert known[CELL.key].missing(np.arange(5)).tolist() == [2, 4]
    assert known[CELL.key].are_crafted(np.array([3, 0, 1]))
    assert not known[CELL.key].are_crafted(np.array([1, 2]))
    assert known[RANDOM.key].missing(np.arange(4)).tolist() == [0, 1, 3]
    assert not known[RANDOM.key].are_crafted(np.array([2]))
    # Of two that say something of position 1, the first counts.
    (first,) = other.evidence(keys=[CELL.key])
    assert first.outcome.l2[1] == made[0].outcome.l2[1]
    np.testing.assert_array_equal(other.crafted(CELL.craft_key, np.array([1])).x[0], made[0].crafted.x[1])


def test_what_is_done_makes_room_for_what_is_next(pair):
    one, other = pair
    begin(one, CELL, RANDOM)
    assert one.claim_all(["a", "b", "c"]) == {"a", "b", "c"}
    assert other.claim_all(["d"]) == {"d"}
    made = [Batch(CELL, outcome(CELL, [0, 1]), 1.0, images(CELL.craft_key, [0, 1]))]
    held, known = one.exchange(made, ["a", "b"], ["b", "d", "e"], [CELL, RANDOM])
    assert held == {"b", "e"}  # b is wanted again, and nobody got it in between
    assert other.claimed_elsewhere("abcde") == {"b", "c", "e"}
    assert known == other.progress([CELL, RANDOM])
    assert known[CELL.key].missing(np.arange(4)).tolist() == [2, 3]
    assert known[CELL.key].are_crafted(np.array([0, 1]))
    one.exchange((), ["b", "c", "e"], (), ())
    assert other.claim_all("abce") == {*"abce"}


def test_who_could_not_commit_has_not_claimed_and_not_given_back(pair):
    one, other = pair
    begin(one, CELL)
    one.claim_all(["a"])
    with pytest.raises(StoreError, match="add_cell"):
        one.exchange([Batch(RANDOM, outcome(RANDOM, [0]), 1.0)], ["a"], ["b"], [CELL])
    assert other.claim_all(["a", "b"]) == {"b"}
    one.release(["a"])
    assert other.claim_all(["a"]) == {"a"}


def test_of_several_batches_all_are_stored_or_none(pair):
    one, _ = pair
    begin(one, CELL)
    whole = Batch(CELL, outcome(CELL, [0]), 1.0, images(CELL.craft_key, [0]))
    unknown = Batch(RANDOM, outcome(RANDOM, [0]), 1.0)
    with pytest.raises(StoreError, match="add_cell"):
        one.commit([whole, unknown])
    assert len(one.positions(CELL)) == 0


def test_images_travel_packed_and_are_the_same():
    made = images(CELL.craft_key, [3, 1])
    sent = pickle.loads(pickle.dumps(made.as_packed()))
    assert "x" not in vars(sent)
    assert (len(sent), sent.shape) == (2, (3, 4, 4))
    for there in (sent, replace(sent, position=sent.position)):
        assert_same(there, made)


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


WRITERS = """
import os, sys
from dataclasses import replace
from evidence import CELL, begin, images, outcome
from benchbox.store import Store

def write(by):
    with Store.open(sys.argv[1]) as store:
        for cell in (CELL, replace(CELL, artifact="z")):  # of one crafting
            run = begin(store, cell)
            for part in ([0, 1], [1, 2, 3], [4, 5]):
                crafted = images(cell.craft_key, part, seed=part[0])
                store.commit_batch(cell, outcome(cell, part, seed=part[0]), seconds=1, crafted=crafted)
            store.attach(cell.key, "transfer", {"by": by})
        store.put_artifact("a", {"by": by})
        store.remember("batch", by)
        store.finish_run(run, "done")

go, gate = os.pipe()
children = []
for by in range(int(sys.argv[2])):  # forked: two dozen that load their libraries would hardly meet
    if not (child := os.fork()):
        os.close(gate)
        os.read(go, 1)  # ends when the last gate is closed: all at once
        write(by)
        os._exit(0)
    children.append(child)
os.close(gate)
print([os.waitpid(child, 0)[1] for child in children])
"""


def write_at_once(where, writers):
    with start(WRITERS, where, writers) as process:
        return process.communicate()[0]


def assert_written(where, writers):
    with Store.open(where) as store:
        one, other = store.evidence()
        assert (one.status, other.status, one.seconds) == ("done", "done", 3)
        np.testing.assert_array_equal(one.outcome.position, np.arange(6))
        assert_same(other.outcome, one.outcome)
        np.testing.assert_array_equal(one.outcome.l2[:2], outcome(CELL, [0, 1]).l2)
        np.testing.assert_array_equal(store.crafted(CELL.craft_key, np.arange(2)).x, images("", [0, 1]).x)
        assert sorted(run.status for run in store.runs()) == ["done"] * writers + ["killed"] * writers
        assert store.recall("batch") in range(writers)


def test_many_writers_of_the_same_lose_nothing_and_none_fails(path):
    assert write_at_once(path, 24) == f"{[0] * 24}\n"
    assert_written(path, 24)


class Busy:
    """A cursor on a file that others have for themselves, for a while."""

    def __init__(self, times, message="database is locked"):
        self.times, self.message = times, message

    def execute(self, statement):
        self.times -= 1
        if self.times >= 0:
            raise sqlite3.OperationalError(self.message)


def test_a_new_file_that_others_give_a_log_is_waited_for(monkeypatch):
    """SQLite gives up there at once, whatever patience it is told."""
    cursor = Busy(3)
    database._write_ahead(cursor)
    assert cursor.times == -1
    with pytest.raises(sqlite3.OperationalError, match="full"):
        database._write_ahead(Busy(3, "disk is full"))
    monkeypatch.setattr(database, "PATIENCE", 0.05)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        database._write_ahead(Busy(1000))
