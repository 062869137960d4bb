"""What the command line does with a store: lists, finds, shows, removes, mends, reads where it cannot write."""

import os
import re
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evidence import CELL, RANDOM, begin, fill, images, outcome

from benchbox.cli import main
from benchbox.store import Store

OLDEST = Path(__file__).parent / "assets" / "store-0001.sqlite"
SHARING = replace(CELL, defense=replace(CELL.defense, name="atop"), artifact="z")
LATER = replace(CELL, attack_seed=1)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    path = tmp_path / "results" / "benchbox.sqlite"
    with Store.open(path) as store:
        fill(store)
    return path


@pytest.fixture
def said(path, capsys):
    def call(*words):
        capsys.readouterr()
        status = main(words)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def add(path, *cells):
    with Store.open(path) as store:
        run = begin(store, *cells)
        for cell in cells:
            store.commit_batch(cell, outcome(cell, range(6)), seconds=1, crafted=images(cell.craft_key, range(6)))
        store.finish_run(run, "done")
    return run


def test_list_prints_one_line_a_row_at_80_columns(said):
    for what, rows in (("defenses", None), ("attacks", None), ("datasets", None), ("runs", 1), ("cells", 2)):
        status, out, _ = said("list", what)
        lines = [line for line in out.splitlines() if line.strip()]
        assert status == 0
        assert max(map(len, lines)) <= 80
        assert all(line[0] != " " for line in lines)  # nothing is folded into a second line
        if rows:
            assert len(lines) == rows + 2


def test_cells_are_found_by_what_they_are(said):
    assert said("list", "cells", "--defense", "pssr")[1].count("gray-box") == 1
    assert said("list", "cells", "--status", "failed")[1].count("carso") == 1
    assert "2/6" in said("list", "cells", "--status", "failed")[1]
    assert (
        said("list", "cells", "--dataset", "digits", "--access", "gray-box", "--attacks", "pgd,fgsm")[1].count(
            "pgd"
        )
        == 2
    )
    assert said("list", "cells", "--attack", "pgd") == said("list", "cells", "--attacks", "pgd")  # as it was once
    assert said("list", "cells", "-d", "pssr,carso", "-a", "all") == said(
        "list", "cells", "-d", "pssr", "-d", "carso"
    )
    status, out, err = said("list", "cells", "--dataset", "mnist")
    assert (status, out) == (0, "")
    assert "no cell of" in err
    assert said("list", "cells", "--access", "greybox")[0] == 2
    assert "did you mean" in said("list", "cells", "--access", "greybox")[2]
    assert said("list", "cells", "--status", "finished")[0] == 2


def test_a_cell_is_shown_by_what_it_is(said, path):
    assert CELL.key[:30] in said("show", "pssr/gray-box/pgd")[1]
    assert CELL.key[:30] in said("show", "digits/pssr/gray-box/pgd")[1]
    assert said("show", "pssr/gray-box/pgd")[1] == said("show", CELL.key[:12])[1]
    status, _, err = said("show", "pssr/white-box/pgd")
    assert status == 2
    assert "`benchbox list cells`" in err
    add(path, LATER)
    status, out, err = said("show", "pssr/gray-box/pgd")
    assert status == 2
    assert LATER.key[:10] in out
    assert "give the key of one" in err


def test_nothing_is_removed_without_a_yes(said, path):
    for words in (["cells", CELL.key[:8]], ["runs", "1"], ["defenses", "pssr"]):
        status, _, err = said("remove", *words)
        assert status == 2
        assert "add --yes" in err
    with Store.open(path) as store:
        assert len(store.cells()) == 2


def test_a_removed_cell_takes_what_only_it_used(said, path):
    add(path, SHARING)
    assert SHARING.craft_key == CELL.craft_key
    assert said("remove", "cells", "pssr/gray-box/pgd", "--yes")[:2] == (0, "removed 1 cell\n")
    with Store.open(path) as store:
        assert [c.cell for c in store.cells()] == [RANDOM, SHARING]
        assert store.attached(CELL.key, "transfer") is None
        assert store.crafted(CELL.craft_key, np.arange(6)) is not None  # another uses them
        assert said("remove", "defenses", "atop", "carso", "--yes")[0] == 0
        assert store.crafted(CELL.craft_key, np.arange(6)) is None
        assert store.examine().damaged == []


def test_a_removed_run_takes_its_cells_and_its_batches(said, path):
    with Store.open(path) as store:
        run = begin(store, RANDOM)  # of the first run, finished by a second
        store.commit_batch(RANDOM, outcome(RANDOM, range(2, 6)), seconds=1)
        store.finish_run(run, "done")
    assert said("remove", "runs", str(run), "-y")[:2] == (0, "removed 1 run and 0 cells\n")
    with Store.open(path) as store:
        assert [(c.status, c.committed) for c in store.cells()] == [("done", 6), ("partial", 2)]
        assert store.evidence()[1].outcome.position.tolist() == [0, 1]
    assert said("remove", "runs", "1", "-y")[0] == 0
    with Store.open(path) as store:
        assert store.cells() == store.runs() == []
        assert store.examine().damaged == []


def test_what_is_not_there_or_at_work_is_not_removed(said, path):
    assert "no run 9" in said("remove", "runs", "9", "-y")[2]
    assert "no cell of 'x'" in said("remove", "defenses", "x", "-y")[2]
    assert "begin with" in said("remove", "cells", "ffffffff", "-y")[2]
    with Store.open(path) as store:
        run = begin(store)
        assert f"run {run} is running" in said("remove", "runs", str(run), "-y")[2]
        with store.claim(f"cell/{CELL.key}"):
            assert "by another process" in said("remove", "cells", CELL.key[:8], "-y")[2]


def test_doctor_finds_and_drops_damage(said, path):
    assert "damaged" not in said("doctor")[1]
    with sqlite3.connect(path) as plain:
        plain.execute("UPDATE batch SET seconds = 7 WHERE id = 1")
    plain.close()
    assert "doctor --repair" in said("report")[2]
    status, out, _ = said("doctor")
    assert status == 1
    assert "BROKEN  damaged: cell" in out
    assert "6 of 6 outcomes" in out
    status, out, _ = said("doctor", "--repair")
    assert status == 0
    assert "dropped; run its command again" in out
    assert "damaged" not in said("doctor")[1]
    with Store.open(path) as store:
        assert [(c.status, c.committed) for c in store.cells()] == [("partial", 0), ("failed", 2)]


def test_doctor_says_what_nothing_vouches_for(said, path):
    shutil.copy(OLDEST, path)
    assert "of an earlier benchbox, whose damage would not show" in said("doctor")[1]
    assert "sealed as they are" in said("doctor", "--repair")[1]
    assert "earlier benchbox" not in said("doctor")[1]


@pytest.mark.parametrize("kind", ["current", "old", "with a log"])
def test_a_store_that_cannot_be_written_is_read(said, path, tmp_path, monkeypatch, kind):
    folder = tmp_path / "disk"
    if kind == "old":
        shutil.copy(OLDEST, path)
    with sqlite3.connect(path) as keeper:  # the last to leave would empty the log
        if kind == "with a log":
            keeper.execute("SELECT * FROM cell").fetchall()
            add(path, LATER)
        shutil.copytree(path.parent, folder, ignore=shutil.ignore_patterns("*-shm"))
    keeper.close()
    folder.chmod(0o555)
    monkeypatch.setattr(os, "access", lambda file, mode: mode != os.W_OK)  # root may write anywhere
    before = sorted((f.name, f.stat().st_mtime_ns) for f in folder.iterdir())
    store = str(folder / path.name)
    status, out, _ = said("list", "cells", "--store", store)
    assert status == 0
    assert CELL.key[:10] in out
    assert (LATER.key[:10] in out) == (kind == "with a log")
    assert CELL.key[:30] in said("show", CELL.key[:10], "--store", store)[1]
    assert "readonly" in said("remove", "cells", CELL.key[:10], "--yes", "--store", store)[2]
    assert sorted((f.name, f.stat().st_mtime_ns) for f in folder.iterdir()) == before
    folder.chmod(0o755)


def test_a_file_that_takes_the_place_of_a_known_data_set_says_so(said, tmp_path):
    for name in ("mnist", "mine"):
        (tmp_path / f"{name}.npz").touch()
    _, out, _ = said("list", "datasets", "--data-dir", str(tmp_path))
    rows = [line.split(maxsplit=1) for line in out.splitlines()]
    (taken,) = [words for name, words in rows if name == "mnist"][1:]
    (own,) = (words for name, words in rows if name == "mine")
    assert taken.startswith("used in place of the above")
    assert own.startswith("your own")


@pytest.mark.parametrize("width", [60, 80])
def test_lists_are_whole_in_a_narrow_window(said, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    for words in (
        ("list", "cells"),
        ("list", "runs"),
        ("list", "defenses"),
        ("list", "attacks"),
        ("list", "datasets"),
    ):
        _, out, _ = said(*words)
        assert max(map(len, out.splitlines())) <= width
    _, out, _ = said("list", "cells")
    keys = [line.split()[0] for line in out.splitlines()[2:]]
    assert CELL.key[:10] in keys
    assert "…" not in out
    _, out, _ = said("show", "pssr")
    assert max(map(len, map(str.rstrip, out.splitlines()))) <= width
    assert re.search(r"^ +learning_rate +0\.001", out, re.MULTILINE)
