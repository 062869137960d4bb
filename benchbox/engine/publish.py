"""From stores to a published file. Equal contents give equal bytes; `benchbox.store.published` reads it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchbox.analysis.weights import behind
from benchbox.canonical import canonical
from benchbox.domain import Cell, Evidence, SampleList
from benchbox.errors import StoreError
from benchbox.store.packing import pack, pack_predictions, width_of
from benchbox.store.published import FORMAT, Publication

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchbox.store import Records

#: Characters of a field from which on cells refer to it instead of repeating it: digests, recipes.
LONG = 32
#: Of a provenance: whether its commit was said when it was published, and not found where it ran.
SAID = "commit_said_by_publisher"


class Pool:
    """Records, each once, named by their place."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, record: Any) -> int:
        """Where a record is; it is added if it is new."""
        key = canonical(record)
        if key not in self._places:
            self._places[key] = len(self.items)
            self.items.append(record)
        return self._places[key]


def publish(evidence: Sequence[Evidence], records: Records, commit: str = "") -> str:
    """The text of a published file: one line a record.

    Args:
        evidence: The cells to publish, in the order they were measured.
        records: Where they come from: what it knows of their defences, weights and craftings goes with them.
        commit: Said of code whose run could not tell, as where there was no git; the file says who said it.

    Raises:
        StoreError: Two cells disagree about the label of an image.
    """
    press = Press(evidence, commit)
    cells = [press.cell(item) for item in evidence]
    names = sorted({item.cell.defense.name for item in evidence})
    cards = behind(evidence, records.artifacts())
    about = (item.cell for item in evidence)
    subjects = {subject for cell in about for subject in (cell.key, cell.artifact, cell.craft_key)}
    content = {
        "format": FORMAT,
        "defenses": {name: records.recall(f"defense {name}") or {} for name in names},
        "pools": {field: pool.items for field, pool in press.pools.items()},
        "labels": press.packed_labels(),
        "cards": {name: press.card(card) for name, card in cards.items()},
        "attachments": [
            {"subject": subject, "kind": kind, "record": _without_folders(record)}
            for (subject, kind), record in sorted(records.attachments().items(), key=lambda item: item[0])
            if subject in subjects
        ],
        "provenance": press.provenance.items,
        "predictions": press.predictions.items,
        "cells": cells,
    }
    Publication.model_validate(content)
    return _text(content)


class Press:
    """Turns cells into lines, and gathers what they share.

    Args:
        evidence: Every cell of the file: the labels of a sample list and the bits of a class are those of all.
        commit: Said of code whose run could not tell.
    """

    def __init__(self, evidence: Sequence[Evidence], commit: str = "") -> None:
        self._commit = commit
        self.pools = {field: Pool() for field in _pooled(evidence)}
        self.provenance, self.predictions = Pool(), Pool()
        self._labels = _labels(evidence)
        self._width = _widths(evidence)

    def cell(self, item: Evidence) -> dict[str, Any]:
        """The line of a cell."""
        cell, outcome = item.cell, item.outcome
        record = cell.as_dict()
        order = np.argsort(outcome.position)
        row = {
            "key": cell.key,
            "cell": {k: self.pools[k].place(v) if k in self.pools else v for k, v in record.items()},
            "status": item.status,
            "error": item.error,
            "seconds": item.seconds,
            "created": item.created,
            "provenance": self._ran(item.provenance),
            "clean": self._predicted(cell, outcome.clean[order], outcome.label[order]),
            "adversarial": self._predicted(cell, outcome.adversarial[order], outcome.label[order]),
            "linf": float(outcome.linf.max(initial=0)),
            "l2": float(outcome.l2.max(initial=0)),
            "forwards": float(outcome.forwards.sum()),
            "backwards": float(outcome.backwards.sum()),
        }
        if len(outcome) < len(cell.samples):
            row["scored"] = pack(np.isin(np.arange(len(cell.samples)), outcome.position), 1)
        if outcome.certificate is not None:
            row["certified"] = pack(outcome.certificate, 1)
        return row

    def card(self, card: Mapping[str, Any]) -> dict[str, Any]:
        """How some weights were trained; on what machine is said once."""
        return dict(card) | {k: self._ran(v) for k, v in card.items() if k == "provenance"}

    def packed_labels(self) -> list[dict[str, Any]]:
        """Of each sample list of the pool."""
        every = [canonical(samples) for samples in self.pools["samples"].items]
        return [{"width": self._width[key], "classes": pack(self._labels[key], self._width[key])} for key in every]

    def _ran(self, provenance: Mapping[str, Any]) -> int:
        told = {} if provenance.get("commit") or not self._commit else {"commit": self._commit, SAID: True}
        return self.provenance.place({**_portable(provenance), **told})

    def _predicted(self, cell: Cell, predicted: NDArray[np.int64], label: NDArray[np.int64]) -> int:
        right, wrong = pack_predictions(predicted, label, self._width[_list(cell)])
        return self.predictions.place({"draws": predicted.shape[1], "right": right, "wrong": wrong})


def _portable(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Its command without the folders of one machine, which nobody else has."""
    if "command" not in provenance:
        return dict(provenance)
    return {**provenance, "command": [_without_folder(word) for word in provenance["command"]]}


def _without_folder(word: str) -> str:
    flag, equals, value = word.rpartition("=")
    return f"{flag}{equals}{Path(value).name}" if Path(value).is_absolute() else word


def _without_folders(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record that may have a provenance."""
    return dict(record) | {k: _portable(v) for k, v in record.items() if k == "provenance"}


def _pooled(evidence: Iterable[Evidence]) -> list[str]:
    """The fields of cells that are long enough to be said once."""
    every = [item.cell.as_dict().items() for item in evidence]
    return sorted({k for record in every for k, v in record if isinstance(v, dict) or len(str(v)) >= LONG})


def _list(cell: Cell) -> str:
    return _said(cell.samples)


@lru_cache(maxsize=64)
def _said(samples: SampleList) -> str:
    return canonical(samples.as_dict())


def _widths(evidence: Iterable[Evidence]) -> Mapping[str, int]:
    """Bits of a class on each sample list: enough for every label and every prediction."""
    widths: dict[str, int] = {}
    for item in evidence:
        outcome = item.outcome
        own = max(map(width_of, (outcome.label, outcome.clean, outcome.adversarial)))
        widths[_list(item.cell)] = max(own, widths.get(_list(item.cell), 1))
    return widths


def _labels(evidence: Iterable[Evidence]) -> Mapping[str, NDArray[np.int64]]:
    """(N,) true classes of each sample list, by its canonical JSON; 0 where no cell has come to."""
    known: dict[str, NDArray[np.int64]] = {}
    for item in evidence:
        samples, outcome = item.cell.samples, item.outcome
        label = known.setdefault(_list(item.cell), np.full(len(samples), -1))
        before = label[outcome.position]
        wrong = (before >= 0) & (before != outcome.label)
        if wrong.any():
            index = samples.indices[outcome.position[wrong][0]]
            raise StoreError(
                f"cell {item.cell.key[:12]} labels image {index} of {samples.dataset} otherwise than those "
                "before it; the store is damaged: publish from a copy that is not"
            )
        label[outcome.position] = outcome.label
    return {key: label.clip(min=0) for key, label in known.items()}


def _text(content: Mapping[str, Any]) -> str:
    """JSON with a line for each member of each list or object at the second level: it is read in differences."""
    parts = []
    for key, value in content.items():
        if isinstance(value, list):
            lines = [canonical(one) for one in value]
            shown = "[\n" + ",\n".join(lines) + "\n]" if lines else "[]"
        elif isinstance(value, dict):
            lines = [f"{json.dumps(name)}:{canonical(one)}" for name, one in sorted(value.items())]
            shown = "{\n" + ",\n".join(lines) + "\n}" if lines else "{}"
        else:
            shown = json.dumps(value)
        parts.append(f"{json.dumps(key)}:{shown}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
