"""Processes that are given the same grid and the same store share it: trainings and batches are done once."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Started
from test_runner import Heard, request, session, workspace  # noqa: F401

from benchbox.engine import unit
from benchbox.store import Store

#: Notes every step of a training, so that they can be counted.
COUNTED = """
from torch import nn
from benchbox import Card, Defense
class Counted(Defense):
    card = Card("counted", "a linear classifier")
    def __init__(self, recipe, images, classifier=None):
        super().__init__(recipe, images)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(images.channels * images.size**2, images.classes))
    def losses(self, batch):
        with open("steps.txt", "a") as steps:
            steps.write("step\\n")
        return {"classifier": {"ce": nn.functional.cross_entropy(self.classifier(batch.x), batch.y)}}
"""
COMMAND = [
    *("run", "--defense", "counted", "--dataset", "digits", "--samples", "60", "--batch-size", "20", "--quiet"),
    *("--attacks", "pgd,noise", "--set", "counted.epochs=2", "--set", "pgd.steps=10", "--set", "noise.draws=20"),
]


TRAIN = ["train", "--defense", "counted", "--dataset", "digits", "--set", "counted.epochs=2", "--quiet"]


@pytest.mark.timeout(300)
def test_four_processes_share_a_grid_and_train_once(tmp_path: Path) -> None:
    (tmp_path / "defenses").mkdir()
    (tmp_path / "defenses" / "counted.py").write_text(COUNTED)
    running = [Started(tmp_path, *command) for command in (COMMAND, TRAIN, COMMAND, TRAIN)]
    errors = [process.end(timeout=280) for process in running]
    assert [process.returncode for process in running] == [0] * 4, errors
    with Store.open(tmp_path / "results" / "benchbox.sqlite") as opened:
        assert {e.status for e in opened.evidence()} == {"done"}
        assert {run.status for run in opened.runs()} == {"done"}
        assert all(sorted(e.outcome.position) == list(range(60)) for e in opened.evidence())
    steps = math.ceil(1437 / 128)
    # The target and its substitute, two epochs each.
    assert len((tmp_path / "steps.txt").read_text().splitlines()) == 2 * 2 * steps


def test_what_another_process_holds_is_left_and_met_again(session, store, tmp_path) -> None:  # noqa: F811
    plan = session.plan(request("none"))
    first = plan.cells[0]
    with Store.open(tmp_path / "results.sqlite") as other, other.claim(f"craft/{first.craft_key}/50/0") as held:
        assert held
        seen = []

        class Watching(Heard):
            def cell(self, cell, done, total) -> None:
                seen.append((cell.key, done))
                if len({key for key, _ in seen}) == len(plan.cells):
                    other._leases.release(f"craft/{first.craft_key}/50/0")

        report = session.run(plan, store, Watching())
    assert (report.done, report.failed) == (len(plan.cells), {})
    done = [at for key, at in seen if key == first.key]
    assert done[:2] == [0, 10]  # the second block of ten; the first fifty when they were free
    assert done[-1] == 60


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_running_out_of_memory_halves_the_batch_and_changes_no_outcome(session, store, monkeypatch, error):  # noqa: F811
    wanted = request("none")
    with Store.open(":memory:") as other:
        session.run(session.plan(wanted), other, Heard())
        expected = {e.cell.key: e.outcome for e in other.evidence()}
    sizes, genuine = [], unit.work

    def hungry(this, models):
        sizes.append(len(this.positions))
        if len(this.positions) > 15:
            raise error
        return genuine(this, models)

    monkeypatch.setattr(unit, "work", hungry)
    report = session.run(session.plan(wanted), store, Heard())
    assert not report.failed
    assert sizes[:5] == [50, 25, 12, 12, 1]
    got = {e.cell.key: e.outcome for e in store.evidence()}
    for key, outcome in expected.items():
        order = np.argsort(got[key].position)
        assert (got[key].adversarial[order] == outcome.adversarial).all()


def test_no_memory_for_a_single_image_fails_the_cell_in_one_line(session, store, monkeypatch):  # noqa: F811
    def hungry(this, models):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(unit, "work", hungry)
    heard = Heard()
    session.run(session.plan(request("none")), store, heard)
    assert heard.errors[0].startswith("pgd on none runs out of memory on a single image; ")
