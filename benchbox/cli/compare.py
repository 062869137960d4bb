"""`benchbox compare`: two defences on the same images. Never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from benchbox.cli import options
from benchbox.cli.console import output
from benchbox.cli.report import known_of
from benchbox.errors import RequestError, unknown

if TYPE_CHECKING:
    from benchbox.analysis.comparison import Comparison

FORMATS = ("terminal", "markdown", "json", "csv")
EXAMPLES = options.examples(
    "benchbox compare pssr trades --dataset mnist",
    "benchbox compare pssr 3fa9c1d2 --attacks pgd,square --format json",
)
Side = Annotated[str, typer.Argument(help="A defence, or the first characters of the digest of its weights.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(compare)


def compare(
    a: Side,
    b: Side,
    dataset: options.Datasets = None,
    attacks: Annotated[
        list[str] | None,
        typer.Option("--attacks", "-a", metavar="NAMES", help="Attacks.  (default: all that both have)"),
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", "-f", metavar="FORMAT", help=f"One of {', '.join(FORMATS)}.")
    ] = "terminal",
    store: options.Records = options.DEFAULT_STORE,
    published: options.IsPublished = False,
) -> None:
    """Compare two defences image by image: differences, intervals, tests, and what could have been found.

    Both have to be scored on the same list of images. Several training seeds of a defence are taken together.
    """
    if format_ not in FORMATS:
        raise unknown("format", format_, FORMATS, f"use one of {', '.join(FORMATS)}")
    store = "published" if published else store
    found = _compared(store, options.names(dataset), a, b, options.names(attacks))
    from benchbox.report import comparison

    if format_ == "terminal":
        output().print(comparison.terminal(found))
    else:
        typer.echo(comparison.render(found, format_), nl=False)


def _compared(store: str, datasets: tuple[str, ...], a: str, b: str, attacks: tuple[str, ...]) -> list[Comparison]:
    """Compare within each data set; an empty tuple stands for all.

    Raises:
        StoreError: There is no store.
        RequestError: It does not hold what was asked for.
    """
    from benchbox.analysis import compare as comparing
    from benchbox.store import open_records

    with open_records(store) as opened:
        evidence = [e for dataset in datasets or (None,) for e in opened.evidence(dataset=dataset)]
        purifiers = known_of(evidence, opened).purifiers
    if not evidence:
        asked = f" of {', '.join(datasets)}" if datasets else ""
        raise RequestError(f"{store} holds nothing{asked}; fill it with `benchbox run`")
    return comparing.compare(evidence, a, b, attacks=attacks, purifiers=purifiers)
