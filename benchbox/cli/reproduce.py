"""`benchbox reproduce`: a part of a published row, computed again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchbox.cli import options
from benchbox.cli.command import command
from benchbox.cli.console import errors, notice, output

if TYPE_CHECKING:
    from benchbox.analysis.agreement import Agreement
    from benchbox.engine.reproduce import Part
    from benchbox.engine.session import Session

#: Exit status when the numbers are not those that were published.
DIFFERENT = 1


@dataclass(frozen=True)
class Borrowed(options.Work):
    """What the engine works with, of a store that is only read."""

    store: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="The store beside which weights are looked for and kept; it is not written to.",
        ),
    ] = options.DEFAULT_STORE


@command(
    "benchbox reproduce results/published/mnist.json --row pssr --samples 50",
    "benchbox reproduce published:mnist --row none --samples 100",
)
def reproduce(
    *,
    file: Annotated[str, typer.Argument(metavar="FILE.json", help="Published results, or a store.")],
    row: Annotated[
        str,
        typer.Option("--row", metavar="NAME", help="The defence, or the first characters of its weights' digest."),
    ],
    samples: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many images of the list, from its beginning.")
    ] = 50,
    work: Borrowed,
    quiet: options.Quiet = False,
) -> None:
    """Compute a part of a published row again, and say whether it agrees, image by image.

    Weights that were published with the results are copied beside the store; those that are in neither place are
    trained first, by the published recipe and seed. The exit status is 1 where a cell has become better or worse
    by more than chance.
    """
    from benchbox.analysis import agreement
    from benchbox.analysis.weights import behind
    from benchbox.engine.keeping import folders, keep
    from benchbox.engine.reproduce import part
    from benchbox.progress import watcher
    from benchbox.store import Store, open_records

    with open_records(file) as records:
        session = work.session()
        chosen = part(session, records, row, samples)
        cards = behind(chosen.published, records.artifacts())
    keep(cards, folders(file), session.settings.artifacts)
    session.settings = replace(session.settings, secret=chosen.secret)
    for line in _needs(session, chosen):
        output().print(line, soft_wrap=True)
    # A file, not memory: whoever keeps a lease alive does so from a thread of its own.
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(Path(folder) / "again.sqlite") as fresh,
        watcher(None if quiet else errors(), sum(len(plan.cells) for plan in chosen.plans)) as eye,
    ):
        for plan in chosen.plans:
            session.run(plan, fresh, eye)
        again = fresh.evidence()
    found = agreement.compare(chosen.published, [item for item in again if item.status == "done"])
    for line in _said(found):
        output().print(line, soft_wrap=True)
    if found.verdict is agreement.Verdict.DIFFERS:
        notice("see what else differs between the two machines: commit, packages and device stand in the file")
        raise typer.Exit(DIFFERENT)


def _needs(session: Session, chosen: Part) -> Iterator[str]:
    from benchbox.engine.reproduce import weights
    from benchbox.progress import describe_training
    from benchbox.training.artifacts import Artifacts

    here, missing = weights(chosen.plans, Artifacts(session.settings.artifacts))
    for what, trainings in (("weights found", here), ("to be trained", missing)):
        if trainings:
            yield f"{what}: {'; '.join(map(describe_training, trainings))}"
    yield from (f"left out: {sentence}" for sentence in chosen.left_out)
    yield from (f"note: {sentence}" for sentence in chosen.notes)


def _said(found: Agreement) -> Iterator[str]:
    from benchbox.analysis.agreement import differing

    for cell, p in zip(found.found.cells, found.p, strict=True):
        through = f" through {cell.a.view.stand_in}" if cell.a.view.stand_in else ""
        name = f"{cell.a.access} {cell.a.attack.name}{through}, {cell.a.threat}"
        same = cell.compared - differing(cell)
        changes = cell.changes.values()
        lost, won = sum(len(one.lost) for one in changes), sum(len(one.won) for one in changes)
        more = f"; {lost} lost, {won} won, p = {p:.2g}" if same < cell.compared else ""
        yield f"{name}: {same} of {cell.compared} images agree{more}"
    for lone in found.found.only_a:
        yield f"{lone.access} {lone.attack.name}: could not be computed"
    images = sum(cell.compared for cell in found.found.cells)
    same = images - sum(differing(cell) for cell in found.found.cells)
    yield f"{found.verdict}: {same} of {images} images in {len(found.found.cells)} cells"
