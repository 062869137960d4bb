"""What many tests share: one small data set, one quick classifier, one thread."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Said
from hypothesis import settings
from rows import BPDA, GRAY, TRANSFER, WHITE, evidence, first

from benchbox.cli import main
from benchbox.contract import registry
from benchbox.domain import Evidence
from benchbox.engine.session import Session, Settings
from benchbox.store import Store

# Two test processes with two threads each wait for one another on two cores.
torch.set_num_threads(1)
# The same examples everywhere and every time; a busy machine is no failure.
settings.register_profile("benchbox", derandomize=True, deadline=None, max_examples=25, database=None)
settings.load_profile("benchbox")


#: Files of few tests that take long: started first, so that no process waits for the other at the end.
LONG = (
    "test_kill.py", "test_workers.py", "test_fuzz.py", "test_sharing.py", "test_render.py", "test_notebook.py",
    "test_isolated_training.py", "test_sources.py", "test_finished.py", "test_benchmarks.py", "test_ibp.py",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Files are handed out in the order of `pytest_collection_modifyitems`, and not of xdist's own."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long first, then those with many tests, as xdist does."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path.name not in LONG, -tests[item.path]))


def pytest_collection_finish() -> None:
    """What importing has left is never garbage: looking through it again and again took a tenth of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def same_tracer() -> Iterator[None]:
    """The authors' AutoAttack takes away the tracer in force, and so the coverage of the tests that follow."""
    tracer = sys.gettrace()
    yield
    if sys.gettrace() is not tracer:
        sys.settrace(tracer)


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as in a file, whatever the terminal that the tests were started in."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """One in an empty workspace, for the tests of a file that plan and run nothing there."""
    folder = tmp_path_factory.mktemp("workspace")
    settings = Settings(str(folder / "r.sqlite"), folder / "artifacts", device="cpu")
    return Session(registry.defenses(folder), registry.attacks(folder), settings)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store may lie."""
    return tmp_path / "results.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """An empty one there."""
    with Store.open(path) as opened:
        yield opened


@pytest.fixture
def empty_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and a data set of 64 training and 20 test images: class k is a bright row k."""
    rng = np.random.default_rng(0)
    y = np.arange(84) % 10
    x = rng.integers(0, 60, (84, 28, 28)).astype(np.uint8)
    for image, label in zip(x, y, strict=True):
        image[2 * label : 2 * label + 3] += 150
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "tiny.npz", x_train=x[:64], y_train=y[:64], x_test=x[64:], y_test=y[64:])
    monkeypatch.setenv("BENCHBOX_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def said(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs a command in the workspace: exit status, standard output, standard error."""

    def call(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(words)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def both() -> list[Evidence]:
    """A purifier and a defence without one, as the planner runs them."""
    return [
        evidence("none", WHITE, "fgsm", 40),
        evidence("none", WHITE, "pgd", 1),
        evidence("none", TRANSFER, "pgd", 2),
        evidence("pssr", GRAY, "fgsm", 98),
        evidence("pssr", GRAY, "pgd", 97),
        evidence("pssr", TRANSFER, "pgd", 96),
        evidence("pssr", WHITE, "pgd", 30),
        evidence("pssr", BPDA, "pgd", 60),
        evidence("pssr", BPDA, "pgd", ~first(20), stand_in="identity"),
    ]


@pytest.fixture
def duel() -> list[Evidence]:
    """A purifier and a defence without one. In the worst case: 30 against 40 minus the unclean one."""
    return [
        evidence("pssr", GRAY, "pgd", 97),
        evidence("pssr", WHITE, "pgd", 30),
        evidence("none", WHITE, "pgd", ~first(60)),
        evidence("none", WHITE, "cw", 20),
    ]
