"""`benchbox report`: what the store holds, as a table. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchbox.api import load
from benchbox.cli import options
from benchbox.cli.console import present, put
from benchbox.errors import RequestError

PAGE = Path("reports/leaderboard.html")
EXAMPLES = options.examples(
    "benchbox report",
    "benchbox report --dataset mnist --defense none,pssr --format latex --output table.tex",
    "benchbox report --format html --against pssr",
    "benchbox report --attacks pgd --epsilon 8/255 --samples 1000",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(report)


def report(
    format_: options.Format = "terminal",
    to: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=f"Where to write it.  (default: the standard output; {PAGE} for html)",
        ),
    ] = None,
    dataset: options.Datasets = None,
    defense: options.Defenses = None,
    attacks: options.Attacks = None,
    access: options.Accesses = None,
    samples: options.Samples = None,
    epsilon: options.Epsilon = None,
    norm: options.NormName = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Add to each row its paired difference to this defence (or digest of weights)."
        ),
    ] = None,
    standalone: Annotated[
        bool, typer.Option("--standalone", help="With latex: a whole document, ready to compile.")
    ] = False,
    per_image: Annotated[
        bool,
        typer.Option("--per-image", help="As CSV, what happened to each image of each cell: accuracy by class."),
    ] = False,
    store: options.Records = options.DEFAULT_STORE,
    published: options.IsPublished = False,
) -> None:
    """Print what the store holds: ranks, accuracies, intervals, worst cases, and what they do not prove."""
    if standalone and format_ != "latex":
        raise RequestError(f"--standalone is for --format latex, not {format_}; leave it out")
    store = "published" if published else store
    only = {"attacks": attacks, "accesses": access, "samples": samples, "epsilon": epsilon, "norm": norm}
    words = options.words(only)
    found = load(store, dataset=options.names(dataset), defense=options.names(defense), **words)
    if per_image:
        if format_ not in ("terminal", "csv"):
            raise RequestError(f"--per-image is CSV, not {format_}; leave --format out")
        put(found.fates().to_csv(index=False, lineterminator="\n"), to)
        return
    to = to or (PAGE if format_ == "html" else None)
    chosen: dict[str, object] = {"standalone": True} if standalone else {}
    if format_ == "html":
        from benchbox.figures.survival import inline

        chosen["draw"] = inline
    present(found.document(against), format_, to, **chosen)
