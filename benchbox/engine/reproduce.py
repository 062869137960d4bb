"""A part of published results, computed again: the same weights' recipe, the same attack, the same images, fewer.

What an image comes to depends on its index and the seeds alone, so a part of the list says the same as the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchbox.domain import Access, Evidence, SampleList, Spec, ThreatModel
from benchbox.engine import secret as secrets
from benchbox.engine.plan import Plan, Request
from benchbox.errors import DataError, RequestError, unknown
from benchbox.training.artifacts import Artifacts, Training
from benchbox.training.lesson import Lesson

if TYPE_CHECKING:
    from benchbox.data.dataset import Dataset
    from benchbox.engine.session import Session
    from benchbox.store import Records


@dataclass(frozen=True)
class Part:
    """What is computed again.

    Attributes:
        published: The cells, cut to the images.
        plans: What computes them, one a data set.
        left_out: What cannot be computed again, one sentence each.
        notes: What may make a difference, one sentence each.
        secret: What the draws of randomised defences were named under.
    """

    published: tuple[Evidence, ...]
    plans: tuple[Plan, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    secret: str = secrets.OPEN


def part(session: Session, records: Records, row: str, samples: int) -> Part:
    """Choose what to compute again.

    Args:
        session: Plug-ins and data sets.
        records: The published results.
        row: Name of a defence, or the first characters of the digest of its weights.
        samples: How many images of each list, from its beginning.

    Raises:
        RequestError: There is no such row, or nothing of it can be computed again.
        DataError: The images here are not those that were scored.
    """
    every = records.evidence()
    chosen = [e for e in every if e.cell.defense.name == row or (len(row) > 5 and e.cell.artifact.startswith(row))]
    if not chosen:
        raise unknown("row", row, {e.cell.defense.name for e in every}, "name a defence of the file")
    cards = records.artifacts()
    left_out = {e.cell.key: why for e in chosen if (why := _obstacle(e, cards))}
    kept = [e for e in chosen if e.cell.key not in left_out]
    if not kept:
        raise RequestError(f"nothing of {row} can be computed again: {next(iter(left_out.values()))}")
    lists = {
        e.cell.samples: _shorter(session.dataset(e.cell.samples.dataset), e.cell.samples, samples) for e in kept
    }
    published = tuple(cut(item, lists[item.cell.samples]) for item in kept)
    trainings = {
        name: training_of(cards[name]["training"])
        for name in dict.fromkeys(name for e in kept for name in (e.cell.artifact, e.cell.view.artifact))
    }
    plans = tuple(
        _plan([e for e in published if e.cell.samples.dataset == dataset], dataset, trainings)
        for dataset in dict.fromkeys(e.cell.samples.dataset for e in published)
    )
    notes = [note for wanted in trainings.values() for note in _trained_on(session, wanted)]
    notes += _code(session, kept)
    said = [f"{_cell(e)}: {left_out[e.cell.key]}" for e in chosen if e.cell.key in left_out]
    secret = secrets.recorded(records, [e.cell.key for e in kept])
    return Part(published, plans, tuple(said), tuple(dict.fromkeys(notes)), secret)


def cut(item: Evidence, samples: SampleList) -> Evidence:
    """A cell as it would be on the first images of its list."""
    outcome, n = item.outcome, len(samples)
    rows = outcome.position < n
    kept = outcome.rows(rows)
    status = item.status if item.status == "failed" else "done" if rows.sum() == n else "partial"
    return replace(item, cell=replace(item.cell, samples=samples), outcome=kept, status=status)


def training_of(record: Mapping[str, Any]) -> Training:
    """Inverse of `Training.as_dict`."""
    return Training(
        defense=Spec(**record["defense"]),
        dataset=record["dataset"],
        images=record["images"],
        seed=record["seed"],
        threat=ThreatModel(**record["threat"]),
        base=training_of(record["base"]) if record["base"] else None,
        trained_as=training_of(record["trained_as"]) if record.get("trained_as") else None,
        teacher=training_of(record["teacher"]) if record.get("teacher") else None,
        lesson=Lesson(**record["lesson"]) if record.get("lesson") else None,
    )


def _plan(published: Sequence[Evidence], dataset: str, trainings: Mapping[str, Training]) -> Plan:
    cells = tuple(item.cell for item in published)
    request = Request(defenses=tuple(dict.fromkeys(c.defense.name for c in cells)), datasets=(dataset,))
    needed = dict.fromkeys(name for cell in cells for name in (cell.artifact, cell.view.artifact))
    return Plan(request, cells, {step.digest: step for name in needed for step in trainings[name].chain})


def _shorter(dataset: Dataset, samples: SampleList, n: int) -> SampleList:
    """The first images of a list, once it is sure that they are the same images."""
    images = dataset.split(samples.split)
    if max(samples.indices) >= len(images) or images.rows(samples.indices).digest != samples.digest:
        raise DataError(
            f"the {samples.split} images of {samples.dataset} here are not those that were scored "
            f"(SHA-256 {samples.digest[:12]}…); name the folder of the others with --data-dir"
        )
    first = samples.indices[:n]
    return replace(samples, indices=first, digest=images.rows(first).digest)


def _obstacle(item: Evidence, cards: Mapping[str, Mapping[str, Any]]) -> str:
    """Why a cell cannot be computed again; empty if it can."""
    cell = item.cell
    if cell.access is Access.IMPORTED:
        return "its images were made elsewhere"
    if item.status == "failed" or not len(item.outcome):
        return f"it was never finished ({item.error or item.status})"
    for name in (cell.artifact, cell.view.artifact):
        if name not in cards:
            return "its weights came from a file, which the results do not hold"
        if training_of(cards[name]["training"]).digest != name:
            return f"the training on record is not the one that weights {name[:12]} are named by"
    return ""


def _trained_on(session: Session, wanted: Training) -> list[str]:
    if session.dataset(wanted.dataset).train.digest == wanted.images:
        return []
    return [f"{wanted.dataset} has other training images here: a {wanted.defense.name} trained now is another one"]


def _code(session: Session, evidence: Sequence[Evidence]) -> list[str]:
    notes = []
    for item in evidence:
        defense, attack = item.cell.defense, item.cell.attack
        now = item.cell.threat.code(session.attacks.get(attack.name).code)
        for spec, here in ((defense, session.defenses.get(defense.name).code), (attack, now)):
            if here != spec.code:
                notes.append(f"{spec.name} was {spec.code} when it was published and is {here} here")
    return notes


def _cell(item: Evidence) -> str:
    cell = item.cell
    return f"{cell.access} {cell.attack.name}{f' through {cell.view.stand_in}' if cell.view.stand_in else ''}"


def weights(plans: Sequence[Plan], artifacts: Artifacts) -> tuple[list[Training], list[Training]]:
    """The trainings whose weights are here, and those that have to be made."""
    every = {name: training for plan in plans for name, training in plan.trainings.items()}
    here = [training for training in every.values() if training.weights in artifacts]
    return here, [training for training in every.values() if training.weights not in artifacts]
