"""Who stands where: ranks that a difference has to earn, and every row against one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchbox.analysis import pairs, trainings
from benchbox.analysis.score import BOOTSTRAP_SEED
from benchbox.analysis.table import Row, Table, Versus
from benchbox.errors import RequestError


def ranked(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows with their ranks, best first; rows that cannot be ranked last.

    A row shares the rank of the best of its group unless it is significantly worse (`pairs.ranks`). Two rows are
    compared on the attacks that both have finished, so that nobody rises by being attacked less.
    """
    able = [
        row
        for row in rows
        if row.shares is not None
        and not (row.oracle or row.undecided or row.invalid or row.withheld or row.uncontrolled)
    ]
    places = pairs.ranks(
        [row.shares for row in able if row.shares is not None],
        BOOTSTRAP_SEED,
        lambda i, j: _on_common_attacks(able[i], able[j]),
    )
    rank_of = dict(zip(map(id, able), places, strict=True))
    return tuple(sorted((replace(row, rank=rank_of.get(id(row))) for row in rows), key=_place))


def _on_common_attacks(one: Row, other: Row) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of both, per sample, over the attacks that both have finished; over its own, if they have none."""
    assert one.shares is not None
    assert other.shares is not None
    common = one.finished & other.finished
    if not common or not (one.missing or other.missing):
        return one.shares, other.shares
    return one.shares_under(common), other.shares_under(common)


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
    percent = row.robust.percent if row.robust else 0.0
    return row.oracle, row.rank is None, row.rank or 0, -percent, row.label
