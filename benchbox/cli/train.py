"""`benchbox train`: defences ahead of their attacks."""

from __future__ import annotations

from typing import Annotated

from benchbox.cli import options
from benchbox.cli.command import command
from benchbox.cli.console import Interrupted, errors, output
from benchbox.engine.request import Grid


@command(
    "benchbox train --defense pssr --dataset mnist --seeds 0,1,2",
    "benchbox train --defense pgd-at --set pgd-at.epochs=5 --device cuda",
)
def train(
    asked: Annotated[Grid, ("defenses", "datasets", "seeds", "overrides", "weights", "grid")],
    work: options.Training,
    isolate: options.Isolate = False,
    quiet: options.Quiet = False,
) -> None:
    """Train defences and everything they build on, and print where their weights lie.

    A training that was stopped continues where it was half a minute before. Processes with one store train each
    defence once. `benchbox run` trains by itself; this is for training on another machine or at another time.
    """
    session = work.session(asked, isolate=isolate)
    from benchbox.progress import describe_training, watcher
    from benchbox.store import Store
    from benchbox.training.artifacts import Artifacts

    wanted = {key: step for one in asked.requests() for key, step in session.trainings(one).items()}
    artifacts = Artifacts(session.settings.artifacts)
    for step in wanted.values():
        there = step.source is not None or step.weights in artifacts
        try:
            with Store.open(session.settings.store) as opened, watcher(None if quiet else errors(), 0) as observer:
                session.train([step], opened, observer)
        except KeyboardInterrupt:
            raise Interrupted(
                f"{describe_training(step)} is stored up to half a minute ago; the same command continues"
            ) from None
        words = "was there already" if there else "trained"
        output().print(
            f"{describe_training(step)}: {words}, {step.source or artifacts.path(step.weights)}", soft_wrap=True
        )
