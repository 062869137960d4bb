"""`benchbox list`: what there is to choose from, and what was run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchbox.cli import options
from benchbox.cli.console import complain, notice, one_line, output
from benchbox.domain import Access, format_epsilon
from benchbox.errors import BenchboxError, RequestError, unknown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from benchbox.contract.registry import Plugin, Registry
    from benchbox.store import CellRecord, Store

EXAMPLES = options.examples(
    "benchbox list defenses",
    "benchbox list cells --defense pssr --access white-box --status done",
    "benchbox list runs --store results/benchbox.sqlite",
)
CELL_KEY = re.compile(r"[0-9a-f]{4,64}")
STATUSES = ("done", "partial", "failed")
#: Columns of the terminal from which on everything is listed.
WIDE = 120
#: Spaces between two columns.
GAP = 2
#: Characters of a key that are listed: enough to name a cell among millions.
KEY = 10


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=False, rich_markup_mode="rich")
    for command in (defenses, attacks, datasets, runs, cells):
        group.command()(command)
    app.add_typer(group, name="list", help="List defences, attacks, data sets, runs or cells.", epilog=EXAMPLES)


def defenses(no_workspace: options.NoWorkspace = False) -> None:
    """List the defences: built-in, installed, and in ./defenses."""
    registry, _ = options.plugins(workspace=not no_workspace)
    _print(
        ("name", "what it is", "paper", "year", "kind", "randomised", "stand-ins", "origin"),
        (
            (
                plugin.name,
                plugin.cls.card.summary,
                plugin.cls.card.paper,
                str(plugin.cls.card.year or ""),
                plugin.cls.card.kind,
                "yes" if plugin.cls.randomized else "",
                ", ".join(plugin.cls.stand_ins),
                plugin.origin,
            )
            for plugin in _loaded(registry)
        ),
        wide=("paper", "randomised", "stand-ins", "origin"),
    )


def attacks(no_workspace: options.NoWorkspace = False) -> None:
    """List the attacks: built-in, installed, and in ./attacks."""
    _, registry = options.plugins(workspace=not no_workspace)
    _print(
        ("name", "what it is", "paper", "year", "needs", "run by --attacks all under", "origin"),
        (
            (
                plugin.name,
                plugin.cls.card.summary,
                plugin.cls.card.paper,
                str(plugin.cls.card.year or ""),
                plugin.cls.needs,
                ", ".join(plugin.cls.standard),
                plugin.origin,
            )
            for plugin in _loaded(registry)
        ),
        wide=("paper", "run by --attacks all under", "origin"),
    )


def datasets(data_dir: options.DataDir = None) -> None:
    """List the data sets known by name, and the files NAME.npz in the data folder."""
    from benchbox.data.catalogue import KNOWN

    rows = [
        (
            entry.name,
            entry.summary,
            f"{entry.channels}×{entry.size}×{entry.size}",
            str(entry.classes),
            f"{entry.train:,}",
            f"{entry.test:,}",
        )
        for entry in KNOWN.values()
    ]
    own = sorted(options.data_folder(data_dir).glob("*.npz"))
    rows += [(file.stem, f"your own, {file}", "", "", "", "") for file in own]
    _print(("name", "what it is", "images", "classes", "training", "test"), rows, wide=("training", "test"))


def runs(store: options.Store = options.DEFAULT_STORE) -> None:
    """List what was run, and how it ended."""
    from benchbox.store import Store

    with Store.open(store, must_exist=True) as opened:
        found = opened.runs()
    _print(
        ("run", "began", "ended", "status", "new cells", "data set", "defences", "attacks", "commit"),
        (
            (
                str(run.id),
                run.created[:16].replace("T", " "),
                (run.finished or "")[:16].replace("T", " "),
                run.status,
                str(run.cells),
                str(run.request.get("dataset", "")),
                ", ".join(run.request.get("defenses", ())),
                ", ".join(run.request.get("attacks", ())),
                (run.provenance.get("commit") or "")[:9],
            )
            for run in found
        ),
        wide=("ended", "commit"),
    )


def cells(
    store: options.Store = options.DEFAULT_STORE,
    dataset: Annotated[str | None, typer.Option(metavar="NAME", help="Those on this data set.")] = None,
    defense: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Those of this; repeatable.")] = None,
    attack: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Those by this; repeatable.")] = None,
    access: Annotated[str | None, typer.Option(metavar="NAME", help="Those under this.")] = None,
    status: Annotated[str | None, typer.Option(metavar="|".join(STATUSES), help="Those that are this.")] = None,
) -> None:
    """List the cells of a store: what was attacked how, and how far it has come."""
    from benchbox.store import Store

    for kind, value, known in (("access", access, list(Access)), ("status", status, STATUSES)):
        if value is not None and value not in known:
            raise unknown(kind, value, known)
    narrow = {"dataset": dataset, "defenses": defense, "attacks": attack, "access": access, "status": status}
    with Store.open(store, must_exist=True) as opened:
        found = opened.cells(**narrow)
    if found:
        print_cells(found)
    else:
        notice(f"no cell of {store} is like that")


def print_cells(found: Iterable[CellRecord]) -> None:
    """One line a cell."""
    _print(
        ("key", "data set", "defence", "access", "attack", "ε", "images", "status", "run", "error"),
        (
            (
                record.cell.key[:KEY],
                record.cell.samples.dataset,
                record.cell.defense.name,
                str(record.cell.access),
                record.cell.attack.name,
                format_epsilon(record.cell.threat.epsilon),
                f"{record.committed}/{len(record.cell.samples)}",
                record.status,
                str(record.run),
                record.error,
            )
            for record in found
        ),
        wide=("run", "error"),
    )


def found_by(name: str, store: Store, shown: str) -> list[CellRecord]:
    """The cells that a name names: the first characters of a key, or [DATASET/]DEFENSE/ACCESS/ATTACK.

    Args:
        name: What the user wrote.
        store: Where to look.
        shown: The store's name in messages.

    Raises:
        RequestError: It names none, or several by the characters of a key.
    """
    if not is_path(name):
        found = store.cells(prefix=name) if CELL_KEY.fullmatch(name) else []
        if len(found) != 1:
            remedy = "give more characters of the key" if found else "`benchbox list cells` has the keys"
            raise RequestError(f"{len(found) or 'no'} cells in {shown} begin with {name!r}; {remedy}")
        return found
    *dataset, defense, access, attack = name.split("/")
    found = store.cells(
        dataset=dataset[0] if dataset else None, defenses=[defense], access=access, attacks=[attack]
    )
    if not found:
        raise RequestError(f"no cell in {shown} is {name!r}; `benchbox list cells` has what there is")
    return found


def is_path(name: str) -> bool:
    """Whether it is written as [DATASET/]DEFENSE/ACCESS/ATTACK."""
    parts = name.split("/")
    return len(parts) in (3, 4) and parts[-2] in list(Access)


def _loaded(registry: Registry[Any]) -> Iterator[Plugin[Any]]:
    """Every plug-in that loads; one that does not is an error on its own line and hides no other."""
    for name in registry.names():
        try:
            yield registry.get(name)
        except BenchboxError as error:
            complain(error)


def _print(titles: Sequence[str], rows: Iterable[Sequence[str]], *, wide: Collection[str] = ()) -> None:
    """A table of one line a row, cut where the terminal ends.

    Args:
        titles: Of the columns.
        rows: A text a column.
        wide: Columns that are left out where there is no room for them.
    """
    # Not a table of rich, which takes a second for a thousand rows.
    console = output()
    chosen = [i for i, title in enumerate(titles) if title not in wide or console.width >= WIDE]
    texts = [[one_line(row[i]) for i in chosen] for row in rows]
    head = [titles[i] for i in chosen]
    widths = [max(len(row[i]) for row in (head, *texts)) for i in range(len(head))]
    while sum(widths) + GAP * (len(widths) - 1) > console.width:
        widths[widths.index(max(widths))] -= 1
    for row in (head, ["─" * width for width in widths], *texts):
        cut = (t if len(t) <= w else f"{t[: w - 1]}…" for t, w in zip(row, widths, strict=True))
        cells = (f"{t:<{w}}" for t, w in zip(cut, widths, strict=True))
        typer.echo((" " * GAP).join(cells).rstrip())
