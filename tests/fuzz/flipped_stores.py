"""Stores and published files with one flipped byte or digit: no command prints a wrong number, or a traceback.

python tests/fuzz/flipped_stores.py 300        # how many; the tests take twenty
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import sqlite3
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import bad_plugins
import numpy as np

from benchbox.cli import main

RUN = [
    "run",
    "-d",
    "good.py:Good",
    "-a",
    "fgsm,pgd,noise",
    "--set",
    "good.py:Good.epochs=1",
    "--set",
    "pgd.steps=2",
]
PUBLISHED = "row.json"
STORE = "s.sqlite"
#: What else may be asked of a damaged store; the CSV report is always asked.
OTHERS = [
    ["report", "--format", "json"], ["report", "--per-image"], ["list", "cells"], ["list", "runs"], ["doctor"],
    ["show", "good.py:Good/white-box/pgd"], ["publish", "again.json"],
    ["report", "--format", "html", "-o", "r.html"],
]  # fmt: skip
#: Columns of a cell that are its result.
NUMBERS = ("percent", "low", "high", "n", "draws", "forwards", "backwards", "status")


def run(count: int = 20, heard: Callable[[str, str], object] = lambda what, said: None) -> Counter[str]:
    """Damage a store or a published file, over and over.

    Args:
        count: How often.
        heard: Called with each fault and what was said.

    Returns:
        How often it ended how: `same`, `refused`, `missing` (cells that are to be run again), and the faults
        `wrong`, `traceback` and `status`.
    """
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        _lay_out(Path(name))
        whole = {place: Path(place).read_bytes() for place in (STORE, PUBLISHED)}
        right = {place: _cells(_said(["report", "--format", "csv", "--store", place])[1]) for place in whole}
        assert len(right[STORE]) == len(right[PUBLISHED]) == 3
        ends: Counter[str] = Counter()
        for trial in range(count):
            rng = np.random.default_rng(trial)
            place = PUBLISHED if trial % 4 == 3 else STORE
            for leftover in Path(name).glob(f"{place}-*"):
                leftover.unlink()
            Path(place).write_bytes(flipped(whole[place], rng))
            other = OTHERS[rng.integers(len(OTHERS))]
            how, said = _judged(place, right[place])
            if how in ("same", "refused", "missing"):
                status, out = _said([*other, "--store", place])
                if status not in (0, 1, 2) or (status == 1 and other != ["doctor"]):
                    how, said = "traceback" if status == -1 else "status", f"{' '.join(other)}: {status} {out}"
            ends[how] += 1
            if how not in ("same", "refused", "missing"):
                heard(f"trial {trial}, {place}: {how}", said[-600:])
        return ends


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """With one bit somewhere, or one digit of some number in it, changed."""
    found = bytearray(content)
    digits = np.flatnonzero([48 <= byte <= 57 for byte in found])
    if rng.random() < 0.5:
        found[rng.integers(len(found))] ^= 1 << int(rng.integers(8))
    else:
        place = digits[rng.integers(len(digits))]
        found[place] = 48 + (found[place] - 48 + int(rng.integers(1, 10))) % 10
    return bytes(found)


def _judged(place: str, right: dict[str, tuple[str, ...]]) -> tuple[str, str]:
    status, out = _said(["report", "--format", "csv", "--store", place])
    if status == -1:
        return "traceback", out
    if status == 2:
        lines = [line for line in out.splitlines() if line.startswith("benchbox: error:")]
        return ("refused" if len(lines) == 1 else "status"), out
    if status != 0:
        return "status", out
    found = _cells(out)
    if any(right.get(key) != numbers for key, numbers in found.items()):
        return "wrong", out
    return ("same" if found == right else "missing"), out


def _cells(text: str) -> dict[str, tuple[str, ...]]:
    lines = csv.DictReader(io.StringIO(text))
    return {line["key"]: tuple(line[name] for name in NUMBERS) for line in lines if line["measure"] == "cell"}


def _lay_out(folder: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 28, 28)).astype(np.uint8), np.arange(60) % 10
    (folder / "good.py").write_text(bad_plugins.GOOD)
    np.savez(folder / "tiny.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    os.environ["BENCHBOX_DATA"] = str(folder)
    short = ["--dataset", "tiny", "--access", "white-box", "--epsilon", "0.02", "-q", "--store", STORE]
    assert _said([*RUN, *short])[0] == 0
    assert _said(["publish", PUBLISHED, "--store", STORE])[0] == 0
    with contextlib.closing(sqlite3.connect(STORE)) as plain:
        plain.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        plain.execute("PRAGMA journal_mode = DELETE")


def _said(words: list[str]) -> tuple[int, str]:
    """The status, -1 for a traceback, and everything that was said."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(words)
    except BaseException:
        return -1, traceback.format_exc()
    return status, out.getvalue() + ("" if status == 0 else err.getvalue())


if __name__ == "__main__":
    show = partial(print, flush=True)
    counted = run(int(sys.argv[1]) if sys.argv[1:] else 300, lambda what, said: show(f"{what}\n{said}"))
    sys.stdout.write(f"{counted.total()} flipped: {dict(counted)}\n")
