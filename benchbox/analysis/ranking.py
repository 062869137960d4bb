"""Who stands where: ranks that a difference has to earn, and every row against one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchbox.analysis import pairs, trainings
from benchbox.analysis.score import BOOTSTRAP_SEED
from benchbox.analysis.table import Column, Row, Table, Versus
from benchbox.analysis.worst_case import Halves, correctness
from benchbox.domain import Evidence
from benchbox.errors import RequestError


def ranked(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows with their ranks, best first; rows that cannot be ranked last.

    A row shares the rank of the best of its group unless it is significantly worse (`ranks`). Two rows are
    compared on the attacks that both have finished, so that nobody rises by being attacked less.
    """
    able = [
        row
        for row in rows
        if row.shares is not None
        and not (row.oracle or row.undecided or row.invalid or row.withheld or row.uncontrolled)
    ]
    places = ranks(_Pairs(able))
    rank_of = dict(zip(map(id, able), places, strict=True))
    return tuple(sorted((replace(row, rank=rank_of.get(id(row))) for row in rows), key=_place))


class Pairs(Protocol):
    """Defences that can be compared two by two, by their numbers, each pair on the same terms."""

    def __len__(self) -> int: ...

    def means(self, i: int, j: int) -> tuple[float, float]:
        """Accuracies of both."""

    def p(self, i: int, j: int) -> float:
        """Of no difference between them."""

    def overall(self, i: int) -> float:
        """Accuracy of one on its own terms."""


def ranks(defenses: Pairs) -> list[int]:
    """Ranks from 1, in the order given: who is not significantly worse than the leader shares its rank.

    The leader of a group is, of those without a rank yet, the one whose mean beats the most defences; it is
    compared with each of the others, with Holm's correction over these comparisons.
    """
    everyone = range(len(defenses))
    beaten = [0] * len(everyone)
    for i, j in combinations(everyone, 2):
        one, other = defenses.means(i, j)
        beaten[i] += one > other
        beaten[j] += other > one
    waiting = sorted(everyone, key=lambda i: (-beaten[i], -defenses.overall(i)))
    found = [0] * len(everyone)
    rank = 1
    while waiting:
        group = _alike(defenses, waiting)
        for i in group:
            found[i] = rank
        rank += len(group)
        waiting = [i for i in waiting if i not in group]
    return found


def best(shares: Sequence[NDArray[np.float64]]) -> set[int]:
    """Numbers of the best of some results on the same images: the highest, and all not significantly worse.

    Args:
        shares: (N,) share of draws in which each image is right, one array for each result.
    """
    waiting = sorted(range(len(shares)), key=lambda i: -float(shares[i].mean()))
    return _alike(_Shares(shares), waiting) if waiting else set()


def _alike(defenses: Pairs, waiting: Sequence[int]) -> set[int]:
    """The first of some defences, and those not significantly worse."""
    leader, *others = waiting
    adjusted = pairs.holm([defenses.p(leader, i) for i in others])
    return {leader, *(i for i, p in zip(others, adjusted, strict=True) if p >= pairs.ALPHA)}


class _Shares:
    """Results on the same images, each on its own terms."""

    def __init__(self, shares: Sequence[NDArray[np.float64]]) -> None:
        self._shares = shares

    def __len__(self) -> int:
        return len(self._shares)

    def overall(self, i: int) -> float:
        return float(self._shares[i].mean())

    def means(self, i: int, j: int) -> tuple[float, float]:
        return self.overall(i), self.overall(j)

    def p(self, i: int, j: int) -> float:
        return pairs.significance(self._shares[i], self._shares[j], BOOTSTRAP_SEED).p


class _Pairs:
    """Rows, compared on the attacks that both have finished; each on its own, if they have none in common."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._finished = [row.finished for row in rows]
        self._own = [_percent(row) for row in rows]
        self._halves: dict[int, tuple[Halves, dict[Column, list[int]]]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def overall(self, i: int) -> float:
        return self._own[i]

    def means(self, i: int, j: int) -> tuple[float, float]:
        if (common := self._common(i, j)) is None:
            return self._own[i], self._own[j]
        return float(self._under(i, common).mean()), float(self._under(j, common).mean())

    def p(self, i: int, j: int) -> float:
        if (common := self._common(i, j)) is None:
            one, other = self._rows[i].shares, self._rows[j].shares
            assert one is not None
            assert other is not None
        else:
            one, other = self._under(i, common), self._under(j, common)
        return pairs.significance(one, other, BOOTSTRAP_SEED).p

    def _common(self, i: int, j: int) -> frozenset[Column] | None:
        """The attacks both have finished; None where each stands on its own."""
        if not (self._rows[i].missing or self._rows[j].missing):
            return None
        return self._finished[i] & self._finished[j] or None

    def _under(self, i: int, columns: frozenset[Column]) -> NDArray[np.float64]:
        if i not in self._halves:
            cells: list[Evidence] = []
            places: dict[Column, list[int]] = {}
            for column in self._finished[i]:
                own = [one.evidence for one in self._rows[i].entries[column].measurements]
                places[column] = list(range(len(cells), len(cells) + len(own)))
                cells += own
            self._halves[i] = Halves.of(correctness(cells, with_clean=True)), places
        halves, places = self._halves[i]
        # The clean image comes last.
        chosen = sorted(place for column in columns for place in places[column])
        return halves.worst([*chosen, len(halves.even) - 1])


def _percent(row: Row) -> float:
    return row.robust.percent if row.robust else 0.0


def against(tables: Sequence[Table], name: str) -> list[Table]:
    """The tables with every row compared with one defence.

    Args:
        tables: Those that do not have the defence stay as they are.
        name: Of the defence: its name where one row has it, a row's label, or the first characters of the
            digest of its weights.

    Raises:
        RequestError: No table has such a row, or a table has several.
    """
    found = [_against(table, name) for table in tables]
    if tables and not any(table.against for table in found):
        names = sorted({row.label for table in tables for row in table.rows if row.shares is not None})
        raise RequestError(f"nothing to compare with: no finished row is {name!r}; rows: {', '.join(names)}")
    return found


def _against(table: Table, name: str) -> Table:
    chosen = _chosen(table, name)
    if not chosen:
        return table
    label = chosen[0].label if len(chosen) == 1 else f"{name} (mean of {len(chosen)} trainings)"
    others = [row for row in table.rows if row not in chosen and row.shares is not None]
    compared = dict(zip(map(id, others), _versus(others, chosen), strict=True))
    rows = tuple(replace(row, versus=compared.get(id(row))) for row in table.rows)
    return replace(table, rows=rows, against=label)


def _chosen(table: Table, name: str) -> Sequence[Row]:
    """The row of that name, or every training of it: one recipe with several seeds is one defence."""
    rows = [row for row in table.rows if row.shares is not None]
    for found in (
        [row for row in rows if row.label == name],
        [row for row in rows if row.defense.name == name],
        [row for row in rows if row.artifact.startswith(name)],
    ):
        whole = any(
            len(one.rows) == len(found) and all(r in found for r in one.rows) for one in trainings.repeated(rows)
        )
        if len(found) > 1 and not whole:
            choices = ", ".join(f"{row.artifact[:12]} ({row.label})" for row in found)
            raise RequestError(
                f"{name!r} is {len(found)} rows of {table.title}; name one by its weights: {choices}"
            )
        if found:
            return found
    return ()


def _versus(rows: Sequence[Row], reference: Sequence[Row]) -> list[Versus]:
    base = np.mean([row.shares for row in reference if row.shares is not None], axis=0)
    missing = set().union(*(row.missing for row in reference))
    shares = [row.shares for row in rows if row.shares is not None]
    verdicts = [pairs.significance(one, base, BOOTSTRAP_SEED) for one in shares]
    found = []
    for row, one, verdict, p in zip(rows, shares, verdicts, pairs.holm([v.p for v in verdicts]), strict=True):
        interval = pairs.bootstrap(one, base, BOOTSTRAP_SEED)
        found.append(
            Versus(
                difference=100 * float((one - base).mean()),
                low=100 * interval.low,
                high=100 * interval.high,
                p=p,
                test=verdict.test,
                significant=p < pairs.ALPHA,
                alike=set(row.missing) == missing,
                digits=row.robust.digits if row.robust else 1,
            )
        )
    return found


def _place(row: Row) -> tuple[bool, bool, int, float, str]:
    return row.oracle, row.rank is None, row.rank or 0, -_percent(row), row.label
