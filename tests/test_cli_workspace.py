"""The commands around a run: train, new, init, doctor."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import SHORT, WHITE, Said, refusal

# ---- train, new, init, doctor -------------------------------------------------------------------------------


def test_train_trains_and_says_where(said: Said) -> None:
    words = ("train", "--defense", "none", "--seeds", "0,1", *SHORT)
    status, out, _ = said(*words)
    assert status == 0
    paths = re.findall(r"seed \d: trained, (\S+\.safetensors)", out)
    assert len(paths) == 2
    assert all(Path(path).is_file() for path in paths)
    assert said(*words)[1].count("was there already") == 2


@pytest.mark.parametrize("kind", ["purifier", "classifier"])
def test_a_new_defense_runs_as_it_stands_and_passes_its_test(said: Said, workspace: Path, kind: str) -> None:
    status, out, _ = said("new", "defense", f"my-{kind}", "--kind", kind)
    assert status == 0
    assert f"wrote defenses/my_{kind}.py" in out
    assert (workspace / "tests" / f"test_my_{kind}.py").is_file()
    epochs = [f"my-{kind}.epochs=1", *(["none.epochs=1"] if kind == "purifier" else [])]
    short = ["--dataset", "tiny", "--quiet", *(word for text in epochs for word in ("--set", text))]
    status, out, err = said("run", "--defense", f"my-{kind}", "--attacks", "pgd", *short)
    assert status == 0, out
    assert err.count("loading workspace file") == 1
    assert f"my-{kind}" in out
    assert "is the name of a defence already" in refusal(said("new", "defense", f"my-{kind}"))


def test_new_defense_overwrites_nothing(said: Said, workspace: Path) -> None:
    (workspace / "tests").mkdir()
    (workspace / "tests" / "test_mine.py").write_text("mine")
    assert "tests/test_mine.py exists" in refusal(said("new", "defense", "mine"))
    assert (workspace / "tests" / "test_mine.py").read_text() == "mine"
    assert not (workspace / "defenses").exists()


@pytest.mark.parametrize("name", ["Mine", "my defense", "../x", "1st", "a--b", "x.py"])
def test_new_defense_wants_a_name(said: Said, name: str) -> None:
    assert "is no name for a defence" in refusal(said("new", "defense", name))


def test_the_written_tests_pass(said: Said, workspace: Path) -> None:
    """As the user would run them, on digits and with their own settings, not the suite's."""
    assert said("new", "defense", "mine")[0] == said("new", "attack", "its")[0] == 0
    theirs = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        capture_output=True,
        text=True,
        check=False,
        cwd=workspace,
        env=theirs,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for written in ("test_mine.py", "test_its.py"):
        assert (workspace / "tests" / written).is_file()


def test_init_makes_a_workspace_and_keeps_what_is_there(said: Said, workspace: Path) -> None:
    assert said("init")[0] == 0
    assert all((workspace / folder).is_dir() for folder in ("defenses", "attacks", "results", "reports"))
    ignored = (workspace / ".gitignore").read_text()
    assert "/results/benchbox.sqlite*" in ignored
    (workspace / ".gitignore").write_text("mine\n")
    status, out, _ = said("init")
    assert status == 0
    assert "consider adding" in out
    assert (workspace / ".gitignore").read_text() == "mine\n"


def test_doctor_finds_what_is_there_and_what_is_broken(said: Said, workspace: Path) -> None:
    status, out, _ = said("doctor")
    assert status == 0
    for word in ("python", "torch", "torchvision", "pyautoattack", "robustbench", "device", "tiny.npz"):
        assert word in out
    assert "is not there yet" in out
    said("run", "--defense", "none", "--attacks", "null", *WHITE)
    assert "benchbox.sqlite: 1 cell" in said("doctor")[1]
    (workspace / "text.sqlite").write_text("this is no database, however long one makes it")
    status, out, err = said("doctor", "--store", "text.sqlite", "--device", "abacus")
    assert (status, err) == (1, "")
    assert out.count("BROKEN") == 2
