"""`benchbox run`: from a request to its table."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from benchbox import api
from benchbox.cli import options
from benchbox.cli.command import command
from benchbox.cli.console import Interrupted, complain, errors, notice, output
from benchbox.engine import address, sharing
from benchbox.engine.request import Grid
from benchbox.text import counted

if TYPE_CHECKING:
    from benchbox.cli.preview import State
    from benchbox.engine.observer import Report
    from benchbox.engine.plan import Plan
    from benchbox.engine.session import Session
    from benchbox.store import Store


@command(
    "benchbox run --defense pssr --dataset digits --attacks all",
    "benchbox run --defense none,pgd-at,pssr --attacks fgsm,pgd --access gray-box,white-box --samples 200",
    "benchbox run --defense pssr --set pssr.alpha=0.9 --set pgd.steps=100 --epsilon 8/255",
    "benchbox run --defense my_defense.py:Mine --attacks pgd",
    "benchbox run --defense model.py:net --weights net.safetensors --dataset cifar10 --attacks aa",
    "benchbox run --defense robustbench:Carmon2019Unlabeled --dataset cifar10 --attacks aa",
    "benchbox run --grid ablation.toml --dry-run",
    "benchbox run --grid table1.toml --workers 8",
    "benchbox run --grid table1.toml --shard 3/16 --store results/part-3.sqlite",
)
def run(
    *,
    asked: Grid,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print what would be run and trained and how long it takes, and leave; nothing is fetched.",
        ),
    ] = False,
    work: options.Scoring,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Images a call; changes logits in rounding only.  (default: measured)"
        ),
    ] = None,
    workers: options.Workers = None,
    ray: options.Ray = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Run the I-th of N parts of the request; `benchbox merge` joins the stores.  (default: all)",
        ),
    ] = None,
    isolate: options.Isolate = False,
    quiet: options.Quiet = False,
) -> None:
    """Attack defences, store what happened to each image, and print the table.

    Defences that are not trained yet are trained first. What is in the store is not run again, so the same
    command continues a run that was stopped, and prints the table of one that is complete.
    """
    if ray is not None and not dry_run:
        address.check(ray)
    part = sharing.part(shard) if shard else None
    found = work.plugins(asked, isolate=isolate)
    # What the words do not say, or what has to be tried first, takes the long way.
    is_plain = not (dry_run or shard or ray or isolate or work.precision or work.secret)
    is_plain = is_plain and work.device in (None, "cpu")
    known_as = _known_as(asked, found, work) if is_plain else None
    if known_as and _answered(known_as, work.store):
        return
    own = {"batch_size": batch_size, "workers": workers, "ray": ray, "isolate": isolate}
    session = work.session(asked, found, download=not (work.no_download or dry_run), **own)
    plans = [part.of(plan) if part else plan for plan in api.plans(session, asked)]
    if dry_run:
        _preview(session, plans)
        return
    status = _run(session, plans, quiet)
    if known_as and status == 0:
        _note(known_as, session, plans)
    raise typer.Exit(status)


def _known_as(asked: Grid, found: options.Plugins, work: options.Work) -> str | None:
    from benchbox.engine import finished

    return finished.name_of(asked, found, options.data_folder(work.data_dir))


def _answered(name: str, place: str) -> bool:
    """Print the table of a request that is finished; whether it is."""
    if options.is_absent(place):
        return False
    from benchbox.engine import finished
    from benchbox.engine.observer import Report
    from benchbox.result import Result, known_of
    from benchbox.store import Store

    start = time.perf_counter()
    with Store.open(place) as opened:
        found = finished.answer(opened, name)
        if found is None:
            return False
        evidence, said = found
        result = Result(tuple(evidence), known_of(evidence, opened), place)
    for sentence in said:
        notice(sentence)
    output().print(result.renderable())
    typer.echo(_summary([Report(reused=len(evidence), total=time.perf_counter() - start)]))
    return True


def _note(name: str, session: Session, plans: list[Plan]) -> None:
    """Keep what a request came to, so that it is answered at once the next time."""
    from benchbox.engine import finished
    from benchbox.engine.session import oddities
    from benchbox.store import Store

    cells = [cell for plan in plans for cell in plan.cells]
    lists = {(cell.samples.dataset, cell.samples): None for cell in cells}
    said = [sentence for dataset, samples in lists for sentence in oddities(session.dataset(dataset), samples)]
    with Store.open(session.settings.store) as opened:
        finished.note(opened, name, [cell.key for cell in cells], said)


def _preview(session: Session, plans: list[Plan]) -> None:
    from benchbox.cli import preview
    from benchbox.engine.estimate import estimate
    from benchbox.store import Store
    from benchbox.training.artifacts import Artifacts

    # Looking must not create a store.
    place = ":memory:" if options.is_absent(session.settings.store) else session.settings.store
    artifacts = Artifacts(session.settings.artifacts)
    with Store.open(place) as store:
        states = _states(plans, store)
        evidence, cards = store.evidence(), store.artifacts()
    output().print(preview.preview(states, artifacts))
    found, seen = [], set[str]()
    for state in states:
        # Several radii share their trainings.
        missing = [step for step in state.untrained(artifacts) if step.weights not in seen]
        seen |= {step.weights for step in missing}
        found.append(estimate(session, state.plan, state.open, missing, evidence, cards))
    typer.echo(preview.duration_of(found))


def _states(plans: list[Plan], store: Store) -> list[State]:
    from benchbox.cli.preview import State

    return [State(plan, {cell.key: len(store.positions(cell)) for cell in plan.cells}) for plan in plans]


def _run(session: Session, plans: list[Plan], quiet: bool) -> int:
    """Run, print the table, and return the exit status."""
    if not any(plan.cells for plan in plans):
        notice("nothing to run: no attack of the request runs under the accesses it names, or none in this shard")
        return 0
    reports: list[Report] = []
    try:
        result = api.carry_out(session, plans, None if quiet else errors(), reports.extend)
    except KeyboardInterrupt:
        raise Interrupted(_stored(session, plans)) from None
    output().print(result.renderable())
    typer.echo(_summary(reports))
    for error in dict.fromkeys(result.failed.values()):
        complain(error)
    return _status(reports)


def _stored(session: Session, plans: list[Plan]) -> str:
    from benchbox.store import Store

    with Store.open(session.settings.store) as store:
        found = api.standing(plans, store)
    more = f" and {found.images} images of others" if found.images else ""
    return f"{found.done} of {found.cells} cells{more} are stored; the same command continues from there"


def _summary(reports: list[Report]) -> str:
    from benchbox.engine.budget import duration

    done, kept, reused, failed = (
        sum(counts) for counts in zip(*((r.done, r.kept, r.reused, len(r.failed)) for r in reports), strict=True)
    )
    stored = f" ({kept} of their images were stored)" if kept else ""
    spent = ", ".join(
        f"{part} {duration(sum(getattr(r, part) for r in reports))}"
        for part in ("training", "crafting", "scoring")
    )
    total = duration(sum(r.total for r in reports))
    return (
        f"{counted(done, 'cell')} done{stored}, {reused} reused from the store, {failed} failed; {total} ({spent})"
    )


def _status(reports: list[Report]) -> int:
    if any(one.crashed for one in reports):
        return 1
    return 2 if any(one.failed for one in reports) else 0
