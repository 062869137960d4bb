"""The images that two defences have in common where their sample lists differ: a comparison is over these.

An image's fate is its own, whatever list it was scored on (`benchbox.engine.reuse`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from benchbox.analysis.selection import Ground
from benchbox.canonical import digest
from benchbox.domain import Evidence, SampleList

Grounded = Mapping[Ground, Sequence[Evidence]]


class Shared(NamedTuple):
    """What two defences were both scored on.

    Attributes:
        ground: The images and the ball.
        a: Evidence of the first defence on it.
        b: Of the second.
        lists: The sample lists that the images are common to, the first defence's first; empty for one list.
    """

    ground: Ground
    a: Sequence[Evidence]
    b: Sequence[Evidence]
    lists: tuple[SampleList, ...] = ()


def shared(
    first: Grounded, second: Grounded, counts: Callable[[Sequence[Evidence]], bool] = lambda items: True
) -> list[Shared]:
    """What both defences were scored on, with the evidence of each.

    The same lists in the same balls. Where a ball has none, its two lists with the most images in common, cut down
    to these; lists whose labels disagree are of other images under the same name, and have none in common.

    Args:
        first: Of one defence, by what it was scored on.
        second: Of the other.
        counts: Whether some evidence of one defence, on one list, is worth comparing: a list that was only begun
            must not stand before one that is finished.
    """
    both = (Shared(ground, first[ground], second[ground]) for ground in first if ground in second)
    same = [one for one in both if counts(one.a) and counts(one.b)]
    settled = {_place(one.ground) for one in same}
    best: dict[object, Shared] = {}
    for a in first:
        for b in second:
            place = _place(a)
            if place != _place(b) or place in settled:
                continue
            found = _cut(a, first[a], b, second[b])
            if not found or not (counts(found.a) and counts(found.b)):
                continue
            if place not in best or len(found.ground.samples) > len(best[place].ground.samples):
                best[place] = found
    return [*same, *best.values()]


def _place(ground: Ground) -> object:
    return ground.samples.dataset, ground.samples.split, ground.threat


def _cut(a: Ground, own: Sequence[Evidence], b: Ground, other: Sequence[Evidence]) -> Shared | None:
    """Both sides on the images of both lists; None if there are none."""
    indices = tuple(sorted({*a.samples.indices} & {*b.samples.indices}))
    if not indices or not _agree([*own, *other]):
        return None
    # The digest of the images is not known here; the two lists and what is taken of them stand for it.
    name = digest([a.samples.digest, b.samples.digest, indices])
    samples = SampleList(a.samples.dataset, a.samples.split, indices, name)
    sides = [[on(samples, item) for item in items] for items in (own, other)]
    return Shared(Ground(samples, a.threat), sides[0], sides[1], (a.samples, b.samples))


def _agree(items: Sequence[Evidence]) -> bool:
    """Whether every image has one label."""
    labels: dict[int, int] = {}
    for item in items:
        for position, label in zip(item.outcome.position.tolist(), item.outcome.label.tolist(), strict=True):
            if labels.setdefault(item.cell.samples.indices[position], label) != label:
                return False
    return True


def on(samples: SampleList, item: Evidence) -> Evidence:
    """What a cell says of some of its images."""
    place = {index: position for position, index in enumerate(samples.indices)}
    found = [place.get(item.cell.samples.indices[position], -1) for position in item.outcome.position.tolist()]
    new = np.array(found, np.int64)
    kept = np.flatnonzero(new >= 0)
    outcome = item.outcome.rows(kept, position=new[kept])
    cell = replace(item.cell, samples=samples)
    if item.status == "partial" and len(outcome) == len(samples):
        return replace(item, cell=cell, outcome=outcome, status="done")
    return replace(item, cell=cell, outcome=outcome)
