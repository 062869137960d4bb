"""Experiment trackers: one run a row, with what was run, what came of it, and where it comes from."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from commands import SHORT, Said, refusal
from rows import GRAY, WHITE, evidence, unfinished

from benchbox.analysis.leaderboard import build
from benchbox.report import trackers

CELLS = [
    evidence("pssr", GRAY, "pgd", 96, clean=97, arguments={"alpha": 1.5}),
    evidence("pssr", WHITE, "pgd", 3, clean=97, arguments={"alpha": 1.5}),
    unfinished(evidence("pssr", WHITE, "aa", 0, clean=97, arguments={"alpha": 1.5}), 20),
    evidence("none", WHITE, "pgd", 1, clean=99),
]


class Tracker(ModuleType):
    """What MLflow and wandb share of this: everything it is told, in order."""

    def __init__(self) -> None:
        super().__init__("tracker")
        self.told: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **words: self.told.append((name, args or words))

    @contextlib.contextmanager
    def start_run(self, run_name: str) -> Iterator[None]:
        self.told.append(("start_run", run_name))
        yield

    def init(self, **words: Any) -> Any:
        self.told.append(("init", words))
        return SimpleNamespace(log=lambda what: self.told.append(("log", what)), finish=lambda: None)


def test_a_row_becomes_a_run() -> None:
    found = {run.params["defense"]: run for run in trackers.runs(build(CELLS))}
    pssr = found["pssr"]
    assert pssr.name == "pssr, mnist, linf-0.3"
    assert (pssr.params["recipe.alpha"], pssr.params["epsilon"], pssr.params["samples"]) == ("1.5", "0.3", "100")
    assert pssr.metrics["clean"] == pytest.approx(97)
    assert pssr.metrics["robust"] == pytest.approx(3)
    assert pssr.metrics["gray-box/pgd"] == pytest.approx(96)
    assert pssr.metrics["white-box/pgd_low"] < 3 < pssr.metrics["white-box/pgd_high"]
    assert "white-box/aa" not in pssr.metrics
    assert pssr.tags["commit"] == "abc123"
    assert pssr.tags["audit"] == "not audited"
    assert "aa" in pssr.tags["attacks_missing"]


def test_mlflow_is_told_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Tracker()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    assert trackers.to_mlflow(build(CELLS), "robustness", "sqlite:///x.db") == 2
    names = [name for name, _ in fake.told]
    assert names[:2] == ["set_tracking_uri", "set_experiment"]
    assert names[2:] == ["start_run", "log_params", "set_tags", "log_metrics"] * 2


def test_wandb_is_told_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Tracker()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    assert trackers.to_wandb(build(CELLS), "robustness") == 2
    (_, begun), (_, logged), *_ = fake.told
    assert begun["project"] == "robustness"
    assert begun["config"]["defense"] in ("pssr", "none")
    assert "robust" in logged


def test_mlflow_itself_keeps_the_numbers(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    trackers.to_mlflow(build(CELLS), "robustness", uri)
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("robustness")
    kept = {run.data.params["defense"]: run.data.metrics for run in client.search_runs([experiment.experiment_id])}
    assert kept["pssr"]["robust"] == pytest.approx(3)


def test_the_command(workspace: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        said("run", "-d", "none", "--attacks", "fgsm", "--access", "white-box", "--samples", "4", *SHORT)[0] == 0
    )
    monkeypatch.setitem(sys.modules, "mlflow", Tracker())
    assert said("track", "mlflow", "--project", "mine")[1] == "1 runs logged to mlflow, mine\n"
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert (
        refusal(said("track", "wandb")) == "wandb is not installed; pip install -e '.[wandb]' in benchbox's folder"
    )
    assert "did you mean mlflow" in refusal(said("track", "mlflo"))
