"""The difference of two runs as a document: which images changed, and what of code and settings differs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from benchbox.analysis.difference import CellDifference, Changes, RunDifference
from benchbox.domain import Cell
from benchbox.report.document import Column, Document, Section, Text, added, grid, listed, unrecorded

#: Columns of the long form. `kind` is environment, setting, image (one that changed) or only (a cell without
#: counterpart); `what` the place of a value, how an image changed, or in which run the cell is.
FIELDS = ("kind", "cell", "key_a", "key_b", "what", "image", "a", "b")
_WON = {"lost": "lost", "won": "won", "otherwise": "another class, right as often"}

#: Characters of a value that are shown.
LONGEST = 400
_DIGEST = re.compile(r"[0-9a-f]{40,}")


class Differing(NamedTuple):
    """A value that differs: where it stands, and what it is in either run."""

    where: str
    a: Any
    b: Any


def columns(found: RunDifference) -> list[Column[CellDifference]]:
    """The columns of the cells. One more is one entry here, for every format."""
    proven: list[Column[CellDifference]] = [
        Column("certified", "certified", lambda cell: _count(cell.certified), recorded=True)
    ]
    return [
        Column("cell", "cell", lambda cell: Text(name(cell.a)), "left", heads=True, recorded=True),
        Column("compared", "images", lambda cell: Text(str(cell.compared)), recorded=True),
        Column("clean", "clean", lambda cell: _count(cell.clean), recorded=True),
        Column("adversarial", "adversarial", lambda cell: _count(cell.adversarial), recorded=True),
        *(proven if any(cell.certified for cell in found.cells) else []),
    ]


def document(found: RunDifference, run_a: int, run_b: int) -> Document:
    """The document of two runs.

    Args:
        found: What differs.
        run_a: Number of the first run.
        run_b: Number of the second.
    """
    own = columns(found)
    values: list[Column[Differing]] = [
        Column("where", "what differs", lambda item: Text(item.where), "left", heads=True),
        Column("a", f"run {run_a}", lambda item: Text(_short(item.a)), "left"),
        Column("b", f"run {run_b}", lambda item: Text(_short(item.b)), "left"),
    ]
    differing = list(_differing(found))
    grids = [grid(own, found.cells)] if found.cells else []
    section = Section(
        f"run {run_a} → run {run_b}",
        [*grids, grid(values, differing)] if differing else grids,
        sentences=list(_sentences(found, run_a, run_b)),
        remarks=["Clean, adversarial: images lost, won, and of another class but right as often."],
    )
    fields = [*FIELDS, *(column.key for column in unrecorded(own))]
    return Document("benchbox diff", [section], lambda: _record(found, own), fields, lambda: _lines(found, own))


def name(cell: Cell) -> str:
    """What a cell is about, in words."""
    through = f" through {cell.view.stand_in}" if cell.view.stand_in else ""
    return f"{cell.defense.name}, {cell.samples.dataset}, {cell.access} {cell.attack.name}{through}, {cell.threat}"


def _differing(found: RunDifference) -> Iterator[Differing]:
    yield from (Differing(f"environment: {where}", *values) for where, values in found.environment.items())
    for cell in found.cells:
        yield from (Differing(f"{name(cell.a)}: {where}", *values) for where, values in cell.settings.items())


def _sentences(found: RunDifference, run_a: int, run_b: int) -> Iterator[str]:
    if not found.environment:
        yield "environment: the same"
    for cell in found.cells:
        for kind, changes in cell.changes.items():
            for what, indices in asdict(changes).items():
                if indices:
                    yield f"{name(cell.a)}: {kind}, {_WON[what]} ({len(indices)}): {listed(indices)}"
    for run, cells in ((run_a, found.only_a), (run_b, found.only_b)):
        yield from (f"only in run {run}: {name(cell)}" for cell in cells)
    changed = [cell for cell in found.cells if any(any(_indices(one)) for one in cell.changes.values())]
    yield f"{len(changed)} of {len(found.cells)} cells changed"


def _indices(changes: Changes) -> Sequence[Sequence[int]]:
    return changes.lost, changes.won, changes.otherwise


def _count(changes: Changes | None) -> Text:
    if changes is None:
        return Text("–")
    counts = [len(indices) for indices in _indices(changes)]
    return Text(" ".join(f"{sign}{n}" for sign, n in zip("−+±", counts, strict=True)) if any(counts) else "same")


def _short(value: Any) -> str:
    """Whole, for the difference may be at its end; of a digest the beginning says that it is another."""
    text = value if isinstance(value, str) else json.dumps(value)
    room = 16 if _DIGEST.fullmatch(text) else LONGEST
    return text if len(text) <= room else f"{text[:room]}…"


def _lines(found: RunDifference, own: Sequence[Column[CellDifference]]) -> Iterator[Mapping[str, Any]]:
    for where, (a, b) in found.environment.items():
        yield {"kind": "environment", "what": where, "a": a, "b": b}
    for cell in found.cells:
        shared = {"cell": name(cell.a), "key_a": cell.a.key, "key_b": cell.b.key, **added(own, cell)}
        for where, (a, b) in cell.settings.items():
            yield {**shared, "kind": "setting", "what": where, "a": a, "b": b}
        for kind, changes in cell.changes.items():
            for what, indices in asdict(changes).items():
                yield from ({**shared, "kind": "image", "what": f"{kind} {what}", "image": i} for i in indices)
        if added(own, cell):
            yield {**shared, "kind": "cell"}
    for key, cells in (("key_a", found.only_a), ("key_b", found.only_b)):
        yield from ({"kind": "only", "cell": name(cell), key: cell.key, "what": key[-1]} for cell in cells)


def _record(found: RunDifference, own: Sequence[Column[CellDifference]]) -> dict[str, Any]:
    return {
        "environment": {path: list(values) for path, values in found.environment.items()},
        "cells": [
            {
                "name": name(cell.a),
                "keys": [cell.a.key, cell.b.key],
                "compared": cell.compared,
                **{kind: asdict(changes) for kind, changes in cell.changes.items()},
                "settings": {path: list(values) for path, values in cell.settings.items()},
                **added(own, cell),
            }
            for cell in found.cells
        ],
        "only_a": [{"name": name(cell), "key": cell.key} for cell in found.only_a],
        "only_b": [{"name": name(cell), "key": cell.key} for cell in found.only_b],
    }
