"""`benchbox track`: results to an experiment tracker. Never imports torch."""

from __future__ import annotations

from typing import Annotated

import typer

from benchbox.api import load
from benchbox.cli import options
from benchbox.errors import unknown

TRACKERS = ("mlflow", "wandb")
EXAMPLES = options.examples(
    "benchbox track mlflow --project robustness --uri sqlite:///mlflow.db",
    "WANDB_MODE=offline benchbox track wandb --project robustness --published",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(track)


def track(
    tracker: Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(TRACKERS)}.")],
    project: Annotated[
        str, typer.Option(metavar="NAME", help="The MLflow experiment or the Weights & Biases project.")
    ] = "benchbox",
    uri: Annotated[
        str | None, typer.Option(metavar="URL", help="The tracking server.  (default: the tracker's own choice)")
    ] = None,
    dataset: options.Datasets = None,
    defense: options.Defenses = None,
    store: options.Records = options.DEFAULT_STORE,
    published: options.IsPublished = False,
) -> None:
    """Log each trained defence as a run: its recipe, its accuracies with intervals, and where they come from."""
    from benchbox.report import trackers

    log = {"mlflow": trackers.to_mlflow, "wandb": trackers.to_wandb}
    if tracker not in log:
        raise unknown("tracker", tracker, TRACKERS)
    found = load(
        "published" if published else store, dataset=options.names(dataset), defense=options.names(defense)
    )
    count = log[tracker](found.tables, project, uri)
    typer.echo(f"{count} runs logged to {tracker}, {project}")
