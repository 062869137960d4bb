"""Kill -9 at any moment; the same command continues, and the outcomes are those of an undisturbed run."""

from __future__ import annotations

import random
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from commands import Started

from benchbox.domain import Outcome
from benchbox.store import Store

# Small on purpose: one epoch, little batches, so that a kill falls into training, crafting and committing alike.
COMMAND = [
    *("run", "--defense", "none", "--dataset", "digits", "--samples", "60", "--batch-size", "5", "--quiet"),
    *("--attacks", "pgd,mim,noise", "--set", "none.epochs=2", "--set", "pgd.steps=10"),
    *("--set", "mim.steps=10", "--set", "noise.draws=20"),
]


def finished(folder: Path) -> None:
    process = Started(folder, *COMMAND)
    errors = process.end(timeout=240)
    assert process.returncode == 0, errors


def progress(folder: Path) -> int:
    """Something that grows as a run goes on: files of the training, then rows of the store."""
    files = list((folder / "results").glob("artifacts/*")) if (folder / "results").exists() else []
    store = folder / "results" / "benchbox.sqlite"
    wal = store.with_name("benchbox.sqlite-wal")
    return len(files) + (wal.stat().st_size if wal.exists() else 0)


@pytest.mark.timeout(600)
def test_three_kills_change_no_sample(tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir()
    killed.mkdir()
    finished(undisturbed)
    chance = random.Random()  # really random moments: every run of this test tries three others
    stopped = 0
    for _ in range(3):
        process = Started(killed, *COMMAND)
        before, deadline = progress(killed), time.monotonic() + 60
        while process.returncode is None and progress(killed) == before and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.8))
        if process.returncode is None:
            process.kill()
            stopped += 1
        process.end()
    assert stopped >= 1, "every run ended before it could be killed"
    finished(killed)
    with (
        Store.open(undisturbed / "results" / "benchbox.sqlite") as left,
        Store.open(killed / "results" / "benchbox.sqlite") as right,
    ):
        expected = {e.cell.key: e for e in left.evidence()}
        got = {e.cell.key: e for e in right.evidence()}
    assert expected.keys() == got.keys()
    assert len(expected) == 5  # three white-box cells, and the two gradient attacks by transfer
    for key, evidence in expected.items():
        assert evidence.status == got[key].status == "done"
        for name in (field.name for field in fields(Outcome)):
            ours, theirs = getattr(evidence.outcome, name), getattr(got[key].outcome, name)
            if name not in ("linf", "l2"):
                assert np.array_equal(ours, theirs), (evidence.cell.attack.name, name)
            else:
                assert np.allclose(ours, theirs, atol=1e-6)
