"""`benchbox remove`: takes what was run by mistake out of a store."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from benchbox.cli import options
from benchbox.cli.command import Family, command
from benchbox.cli.listing import found_by, print_cells
from benchbox.errors import RequestError
from benchbox.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchbox.store import CellRecord, Store


@dataclass(frozen=True)
class Removal:
    """Where something is removed from, and whether to ask."""

    store: options.Store = options.DEFAULT_STORE
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False

    def opened(self) -> Store:
        """The store, which has to be there."""
        from benchbox.store import Store

        return Store.open(self.store, must_exist=True)

    def agreed(self, found: Sequence[CellRecord], what: str) -> bool:
        """Whether the user wants it.

        Raises:
            RequestError: Nobody is there to be asked.
        """
        if self.yes:
            return True
        if not sys.stdin.isatty():
            raise RequestError(f"this removes {what} for good, and nobody is here to be asked; add --yes")
        print_cells(found)
        return typer.confirm(f"Remove {what} for good?")


@command()
def runs(
    numbers: Annotated[list[int], typer.Argument(metavar="RUN...", help="Numbers, as `list runs` has them.")],
    removal: Removal,
) -> None:
    """Remove runs with the cells that they added and the batches that they computed."""
    with removal.opened() as opened:
        known = {run.id: run for run in opened.runs()}
        if lost := [number for number in numbers if number not in known]:
            raise RequestError(
                f"there is no run {lost[0]} in {removal.store}; `benchbox list runs` has their numbers"
            )
        if alive := [number for number in numbers if known[number].status == "running"]:
            raise RequestError(f"run {alive[0]} is running; stop it first")
        found = [cell for number in numbers for cell in opened.cells(run=number)]
        if removal.agreed(found, f"{len(numbers)} runs with {len(found)} cells"):
            for number in dict.fromkeys(numbers):
                opened.remove_run(number)
            _done(found, len(numbers))


@command()
def cells(
    names: Annotated[
        list[str], typer.Argument(metavar="CELL...", help="First characters of keys, or DEFENSE/ACCESS/ATTACK.")
    ],
    removal: Removal,
) -> None:
    """Remove cells: their outcomes, and adversarial images that no other cell uses."""
    with removal.opened() as opened:
        found = {record.cell.key: record for name in names for record in found_by(name, opened, removal.store)}
        _remove(opened, list(found.values()), removal)


@command()
def defenses(
    names: Annotated[list[str], typer.Argument(metavar="DEFENSE...", help="Names of defences.")],
    removal: Removal,
) -> None:
    """Remove every cell of some defences. Their trained weights stay where they are."""
    with removal.opened() as opened:
        found = opened.cells(defenses=names)
        if lost := set(names) - {record.cell.defense.name for record in found}:
            remedy = "`benchbox list cells` has what there is"
            raise RequestError(f"no cell of {min(lost)!r} is in {removal.store}; {remedy}")
        _remove(opened, found, removal)


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


def _remove(store: Store, found: Sequence[CellRecord], removal: Removal) -> None:
    if busy := store.claimed_elsewhere(f"cell/{record.cell.key}" for record in found):
        raise RequestError(f"{min(busy)[:17]} is being computed by another process; stop it first")
    if removal.agreed(found, counted(len(found), "cell")):
        store.remove_cells([record.cell.key for record in found])
        _done(found)


def _done(found: Sequence[CellRecord], runs: int = 0) -> None:
    counts = [*([counted(runs, "run")] if runs else []), counted(len(found), "cell")]
    typer.echo(f"removed {' and '.join(counts)}")
