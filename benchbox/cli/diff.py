"""`benchbox diff`: what changed from one run to another. Never imports torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchbox.cli import options
from benchbox.cli.console import output
from benchbox.errors import RequestError, unknown

if TYPE_CHECKING:
    from benchbox.analysis.difference import CellDifference, Flags, RunDifference
    from benchbox.domain import Cell, Evidence

FORMATS = ("terminal", "json")
EXAMPLES = options.examples(
    "benchbox diff 3 7",
    "benchbox diff 3 1 --other-store ../elsewhere/results/benchbox.sqlite",
)
#: Indices printed for people; JSON has all of them.
SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(diff)


def diff(
    run_a: Annotated[int, typer.Argument(help="Number of a run; `benchbox list runs` has them.")],
    run_b: Annotated[int, typer.Argument(help="Number of the run to compare it with.")],
    format_: Annotated[
        str, typer.Option("--format", "-f", metavar="FORMAT", help=f"One of {', '.join(FORMATS)}.")
    ] = "terminal",
    store: options.Store = options.DEFAULT_STORE,
    other_store: Annotated[
        str | None,
        typer.Option(metavar="PATH|URL", help="Where the second run is stored.  (default: the same store)"),
    ] = None,
) -> None:
    """Show which images came out differently in two runs, and what of code, machine and settings differs.

    Cells that are the same but for code versions, seeds or settings are set beside each other. A cell belongs
    to the run that computed it, not to later runs that found it in the store.
    """
    if format_ not in FORMATS:
        raise unknown("format", format_, FORMATS, f"use one of {', '.join(FORMATS)}")
    from benchbox.analysis.difference import compare_runs

    found = compare_runs(_cells(store, run_a), _cells(other_store or store, run_b))
    if format_ == "json":
        typer.echo(json.dumps(_record(found), indent=2, ensure_ascii=False))
        return
    for line in _lines(found, run_a, run_b):
        output().print(line, soft_wrap=True)


def _cells(store: str, run: int) -> list[Evidence]:
    """The cells that a run computed.

    Raises:
        StoreError: There is no store.
        RequestError: There is no such run, or it computed nothing.
    """
    from benchbox.store import Store

    with Store.open(store, must_exist=True) as opened:
        known = [str(record.id) for record in opened.runs()]
        found = [item for item in opened.evidence() if item.run == run]
    if str(run) not in known:
        raise RequestError(f"there is no run {run} in {store}; it has {', '.join(known) or 'none'}")
    if not found:
        raise RequestError(
            f"run {run} of {store} computed no cell: it found all of them in the store; name the run that did"
        )
    return found


def _lines(found: RunDifference, run_a: int, run_b: int) -> Iterator[str]:
    yield f"run {run_a} → run {run_b}"
    yield from _values("environment", found.environment) if found.environment else ["environment: the same"]
    for cell in found.cells:
        yield from _cell_lines(cell)
    for run, cells in ((run_a, found.only_a), (run_b, found.only_b)):
        yield from (f"only in run {run}: {_name(cell)}" for cell in cells)
    changed = [c for c in found.cells if any(map(_count, (c.clean, c.adversarial)))]
    yield f"{len(changed)} of {len(found.cells)} cells changed"


def _cell_lines(cell: CellDifference) -> Iterator[str]:
    same = not any(map(_count, (cell.clean, cell.adversarial)))
    yield f"{_name(cell.a)}: {'no prediction changed' if same else 'changed'}, {cell.compared} images compared"
    for kind, flags in (("clean", cell.clean), ("adversarial", cell.adversarial)):
        for what, indices in (
            ("lost", flags.lost),
            ("won", flags.won),
            ("another class, right as often", flags.otherwise),
        ):
            if indices:
                yield f"  {kind}, {what} ({len(indices)}): {_indices(indices)}"
    # The digest of the weights follows from what else differs.
    yield from _values("  settings", cell.settings)


def _values(title: str, values: Mapping[str, tuple[Any, Any]]) -> Iterator[str]:
    for path, (a, b) in values.items():
        yield f"{title}: {path}: {_short(a)} → {_short(b)}"


def _indices(indices: Sequence[int]) -> str:
    more = f" … and {len(indices) - SHOWN} more" if len(indices) > SHOWN else ""
    return " ".join(map(str, indices[:SHOWN])) + more


def _count(flags: Flags) -> int:
    return len(flags.lost) + len(flags.won) + len(flags.otherwise)


def _name(cell: Cell) -> str:
    through = f" through {cell.view.stand_in}" if cell.view.stand_in else ""
    return f"{cell.defense.name}, {cell.samples.dataset}, {cell.access} {cell.attack.name}{through}, {cell.threat}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 48 else f"{text[:16]}…"


def _record(found: RunDifference) -> dict[str, Any]:
    return {
        "environment": {path: list(values) for path, values in found.environment.items()},
        "cells": [
            {
                "name": _name(cell.a),
                "keys": [cell.a.key, cell.b.key],
                "compared": cell.compared,
                "clean": asdict(cell.clean),
                "adversarial": asdict(cell.adversarial),
                "settings": {path: list(values) for path, values in cell.settings.items()},
            }
            for cell in found.cells
        ],
        "only_a": [{"name": _name(cell), "key": cell.key} for cell in found.only_a],
        "only_b": [{"name": _name(cell), "key": cell.key} for cell in found.only_b],
    }
