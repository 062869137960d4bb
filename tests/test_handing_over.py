"""Images and weights on their way to other workers: a full disk is said, and no file replaces another."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from checkpoints import planner, settle
from safetensors.torch import save_file

from benchbox.data.dataset import load
from benchbox.domain import Spec, ThreatModel
from benchbox.engine.executors import Ended, Make, Prepare, Prepared, cluster, processes
from benchbox.engine.executors.shop import Shop
from benchbox.engine.session import Settings
from benchbox.errors import RequestError
from benchbox.training.artifacts import Training
from benchbox.training.layout import Layout


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


class Ref(SimpleNamespace):
    """What was done already."""

    __hash__ = object.__hash__


class Handle:
    """An actor in this process, asked as Ray asks one."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *words: Ref(value=getattr(self.actor, name)(*words)))


class Here:
    """Ray, as far as it is asked, of one machine that does everything at once."""

    exceptions = SimpleNamespace(RayTaskError=ZeroDivisionError, RayError=ZeroDivisionError)

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1}

    def remote(self, cls: type) -> Any:
        made = SimpleNamespace(remote=lambda *words: Handle(cls(*words)))
        return SimpleNamespace(options=lambda **_: made)

    def put(self, value: Any) -> Any:
        return value

    def get(self, ref: Ref) -> Any:
        return ref.value

    def wait(self, refs: list[Ref], num_returns: int, timeout: float) -> tuple[list[Ref], list[Ref]]:
        return refs[:num_returns], refs[num_returns:]


MODEL = """
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

def other():
    return net()

def third():
    return net()

def held():
    made = net()
    nn.init.constant_(made[1].weight, 0.25)
    nn.init.constant_(made[1].bias, 0.0)
    return made
"""


def test_weights_of_one_file_name_are_those_of_each_network_on_a_cluster(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_ray", lambda address: Here())
    (workspace / "model.py").write_text(MODEL)
    given = {"model.py:net": "a/best.safetensors", "model.py:other": "b/best.safetensors",
             "model.py:third": "c/best.pt#model", "model.py:held": ""}  # fmt: skip
    expected = dict.fromkeys(given, 0.25)
    for at, (name, file) in enumerate(list(given.items())[:3]):
        (workspace / file).parent.mkdir()
        expected[name] = float(at)
        tensors = {"1.weight": torch.full((10, 784), float(at)), "1.bias": torch.zeros(10)}
        if file.endswith("#model"):
            torch.save({"model": tensors, "ema": tensors}, workspace / "c" / "best.pt")
        else:
            save_file(tensors, workspace / file)
    made, dataset = planner()
    trainings = {name: made.training(name, dataset, 0, {name: {"weights": file}} if file else {})
                 for name, file in given.items()}  # fmt: skip
    shop = Shop(workspace, True, Settings(device="cpu", artifacts=workspace / "artifacts"), {})
    executor = cluster.Cluster(shop, lambda name: dataset, 1)

    def prepared(again: bool) -> dict[str, float]:
        """The weight that each network has on the actor."""
        for number, training in enumerate(trainings.values()):
            executor.submit(number, Prepare(training, Layout()))
            ended = executor.next(0)
            assert isinstance(ended, Ended)
            assert isinstance(ended.value, Prepared), ended.value
        (hand,) = executor._hands
        if not again:  # a second data set makes a second worker, which loads them again
            hand.actor.learn.remote(dataset)
            return prepared(again=True)
        bench = hand.actor.actor._workers["tiny"].bench
        networks = {name: bench.judge(one).defense.classifier for name, one in trainings.items()}
        return {name: float(network[1].weight.unique()) for name, network in networks.items()}

    assert prepared(again=False) == expected
    # They are read where they were sent to: the actor's machine need not have the files.
    places = executor._hands[0].actor.actor._sources.values()
    assert len({*places}) == 3
    assert not any(workspace in place.parents for place in places)
