"""`benchbox merge`: one store of several whose parts were run apart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchbox.cli.command import command
from benchbox.cli.console import output
from benchbox.errors import RequestError


@command(
    "benchbox merge part-1.sqlite part-2.sqlite --into results/benchbox.sqlite",
    "benchbox merge results/part-*.sqlite --into postgresql://me@host/benchbox",
)
def merge(
    stores: Annotated[list[str], typer.Argument(metavar="STORE...", help="SQLite files or database URLs.")],
    into: Annotated[
        str, typer.Option("--into", metavar="PATH|URL", help="The store that gets everything; made if need be.")
    ],
) -> None:
    """Join stores, with the weights that lie beside them.

    Everything is checked. What two stores have in common is taken once; where they contradict each other, the
    store that does is refused as a whole.
    """
    from benchbox.engine.session import artifacts_folder
    from benchbox.store.merge import merge as join
    from benchbox.training.artifacts import gather

    for store in stores:
        if store == into:
            raise RequestError(f"{store} cannot be merged into itself; name another store with --into")
    for store in stores:
        if "://" not in store and not Path(store).exists():
            raise RequestError(f"there is no store {store}; name one that `benchbox run` has made")
        source, target = artifacts_folder(store), artifacts_folder(into)
        copied = gather(source, target) if source.absolute() != target.absolute() else 0
        found = join(store, into)
        output().print(
            f"{store}: {found.cells} new cells, {found.images} new outcomes, {found.same} that were there "
            f"already, {copied} new weights",
            soft_wrap=True,
        )
