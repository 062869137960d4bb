"""`benchbox report`: what the store holds, as a table. Never imports torch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchbox.api import load
from benchbox.cli import options
from benchbox.cli.console import FILE_WIDTH, output
from benchbox.errors import RequestError, unknown

if TYPE_CHECKING:
    from benchbox.analysis.known import Known
    from benchbox.domain import Evidence

FORMATS = ("terminal", "markdown", "csv", "json", "latex", "html")
PAGE = Path("reports/leaderboard.html")
EXAMPLES = options.examples(
    "benchbox report",
    "benchbox report --dataset mnist --defense none,pssr --format latex --output table.tex",
    "benchbox report --format html --against pssr",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(report)


def report(
    format_: Annotated[
        str, typer.Option("--format", "-f", metavar="FORMAT", help=f"One of {', '.join(FORMATS)}.")
    ] = "terminal",
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
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Add to each row its paired difference to this defence (or digest of weights)."
        ),
    ] = None,
    standalone: Annotated[
        bool, typer.Option("--standalone", help="With latex: a whole document, ready to compile.")
    ] = False,
    store: options.Records = options.DEFAULT_STORE,
    published: options.IsPublished = False,
) -> None:
    """Print what the store holds: ranks, accuracies, intervals, worst cases, and what they do not prove."""
    if format_ not in FORMATS:
        raise unknown("format", format_, FORMATS, f"use one of {', '.join(FORMATS)}")
    if standalone and format_ != "latex":
        raise RequestError(f"--standalone is for --format latex, not {format_}; leave it out")
    store = "published" if published else store
    found = load(store, dataset=options.names(dataset), defense=options.names(defense))
    evidence, known = list(found.evidence), found.known
    if format_ == "terminal" and to is None:
        from benchbox.report import terminal

        output().print(terminal(evidence, known, against=against))
        return
    text = _text(evidence, known, format_, standalone, against)
    to = to or (PAGE if format_ == "html" else None)
    if to is None:
        typer.echo(text, nl=not text.endswith("\n"))
    else:
        _write(to, text)
        typer.echo(str(to))


def _text(evidence: list[Evidence], known: Known, format_: str, standalone: bool, against: str | None) -> str:
    from benchbox import report as reports

    if format_ != "terminal":
        return reports.render(evidence, format_, known, standalone=standalone, against=against)
    from rich.console import Console

    # Into a file, so nobody is asked how wide the window is.
    console = Console(width=FILE_WIDTH, file=io.StringIO(), highlight=False)
    console.print(reports.terminal(evidence, known, against=against))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror}; name another file with --output") from None
