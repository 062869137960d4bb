"""`benchbox audit`: is a defence's number what it seems?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from benchbox.cli import options
from benchbox.cli.console import errors, notice, present
from benchbox.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchbox.audit.conduct import Cost, Ready

#: Above this many seconds the command asks before it begins.
LONG = 600
EXAMPLES = options.examples(
    "benchbox audit pssr --dataset digits",
    "benchbox audit my_defense.py:Mine --dataset mnist --samples 200 --random-points 1000 --yes",
    "benchbox audit pgd-at --dataset digits --format markdown",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(audit)


def audit(
    defense: Annotated[str, typer.Argument(metavar="DEFENSE", help="A defence, or file.py:Class.")],
    dataset: Annotated[str, typer.Option(metavar="NAME", help="Data set.")] = "digits",
    samples: Annotated[int, typer.Option(min=1, metavar="N", help="Probe the first N test images.")] = 100,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Steps of the gradient probes.")] = 100,
    random_points: Annotated[
        int, typer.Option(min=0, metavar="N", help="Random points tried on each image that gradients spare.")
    ] = 10_000,
    seed: Annotated[int, typer.Option(metavar="N", help="Training seed.")] = 0,
    epsilon: options.Epsilon = None,
    norm: options.NormName = None,
    set_: options.Settings = None,
    weights: options.Weights = None,
    format_: options.Format = "terminal",
    to: options.Output = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, however long it takes.")] = False,
    store: options.Store = options.DEFAULT_STORE,
    data_dir: options.DataDir = None,
    no_download: options.NoDownload = False,
    no_workspace: options.NoWorkspace = False,
    device: options.Device = None,
    quiet: options.Quiet = False,
) -> None:
    """Check whether a defence's number can be trusted, and say what speaks against it.

    Reads what `benchbox run` has stored, probes the trained defence itself, and keeps the verdicts in the
    store, where `benchbox report` finds them. What was not measured is INCOMPLETE, never PASS. The exit status
    is 0 whatever the verdicts are.
    """
    given = {
        "defenses": [defense],
        "datasets": [dataset],
        "samples": samples,
        "seeds": str(seed),
        "epsilon": epsilon,
        "norm": norm,
        "overrides": set_,
        "weights": weights,
    }
    asked = options.request(None, given).only()
    session = options.session(
        store, data_dir, device, download=not no_download, asked=asked, workspace=not no_workspace
    )
    from benchbox.audit.conduct import conduct, cost, prepare
    from benchbox.audit.probes.measurements import Effort
    from benchbox.progress import watcher
    from benchbox.store import Store

    effort = Effort(steps=steps, random_points=random_points)
    with watcher(None if quiet else errors(), 0) as observer:
        ready = prepare(session, asked, effort, observer.training)
    _announce(ready, cost(ready), yes)
    report: Callable[[str], None] = (lambda what: None) if quiet else (lambda what: notice(f"probing: {what}"))
    with Store.open(store) as opened:
        _, record = conduct(ready, opened, report)
    from benchbox.audit import CHECKS
    from benchbox.report import findings

    present(findings.document(record, {check.id: check.name for check in CHECKS}), format_, to)


def _announce(ready: Ready, price: Cost, yes: bool) -> None:
    """Say what it costs, and ask when that is much.

    Raises:
        RequestError: It is much, and there is nobody to ask.
    """
    from benchbox.progress import duration

    needed = price.passes
    notice(
        f"{len(ready.samples)} images, {needed.weak} to {needed.robust} gradients and {needed.forward} to "
        f"{needed.forward + needed.standing} further passes each, most for those that withstand every attack: "
        f"{duration(price.least)} to {duration(price.seconds)}, by one timed pass"
    )
    if yes or price.seconds <= LONG:
        return
    if not sys.stdin.isatty():
        raise RequestError("that is long; add --yes, or lower --samples, --steps or --random-points")
    typer.confirm("Begin?", abort=True, err=True)
