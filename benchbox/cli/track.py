"""`benchbox track`: results to an experiment tracker. Never imports torch."""

from __future__ import annotations

from typing import Annotated

import typer

from benchbox.api import load
from benchbox.cli import options
from benchbox.cli.command import command
from benchbox.errors import unknown

TRACKERS = ("mlflow", "wandb")


@command(
    "benchbox track mlflow --project robustness --uri sqlite:///mlflow.db",
    "WANDB_MODE=offline benchbox track wandb --project robustness --published",
)
def track(
    *,
    tracker: Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(TRACKERS)}.")],
    project: Annotated[
        str, typer.Option(metavar="NAME", help="The MLflow experiment or the Weights & Biases project.")
    ] = "benchbox",
    uri: Annotated[
        str | None, typer.Option(metavar="URL", help="The tracking server.  (default: the tracker's own choice)")
    ] = None,
    chosen: options.Chosen,
    records: options.Records,
) -> None:
    """Log each trained defence as a run: its recipe, its accuracies with intervals, and where they come from."""
    from benchbox.report import trackers

    log = {"mlflow": trackers.to_mlflow, "wandb": trackers.to_wandb}
    if tracker not in log:
        raise unknown("tracker", tracker, TRACKERS)
    found = load(records.place, dataset=chosen.datasets, defense=chosen.defenses)
    count = log[tracker](found.tables, project, uri)
    typer.echo(f"{count} runs logged to {tracker}, {project}")
