"""`benchbox list`: what there is to choose from, and what was run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchbox.cli import options, words
from benchbox.cli.command import Family, command
from benchbox.cli.console import complain, notice, one_line, output
from benchbox.domain import Access, format_epsilon
from benchbox.errors import BenchboxError, RequestError, unknown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from benchbox.contract.registry import Registry
    from benchbox.domain import Card
    from benchbox.store import CellRecord, Store

CELL_KEY = re.compile(r"[0-9a-f]{4,64}")
STATUSES = ("done", "partial", "failed")
#: Columns go rather than that words are cut to less than this.
WORDS = 24
#: Spaces between two columns.
GAP = 2
#: Characters of a key that are listed: enough to name a cell among millions.
KEY = 10


@command()
def defenses(no_workspace: options.NoWorkspace = False) -> None:
    """List the defences: built-in, installed, and in ./defenses."""
    registry, _ = options.plugins(workspace=not no_workspace)
    _print(
        ("name", "what it is", "paper", "year", "kind", "randomised", "stand-ins", "origin"),
        (
            (name, *_card(card), card.kind, "yes" if randomized else "", ", ".join(stand_ins), origin)
            for name, card, randomized, stand_ins, origin in _said(registry, "card", "randomized", "stand_ins")
        ),
        drops=("origin", "stand-ins", "randomised", "paper", "kind", "year"),
    )


@command()
def attacks(no_workspace: options.NoWorkspace = False) -> None:
    """List the attacks: built-in, installed, and in ./attacks."""
    _, registry = options.plugins(workspace=not no_workspace)
    _print(
        ("name", "what it is", "paper", "year", "needs", "balls", "run by --attacks all under", "origin"),
        (
            (name, *_card(card), needs, ", ".join(balls), ", ".join(standard), origin)
            for name, card, needs, balls, standard, origin in _said(registry, "card", "needs", "balls", "standard")
        ),
        drops=("origin", "run by --attacks all under", "paper", "needs", "year", "balls"),
    )


@command()
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
    # The file is taken where both exist.
    said = {True: "used in place of the above", False: "your own"}
    rows += [(file.stem, f"{said[file.stem in KNOWN]}, {file}", "", "", "", "") for file in own]
    _print(
        ("name", "what it is", "images", "classes", "training", "test"),
        rows,
        drops=("training", "test", "classes", "images"),
    )


@command()
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
        drops=("ended", "commit", "new cells"),
        cuts=("defences", "attacks"),
    )


@command()
def cells(
    store: options.Store = options.DEFAULT_STORE,
    dataset: Annotated[str | None, typer.Option(metavar="NAME", help="Those on this data set.")] = None,
    defense: options.Defenses = None,
    attacks: options.Attacks = None,
    attack: Annotated[list[str] | None, typer.Option(hidden=True, help="--attacks as it was called.")] = None,
    access: Annotated[str | None, typer.Option(metavar="NAME", help="Those under this.")] = None,
    status: Annotated[str | None, typer.Option(metavar="|".join(STATUSES), help="Those that are this.")] = None,
) -> None:
    """List the cells of a store: what was attacked how, and how far it has come."""
    from benchbox.store import Store

    for kind, value, known in (("access", access, list(Access)), ("status", status, STATUSES)):
        if value is not None and value not in known:
            raise unknown(kind, value, known)
    chosen = words.names([*(attacks or ()), *(attack or ())], "--attacks")
    by = None if chosen in ((), ("all",)) else chosen
    of = words.names(defense, "--defense") or None
    with Store.open(store, must_exist=True) as opened:
        found = opened.cells(dataset=dataset, defenses=of, attacks=by, access=access, status=status)
    if found:
        print_cells(found)
    else:
        notice(f"no cell of {store} is like that")


LIST = Family(
    "list",
    "List defences, attacks, data sets, runs or cells.",
    (defenses, attacks, datasets, runs, cells),
    (
        "benchbox list defenses",
        "benchbox list cells --defense pssr --access white-box --status done",
        "benchbox list runs --store results/benchbox.sqlite",
    ),
)


def _said(registry: Registry[Any], *fields: str) -> Iterator[tuple[Any, ...]]:
    """Every plug-in's name, these attributes and origin; one that does not load is an error and hides none."""
    for name in registry.names():
        try:
            yield name, *registry.says(name, *fields), registry.origin(name)
        except BenchboxError as error:
            complain(error)


def _card(card: Card) -> tuple[str, str, str]:
    return card.summary, card.paper, str(card.year or "")


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
        drops=("error", "run", "ε", "data set"),
        cuts=("error", "defence"),
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


def _print(
    titles: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    drops: Sequence[str] = (),
    cuts: Collection[str] = ("what it is",),
) -> None:
    """A table of one line a row, whole in any window that has room for its names and numbers.

    Where there is no room for everything, columns are left out, then words lose their ends.

    Args:
        titles: Of the columns.
        rows: A text a column.
        drops: Columns that are left out, the first first.
        cuts: Columns of words that may lose their ends; names and numbers lose theirs as a last resort.
    """
    # Not a table of rich, which takes a second for a thousand rows.
    room = output().width
    texts = [[one_line(text) for text in row] for row in (titles, *rows)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(titles))]
    words = [i for i, title in enumerate(titles) if title in cuts]
    chosen = list(range(len(titles)))
    for title in drops:
        least = sum(min(widths[i], WORDS) if i in words else widths[i] for i in chosen)
        if least + GAP * (len(chosen) - 1) <= room:
            break
        chosen.remove(titles.index(title))
    for cutable, narrowest in ((words, len("cut…")), (chosen, 1)):
        while sum(widths[i] for i in chosen) + GAP * (len(chosen) - 1) > room:
            widest = max((i for i in chosen if i in cutable), key=lambda i: widths[i], default=None)
            if widest is None or widths[widest] <= narrowest:
                break
            widths[widest] -= 1
    head, *body = texts
    for row in (head, ["─" * width for width in widths], *body):
        cut = (row[i] if len(row[i]) <= widths[i] else f"{row[i][: widths[i] - 1]}…" for i in chosen)
        cells = (f"{text:<{widths[i]}}" for text, i in zip(cut, chosen, strict=True))
        typer.echo((" " * GAP).join(cells).rstrip())
