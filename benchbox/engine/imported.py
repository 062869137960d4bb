"""Adversarial images made elsewhere, scored on a trained defence of ours and stored as a cell."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchbox import provenance
from benchbox.contract.attack import Crafted, measured
from benchbox.domain import TOLERANCE, Access, Cell, SampleList, Spec, ThreatModel, ViewSpec
from benchbox.engine import device, exchange, secret
from benchbox.engine.judge import Streams
from benchbox.engine.plan import Request, ball, kind
from benchbox.engine.unit import adversarials
from benchbox.errors import ArtifactError, DefenseError
from benchbox.training.artifacts import Artifacts, Training

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from benchbox.data.dataset import Dataset
    from benchbox.engine.exchange import AdversarialFile
    from benchbox.engine.judge import Judge
    from benchbox.engine.session import Session
    from benchbox.store import Store
    from benchbox.training.loop import Progress

#: In place of the model the attacker was given: nobody here knows it.
UNKNOWN = ViewSpec("unknown")


def score_file(
    session: Session, store: Store, file: AdversarialFile, request: Request, origin: str
) -> tuple[list[Cell], list[str]]:
    """Check the images of a file, score them on the deployed defence in fresh draws, and store the outcome.

    Args:
        session: Where defences and data come from.
        store: Where outcomes go. What is stored already is not scored again.
        file: The images.
        request: One defence, one data set, the samples, the ball, the training seeds: one cell for each.
        origin: Where the images come from, for the tables.

    Returns:
        The cells, and what their way through a file has cost images that came out of this store.

    Raises:
        DataError: The images are not what they have to be; nothing is stored then.
        ArtifactError: The defence is not trained yet.
        RequestError: A name, a field or a value does not fit.
        DefenseError: The defence broke its contract.
    """
    dataset, samples = session.dataset(request.dataset), session.samples(request)
    threat = ball(request, dataset)
    x_adv = _checked(file, dataset, samples, threat)
    name, planner = request.defenses[0], session.planner()
    # Given weights are the same whatever the seed.
    found = [planner.training(name, dataset, seed, request.overrides, request.norm) for seed in request.seeds]
    trainings = list({training.digest: training for training in found}.values())
    for training in trainings:
        _check_trained(session, training)
    attack = Spec(f"imported:{origin}", {"file_sha256": file.sha256, "origin": origin}, "imported")
    cells = [_cell(session, request, training, attack, threat, samples) for training in trainings]
    record = provenance.collect(device.describe(device.choose(session.settings.device)))
    run = store.begin_run({**request.as_dict(), "attacks": [attack.name]}, record)
    bench = session.bench(request.dataset, store, _silent, record, len(samples))
    try:
        for cell, training in zip(cells, trainings, strict=True):
            _note_kind(session, store, training)
            store.add_cell(cell, run)
            try:
                judge = bench.judge(training)
                if judge.defense.randomized:
                    secret.note(store, cell, judge.secret)
                _fill(cell, session, store, judge, x_adv)
            except DefenseError as error:
                store.fail(cell, str(error))
                raise
    except BaseException:
        store.finish_run(run, "failed")
        raise
    store.finish_run(run, "done")
    return cells, [line for cell in cells for line in _strength(cell, store, x_adv)]


def _checked(
    file: AdversarialFile, dataset: Dataset, samples: SampleList, threat: ThreatModel
) -> NDArray[np.float32]:
    rows = exchange.rows_of(file, samples, len(dataset.test))
    x, y = dataset.test.batch(samples.indices)
    exchange.check_labels(file, rows, y.numpy())
    x_adv = exchange.images(file, rows, dataset.spec)
    rounded = exchange.is_rounded(x_adv)
    slack = exchange.slack(x_adv, threat) if rounded else 0.0
    exchange.check(x_adv, x.numpy(), np.array(samples.indices), threat, slack)
    return threat.project(torch.from_numpy(x_adv), x).numpy() if rounded else x_adv


def _strength(cell: Cell, store: Store, x_adv: NDArray[np.float32]) -> Iterator[str]:
    """What rounding to 8 bits has cost images that came out of this store."""
    after = 100 * float(store.evidence(keys=[cell.key])[0].outcome.robust.mean())
    for other in store.evidence(dataset=cell.samples.dataset):
        its = other.cell
        alike = (its.artifact, its.samples, its.threat) == (cell.artifact, cell.samples, cell.threat)
        if not alike or its.access is Access.IMPORTED or other.status != "done":
            continue
        crafted = store.crafted(its.craft_key, np.arange(len(its.samples)))
        if crafted is None or np.abs(crafted.x - x_adv).max() > 0.5 / 255 + TOLERANCE:
            continue
        before = 100 * float(other.outcome.robust.mean())
        kept = "to the bit" if np.array_equal(crafted.x, x_adv) else "rounded to 8 bits"
        yield (
            f"these are the images of cell {its.key[:12]} ({its.attack.name}, {its.access}), {kept}: "
            f"{before:.1f} % robust there, {after:.1f} % here"
        )


def _check_trained(session: Session, training: Training | None) -> None:
    artifacts = Artifacts(session.settings.artifacts)
    for step in training.chain if training else ():
        if step.source is None and step.weights not in artifacts:
            raise ArtifactError(
                f"no trained {step.defense.name} with this recipe and seed {step.seed} in {artifacts.folder}; "
                f"make it with benchbox train --defense {step.defense.name} --dataset {step.dataset}, or give the "
                "--set it was trained with"
            )


def _cell(
    session: Session,
    request: Request,
    training: Training,
    attack: Spec,
    threat: ThreatModel,
    samples: SampleList,
) -> Cell:
    randomized = session.defenses.get(training.defense.name).cls.is_randomized(training.defense.arguments)
    return Cell(
        defense=training.defense,
        artifact=training.digest,
        attack=attack,
        access=Access.IMPORTED,
        view=UNKNOWN,
        threat=threat,
        samples=samples,
        training_seed=training.seed,
        attack_seed=request.attack_seed,
        scoring_draws=request.scoring_draws if randomized else 1,
    )


def _fill(cell: Cell, session: Session, store: Store, judge: Judge, x_adv: NDArray[np.float32]) -> None:
    """Score what is missing, in the same draws as the runner would."""
    dataset, where = session.dataset(cell.samples.dataset), device.choose(session.settings.device)
    todo, size = np.setdiff1d(np.arange(len(cell.samples)), store.positions(cell)), judge.layout.batch
    for positions in (todo[start : start + size] for start in range(0, len(todo), size)):
        start = time.perf_counter()
        indices = [cell.samples.indices[p] for p in positions]
        x, y = (t.to(where) for t in dataset.test.batch(indices))
        streams = Streams(indices, cell.attack_seed, where)
        nobody_counted = torch.zeros(len(y), dtype=torch.float64)
        attacked = torch.from_numpy(x_adv[positions]).to(where)
        crafted = Crafted(
            attacked,
            torch.full((len(y),), -1),
            nobody_counted,
            nobody_counted,
            distance=measured(attacked, x, cell.threat),
        )
        outcome = judge.outcome(positions, x, y, crafted, streams, cell)
        images = adversarials(cell, positions, x, crafted)
        store.commit_batch(cell, outcome, seconds=time.perf_counter() - start, crafted=images)


def _note_kind(session: Session, store: Store, training: Training) -> None:
    name = training.defense.name
    store.remember(f"defense {name}", kind(session.defenses.get(name).cls, training))


def _silent(training: Training, progress: Progress) -> None:
    """Nothing is trained here."""
