"""Two defences on the same images: every attack both have, the worst case over them, and who is better.

Evidence in, records out; no database and no tensors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchbox.analysis import access, labels, pairs, shared_images, welch
from benchbox.analysis.background import NOTHING, Background
from benchbox.analysis.comparison import Comparison, Pair, Scope, Side
from benchbox.analysis.control import Control, hold
from benchbox.analysis.probed import Probed
from benchbox.analysis.score import BOOTSTRAP_SEED, measure
from benchbox.analysis.selection import Ground, listed, named, trainings
from benchbox.analysis.table import Column
from benchbox.analysis.worst_case import (
    by_draws,
    clean_correct,
    correctness,
    fallen,
    is_finished,
    is_null,
    worst_case,
)
from benchbox.domain import Access, Evidence
from benchbox.errors import RequestError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    #: For each training, the (N, R) arrays of correctness that its worst case is over.
    Arrays = Sequence[Sequence[NDArray[np.bool_]]]


def compare(
    evidence: Sequence[Evidence],
    a: str,
    b: str,
    *,
    attacks: Collection[str] = (),
    known: Background = NOTHING,
) -> list[Comparison]:
    """Compare two defences on every (sample list, ball) that both were scored on, else on what their lists share.

    Args:
        evidence: What the store holds, finished or not.
        a: Name of the first defence, or the first characters of the digest of its weights.
        b: Likewise of the second.
        attacks: Names of the attacks to compare under; empty for all that both have.
        known: What was noted of the defences: which purify, and what their audits broke.

    Raises:
        RequestError: A name is unknown or stands for several recipes, both names are one defence, or the two
            share no image or no finished result.
    """
    purify = access.purifiers(evidence, known.purifiers)
    first, second = named(evidence, a), named(evidence, b)
    begun = shared_images.shared(first, second)
    if not begun:
        raise RequestError(
            f"{a} and {b} have no image in common in one ball: {a} on {listed(first)}; {b} on {listed(second)}; "
            "run one of them on the other's images and radius"
        )
    grounds = shared_images.shared(first, second, partial(_is_scored, attacks=attacks))
    if not grounds:
        for name, cells in [(a, one.a) for one in begun] + [(b, one.b) for one in begun]:
            trainings(name, cells)  # of several recipes one has to be named first
        raise RequestError(f"{a} and {b} have no finished result to compare yet; finish both with `benchbox run`")
    found = []
    for one in grounds:
        asked = [
            _Asked(
                _called(name, cells, evidence),
                trainings(name, cells),
                cells,
                cells[0].cell.defense.name in purify,
                attacks,
                known,
            )
            for name, cells in ((a, one.a), (b, one.b))
        ]
        found.append(replace(_Bench(asked[0], asked[1]).comparison(one.ground), lists=one.lists))
    return _adjusted(found)


def _called(name: str, cells: Sequence[Evidence], evidence: Sequence[Evidence]) -> str:
    """A side in tables: by the name of its defence, with a few digits of its weights where that is of several."""
    own = cells[0].cell
    if own.defense.name == name:
        return name
    known = {e.cell.artifact for e in evidence if e.cell.defense.name == own.defense.name}
    return own.defense.name if len(known) == 1 else f"{own.defense.name} ({own.artifact[:8]})"


def _attacked(evidence: Sequence[Evidence], attacks: Collection[str]) -> list[Evidence]:
    """The cells of the attacks that are asked for."""
    return [e for e in evidence if not is_null(e) and (not attacks or e.cell.attack.name in attacks)]


def _is_scored(evidence: Sequence[Evidence], attacks: Collection[str]) -> bool:
    """Whether every training has a finished cell of these attacks, so that there is something to test."""
    scored = {e.cell.artifact for e in _attacked(evidence, attacks) if is_finished(e)}
    return scored == {e.cell.artifact for e in evidence}


class _Training(NamedTuple):
    """The finished cells of one training, all of them and by column, and what its audit broke."""

    cells: Sequence[Evidence]
    columns: dict[Column, list[Evidence]]
    probed: Probed | None


@dataclass(frozen=True)
class _Asked:
    """One of the two defences, as it was asked for."""

    name: str
    trained: Mapping[int, str]
    evidence: Sequence[Evidence]
    purifier: bool
    attacks: Collection[str]
    known: Background

    @property
    def chosen(self) -> list[Evidence]:
        """Its attacked cells; those with the most scoring draws first also speak for the clean images."""
        return sorted(_attacked(self.evidence, self.attacks), key=by_draws)

    def controls(self) -> Iterator[Control]:
        """What the null attack says of each training."""
        for artifact in self.trained.values():
            own = sorted((e for e in self.evidence if e.cell.artifact == artifact), key=by_draws)
            reference, dice = next(filter(is_finished, own), None), bool(access.randomized(own))
            control = hold([measure(e) for e in own if is_null(e)], reference, randomized=dice)
            if control is not None:
                yield control

    def trainings(self, departs: Mapping[str, str]) -> list[_Training]:
        """The finished cells, training by training; a column counts when every cell of it is finished."""
        found = []
        for artifact in self.trained.values():
            columns: dict[Column, list[Evidence]] = defaultdict(list)
            for item in (own := [e for e in self.chosen if e.cell.artifact == artifact]):
                label = labels.labelled(item.cell.attack.name, departs[item.cell.attack.identity])
                columns[Column(item.cell.access, label)].append(item)
            done = {column: items for column, items in columns.items() if all(map(is_finished, items))}
            probed = self.known.probed(own[0].cell) if own and not self.attacks else None
            found.append(_Training([e for e in own if is_finished(e)], done, probed))
        return found


class _Bench:
    """The two sides on one ground."""

    def __init__(self, a: _Asked, b: _Asked) -> None:
        if set(a.trained.values()) & set(b.trained.values()):
            raise RequestError(f"{a.name} and {b.name} are the same trained defence; name two different ones")
        departs = labels.departures([e.cell.attack for asked in (a, b) for e in asked.chosen])
        self.asked = (a, b)
        self.trained = (a.trainings(departs), b.trainings(departs))
        for i, other in ((0, 1), (1, 0)):
            if self.asked[other].purifier and not self.asked[i].purifier:
                _same_model(self.trained[i], self._columns(other))
        both = sorted(self._columns(0) & self._columns(1), key=lambda column: column.place)
        self.common = {column: seeds for column in both if (seeds := self._attack_seeds(column))}

    def comparison(self, ground: Ground) -> Comparison:
        """Every comparison on this ground, not yet corrected for one another."""
        indices = np.array(ground.samples.indices)
        pairs = [_pair(*parts, indices) for parts in self._parts()]
        sides = [self._side(0), self._side(1)]
        return Comparison(*ground, sides[0], sides[1], tuple(pairs), tuple(self.common), 0)

    def _side(self, side: int) -> Side:
        asked = self.asked[side]
        return Side(
            asked.name,
            asked.evidence[0].cell.defense,
            asked.trained,
            asked.purifier,
            controls=tuple(asked.controls()),
            unfinished=sum(not is_finished(item) for item in asked.chosen),
            alone=tuple(self._others(side)),
            fallen=sum(fallen(one.cells, one.probed) for one in self.trained[side] if one.cells),
        )

    def _parts(self) -> Iterator[tuple[Scope, Column | None, Arrays, Arrays]]:
        """What is compared with what."""
        clean = [[[clean_correct(one.cells[0])] for one in own] for own in self.trained]
        yield "clean", None, clean[0], clean[1]
        if not self.common:
            return
        union = [[correctness(_cells(one, self.common), with_clean=True) for one in own] for own in self.trained]
        yield "common worst case", None, union[0], union[1]
        if any(self._others(side) for side in (0, 1)) or any(one.probed for own in self.trained for one in own):
            every = [
                [correctness(one.cells, with_clean=True, probed=one.probed) for one in own] for own in self.trained
            ]
            yield "own worst case", None, every[0], every[1]
        for column, shared in self.common.items():
            under = [[correctness(_cells(one, {column: shared})) for one in own] for own in self.trained]
            yield "attack", column, under[0], under[1]

    def _columns(self, side: int) -> set[Column]:
        """Those that every training of a side has."""
        return set.intersection(*(set(one.columns) for one in self.trained[side]))

    def _attack_seeds(self, column: Column) -> set[int]:
        """Those that every training of both sides was attacked with: more restarts are a stronger attack."""
        return set.intersection(
            *({e.cell.attack_seed for e in one.columns[column]} for own in self.trained for one in own)
        )

    def _others(self, side: int) -> list[Column]:
        """Columns with finished cells that the other side has nothing to set against."""
        found = []
        for one in self.trained[side]:
            used = {item.cell.key for item in _cells(one, self.common)}
            found += [c for c, items in one.columns.items() if any(item.cell.key not in used for item in items)]
        return sorted(set(found), key=lambda column: column.place)


def _pair(scope: Scope, column: Column | None, a: Arrays, b: Arrays, indices: NDArray[np.int64]) -> Pair:
    """One comparison, not yet corrected for the others."""
    shares = [np.stack([worst_case(arrays) for arrays in side]) for side in (a, b)]
    first, second = (side.mean(axis=0) for side in shares)
    accuracy = [tuple(map(float, side.mean(axis=1))) for side in shares]
    discordance = float(((first - second) ** 2).mean())
    right, other = first > 0.5, second > 0.5
    verdict = pairs.significance(first, second, BOOTSTRAP_SEED)
    pair = Pair(
        scope=scope,
        column=column,
        a=accuracy[0],
        b=accuracy[1],
        difference=float((first - second).mean()),
        interval=pairs.bootstrap(first, second, BOOTSTRAP_SEED),
        p=verdict.p,
        test=verdict.test,
        unit="sample",
        discordance=discordance,
        detectable=pairs.detectable(len(first), discordance),
        only_a=tuple(indices[right & ~other].tolist()),
        only_b=tuple(indices[other & ~right].tolist()),
    )
    if min(map(len, accuracy)) < welch.ENOUGH:
        return pair
    spread = welch.welch(*accuracy)
    # Trainings that all came out alike (clean accuracies do) leave the images as the only spread.
    return replace(pair, **spread._asdict(), test="Welch's t", unit="training seed") if spread else pair


def _adjusted(found: Sequence[Comparison]) -> list[Comparison]:
    """With Holm's correction over every test of every comparison."""
    tests = [pair.p for one in found for pair in one.pairs]
    corrected = iter(pairs.holm(tests))
    return [
        replace(
            one,
            family=len(tests),
            pairs=tuple(replace(pair, p_holm=next(corrected)) for pair in one.pairs),
        )
        for one in found
    ]


def _same_model(trained: Sequence[_Training], wanted: Collection[Column]) -> None:
    """Let a defence without purifier answer for the accesses that are one model to its attacker.

    Args:
        trained: Its trainings, whose columns are added to.
        wanted: The columns of a purifier.
    """
    for one in trained:
        for column in wanted:
            own = one.columns.get(Column(Access.WHITE_BOX, column.attack), [])
            if access.is_same_model(column.access, own) and column not in one.columns:
                one.columns[column] = own


def _cells(trained: _Training, columns: Mapping[Column, set[int]]) -> list[Evidence]:
    """The cells of some columns, each once, with the attack seeds that count."""
    found = (
        item
        for column, shared in columns.items()
        for item in trained.columns[column]
        if item.cell.attack_seed in shared
    )
    return list({item.cell.key: item for item in found}.values())
