"""Images on their way to other workers: a full disk is said, and nobody waits for ever."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
from checkpoints import settle

from benchbox.data.dataset import load
from benchbox.domain import Spec, ThreatModel
from benchbox.engine.executors import Make, processes
from benchbox.engine.executors.shop import Shop
from benchbox.engine.session import Settings
from benchbox.errors import RequestError
from benchbox.training.artifacts import Training


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return settle(tmp_path, monkeypatch)


@pytest.mark.parametrize("full", ["filed", "TemporaryDirectory"])
def test_a_full_temporary_folder_is_one_line_and_nobody_waits(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    shop, sent = Shop(workspace, False, Settings(device="cpu"), {}), []
    executor = processes.Processes(shop, lambda name: load("tiny"), 1)
    hand = SimpleNamespace(number=None, known=frozenset(), pipe=SimpleNamespace(send=sent.append))
    executor._hands = [hand]  # type: ignore[list-item]
    task = Make(Training(Spec("none", {}, ""), "tiny", "", 0, ThreatModel("linf", 0.1)))
    with monkeypatch.context() as patched:
        patched.setattr(processes if full == "filed" else processes.tempfile, full, fail)
        with pytest.raises(RequestError, match=r"images of tiny .*: No space left on device; make room, .*TMPDIR"):
            executor.submit(7, task)
    assert (executor.free, sent) == (1, [])
    executor.submit(7, task)
    assert sent[1] == (7, task)
    executor._hands.clear()
    executor.close()
