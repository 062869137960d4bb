"""`benchbox run`: from a request to its table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchbox.cli import options
from benchbox.cli.console import complain, notice, output
from benchbox.cli.report import known_of
from benchbox.errors import RequestError

if TYPE_CHECKING:
    from benchbox.cli.preview import State
    from benchbox.engine.plan import Plan
    from benchbox.engine.request import Grid
    from benchbox.engine.runner import Report
    from benchbox.engine.session import Session
    from benchbox.store import Store

EXAMPLES = options.examples(
    "benchbox run --defense pssr --dataset digits --attacks all",
    "benchbox run --defense none,pgd-at,pssr --attacks fgsm,pgd --access gray-box,white-box --samples 200",
    "benchbox run --defense pssr --set pssr.alpha=0.9 --set pgd.steps=100 --epsilon 8/255",
    "benchbox run --defense my_defense.py:Mine --attacks pgd",
    "benchbox run --defense model.py:net --weights net.safetensors --dataset cifar10 --attacks aa",
    "benchbox run --defense robustbench:Carmon2019Unlabeled --dataset cifar10 --attacks aa",
    "benchbox run --grid ablation.toml --dry-run",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(run)


def run(
    defense: options.Defenses = None,
    dataset: options.Datasets = None,
    attacks: Annotated[
        list[str] | None,
        typer.Option("--attacks", "-a", metavar="NAMES", help="Attacks, or all.  (default: all)"),
    ] = None,
    access: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="gray-box, white-box, bpda, transfer: what the attacker knows.  (default: each attack's own)",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(metavar="N", help="Score the first N test images.  (default: all of digits, else 1000)"),
    ] = None,
    seeds: options.Seeds = None,
    attack_seed: Annotated[
        int | None, typer.Option(metavar="N", help="Seed of everything an attack draws.  (default: 0)")
    ] = None,
    eot: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Draws a gradient of a randomised defence is averaged over.  (default: 20)"
        ),
    ] = None,
    scoring_draws: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Fresh draws that score each image of a randomised defence.  (default: 10)"
        ),
    ] = None,
    epsilon: Annotated[
        str | None,
        typer.Option(metavar="RADIUS", help="0.3 or 8/255, for images in [0, 1].  (default: the data set's)"),
    ] = None,
    norm: Annotated[str | None, typer.Option(metavar="NORM", help="linf or l2.  (default: linf)")] = None,
    set_: options.Settings = None,
    weights: options.Weights = None,
    grid: options.GridFile = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be run and trained, and leave.")
    ] = False,
    store: options.Store = options.DEFAULT_STORE,
    data_dir: options.DataDir = None,
    no_download: options.NoDownload = False,
    device: options.Device = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Images attacked at once; changes no result.  (default: the device's)"
        ),
    ] = None,
    precision: options.Precision = None,
    quiet: options.Quiet = False,
) -> None:
    """Attack defences, store what happened to each image, and print the table.

    Defences that are not trained yet are trained first. What is in the store is not run again, so the same
    command continues a run that was stopped, and prints the table of one that is complete.
    """
    given = {
        "defenses": defense,
        "datasets": dataset,
        "attacks": attacks,
        "accesses": access,
        "samples": samples,
        "seeds": seeds,
        "attack_seed": attack_seed,
        "eot": eot,
        "scoring_draws": scoring_draws,
        "epsilon": epsilon,
        "norm": norm,
        "set": set_,
        "weights": weights,
    }
    asked = request(grid, given)
    session = options.session(store, data_dir, device, batch_size, precision, download=not no_download)
    plans = [session.plan(one) for one in asked.requests()]
    if dry_run:
        _preview(session, plans)
        return
    raise typer.Exit(_run(session, plans, quiet))


def request(file: Path | None, given: dict[str, Any]) -> Grid:
    """The grid file, if any, with what was given beside it; None means not given.

    Raises:
        RequestError: A value does not fit, or weights are given to several defences.
    """
    from benchbox.engine import request as gridfile

    base = gridfile.read(file) if file else gridfile.Grid()
    words = {key: options.names(value) if isinstance(value, list) else value for key, value in given.items()}
    words["set"] = options.settings(given["set"])
    weights = words.pop("weights", None)
    asked = base.with_options({key: value for key, value in words.items() if value is not None})
    if weights is None:
        return asked
    if len(asked.defenses) != 1:
        raise RequestError(
            f"--weights {weights} belongs to one defence and {len(asked.defenses)} are named; give each its own: "
            "--set model.py:net.weights=FILE"
        )
    # A setting like any other: a grid file says it as [set."model.py:net"], and its axes run through several.
    return asked.with_options({"set": {asked.defenses[0]: {"weights": str(weights)}}})


def _preview(session: Session, plans: list[Plan]) -> None:
    from benchbox.cli import preview
    from benchbox.store import Store
    from benchbox.training.artifacts import Artifacts

    # Looking must not create a store.
    place = ":memory:" if options.is_absent(session.settings.store) else session.settings.store
    with Store.open(place) as store:
        preview.show(output(), _states(plans, store), Artifacts(session.settings.artifacts))


def _states(plans: list[Plan], store: Store) -> list[State]:
    from benchbox.cli.preview import State

    return [State(plan, {cell.key: len(store.positions(cell)) for cell in plan.cells}) for plan in plans]


def _run(session: Session, plans: list[Plan], quiet: bool) -> int:
    """Run, print the table, and return the exit status."""
    from benchbox import report
    from benchbox.cli.progress import watcher
    from benchbox.store import Store

    keys = [cell.key for plan in plans for cell in plan.cells]
    if not keys:
        notice("nothing to run: no attack of the request runs under the accesses it names")
        return 0
    with Store.open(session.settings.store) as store:
        unfinished = sum(len(state.open) for state in _states(plans, store))
        try:
            with watcher(unfinished, quiet=quiet) as observer:
                reports = [session.run(plan, store, observer) for plan in plans]
        except KeyboardInterrupt:
            raise options.Interrupted(_stored(_states(plans, store))) from None
        evidence = store.evidence(keys=keys)
        output().print(report.terminal(evidence, known_of(evidence, store)))
    typer.echo(_summary(reports))
    for error in dict.fromkeys(error for one in reports for error in one.failed.values()):
        complain(error)
    return _status(reports)


def _stored(states: list[State]) -> str:
    cells = sum(len(state.plan.cells) for state in states)
    done = cells - sum(len(state.open) for state in states)
    images = sum(state.stored[cell.key] for state in states for cell in state.open)
    more = f" and {images} images of others" if images else ""
    return f"{done} of {cells} cells{more} are stored; the same command continues from there"


def _summary(reports: list[Report]) -> str:
    from benchbox.cli.progress import duration

    done, reused, failed = (
        sum(counts) for counts in zip(*((r.done, r.reused, len(r.failed)) for r in reports), strict=True)
    )
    spent = ", ".join(
        f"{part} {duration(sum(getattr(r, part) for r in reports))}"
        for part in ("training", "crafting", "scoring")
    )
    total = duration(sum(r.total for r in reports))
    return f"{done} cells done, {reused} reused from the store, {failed} failed; {total} ({spent})"


def _status(reports: list[Report]) -> int:
    if any(one.crashed for one in reports):
        return 1
    return 2 if any(one.failed for one in reports) else 0
