"""What is PostgreSQL's own: locks, passwords, many writers; test_store.py runs on both kinds of store."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from evidence import CELL, RANDOM, assert_filled, begin, fill, outcome
from postgres import server, url  # noqa: F401
from test_store_sharing import assert_written, write_at_once

from benchbox.errors import StoreError
from benchbox.store import Store
from benchbox.store.merge import merge


def test_what_goes_in_comes_out(url):  # noqa: F811
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


def test_what_one_holds_no_other_gets(url):  # noqa: F811
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


def test_two_that_give_back_what_the_other_takes_do_not_wait_for_each_other(url):  # noqa: F811
    def swap(store):
        held = set()
        for turn in range(40):
            held, _ = store.exchange((), held, [["a", "b"][(turn + (store is one)) % 2], "c", "d"], [])

    with Store.open(url) as one, Store.open(url) as other, ThreadPoolExecutor(2) as pool:
        list(pool.map(swap, (one, other)))


def test_many_writers_of_the_same_lose_nothing_and_none_fails(url):  # noqa: F811
    assert write_at_once(url, 12) == f"{[0] * 12}\n"
    assert_written(url, 12)


def test_a_wrong_password_is_not_said(server):  # noqa: F811
    with pytest.raises(StoreError, match="check the host") as caught:
        Store.open(f"postgresql://me:hunter2@/nowhere?host={server}")
    assert "hunter2" not in str(caught.value)


def test_a_file_is_merged_into_a_server(url, tmp_path):  # noqa: F811
    with Store.open(tmp_path / "a.sqlite") as store:
        fill(store)
    first, again = merge(tmp_path / "a.sqlite", url), merge(tmp_path / "a.sqlite", url)
    assert (again.cells, again.images, again.same) == (0, 0, first.images)
    with Store.open(url, must_exist=True) as store:
        assert_filled(store)
