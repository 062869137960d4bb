"""`benchbox report`: what the store holds, as a table. Never imports torch."""

from __future__ import annotations

import gc
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchbox.api import load
from benchbox.cli import options, words
from benchbox.cli.command import command
from benchbox.cli.console import notice, present, put
from benchbox.errors import RequestError, unknown

if TYPE_CHECKING:
    from benchbox.report.document import Document

PAGE = Path("reports/leaderboard.html")
LAYOUTS = ("ranking", "paper", "numbers", "attacks", "audits", "conventions", "cost")
#: Commas between names, not those of a row's remarks, as in "pssr (alpha=2, seed 1)".
_COMMA = re.compile(r",(?![^()]*\))")


@command(
    "benchbox report",
    "benchbox report --published --table 1 --access gray-box --paper",
    "benchbox report --table 1 --format latex --output table1.tex",
    "benchbox report --layout paper --rows pssr,trades --columns benign,pgd,aa,worst --access white-box",
    "benchbox report --format html --against pssr",
    "benchbox report --attacks pgd --epsilon 8/255 --samples 1000",
)
def report(
    *,
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
    chosen: options.Chosen,
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
    table: Annotated[
        int | None, typer.Option(metavar="1|2|3|4", help="A table of the PSSR paper, with what was measured.")
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            metavar="|".join(LAYOUTS),
            help="paper: any rows and columns, in its shape; numbers: what came of each number of the PSSR paper; "
            "attacks: every way each defence was attacked, and its cost; audits: what each audit found; "
            "conventions: randomised defences by what is counted; cost: passes and minutes.",
        ),
    ] = "ranking",
    rows: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES", help="With --table or --layout paper: defences, labels, digests of weights."
        ),
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="Likewise: benign, attacks, worst.")
    ] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Likewise: the paper's numbers beside ours.")] = False,
    intervals: Annotated[bool, typer.Option("--intervals", help="Likewise: 95 % intervals.")] = False,
    bib: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where the BibTeX of what is cited goes; with latex, beside --output by itself."
        ),
    ] = None,
    by_access: Annotated[
        bool, typer.Option("--by-access", help="With latex: below the ranking a table for each access.")
    ] = False,
    standalone: Annotated[
        bool, typer.Option("--standalone", help="With latex: a whole document, ready to compile.")
    ] = False,
    per_image: Annotated[
        bool,
        typer.Option("--per-image", help="As CSV, what happened to each image of each cell: accuracy by class."),
    ] = False,
    records: options.Records,
) -> None:
    """Print what the store holds: ranks, accuracies, intervals, worst cases, and what they do not prove."""
    for flag, given in (("--standalone", standalone), ("--by-access", by_access)):
        if given and format_ != "latex":
            raise RequestError(f"{flag} is for --format latex, not {format_}; leave it out")
    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    in_its_shape = table is not None or layout == "paper"
    own = {"--rows": rows, "--columns": columns, "--paper": paper, "--intervals": intervals}
    if not in_its_shape and (stray := [flag for flag, given in own.items() if given]):
        raise RequestError(f"{stray[0]} is for tables in the paper's shape; add --table 1 or --layout paper")
    if (in_its_shape or layout != "ranking") and against:
        raise RequestError("--against is for the ranking, not for tables of another shape; leave it out")
    if table is not None and layout == "numbers":
        raise RequestError(f"--layout numbers has every table; leave out --table {table}")
    # In the paper's shape an access chooses what is shown of a row, and the worst case is the row's own.
    only = {"attacks": attacks, "samples": samples, "epsilon": epsilon, "norm": norm}
    narrowed = words.words(only if in_its_shape else {**only, "accesses": access})
    gc.set_threshold(100_000)  # a big store is a million objects that all stay: looking for garbage takes seconds
    found = load(records.place, dataset=chosen.datasets, defense=chosen.defenses, **narrowed)
    if per_image:
        if format_ not in ("terminal", "csv"):
            raise RequestError(f"--per-image is CSV, not {format_}; leave --format out")
        from benchbox.report import csv

        put(csv.of_frame(found.fates()), to)
        return
    clickable = format_ == "html" and layout == "ranking" and not in_its_shape
    to = to or (PAGE if clickable else None)
    if in_its_shape:
        from benchbox.analysis.paper_layout import Layout

        accesses = words.request(None, {"accesses": access}).accesses
        asked = Layout(table, _rows(rows), words.names(columns, "--columns"), chosen.datasets, accesses)
        document = found.paper_table(asked, paper=paper, intervals=intervals)
    elif layout == "ranking":
        document = found.document(against)
    else:
        documents = {
            "numbers": found.paper_numbers,
            "attacks": found.attacks,
            "audits": found.audits,
            "conventions": found.conventions,
            "cost": found.cost,
        }
        document = documents[layout]()
    more: dict[str, object] = {"standalone": True} if standalone else {}
    if by_access:
        more["groups"] = True
    if clickable:
        from benchbox.figures.survival import inline

        more["draw"] = inline
    present(document, format_, to, **more)
    _write_bibliography(document, format_, to, bib)


def _rows(values: Sequence[str] | None) -> tuple[str, ...]:
    found = [name.strip() for value in values or () for name in _COMMA.split(value) if name.strip()]
    return tuple(dict.fromkeys(found))


def _write_bibliography(document: Document, format: str, to: Path | None, bib: Path | None) -> None:
    """What LaTeX needs beside the table: the entries of the papers that it cites."""
    beside = to.with_suffix(".bib") if to is not None and format == "latex" else None
    if document.bibtex and (path := bib or beside):
        put(document.bibtex, path)
    elif bib:
        notice(f"nothing is cited, so {bib} is not written")
