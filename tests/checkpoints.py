"""A checkpoint of somebody's own: its factory, its weights, a small data set, and what stands for it in a plan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from benchbox.contract import registry
from benchbox.contract.pretrained import Shelf
from benchbox.data.dataset import Dataset, load
from benchbox.engine.plan import Planner
from benchbox.training.artifacts import Training

MODEL = """
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

class Deep(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))

def needy(width):
    return net()

def nothing():
    return "a module"
"""


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


DICE = """
import random
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 10))
    def forward(self, x):
        x = F.dropout(x, 0.3, training=True)
        x.sub_(0.1 * random.random())
        return super().forward(x + 0.1 * float(np.random.rand()) * torch.randn_like(x[:1]))

class Says(Net):
    randomized = True

def hidden():
    return Says()

def told():
    return Net()
told.randomized = True
"""


def settle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `model.py`, the weights of its `net`, and 20 training and 20 test images."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 28, 28)).astype(np.uint8), np.arange(40) % 10
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "tiny.npz", x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:])
    monkeypatch.setenv("BENCHBOX_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)
    torch.manual_seed(0)
    save_file(network().state_dict(), tmp_path / "net.safetensors")
    return tmp_path


def planned(*, weights: str | Path | None = "net.safetensors", name: str = "model.py:net") -> Training:
    """The training that stands for a checkpoint."""
    overrides = {name: {"weights": str(weights)}} if weights else {}
    return planner()[0].training(name, planner()[1], 7, overrides)


def planner() -> tuple[Planner, Dataset]:
    made = Planner(registry.defenses(), registry.attacks(), Shelf(Path("data"), announce=HEARD.append))
    return made, load("tiny")


HEARD: list[str] = []
