"""`benchbox publish`: what a store holds as one file that others can check. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchbox.cli import options
from benchbox.cli.console import notice
from benchbox.errors import RequestError
from benchbox.text import check_name

EXAMPLES = options.examples(
    "benchbox publish mnist --dataset mnist",
    "benchbox report --store results/published/mnist.json",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(publish)


def publish(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FILE.json", help="Its name in results/published/, or a path of its own.")
    ],
    dataset: options.Datasets = None,
    defense: options.Defenses = None,
    store: options.Records = options.DEFAULT_STORE,
) -> None:
    """Write every cell of the store, image by image, with audits and provenance, to one JSON file.

    The file is read wherever a store is: `--store FILE.json`, `--published`. Equal results give equal bytes.
    """
    from benchbox.engine.publish import publish as text_of
    from benchbox.store import open_records
    from benchbox.store.published import FOLDER

    path = Path(name) if name.endswith(".json") else FOLDER / f"{check_name('published file', name)}.json"
    datasets, defenses = options.names(dataset), options.names(defense)
    with open_records(store) as opened:
        evidence = [
            item
            for item in opened.evidence(defenses=defenses or None)
            if not datasets or item.cell.samples.dataset in datasets
        ]
        if not evidence:
            asked = ", ".join(datasets + defenses)
            raise RequestError(
                f"{store} holds nothing{f' of {asked}' if asked else ''}; fill it with `benchbox run`"
            )
        audited = {subject for subject, kind in opened.attachments() if kind == "audit"}
        text = text_of(evidence, opened)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror}; name another file") from None
    for left in sorted({item.cell.defense.name for item in evidence if item.cell.artifact not in audited}):
        notice(f"{left} is published without an audit; `benchbox audit {left}` makes one")
    open_cells = sum(item.status != "done" for item in evidence)
    notice(f"{len(evidence)} cells, {open_cells} of them unfinished or failed, {len(text) / 1024:.0f} KiB")
    typer.echo(str(path))
