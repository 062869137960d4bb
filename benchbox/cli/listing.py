"""`benchbox list`: what there is to choose from, and what was run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from benchbox.cli import options
from benchbox.cli.console import complain, output
from benchbox.errors import BenchboxError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from benchbox.contract.registry import Plugin, Registry

EXAMPLES = options.examples(
    "benchbox list defenses",
    "benchbox list runs --store results/benchbox.sqlite",
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=False, rich_markup_mode="rich")
    for command in (defenses, attacks, datasets, runs):
        group.command()(command)
    app.add_typer(group, name="list", help="List defences, attacks, data sets or runs.", epilog=EXAMPLES)


def defenses() -> None:
    """List the defences: built-in, installed, and in ./defenses."""
    table = _table("name", "what it is", "paper", "year", "kind", "randomised", "stand-ins", "origin")
    registry, _ = options.plugins()
    for plugin in _loaded(registry):
        card = plugin.cls.card
        table.add_row(
            plugin.name,
            card.summary,
            card.paper,
            str(card.year or ""),
            card.kind,
            "yes" if plugin.cls.randomized else "",
            ", ".join(plugin.cls.stand_ins),
            plugin.origin,
        )
    output().print(table)


def attacks() -> None:
    """List the attacks: built-in, installed, and in ./attacks."""
    table = _table("name", "what it is", "paper", "year", "needs", "run by --attacks all under", "origin")
    _, registry = options.plugins()
    for plugin in _loaded(registry):
        card = plugin.cls.card
        table.add_row(
            plugin.name,
            card.summary,
            card.paper,
            str(card.year or ""),
            plugin.cls.needs,
            ", ".join(plugin.cls.standard),
            plugin.origin,
        )
    output().print(table)


def datasets(data_dir: options.DataDir = None) -> None:
    """List the data sets known by name, and the files NAME.npz in the data folder."""
    from benchbox.data.catalogue import KNOWN

    table = _table("name", "what it is", "images", "classes", "training", "test")
    for entry in KNOWN.values():
        shape = f"{entry.channels}×{entry.size}×{entry.size}"
        table.add_row(entry.name, entry.summary, shape, str(entry.classes), f"{entry.train:,}", f"{entry.test:,}")
    for file in sorted(options.data_folder(data_dir).glob("*.npz")):
        table.add_row(file.stem, f"your own, {file}", "", "", "", "")
    output().print(table)


def runs(store: options.Store = options.DEFAULT_STORE) -> None:
    """List what was run, and how it ended."""
    from benchbox.store import Store

    table = _table("run", "began", "ended", "status", "new cells", "defences", "data set", "attacks", "commit")
    with Store.open(store, must_exist=True) as opened:
        for run in opened.runs():
            table.add_row(
                str(run.id),
                run.created,
                run.finished or "",
                run.status,
                str(run.cells),
                ", ".join(run.request["defenses"]),
                run.request["dataset"],
                ", ".join(run.request["attacks"]),
                (run.provenance.get("commit") or "")[:9],
            )
    output().print(table)


def _loaded(registry: Registry[Any]) -> Iterator[Plugin[Any]]:
    """Every plug-in that loads; one that does not is an error on its own line and hides no other."""
    for name in registry.names():
        try:
            yield registry.get(name)
        except BenchboxError as error:
            complain(error)


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
