"""What many tests share: one small data set, one quick classifier, one thread."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

# Two test processes with two threads each wait for one another on two cores.
torch.set_num_threads(1)


@pytest.fixture
def empty_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
