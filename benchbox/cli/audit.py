"""`benchbox audit`: is a defence's number what it seems?"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from benchbox.cli import options
from benchbox.cli.command import command
from benchbox.cli.console import errors, notice
from benchbox.engine.budget import Budget, duration
from benchbox.engine.request import Grid
from benchbox.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchbox.audit.conduct import Ready
    from benchbox.audit.course import Course

#: What an audit may take at most, if nobody says otherwise; it leaves out what does not fit.
LONG = "2min"
#: Share of it that the probes may take, however long it took to begin.
LEAST = 0.25


@command(
    "benchbox audit pssr --dataset digits",
    "benchbox audit my_defense.py:Mine --dataset mnist --samples 200 --budget 15min",
    "benchbox audit pgd-at --dataset digits --format markdown",
)
def audit(
    *,
    defense: Annotated[str, typer.Argument(metavar="DEFENSE", help="A defence, or file.py:Class.")],
    dataset: Annotated[str, typer.Option(metavar="NAME", help="Data set.")] = "digits",
    samples: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Probe N test images: the first, or with --sample-seed random ones."
        ),
    ] = 100,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Steps of the gradient probes.")] = 100,
    random_points: Annotated[
        int, typer.Option(min=0, metavar="N", help="Random points tried on each image that gradients spare.")
    ] = 10_000,
    seed: Annotated[int, typer.Option(metavar="N", help="Training seed.")] = 0,
    asked: Annotated[Grid, ("sample_seed", "epsilon", "norm", "overrides", "weights"), options.ONE],
    shown: options.Shown,
    budget: Annotated[
        str,
        typer.Option(metavar="LIMIT", help="60s, 15min, 2h; what does not fit is left out."),
    ] = LONG,
    whole: Annotated[
        bool, typer.Option("--whole", "--yes", "-y", help="Leave nothing out, however long it takes.")
    ] = False,
    work: options.Work,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH|NAME.json", help="Results to read beside the store's, such as a published row; repeated."
        ),
    ] = None,
    isolate: options.Isolate = False,
    quiet: options.Quiet = False,
) -> None:
    """Check whether a defence's number can be trusted, and say what speaks against it.

    Reads what `benchbox run` has stored, probes the trained defence itself, and keeps the verdicts in the
    store, where `benchbox report` finds them. What was not measured is INCOMPLETE, never PASS. An audit that would
    take longer than its budget leaves things out and says which. The exit status is 0 whatever the verdicts are.
    """
    begun = time.perf_counter()
    limit = Budget.parse(budget)
    if limit.seconds == math.inf:
        raise RequestError(f"--budget {budget!r} is no time; write 60s, 15min or 2h")
    subject = {"defenses": [defense], "datasets": [dataset], "samples": samples, "seeds": seed}
    request = asked.with_options(subject).only()
    session = work.session(request, isolate=isolate)
    from benchbox.audit.conduct import conduct, prepare
    from benchbox.audit.probes.measurements import Effort
    from benchbox.progress import watcher
    from benchbox.store import Store, open_records

    effort = Effort(steps=steps, random_points=random_points)
    for place in beside or ():
        _take_weights(place, defense, dataset, session.settings.artifacts)
    with watcher(None if quiet else errors(), 0) as observer, ExitStack() as stack:
        there = None if options.is_absent(work.store) else stack.enter_context(Store.open(work.store))
        ready = prepare(session, request, effort, observer.training, there)
    # What a training took is no part of an audit.
    spent = time.perf_counter() - begun - ready.trained
    seconds = math.inf if whole else max(limit.seconds - spent, limit.seconds * LEAST)
    ready, course = _affordable(ready, seconds, limit)
    report: Callable[[str], None] = (lambda what: None) if quiet else (lambda what: notice(f"probing: {what}"))
    # Who audits a published row has trained it anew, and counts the row's own numbers all the same.
    with Store.open(work.store) as opened, open_records(work.store, *(beside or ()), retrained=True) as known:
        _, record = conduct(ready, opened, report, known if beside else None, course)
    from benchbox.audit import CHECKS
    from benchbox.report import findings

    shown.present(findings.document(record, {check.id: check.name for check in CHECKS}))


def _take_weights(place: str, defense: str, dataset: str, target: Path) -> None:
    """Copy the weights that were published with a row, if they are not there yet."""
    from benchbox.analysis.weights import behind
    from benchbox.engine.keeping import folders, keep
    from benchbox.store import open_records

    with open_records(place) as records:
        keep(
            behind(records.evidence(dataset=dataset, defenses=(defense,)), records.artifacts()),
            folders(place),
            target,
        )


def _affordable(ready: Ready, seconds: float, limit: Budget) -> tuple[Ready, Course]:
    """The audit as it can be had in time, and what keeps it to that; says what it costs, and what it leaves out.

    Args:
        ready: As it was asked for.
        seconds: What is left of the budget; infinite where nothing shall be left out.
        limit: The budget.
    """
    from benchbox.audit import price
    from benchbox.audit.course import Course

    begun = time.perf_counter()
    pace = price.pace(ready, seconds)
    left = seconds - (time.perf_counter() - begun)
    ready, less = price.within(ready, left, pace)
    cost = pace.cost(ready)
    gradients, forwards = cost.passes.a_sample(ready.effort)
    if less:
        notice(
            f"all of the audit would take over {duration(limit.seconds)} here, where a second is worth "
            f"{pace.share:.2g} of a processor, so it is cut down: {price.said(less)}; checks that need more say "
            "INCOMPLETE; a longer --budget leaves out less, --whole nothing"
        )
    notice(
        f"{len(ready.samples)} images, {cost.passes.least} to {gradients} gradients and up to {forwards} further "
        f"passes each, most for those that withstand every attack: {duration(cost.least)} to "
        f"{duration(cost.seconds)} if nothing else runs here"
    )
    return ready, Course(ready.defense, pace, left, notice)
