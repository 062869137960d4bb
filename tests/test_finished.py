"""A finished request is answered at once, and only while nothing that its cells hang on has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchbox.contract import registry
from benchbox.engine import finished, request
from benchbox.store import Store

WORDS = [
    *("run", "--defense", "none", "--dataset", "tiny", "--attacks", "fgsm", "--device", "cpu"),
    *("--set", "none.epochs=1", "--quiet"),
]


def name(workspace: Path, **more) -> str | None:
    asked = request.validated({"defense": "none", "dataset": "tiny", "attacks": ["fgsm"], **more})
    return finished.name_of(asked, [registry.defenses(), registry.attacks()], workspace / "data")


@pytest.mark.timeout(300)
def test_a_finished_request_is_answered_without_torch(workspace: Path) -> None:
    code = f"import sys; from benchbox.cli import main; print(main({WORDS!r}), 'torch' in sys.modules)"
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)
    )
    assert first.stdout.endswith("0 True\n")
    assert second.stdout.endswith("0 False\n")
    assert "2 cells done, 0 reused" in first.stdout
    assert "0 cells done, 2 reused" in second.stdout
    assert first.stdout.splitlines()[:12] == second.stdout.splitlines()[:12]  # the same table
    with Store.open("results/benchbox.sqlite") as store:
        known = finished.answer(store, f"{name(workspace, set={'none': {'epochs': 1}})}")
        assert known is not None
        # What has failed since is tried again, and what is gone is run again.
        store.fail(known[0][0].cell, "out of memory")
        assert finished.answer(store, f"{name(workspace, set={'none': {'epochs': 1}})}") is None
        store.remove_cells([known[0][0].cell.key])
        assert finished.answer(store, f"{name(workspace, set={'none': {'epochs': 1}})}") is None


def test_a_request_has_another_name_when_anything_is_another(workspace: Path, monkeypatch) -> None:
    before = name(workspace)
    assert before == name(workspace)
    assert before != name(workspace, samples=10)
    images = workspace / "data" / "tiny.npz"
    os.utime(images, ns=(1, 1))
    edited = name(workspace)
    assert edited != before
    code = workspace / "code"
    code.mkdir()
    monkeypatch.setattr(registry.Registry, "folders", lambda self: [str(code)])
    without = name(workspace)
    (code / "attack.py").write_text("pass")
    assert name(workspace) != without


@pytest.mark.parametrize(
    "more",
    [
        {"dataset": "nowhere"},
        {"defense": "model.py:net"},
        {"defense": "none", "set": {"none": {"network": "./net.py"}}},
    ],
)
def test_what_hangs_on_other_files_has_no_name(workspace: Path, more) -> None:
    assert name(workspace, **more) is None


def test_plug_ins_of_the_workspace_are_asked_themselves(workspace: Path) -> None:
    (workspace / "attacks").mkdir()
    (workspace / "attacks" / "mine.py").write_text("raise SystemExit('executed')")
    assert name(workspace) is None
