"""`benchbox diff`: what changed from one run to another. Never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from benchbox.cli import options
from benchbox.cli.command import command
from benchbox.errors import RequestError

if TYPE_CHECKING:
    from benchbox.domain import Evidence


@command(
    "benchbox diff 3 7",
    "benchbox diff 3 1 --other-store ../elsewhere/results/benchbox.sqlite",
)
def diff(
    run_a: Annotated[int, typer.Argument(help="Number of a run; `benchbox list runs` has them.")],
    run_b: Annotated[int, typer.Argument(help="Number of the run to compare it with.")],
    shown: options.Shown,
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
    from benchbox.analysis.difference import compare_runs
    from benchbox.report import difference

    found = compare_runs(_cells(store, run_a), _cells(other_store or store, run_b))
    shown.present(difference.document(found, run_a, run_b))


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
            f"run {run} of {store} computed no cell: it found all of them in the store, or they were removed; "
            "name another"
        )
    return found
