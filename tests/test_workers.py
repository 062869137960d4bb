"""Other processes do the work: what they find is what one process finds, whoever of them is killed meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from benchbox import RequestError, evaluate
from benchbox.store import Store

COMMAND = [
    *("run", "--defense", "none", "--dataset", "digits", "--samples", "60", "--batch-size", "10", "--quiet"),
    *("--attacks", "pgd,noise", "--set", "none.epochs=1", "--set", "pgd.steps=10", "--set", "noise.draws=20"),
]


def benchbox(folder: Path, *words: str, command: list[str] = COMMAND) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "benchbox", *command, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(folder)},
    )


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=280)
    assert process.returncode == 0, said
    return said


def found(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Everything decided about each image, by cell; distances are subject to rounding."""
    with Store.open(folder / "results" / "benchbox.sqlite") as store:
        evidence = store.evidence()
    assert {e.status for e in evidence} == {"done"}
    names = ("position", "label", "clean", "adversarial", "first_success", "forwards", "backwards")
    return {e.cell.key: {name: getattr(e.outcome, name) for name in names} for e in evidence}


def assert_equal(first: Path, second: Path) -> None:
    ours, theirs = found(first), found(second)
    assert ours.keys() == theirs.keys()
    for key, arrays in ours.items():
        for name, values in arrays.items():
            assert np.array_equal(values, theirs[key][name]), name


def children(process: subprocess.Popen[str]) -> list[int]:
    """Workers of a process: what it has spawned, but for the keeper of shared memory."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    pids = [int(pid) for pid in listed.read_text().split()] if listed.exists() else []
    return [pid for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def stored(folder: Path) -> int:
    """How many outcomes are there."""
    if not (file := folder / "results" / "benchbox.sqlite").exists():
        return 0
    with Store.open(file) as store:
        return sum(len(e.outcome) for e in store.evidence())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workers") / "undisturbed"
    finish(benchbox(folder))
    return folder


@pytest.mark.timeout(600)
def test_a_killed_worker_and_a_killed_driver_change_no_sample(undisturbed, tmp_path):
    folder = tmp_path / "killed"
    process = benchbox(folder, "--workers", "2")
    deadline = time.monotonic() + 240
    while len(workers := children(process)) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    assert len(workers) == 2, process.communicate()
    os.kill(workers[0], signal.SIGKILL)
    while not stored(folder) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()
    if alive := children(process):
        os.kill(alive[-1], signal.SIGKILL)
    time.sleep(0.3)
    left = children(process)
    process.kill()
    process.communicate()
    finish(benchbox(folder, "--workers", "2"))
    assert_equal(undisturbed, folder)
    assert not [pid for pid in left if is_running(pid)], "workers outlive their driver"


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.timeout(600)
def test_a_worker_that_dies_again_and_again_fails_its_cell_in_one_line(tmp_path):
    (tmp_path / "attacks").mkdir()
    (tmp_path / "attacks" / "deadly.py").write_text(
        "import os\nfrom benchbox import Access, Attack, Card\n"
        "class Deadly(Attack):\n    card = Card('deadly', 'ends the process')\n    needs = 'nothing'\n"
        "    def search(self, model, x, y, threat, draws):\n        os._exit(9)\n"
    )
    words = ("--attacks", "null,deadly", "--access", "white-box", "--set", "none.epochs=1", "--workers", "2")
    process = benchbox(tmp_path, *words, command=COMMAND[:10])
    said, _ = process.communicate(timeout=280)
    assert process.returncode == 2, said
    assert "its worker process was killed 3 times" in said
    assert "1 cells done" in said


def test_a_module_of_this_process_has_no_other_workers(workspace):
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with pytest.raises(RequestError, match="exists in this process alone"):
        evaluate(net, dataset="tiny", attacks=["fgsm"], workers=2)
