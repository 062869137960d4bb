"""`benchbox verdict`: is a defence broken?"""

from __future__ import annotations

import shlex
from collections import defaultdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchbox.cli import options
from benchbox.cli.command import REQUEST, command
from benchbox.cli.console import errors, notice
from benchbox.engine.budget import Budget
from benchbox.engine.request import Grid, Request, says
from benchbox.errors import RequestError

if TYPE_CHECKING:
    from benchbox.domain import Cell
    from benchbox.engine.plan import Plan
    from benchbox.engine.session import Session
    from benchbox.engine.verdict import Answer

#: What `run` takes and the answer is about one of.
FIELDS = tuple(name for name in REQUEST if name != "defenses")
#: And where it means something else.
SAID = {
    **options.ONE,
    "attacks": ("NAMES", "Attacks.  (default: all but one-step attacks and ensembles)"),
    "samples": ("N", "Attack at most N test images.  (default: all of digits, else 1000)"),
    "sample_seed": ("N", "Draw the test images at random with this seed.  (default: 0)"),
}


@command(
    "benchbox verdict mine",
    "benchbox verdict my_defense.py:Mine --dataset mnist --budget 5min",
    "benchbox verdict model.py:net --weights net.safetensors --dataset cifar10 --budget 100images,200000passes",
)
def verdict(
    *,
    asked: Annotated[Grid, FIELDS, SAID],
    defense: Annotated[str, typer.Argument(metavar="DEFENSE", help="A defence, as in --defense of run.")],
    budget: Annotated[
        str,
        typer.Option(
            metavar="LIMIT",
            help="60s, 5min, 200images, 50000passes; several with commas. Training does not count.",
        ),
    ] = "60s",
    work: options.Scoring,
    isolate: options.Isolate = False,
    quiet: options.Quiet = False,
) -> None:
    """Say in two sentences whether a defence is broken, with the attack that broke it.

    Cheap attacks, by gradients before queries before random points and the cheapest of each first, on random
    images until the answer is sure or the budget is spent. It stops at a time of its own choosing, and its
    intervals allow for that. What it found is in the store, where benchbox run with the same --sample-seed finds
    it. The exit status is 0 whatever the answer is.
    """
    limit = Budget.parse(budget)
    seed = 0 if asked.sample_seed is None else asked.sample_seed
    request = asked.with_options({"defenses": [defense], "sample_seed": seed}).only()
    if len(request.seeds) > 1 or len(request.defenses) > 1 or request.axes:
        raise RequestError("a verdict is about one defence of one training seed; ask for one at a time")
    session = work.session(request, isolate=isolate)
    answer = _search(session, session.plan(request), limit, quiet)
    command = _command(request, work.store)
    for sentence in (_found(answer, request, limit), _missing(answer, command)):
        typer.echo(sentence)


def _search(session: Session, plan: Plan, limit: Budget, quiet: bool) -> Answer:
    from benchbox.engine.verdict import Search
    from benchbox.progress import Silent, watcher
    from benchbox.store import Store
    from benchbox.training.artifacts import Artifacts

    artifacts = Artifacts(session.settings.artifacts)
    needed = plan.trainings[plan.cells[0].artifact] if plan.cells else None
    while needed is not None:
        if needed.weights not in artifacts and needed.source is None:
            console = None if quiet else errors()
            with Store.open(session.settings.store) as opened, watcher(console, 0) as observer:
                session.train([needed], opened, observer)  # with everything below it
        needed = needed.base

    def tell(cell: Cell, images: int, standing: int) -> None:
        if not quiet:
            notice(f"{cell.defense.name}: {_described(cell)}: {standing} of {images} stand")

    every = plan.request.attacks != ("all",)
    search = Search(limit, lambda key: plan.trainings[key].weights in artifacts, every, tell)
    with Store.open(session.settings.store) as opened:
        session.run(plan, opened, Silent(), search)
    assert search.answer is not None
    return search.answer


def _found(answer: Answer, request: Request, limit: Budget) -> str:
    """The answer, the attacks that made it, and how sure it is."""
    (name,), first = request.defenses, answer.plan.cells[0]
    spent = f"by these {answer.images} images" if answer.complete else f"within {limit}"
    ruling = {
        "broken": "is broken",
        "no better": "is no better than its bare classifier",
        "withstood": "is not broken by what was tried",
        "open": f"is not settled {spent}",
    }[answer.ruling]
    low, high = (100 * end for end in answer.interval)
    counted = f"{answer.standing} of {answer.images} random images of {request.dataset} stand, {first.threat}"
    text = f"{name} {ruling}: {counted}; of all images {low:.1f} to {high:.1f} % would (95 %, whenever one stops)"
    if answer.advantage is not None and answer.ruling != "broken":
        ends = " to ".join(f"{100 * end:+.1f}" for end in answer.advantage)
        beyond = "" if answer.significant else "not significantly "
        text += f", {beyond}better than the bare classifier ({ends} points)"
    broke = [f"{_described(cell)} broke {count}" for cell, count in answer.breakers]
    return f"{text}; {answer.wrong} were wrong as they are, {', '.join(broke) or 'no attack broke any'}."


def _missing(answer: Answer, command: str) -> str:
    """What was not tried, and the command that tries it."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for cell, reason in answer.untried:
        # An attack of which nothing was tried needs no list of its accesses.
        said = cell.attack.name if cell.attack.name in answer.unused else _described(cell)
        by_reason[reason].append(said)
    parts = [
        f"{', '.join(dict.fromkeys(names))}{f' ({reason})' if reason else ''}"
        for reason, names in by_reason.items()
    ]
    return f"Not tried: {'; '.join(parts) or 'nothing of the request'}. The full evaluation: {command}"


def _described(cell: Cell) -> str:
    """`pgd, bpda through identity`."""
    through = f" through {cell.view.stand_in}" if cell.view.stand_in else ""
    return f"{cell.attack.name} {cell.access}{through}"


def _command(request: Request, store: str) -> str:
    """`benchbox run` for the same request, on the list whose beginning has been attacked."""
    words = ["benchbox", "run"]
    for name, field in Grid.model_fields.items():
        value: Any = getattr(request, name)
        flags = says(field)["flags"]
        if not flags or (value == field.get_default(call_default_factory=True) and name != "datasets"):
            continue
        if name == "overrides":
            texts = [f"{plug}.{key}={v}" for plug, fields in value.items() for key, v in fields.items()]
        else:
            texts = [",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
        words += [word for text in texts for word in (flags[0], text)]
    if store != options.DEFAULT_STORE:
        words += ["--store", store]
    return shlex.join(words)
