"""`benchbox publish`: what stores hold as one file that others can check. Never imports torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchbox.cli import options
from benchbox.cli.command import command
from benchbox.cli.console import notice
from benchbox.errors import RequestError
from benchbox.text import check_name

if TYPE_CHECKING:
    from benchbox.analysis.weights import Cards
    from benchbox.domain import Evidence
    from benchbox.store import Records


@command(
    "benchbox publish mnist --dataset mnist",
    "benchbox publish mnist --store published:mnist --store results/benchbox.sqlite --finished",
    "benchbox report --store results/published/mnist.json",
)
def publish(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FILE.json", help="Its name in results/published/, or a path of its own.")
    ],
    *,
    chosen: options.Chosen,
    finished: Annotated[
        bool, typer.Option("--finished", help="Leave out cells that are unfinished or failed, and say how many.")
    ] = False,
    weights: Annotated[
        bool,
        typer.Option(
            "--weights",
            help="Copy the trained weights too, to artifacts/ beside the file: `reproduce` finds them there.",
        ),
    ] = False,
    commit: Annotated[
        str | None,
        typer.Option(
            metavar="HEX",
            help="The commit of runs that could not tell theirs, as where there was no git; the file says so.",
        ),
    ] = None,
    store: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH|URL|NAME.json",
            help="The results: a store or a published file; repeated, all of them together.  "
            f"(default: {options.DEFAULT_STORE})",
        ),
    ] = None,
) -> None:
    """Write every cell, image by image, with audits and provenance, to one JSON file.

    The file is read wherever a store is: `--store FILE.json`, `--published`. Equal results give equal bytes. Of
    several stores and files together, each cell is taken once: from the one that has finished it; what several
    have is taken from the one named first. Where a recipe came out differently in two of them, the cells of the
    second are left out: they are of another defence.
    """
    from benchbox.analysis.weights import behind
    from benchbox.engine.publish import publish as text_of
    from benchbox.store import open_records
    from benchbox.store.published import FOLDER

    if commit is not None and not re.fullmatch("[0-9a-f]{7,40}", commit):
        raise RequestError(f"--commit {commit!r} is no commit; give what `git rev-parse HEAD` prints")
    path = Path(name) if name.endswith(".json") else FOLDER / f"{check_name('published file', name)}.json"
    places = store or [options.DEFAULT_STORE]
    with open_records(*places) as opened:
        evidence = _to_publish(chosen, opened, places, finished)
        audited = {subject for subject, kind in opened.attachments() if kind == "audit"}
        text = text_of(evidence, opened, commit or "")
        cards = behind(evidence, opened.artifacts())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror}; name another file") from None
    if weights:
        _keep_weights(cards, places, path)
    for left in sorted({item.cell.defense.name for item in evidence if item.cell.artifact not in audited}):
        notice(f"{left} is published without an audit; `benchbox audit {left}` makes one")
    open_cells = sum(item.status != "done" for item in evidence)
    notice(f"{len(evidence)} cells, {open_cells} of them unfinished or failed, {len(text) / 1024:.0f} KiB")
    typer.echo(str(path))


def _keep_weights(cards: Cards, places: Sequence[str], path: Path) -> None:
    """Copy what the rows were trained to, and say of which there is nothing to copy."""
    from benchbox.engine.keeping import folders, keep

    sources = [folder for place in places for folder in folders(place)]
    lost = keep(cards, sources, path.parent / "artifacts")
    notice(f"trained weights: {len(cards) - len(lost)}, in {path.parent / 'artifacts'}")
    # Cards of the first schema do not say what they are of.
    said = [cards[name].get("training", {"defense": {"name": name[:12]}}) for name in lost]
    if names := sorted({training["defense"]["name"] for training in said}):
        notice(f"without weights, which lie beside none of {', '.join(places)}: {', '.join(names)}")


def _to_publish(chosen: options.Chosen, records: Records, places: Sequence[str], finished: bool) -> list[Evidence]:
    """The cells to publish; says what is left out of them, and what is contradicted.

    Raises:
        RequestError: There are none.
    """
    from benchbox.store import United, left_out

    fitting = chosen.of(records)
    found = [item for item in fitting if item.status == "done" or not finished]
    if not found:
        raise chosen.missing(*places, what="nothing finished" if fitting else "nothing")
    if len(found) < len(fitting):
        names = sorted({item.cell.defense.name for item in fitting if item.status != "done"})
        notice(f"left out: {len(fitting) - len(found)} cells unfinished or failed, of {', '.join(names)}")
    for line in left_out(records, chosen.fits):
        notice(line)
    if isinstance(records, United):
        keys = {item.cell.key for item in found}
        for part, disputed in records.disputed().items():
            if lost := keys.intersection(disputed):
                notice(
                    f"{part} has other predictions for {len(lost)} cells, which are published as named before it"
                )
    return found
