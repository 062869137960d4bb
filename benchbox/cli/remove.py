"""`benchbox remove`: takes what was run by mistake out of a store."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from benchbox.cli import options
from benchbox.cli.command import Family, command
from benchbox.cli.listing import found_by, print_cells
from benchbox.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchbox.store import CellRecord, Store

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@command()
def runs(
    numbers: Annotated[list[int], typer.Argument(metavar="RUN...", help="Numbers, as `list runs` has them.")],
    store: options.Store = options.DEFAULT_STORE,
    yes: Yes = False,
) -> None:
    """Remove runs with the cells that they added and the batches that they computed."""
    from benchbox.store import Store

    with Store.open(store, must_exist=True) as opened:
        known = {run.id: run for run in opened.runs()}
        if lost := [number for number in numbers if number not in known]:
            raise RequestError(f"there is no run {lost[0]} in {store}; `benchbox list runs` has their numbers")
        if alive := [number for number in numbers if known[number].status == "running"]:
            raise RequestError(f"run {alive[0]} is running; stop it first")
        found = [cell for number in numbers for cell in opened.cells(run=number)]
        if _agreed(found, f"{len(numbers)} runs with {len(found)} cells", yes):
            for number in dict.fromkeys(numbers):
                opened.remove_run(number)
            _done(found, len(numbers))


@command()
def cells(
    names: Annotated[
        list[str], typer.Argument(metavar="CELL...", help="First characters of keys, or DEFENSE/ACCESS/ATTACK.")
    ],
    store: options.Store = options.DEFAULT_STORE,
    yes: Yes = False,
) -> None:
    """Remove cells: their outcomes, and adversarial images that no other cell uses."""
    from benchbox.store import Store

    with Store.open(store, must_exist=True) as opened:
        found = {record.cell.key: record for name in names for record in found_by(name, opened, store)}
        _remove(opened, list(found.values()), yes)


@command()
def defenses(
    names: Annotated[list[str], typer.Argument(metavar="DEFENSE...", help="Names of defences.")],
    store: options.Store = options.DEFAULT_STORE,
    yes: Yes = False,
) -> None:
    """Remove every cell of some defences. Their trained weights stay where they are."""
    from benchbox.store import Store

    with Store.open(store, must_exist=True) as opened:
        found = opened.cells(defenses=names)
        if lost := set(names) - {record.cell.defense.name for record in found}:
            raise RequestError(f"no cell of {min(lost)!r} is in {store}; `benchbox list cells` has what there is")
        _remove(opened, found, yes)


REMOVE = Family(
    "remove",
    "Remove runs, cells, or all cells of a defence.",
    (runs, cells, defenses),
    (
        "benchbox remove cells 3fa9c1 pssr/white-box/pgd",
        "benchbox remove runs 7 --yes",
        "benchbox remove defenses my-defense",
    ),
)


def _remove(store: Store, found: Sequence[CellRecord], yes: bool) -> None:
    if busy := store.claimed_elsewhere(f"cell/{record.cell.key}" for record in found):
        raise RequestError(f"{min(busy)[:17]} is being computed by another process; stop it first")
    if _agreed(found, f"{len(found)} cells", yes):
        store.remove_cells([record.cell.key for record in found])
        _done(found)


def _agreed(found: Sequence[CellRecord], what: str, yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        raise RequestError(f"this removes {what} for good, and nobody is here to be asked; add --yes")
    print_cells(found)
    return typer.confirm(f"Remove {what} for good?")


def _done(found: Sequence[CellRecord], runs: int = 0) -> None:
    typer.echo(f"removed {f'{runs} runs and ' if runs else ''}{len(found)} cells")
