"""Results in experiment trackers: one run for each trained defence, in MLflow or Weights & Biases.

Both libraries are extras (`pip install -e '.[mlflow]'`, `'.[wandb]'`), loaded when they are asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchbox.domain import format_epsilon
from benchbox.errors import uninstalled

if TYPE_CHECKING:
    from benchbox.analysis.score import Score
    from benchbox.analysis.table import Row, Table


@dataclass(frozen=True)
class Run:
    """A row of a table, as trackers want it.

    Attributes:
        name: The row's label, data set and ball.
        params: What was run.
        metrics: Percentages: `clean`, `robust`, `certified` and `ACCESS/ATTACK`, each with `_low` and `_high`.
        tags: Where the numbers come from and whether they were audited.
    """

    name: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


def runs(tables: Sequence[Table]) -> Iterator[Run]:
    """One for each row; numbers that a table withholds or does not have yet are left out."""
    for table in tables:
        for row in table.rows:
            ball = f"{table.threat.norm}-{format_epsilon(table.threat.epsilon)}"
            yield Run(
                f"{row.label}, {table.samples.dataset}, {ball}",
                _params(table, row),
                dict(_metrics(row)),
                _tags(row),
            )


def to_mlflow(tables: Sequence[Table], project: str, uri: str | None = None) -> int:
    """Log every row as a run of an MLflow experiment.

    Args:
        tables: What to log.
        project: Name of the experiment; it is made if it is not there.
        uri: Of the tracking server or folder; MLflow's own choice (`MLFLOW_TRACKING_URI`) by default.

    Returns:
        How many runs were logged.

    Raises:
        RequestError: MLflow is not installed.
    """
    mlflow = _library("mlflow")
    if uri is not None:
        mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(project)
    every = list(runs(tables))
    for run in every:
        with mlflow.start_run(run_name=run.name):
            mlflow.log_params(run.params)
            mlflow.set_tags(run.tags)
            mlflow.log_metrics(run.metrics)
    return len(every)


def to_wandb(tables: Sequence[Table], project: str, uri: str | None = None) -> int:
    """Log every row as a run of a Weights & Biases project.

    Args:
        tables: What to log.
        project: Its name.
        uri: Of a server of one's own. `WANDB_MODE=offline` keeps the runs on this machine.

    Returns:
        How many runs were logged.

    Raises:
        RequestError: wandb is not installed.
    """
    wandb = _library("wandb")
    settings = {"settings": wandb.Settings(base_url=uri)} if uri is not None else {}
    every = list(runs(tables))
    for run in every:
        logged = wandb.init(project=project, name=run.name, config={**run.params, **run.tags}, **settings)
        logged.log(run.metrics)
        logged.finish()
    return len(every)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise uninstalled(f"{name} is not installed", name) from None


def _params(table: Table, row: Row) -> dict[str, str]:
    samples = table.samples
    return {
        "defense": row.defense.name,
        "dataset": samples.dataset,
        "split": samples.split,
        "samples": str(len(samples)),
        "norm": table.threat.norm,
        "epsilon": format_epsilon(table.threat.epsilon),
        "training_seed": str(row.training_seed),
        **{f"recipe.{name}": str(value) for name, value in row.defense.arguments.items()},
    }


def _metrics(row: Row) -> Iterator[tuple[str, float]]:
    yield from _score("clean", row.clean.score)
    if not row.withheld and not row.invalid:
        yield from _score("robust", row.robust)
        yield from _score("certified", row.certified)
    for column, entry in row.own.items():
        if entry.status == "done":
            yield from _score(_allowed(f"{column.access}/{column.attack}"), entry.score)


def _score(name: str, score: Score | None) -> Iterator[tuple[str, float]]:
    if score is not None:
        yield name, score.percent
        yield f"{name}_low", score.low
        yield f"{name}_high", score.high


def _allowed(name: str) -> str:
    """MLflow takes letters, digits, and _ - . : / and spaces in the names of metrics."""
    return "".join(c if c.isalnum() or c in "_-.:/ " else "_" for c in name)


def _tags(row: Row) -> dict[str, str]:
    measured = [m for entry in row.own.values() for m in entry.measurements]
    return {
        "weights": row.artifact,
        "commit": ", ".join(sorted({m.commit for m in measured})),
        "audit": row.badge.state,
        "worst_case_set_by": str(row.set_by or ""),
        "attacks_missing": ", ".join(map(str, row.missing)),
        "withheld": str(row.withheld or row.invalid).lower(),
    }
