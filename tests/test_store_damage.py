"""Damage on the disk: no wrong number, no traceback, one line that names what and the remedy, and a repair."""

import shutil
import sqlite3
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from evidence import CELL, RANDOM, assert_filled, assert_same, begin, fill, images, outcome

from benchbox.domain import Outcome
from benchbox.errors import StoreError
from benchbox.store import Store

OLDEST = Path(__file__).parent / "assets" / "store-0001.sqlite"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "store.sqlite"
    with Store.open(path) as store:
        fill(store)
    return path


def change(path, sql):
    with sqlite3.connect(path) as plain:
        plain.execute("PRAGMA foreign_keys = OFF")
        assert plain.execute(sql).rowcount >= 1
    plain.close()


def read_everything(path):
    """What any command may read; the store as `fill` left it, or an error of one line."""
    with Store.open(path, must_exist=True) as store:
        assert_filled(store)
        store.artifacts()
        store.attachments()
        store.cells()


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        (
            "UPDATE cell SET record = replace(record, '\"epsilon\":0.3', '\"epsilon\":0.2') WHERE id = 1",
            "cell .*pssr",
        ),
        ("UPDATE cell SET record = '{' WHERE id = 1", "cell .*pssr"),
        ("UPDATE cell SET record = '[]' WHERE id = 1", "cell .*pssr"),
        ("UPDATE cell SET status = 'partial' WHERE id = 1", "cell .*pssr"),
        ("UPDATE cell SET committed = x'f0' WHERE id = 1", "cell .*pssr"),
        ("UPDATE cell SET defense = 'atop' WHERE id = 1", "cell .*atop"),
        ("UPDATE cell SET error = 7 WHERE id = 2", "cell .*carso"),
        ("UPDATE batch SET outcome = zeroblob(40) WHERE id = 1", "cell .*pssr"),
        ("UPDATE batch SET outcome = 'text' WHERE id = 1", "cell .*pssr"),
        ("UPDATE batch SET outcome = (SELECT outcome FROM batch WHERE id = 2) WHERE id = 1", "cell .*pssr"),
        ("UPDATE batch SET seconds = 7 WHERE id = 1", "cell .*pssr"),
        ("UPDATE batch SET cell_id = 2", "cell .*(pssr|carso)"),
        ("DELETE FROM batch WHERE id = 1", "cell .*pssr"),
        ('UPDATE run SET provenance = \'{"torch": "2.7"}\'', "run 1"),
        ("UPDATE crafting SET height = 3", "adversarial images"),
        ("UPDATE crafted SET images = substr(images, 1, 50)", "adversarial images"),
        ("UPDATE crafted SET position = x'00'", "adversarial images"),
        ("UPDATE artifact SET card = 'null'", "artifact 'a'"),
        ("UPDATE setting SET value = '[126]'", "setting 'batch/cpu'"),
        ("UPDATE attachment SET record = '{\"share\":0.26}'", "attachment "),
    ],
)
def test_what_was_changed_is_named_and_dropped_by_a_repair(path, sql, named):
    change(path, sql)
    with pytest.raises(StoreError, match=named + ".*`benchbox doctor --repair`") as caught:
        read_everything(path)
    assert "\n" not in str(caught.value)
    with Store.open(path) as store:
        assert len(store.examine().damaged) in (1, 2)
        assert len(store.examine(repair=True).damaged) in (1, 2)
        assert store.examine().damaged == []
        run = begin(store, CELL, RANDOM)  # the same commands again
        for cell, positions in ((CELL, range(6)), (RANDOM, [0, 1])):
            crafted = images(cell.craft_key, positions) if cell is CELL else None
            store.commit_batch(cell, outcome(cell, positions), seconds=1, crafted=crafted)
        store.finish_run(run, "done")
        found = {e.cell.key: e for e in store.evidence()}
        assert_same(found[CELL.key].outcome, outcome(CELL, range(6)))
        assert_same(found[RANDOM.key].outcome, outcome(RANDOM, [0, 1]))
        np.testing.assert_array_equal(store.crafted(CELL.craft_key, np.arange(6)).x, images("", range(6)).x)


def flip(content, rng):
    """One byte somewhere, or one digit of some number in it."""
    if rng.random() < 0.5:
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    else:
        digits = [i for i, byte in enumerate(content) if 48 <= byte <= 57]
        content[digits[rng.integers(len(digits))]] = 48 + int(rng.integers(10))


def numbers(path):
    """Everything that is in a store, or what it lacks (None): an index may have lost a row, which is run again."""
    with Store.open(path, must_exist=True) as store:
        found = {e.cell.key: (e.status, e.error, e.seconds, e.provenance, e.outcome) for e in store.evidence()}
        made = store.crafted(CELL.craft_key, np.arange(6))
        run = store.runs()[0] if store.runs() else None
        return [
            *(found.get(cell.key) for cell in (CELL, RANDOM)),
            made and made.x,
            store.artifact("a"),
            store.recall("batch/cpu"),
            store.attached(CELL.key, "transfer"),
            run and (run.status, run.request, run.provenance),
        ]


def trial(whole, expected, copy, rng):
    """`same`, `missing`, `refused` or `wrong` for a damaged copy; any error but a `StoreError` is a traceback."""
    content = bytearray(whole)
    flip(content, rng)
    for leftover in copy.parent.glob("copy.sqlite*"):
        leftover.unlink()
    copy.write_bytes(content)
    try:
        found = numbers(copy)
    except StoreError as error:
        return "refused" if "\n" not in str(error) else "wrong"
    for got, right in zip(found, expected, strict=True):
        if got is not None and repr_of(got) != repr_of(right):
            return "wrong"
    return "missing" if any(got is None for got in found) else "same"


def repr_of(value):
    with np.printoptions(threshold=100_000, floatmode="unique"):
        if isinstance(value, tuple):
            return [repr_of(part) for part in value]
        return (
            [repr(getattr(value, f.name)) for f in fields(Outcome)] if isinstance(value, Outcome) else repr(value)
        )


def whole_of(path):
    with sqlite3.connect(path) as plain:
        plain.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        plain.execute("PRAGMA journal_mode = DELETE")
    plain.close()
    return path.read_bytes()


def test_a_flipped_byte_gives_no_wrong_number_and_no_traceback(path, tmp_path):
    rng = np.random.default_rng(0)
    whole = whole_of(path)
    expected = numbers(path)
    found = [trial(whole, expected, tmp_path / "copy.sqlite", rng) for _ in range(40)]
    assert "wrong" not in found
    assert found.count("refused") >= 5


def test_a_store_of_an_earlier_schema_is_believed_until_it_is_sealed(tmp_path):
    copy = tmp_path / "old.sqlite"
    shutil.copy(OLDEST, copy)
    with Store.open(copy) as store:
        assert_filled(store)
        before = store.examine()
        assert (before.cells, before.damaged) == (2, [])
        assert before.unsealed > 5
        store.examine(repair=True)
        assert store.examine().unsealed == 0
        assert_filled(store)
    change(copy, "UPDATE batch SET seconds = 7")
    with Store.open(copy) as store, pytest.raises(StoreError, match="doctor --repair"):
        store.evidence()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE outcome SET clean = '[7' WHERE cell_id = 1 AND position = 2",
        "UPDATE outcome SET label = 'seven' WHERE cell_id = 1 AND position = 2",
        "UPDATE outcome SET adversarial = '[1,2]' WHERE cell_id = 1 AND position = 2",
        "UPDATE outcome SET l2 = 'nan' WHERE cell_id = 1 AND position = 2",
    ],
)
def test_what_means_nothing_in_an_earlier_schema_is_run_again(tmp_path, sql):
    copy = tmp_path / "old.sqlite"
    shutil.copy(OLDEST, copy)
    change(copy, sql)
    with Store.open(copy) as store:
        assert store.evidence()[0].status == "failed"
        assert "1 outcomes were damaged" in store.evidence()[0].error
        begin(store, CELL)
        store.commit_batch(CELL, outcome(CELL, range(6)), seconds=0)
        assert store.evidence()[0].status == "done"
        assert_same(store.evidence()[0].outcome, outcome(CELL, range(6)))
