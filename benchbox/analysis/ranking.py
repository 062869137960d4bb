"""Who stands where: ranks that a difference has to earn, and every row against one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchbox.analysis import pairs, trainings
from benchbox.analysis.all_pairs import p_values, ranks
from benchbox.analysis.score import BOOTSTRAP_SEED
from benchbox.analysis.selection import PREFIX
from benchbox.analysis.table import Column, Row, Table, Versus
from benchbox.analysis.worst_case import correctness, worst_case
from benchbox.domain import Evidence
from benchbox.errors import RequestError


def ranked(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows with their ranks, best first; rows that cannot be ranked last.

    A rank rests on the number printed beside it, the worst case over everything that the row has finished: one
    more than the number of rows that are significantly more robust (`all_pairs.ranks`). Nobody rises by being
    attacked less: a row counts as more robust than another only if it is so on the attacks that both have
    finished, too.
    """
    able = [
        row
        for row in rows
        if row.shares is not None
        and not (row.oracle or row.undecided or row.invalid or row.withheld or row.uncontrolled or row.lacking)
    ]
    own = np.array([row.shares for row in able])
    places = ranks(np.array([_percent(row) for row in able]), _on_common_terms(able, p_values(own)))
    rank_of = dict(zip(map(id, able), places, strict=True))
    return tuple(sorted((replace(row, rank=rank_of.get(id(row))) for row in rows), key=_place))


def best(shares: Sequence[NDArray[np.float64]]) -> set[int]:
    """Numbers of the best of some results on the same images: those that no other is significantly better than.

    Args:
        shares: (N,) share of draws in which each image is right, one array for each result.
    """
    if not shares:
        return set()
    every = np.stack(shares)
    return {i for i, rank in enumerate(ranks(every.mean(axis=1), p_values(every))) if rank == 1}


def _on_common_terms(rows: Sequence[Row], p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p, raised where a difference rests on attacks that the better row was spared.

    Both have to differ in the same direction on everything and on what they have in common: the larger p of the
    two is that of both together (Berger 1982, intersection-union).
    """
    terms = [_Terms(row) for row in rows]
    for i, better in enumerate(terms):
        for j, worse in enumerate(terms):
            if better.mean > worse.mean and p[i, j] < pairs.ALPHA and _was_spared(better.row, worse.row):
                common = worse.row.finished & better.row.finished
                images = _probed_in_both(better.row, worse.row)
                shares = np.stack([better.under(common, images), worse.under(common, images)])
                ahead = shares[0].mean() > shares[1].mean()
                p[i, j] = p[j, i] = max(p[i, j], p_values(shares)[0, 1]) if ahead else 1.0
    return p


def _was_spared(better: Row, worse: Row) -> bool:
    """Whether the worse row was attacked, or probed by an audit, where the better one was not."""
    if worse.finished - better.finished:
        return True
    return worse.probed is not None and bool((worse.probed.asked & ~_probed_in_both(better, worse)).any())


def _probed_in_both(one: Row, other: Row) -> NDArray[np.bool_]:
    """(N,) whether the audits of both rows probed the image."""
    assert one.shares is not None
    both = np.ones(len(one.shares), bool)
    for row in (one, other):
        both &= False if row.probed is None else row.probed.asked
    return both


class _Terms:
    """A row, and its worst case over some of its attacks."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.mean = _percent(row)
        self._under: dict[tuple[frozenset[Column], bytes], NDArray[np.float64]] = {}

    def under(self, columns: frozenset[Column], images: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(N,) share of draws in which each image survives what is common to two rows.

        Args:
            columns: The attacks that count, beside the clean image.
            images: (N,) those on which the probes of its audit count.
        """
        key = columns, images.tobytes()
        if key not in self._under:
            arrays, places = self._all
            chosen = [arrays[place] for place in sorted(p for column in columns for p in places[column])]
            probes = self.row.probed.on(images) if self.row.probed is not None else []
            # The clean image comes last.
            self._under[key] = worst_case([*chosen, *probes, arrays[-1]])
        return self._under[key]

    @cached_property
    def _all(self) -> tuple[list[NDArray[np.bool_]], dict[Column, list[int]]]:
        cells: list[Evidence] = []
        places: dict[Column, list[int]] = {}
        for column in self.row.finished:
            own = [one.evidence for one in self.row.entries[column].measurements]
            places[column] = list(range(len(cells), len(cells) + len(own)))
            cells += own
        return correctness(cells, with_clean=True), places


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
        [row for row in rows if len(name) >= PREFIX and row.artifact.startswith(name)],
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
