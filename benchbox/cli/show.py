"""`benchbox show`: everything that is known of one plug-in or of one cell."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchbox.cli import options
from benchbox.cli.console import output
from benchbox.errors import RequestError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from benchbox.domain import Card, Evidence
    from benchbox.registry import Plugin

EXAMPLES = options.examples(
    "benchbox show pssr",
    "benchbox show pgd",
    "benchbox show 3fa9c1 --store results/benchbox.sqlite",
)
CELL_KEY = re.compile(r"[0-9a-f]{4,64}")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(show)


def show(
    name: Annotated[
        str, typer.Argument(help="A defence, an attack, or the first characters of a cell's key (see report --format json).")
    ],
    store: options.Store = options.DEFAULT_STORE,
) -> None:
    """Show a defence with its recipe, an attack with its settings, or a stored cell."""
    defenses, attacks = options.plugins()
    console = output()
    if name in attacks.names() and name not in defenses.names():
        _attack(console, attacks.get(name))
    elif name not in defenses.names() and CELL_KEY.fullmatch(name):
        _cell(console, name, store)
    elif ":" in name and not name.split(":")[0].endswith(".py"):
        _attack(console, attacks.get(name))
    else:
        _defense(console, defenses.get(name)) if name in defenses.names() or ".py:" in name else _neither(name)


def _neither(name: str) -> None:
    from benchbox.errors import unknown

    defenses, attacks = options.plugins()
    raise unknown("defence, attack or cell", name, defenses.names() + attacks.names())
