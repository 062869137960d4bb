"""Other processes do the work: what they find is what one process finds, whoever of them is killed meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from benchbox import RequestError, evaluate
from benchbox.contract import registry
from benchbox.domain import Cell
from benchbox.engine import request
from benchbox.engine.session import Session, Settings
from benchbox.progress import Silent
from benchbox.store import Store

#: Blocks of five images, so that a kill falls between two of them; a transfer, so that two networks are trained.
ASKED = {"defense": "none", "dataset": "tiny", "attacks": ["pgd", "noise"]}
SET = {"none": {"epochs": 1}, "pgd": {"steps": 60}, "noise": {"draws": 20}}
WORDS = [
    *("--defense", "none", "--dataset", "tiny", "--attacks", "pgd,noise", "--batch-size", "5", "--quiet"),
    *("--set", "none.epochs=1", "--set", "pgd.steps=60", "--set", "noise.draws=20", "--device", "cpu"),
]


class Killing(Silent):
    """Kills a worker that is at work as soon as a cell has begun."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.killed: list[int] = []

    def cell(self, cell: Cell, done: int, total: int) -> None:
        hands = self.session._elsewhere._hands  # type: ignore[union-attr]
        busy = [hand.process.pid for hand in hands if hand.number is not None]
        if not self.killed and 0 < done < total and busy:
            os.kill(busy[0], signal.SIGKILL)
            self.killed.append(busy[0])


def filled(folder: Path, workers: int | None = None, ray: str | None = None, **rest):
    """Everything decided about each image, by cell, after a run with this many workers; and who saw it."""
    asked = request.validated({**ASKED, "set": SET, **rest}).only()
    settings = Settings(artifacts=folder / "artifacts", device="cpu", batch_size=5, workers=workers, ray=ray)
    session = Session(registry.defenses(), registry.attacks(), settings)
    observer = Killing(session) if workers else Silent()
    with Store.open(folder / "benchbox.sqlite") as store:
        try:
            report = session.run(session.plan(asked), store, observer)
        finally:
            session.close()
        return decided(store), report, observer


def decided(store: Store) -> dict[str, dict[str, np.ndarray]]:
    names = ("position", "label", "clean", "adversarial", "first_success", "forwards", "backwards")
    evidence = [e for e in store.evidence() if e.status == "done"]
    return {e.cell.key: {name: getattr(e.outcome, name) for name in names} for e in evidence}


def assert_equal(ours, theirs) -> None:
    assert len(ours) == 3  # pgd by transfer and under white-box access, noise
    assert ours.keys() == theirs.keys()
    for key, arrays in ours.items():
        for name, values in arrays.items():
            assert np.array_equal(values, theirs[key][name]), name


@cache
def alone() -> dict[str, dict[str, np.ndarray]]:
    """What one process finds; every workspace has the same images."""
    return filled(Path("alone").absolute())[0]


@pytest.mark.timeout(900)
def test_a_killed_worker_changes_no_sample(workspace):
    shared, report, observer = filled(workspace / "shared", workers=2)
    assert observer.killed
    assert report.failed == {}
    assert_equal(alone(), shared)
    with Store.open(workspace / "shared" / "benchbox.sqlite") as store:
        assert [run.status for run in store.runs()] == ["done"]


@pytest.mark.timeout(900)
def test_a_killed_driver_leaves_no_worker_and_the_same_request_goes_on(workspace):
    command = [sys.executable, "-m", "benchbox", "run", *WORDS, "--workers", "2"]
    place = workspace / "shared" / "benchbox.sqlite"
    process = subprocess.Popen([*command, "--store", str(place)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline, workers = time.monotonic() + 600, []
    while process.poll() is None and not stored(place) and time.monotonic() < deadline:
        workers = children(process.pid)
        time.sleep(0.02)
    process.kill()
    said = process.communicate()[0].decode()
    assert len(workers) == 2, said
    shared, report, _ = filled(workspace / "shared")
    assert report.failed == {}
    assert_equal(alone(), shared)
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, workers)), "workers outlive their driver"


def stored(file: Path) -> int:
    """How many outcomes are there."""
    if not file.exists():
        return 0
    with Store.open(file) as store:
        return sum(len(e.outcome) for e in store.evidence())


def children(pid: int) -> list[int]:
    """The workers of a process: what was forked for it by the one that has loaded torch."""
    try:
        servers = [p for p in _below(pid) if b"forkserver" in Path(f"/proc/{p}/cmdline").read_bytes()]
        return [worker for server in servers for worker in _below(server)]
    except OSError:
        return []


def _below(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.timeout(900)
def test_an_attack_that_ends_its_process_fails_its_cell_in_one_line(workspace):
    (workspace / "attacks").mkdir()
    (workspace / "attacks" / "deadly.py").write_text(
        "import os, signal\nfrom benchbox import Attack, Card\n"
        "class Deadly(Attack):\n    card = Card('deadly', 'ends the process')\n    needs = 'nothing'\n"
        "    def search(self, model, x, y, threat, draws):\n        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    settings = {"none": {"epochs": 1}}
    _, report, _ = filled(workspace, workers=2, attacks=["deadly"], accesses=["white-box"], set=settings)
    (error,) = report.failed.values()
    assert error.startswith("its worker process was killed 3 times")


def test_a_module_of_this_process_has_no_other_workers(workspace):
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with pytest.raises(RequestError, match="exists in this process alone"):
        evaluate(net, dataset="tiny", attacks=["fgsm"], workers=2)


@pytest.mark.slow  # a cluster is started
@pytest.mark.timeout(900)
def test_a_ray_cluster_finds_the_same(workspace):
    pytest.importorskip("ray", reason="benchbox[ray] is not installed")
    alone, *_ = filled(workspace / "alone")
    shared, report, _ = filled(workspace / "shared", workers=None, ray="local")
    assert report.failed == {}
    assert_equal(alone, shared)
    # What was trained on the cluster lies where it would lie otherwise.
    ours, theirs = (sorted(p.name for p in (workspace / n / "artifacts").iterdir()) for n in ("alone", "shared"))
    assert ours == theirs
