"""`benchbox render`: everything that is made from published results, as files. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchbox.api import load
from benchbox.cli import options
from benchbox.cli.command import command
from benchbox.cli.console import put
from benchbox.errors import RequestError

if TYPE_CHECKING:
    from benchbox.result import Result

#: What a table of the paper is printed as.
SUFFIXES = {"latex": "tex", "markdown": "md"}


@command(
    "benchbox render",
    "benchbox render --store results/benchbox.sqlite --output out",
)
def render(
    folder: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the files go.")] = Path(
        "reports"
    ),
    store: options.RecordsAt = "published",
) -> None:
    """Write the leaderboard, the paper's tables, their bibliography and a figure for each defence.

    Equal results give equal files, byte for byte.
    """
    found = load(store)
    for name, text in (*_leaderboard(found), *_tables(found), *_figures(found)):
        put(text, folder / name)


def _leaderboard(found: Result) -> Iterator[tuple[str, str]]:
    from benchbox import report
    from benchbox.figures.survival import inline

    document = found.document()
    yield "leaderboard.html", report.render(document, "html", draw=inline)
    yield "leaderboard.md", report.render(document, "markdown")
    yield "leaderboard.tex", report.render(document, "latex")
    if document.bibtex:
        yield "leaderboard.bib", document.bibtex


def _tables(found: Result) -> Iterator[tuple[str, str]]:
    """Each of Tables 1 to 4, under each access that it can be about; what nobody measured is left out."""
    from benchbox import report
    from benchbox.analysis.paper_layout import ACCESSES, Layout

    for number, accesses in ACCESSES.items():
        for access in accesses:
            try:
                document = found.paper_table(Layout(number, accesses=(access,)), paper=True)
            except RequestError:
                continue
            name = f"tables/table{number}-{access}" if len(accesses) > 1 else f"tables/table{number}"
            for kind, suffix in SUFFIXES.items():
                yield f"{name}.{suffix}", report.render(document, kind)
            if document.bibtex:
                yield f"{name}.bib", document.bibtex


def _figures(found: Result) -> Iterator[tuple[str, str]]:
    from benchbox.analysis import leaderboard
    from benchbox.analysis.survival import survivals
    from benchbox.figures import style, survival

    with style.style():
        for drawing in style.apart(map(survival.draw, survivals(leaderboard.build(found.evidence, found.known)))):
            yield f"figures/{drawing.name}.svg", style.svg(drawing)
    # The bytes of a figure are those of one version of matplotlib.
    yield "figures/drawn-with.txt", f"matplotlib {version('matplotlib')}\n"
