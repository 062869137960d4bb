"""The results store: what goes in comes out, once, as a whole or not at all."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evidence import CELL, RANDOM, assert_filled, assert_same, begin, fill, first, images, outcome
from postgres import server, url  # noqa: F401

from benchbox.domain import SampleList
from benchbox.errors import StoreError
from benchbox.store import Store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results" / "benchbox.sqlite"


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request):
    place = request.getfixturevalue("path" if request.param == "sqlite" else "url")
    with Store.open(place) as store:
        yield store


@pytest.fixture
def file(path):
    with Store.open(path) as store:
        yield store


# What goes in comes out


def test_everything_survives_closing(path):
    with Store.open(path) as store:
        fill(store)
    with Store.open(path, must_exist=True) as store:
        assert_filled(store)


@pytest.mark.parametrize("cell", [CELL, RANDOM], ids=["one draw", "ten draws"])
def test_evidence_joins_batches_and_sorts_them_by_position(store, cell):
    run = begin(store, cell)
    whole = outcome(cell, range(6))
    parts = [[5, 2], [0, 4], [3, 1]]
    for part in parts:
        batch = whole.rows(part)
        assert store.evidence()[0].status == "partial"
        store.commit_batch(cell, batch, seconds=0.25)
    (evidence,) = store.evidence()
    assert_same(evidence.outcome, whole)
    assert (evidence.status, evidence.seconds, evidence.run) == ("done", 0.75, run)
    assert evidence.provenance == {"torch": "2.6"}
    assert evidence.created.endswith("+00:00")
    np.testing.assert_array_equal(store.positions(cell), np.arange(6))


def test_cells_are_readable_with_any_sqlite_tool(file, path):
    begin(file, RANDOM)
    with sqlite3.connect(path) as plain:
        query = "SELECT defense, access, status, json_extract(record, '$.threat.epsilon') FROM cell"
        assert plain.execute(query).fetchone() == ("carso", "gray-box", "partial", 0.3)
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_evidence_can_be_narrowed(store):
    elsewhere = replace(CELL, samples=SampleList("mnist", "test", (0,), "d"))
    begin(store, CELL, RANDOM, elsewhere)

    def found(**narrow):
        return [e.cell for e in store.evidence(**narrow)]

    assert found() == [CELL, RANDOM, elsewhere]
    assert found(dataset="digits") == [CELL, RANDOM]
    assert found(dataset="digits", defenses=["pssr", "atop"]) == [CELL]
    assert found(keys=[elsewhere.key, RANDOM.key]) == [RANDOM, elsewhere]
    assert found(keys=[]) == []
    assert found(prefix=RANDOM.key[:8]) == [RANDOM]
    assert found(prefix="%") == []
    assert found(attacks=["fgsm"]) == []
    assert found(access="gray-box", status="partial", run=1) == [CELL, RANDOM, elsewhere]
    assert [(c.cell, c.status, c.committed) for c in store.cells(defenses=["carso"])] == [(RANDOM, "partial", 0)]


def test_a_failed_cell_is_evidence_and_can_be_retried(store):
    begin(store, RANDOM)
    store.fail(RANDOM, "NaN")
    (evidence,) = store.evidence()
    assert (evidence.status, evidence.error, len(evidence.outcome)) == ("failed", "NaN", 0)
    assert evidence.outcome.clean.shape == (0, 10)
    store.commit_batch(RANDOM, outcome(RANDOM, [0]), seconds=0)
    store.fail(RANDOM, "NaN again")
    begin(store, RANDOM)
    (evidence,) = store.evidence()
    assert (evidence.status, evidence.error, len(evidence.outcome)) == ("partial", "", 1)
    store.commit_batch(RANDOM, outcome(RANDOM, range(1, 6)), seconds=0)
    store.fail(RANDOM, "after the last batch")
    begin(store, RANDOM)
    assert store.evidence()[0].status == "done"


def test_a_cell_belongs_to_its_first_run_and_a_batch_to_its_own(file, path):
    first, second = begin(file, CELL), begin(file, CELL)
    file.commit_batch(CELL, outcome(CELL, [0]), seconds=0)
    assert [run.cells for run in file.runs()] == [1, 0]
    assert file.evidence()[0].run == first
    with sqlite3.connect(path) as plain:
        assert plain.execute("SELECT run_id FROM batch").fetchall() == [(second,)]


def test_a_run_has_a_beginning_and_an_end(store):
    run = begin(store)
    assert (store.runs()[0].status, store.runs()[0].finished) == ("running", None)
    store.finish_run(run, "done")
    assert store.runs()[0].status == "done"
    assert store.runs()[0].finished >= store.runs()[0].created
    with pytest.raises(StoreError, match="no run 7"):
        store.finish_run(7, "done")


def test_small_records_are_replaced(store):
    for value in (125, {"cpu": [1, 2]}, None, "text"):
        store.remember("batch", value)
        assert store.recall("batch") == value
    store.attach("cell", "verdict", {"ok": False})
    store.attach("cell", "verdict", {"ok": True})
    store.attach("cell", "transfer", {})
    assert store.attached("cell", "verdict") == {"ok": True}
    store.put_artifact("a", {"epochs": 1})
    store.put_artifact("a", {"epochs": 2})
    assert store.artifact("a") == {"epochs": 2}
    assert store.recall("?") is store.attached("cell", "?") is store.artifact("?") is None


def test_a_large_store_is_read_whole(store):
    cells = [replace(RANDOM, attack_seed=seed, samples=first(300)) for seed in range(20)]
    begin(store, *cells)
    for i, cell in enumerate(cells):
        store.commit_batch(cell, outcome(cell, range(300), seed=i), seconds=0.5)
    found = store.evidence()
    assert [e.cell.key for e in found] == [c.key for c in cells]
    for i, evidence in enumerate(found):
        assert_same(evidence.outcome, outcome(cells[i], range(300), seed=i))


# Once, as a whole or not at all


def test_a_position_is_committed_once_and_the_second_takes_what_is_there(store):
    begin(store, CELL)
    store.commit_batch(CELL, outcome(CELL, [0, 1]), seconds=1)
    late = outcome(CELL, [2, 1], seed=1)
    store.commit_batch(CELL, late, seconds=2, crafted=images(CELL.craft_key, [2, 1]))
    (evidence,) = store.evidence()
    assert evidence.outcome.position.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(evidence.outcome.l2, [*outcome(CELL, [0, 1]).l2, late.l2[0]])
    assert evidence.seconds == 3
    store.commit_batch(CELL, late, seconds=4)
    assert store.evidence()[0].seconds == 3


def test_a_failure_in_the_middle_of_a_commit_undoes_what_came_before_it(store):
    begin(store, CELL)
    store.commit_batch(CELL, outcome(CELL, [0]), seconds=1, crafted=images(CELL.craft_key, [0]))
    other_shape = images(CELL.craft_key, [1], shape=(1, 4, 4))
    with pytest.raises(StoreError, match="give all one shape"):  # found out after the rows are written
        store.commit_batch(CELL, outcome(CELL, [1]), seconds=1, crafted=other_shape)
    assert store.positions(CELL).tolist() == [0]
    store.commit_batch(CELL, outcome(CELL, [1]), seconds=1)
    assert store.positions(CELL).tolist() == [0, 1]


def test_a_value_that_is_not_json_is_a_bug_of_the_caller_and_stores_nothing(store):
    with pytest.raises(Exception, match="not JSON serializable"):
        store.remember("key", object())
    assert store.recall("key") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position": np.array([0, 6])}, "positions 0 to 6 for 2 samples of a list of 6"),
        ({"position": np.array([1, 1])}, "at most once"),
        ({"label": np.array([1])}, r"label of shape \(1,\)"),
        ({"clean": np.zeros((2, 3), np.int64)}, r"clean of shape \(2, 3\).*\(2, 1\)"),
        ({"l2": np.array([0.1, np.nan])}, "l2 that is not finite"),
    ],
)
def test_an_outcome_that_does_not_fit_its_cell_is_refused(store, change, message):
    begin(store, CELL)
    with pytest.raises(StoreError, match=message):
        store.commit_batch(CELL, replace(outcome(CELL, [0, 1]), **change), seconds=0)
    assert len(store.positions(CELL)) == 0


def test_a_cell_has_to_be_added_first(store):
    with pytest.raises(StoreError, match="add it with add_cell"):
        store.commit_batch(CELL, outcome(CELL, [0]), seconds=0)
    with pytest.raises(StoreError, match="add it with add_cell"):
        store.fail(CELL, "no")
    assert len(store.positions(CELL)) == 0
    with pytest.raises(StoreError, match=r"(?i)foreign key"):
        store.add_cell(CELL, 99)


KILLED = """
import sys, numpy as np
sys.path.insert(0, sys.argv[2])
from evidence import CELL, begin, images, outcome
from benchbox.store import Store
from benchbox.store.database import transaction
from benchbox.store.schema import BATCH
with Store.open(sys.argv[1]) as store:
    begin(store, CELL)
    store.commit_batch(CELL, outcome(CELL, [0, 1]), seconds=1, crafted=images(CELL.craft_key, [0, 1]))
    with transaction(store._engine, write=True) as connection:
        rows = [{"cell_id": 1, "run_id": 1, "samples": 9, "seconds": 9.0}] * 100_000
        connection.execute(BATCH.insert(), rows)  # more than SQLite's cache: it is on the disk, not committed
        print("writing", flush=True)
        sys.stdin.read()
"""


def test_a_process_killed_while_it_writes_leaves_what_was_committed_and_no_more(path):
    command = [sys.executable, "-c", KILLED, str(path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        log = path.with_name(path.name + "-wal")
        assert log.stat().st_size > 1_000_000  # the unfinished transaction did reach the file system
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    with Store.open(path, must_exist=True) as store:
        (evidence,) = store.evidence()
        assert (evidence.status, evidence.seconds) == ("partial", 1)
        assert_same(evidence.outcome, outcome(CELL, [0, 1]))
        begin(store, CELL)
        store.commit_batch(CELL, outcome(CELL, range(2, 6)), seconds=1)
        assert store.evidence()[0].status == "done"


def test_writers_at_the_same_time_wait_for_one_another(path):
    failures = []
    ready = threading.Barrier(4)

    def write(i):
        try:
            ready.wait()
            with Store.open(path) as store:  # all four find no store, and one makes it
                cell = replace(CELL, attack_seed=i)
                begin(store, cell)
                for position in range(6):
                    store.commit_batch(cell, outcome(cell, [position]), seconds=0)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with Store.open(path) as store:
        assert [e.status for e in store.evidence()] == ["done"] * 4


# Adversarial images


def test_adversarial_images_come_back_for_any_positions_across_batches_in_the_order_asked(store):
    begin(store, CELL)
    key = CELL.craft_key
    made = images(key, range(6))
    for part in ([0, 1, 2], [3, 4, 5]):
        batch = made.rows(part)
        store.commit_batch(CELL, outcome(CELL, part), seconds=0, crafted=batch)
    assert_same(store.crafted(key, np.array([4, 0, 3])), made, [4, 0, 3])
    assert store.crafted(key, np.array([5, 6])) is None
    assert store.crafted("another", np.array([0])) is None
    assert store.crafted(key, np.arange(6)).x.flags.writeable  # torch.from_numpy warns of one that is not


def test_an_image_is_stored_once_for_all_cells_that_share_it(file, path):
    other = replace(CELL, artifact="z")
    assert other.craft_key == CELL.craft_key
    begin(file, CELL, other)
    first, second = images(CELL.craft_key, [0, 1]), images(CELL.craft_key, [1, 2], seed=1)
    file.commit_batch(CELL, outcome(CELL, [0, 1]), seconds=0, crafted=first)
    file.commit_batch(other, outcome(other, [1, 2]), seconds=0, crafted=second)
    with sqlite3.connect(path) as plain:
        assert plain.execute("SELECT samples FROM crafted").fetchall() == [(2,), (1,)]
    kept = file.crafted(CELL.craft_key, np.array([0, 1, 2]))
    np.testing.assert_array_equal(kept.x, np.stack([first.x[0], first.x[1], second.x[1]]))


def test_images_that_would_not_come_back_as_they_are_get_refused():
    made = images("key", [0, 1])
    with pytest.raises(StoreError, match="float64"):
        replace(made, x=made.x.astype(np.float64))
    with pytest.raises(StoreError, match=r"forwards has shape \(1,\)"):
        replace(made, forwards=made.forwards[:1])
