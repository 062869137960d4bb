"""What reports are made from, wherever it is kept: in a database or in published files."""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol, Self, Unpack

import numpy as np

from benchbox.domain import Evidence
from benchbox.store.published import Published, shelf
from benchbox.store.store import Store
from benchbox.store.which import Which

#: Name in place of a store's: every published file of the workspace and of this installation.
ALL = "published"


class Records(Protocol):
    """The part of a store that is read; `Store`, `Published` and `United` have it."""

    def evidence(self, **which: Unpack[Which]) -> list[Evidence]:
        """Cells with what is known of them; all by default."""

    def artifacts(self) -> dict[str, Mapping[str, Any]]:
        """How weights were trained, by digest."""

    def recall(self, key: str) -> Any:
        """A small value that was kept, None if it was not."""

    def attached(self, subject: str, kind: str) -> Mapping[str, Any] | None:
        """A record about a cell or about weights, None if there is none."""

    def attachments(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        """Every such record."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class United:
    """Several records read as one.

    A cell is heard from whoever has finished it, else from whoever has most of its images, and of those that have
    as much of it from one that knows what is proven; of equals, and for everything else, the one named first is
    heard. A recipe that two parts have trained, and that came out differently, makes two defences of one name:
    of these the first that was scored is heard alone.

    Args:
        parts: What is united, by the name messages call it.
        retrained: Whether cells of another training than the first are heard after all.
    """

    def __init__(self, parts: Mapping[str, Records], *, retrained: bool = False) -> None:
        self._parts = parts
        self._unheard = {} if retrained else self._trained_otherwise()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *what: object) -> None:
        for part in self._parts.values():
            part.__exit__(*what)

    def evidence(self, **which: Unpack[Which]) -> list[Evidence]:
        """As `Store.evidence`: the cells of the first part, then those that the second adds, and so on."""
        heard: dict[str, Evidence] = {}
        for name, part in self._parts.items():
            for item in part.evidence(**which):
                if not self._hears(name, item.cell.artifact):
                    continue
                known = heard.setdefault(item.cell.key, item)
                if _progress(item) > _progress(known) or _proves_more(item, known):
                    heard[item.cell.key] = item
        return list(heard.values())

    def disputed(self) -> dict[str, list[str]]:
        """Keys of cells that a part has finished with other predictions than the one that is heard, by part."""
        heard = {item.cell.key: item for item in self.evidence()}
        found = {
            name: [
                item.cell.key
                for item in part.evidence()
                if self._hears(name, item.cell.artifact) and _contradicts(item, heard[item.cell.key])
            ]
            for name, part in self._parts.items()
        }
        return {name: keys for name, keys in found.items() if keys}

    def unheard(self) -> dict[str, list[Evidence]]:
        """Cells whose weights came out differently than in the part that is heard, by part."""
        return {
            name: [item for item in self._parts[name].evidence() if item.cell.artifact in digests]
            for name, digests in self._unheard.items()
        }

    def _hears(self, part: str, digest: str) -> bool:
        return digest not in self._unheard.get(part, ())

    def _trained_otherwise(self) -> dict[str, set[str]]:
        """Digests of weights by the parts that are not heard of them: the first that has scored them is."""
        cards = {name: part.artifacts() for name, part in self._parts.items()}
        known: dict[str, dict[str, Mapping[str, Any]]] = {}
        for name, own in cards.items():
            for digest, card in own.items():
                known.setdefault(digest, {})[name] = card
        contested = {
            digest: by_part
            for digest, by_part in known.items()
            if not all(is_same_training(card, other) for card, other in combinations(by_part.values(), 2))
        }
        found: dict[str, set[str]] = {}
        scored = {name: _scored(part) for name, part in self._parts.items()} if contested else {}
        for digest, by_part in contested.items():
            heard = next((name for name in by_part if digest in scored[name]), next(iter(by_part)))
            for name, card in by_part.items():
                if not is_same_training(by_part[heard], card):
                    found.setdefault(name, set()).add(digest)
        return found

    def artifacts(self) -> dict[str, Mapping[str, Any]]:
        """As `Store.artifacts`."""
        every = (
            {digest: card for digest, card in part.artifacts().items() if self._hears(name, digest)}
            for name, part in self._parts.items()
        )
        return dict(ChainMap(*every))

    def recall(self, key: str) -> Any:
        """As `Store.recall`."""
        return _first(part.recall(key) for part in self._parts.values())

    def attached(self, subject: str, kind: str) -> Mapping[str, Any] | None:
        """As `Store.attached`."""
        found: Mapping[str, Any] | None = _first(
            part.attached(subject, kind) for name, part in self._parts.items() if self._hears(name, subject)
        )
        return found

    def attachments(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        """As `Store.attachments`."""
        every = (
            {key: record for key, record in part.attachments().items() if self._hears(name, key[0])}
            for name, part in self._parts.items()
        )
        return dict(ChainMap(*every))


def left_out(records: Records, fits: Callable[[Evidence], bool]) -> Iterator[str]:
    """A line for each part that has cells of another training than what is heard, if any of them fits."""
    if isinstance(records, United):
        for part, others in records.unheard().items():
            if names := sorted({item.cell.defense.name for item in others if fits(item)}):
                yield (
                    f"left out: cells of {part} whose weights are of another training of one recipe than the "
                    f"first that was scored, of {', '.join(names)}; train it with another --seeds, and it has a "
                    "row of its own"
                )


def _scored(part: Records) -> set[str]:
    return {item.cell.artifact for item in part.evidence()}


def is_same_training(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two cards of one recipe may be of one training, which ends with the same losses to the bit."""
    ends = [json.dumps(card.get("losses", [])[-1:], sort_keys=True) for card in (one, other)]
    return ends[0] == ends[1] or "[]" in ends


def open_records(*places: str | Path, retrained: bool = False) -> Records:
    """Open what is to be read and not written.

    Args:
        places: Stores as `Store.open` takes them; published files, by their ending `.json`; `published` for every
            published file, `published:NAME` for one. Several are read as one, see `United`.
        retrained: As `United` takes it.

    Raises:
        StoreError: One is not there, or cannot be read.
    """
    parts: dict[str, Records] = {}
    for place in map(str, places):
        parts |= _opened(place)
    return next(iter(parts.values())) if len(parts) == 1 else United(parts, retrained=retrained)


def _opened(place: str) -> Mapping[str, Records]:
    if place == ALL or place.startswith(f"{ALL}:"):
        return {str(file): Published.open(file) for file in shelf(place.removeprefix(ALL).removeprefix(":"))}
    return {place: Published.open(Path(place)) if place.endswith(".json") else Store.open(place, must_exist=True)}


def _proves_more(item: Evidence, known: Evidence) -> bool:
    """Whether one of two that are as far has a certificate, which the other lacks."""
    if item is known or _progress(item) != _progress(known):
        return False
    return item.outcome.certificate is not None and known.outcome.certificate is None


def _progress(item: Evidence) -> tuple[bool, int]:
    return item.status == "done", len(item.outcome)


def _contradicts(one: Evidence, other: Evidence) -> bool:
    if one.status != "done" or other.status != "done" or one is other:
        return False
    pairs = ((getattr(one.outcome, name), getattr(other.outcome, name)) for name in ("clean", "adversarial"))
    return not all(np.array_equal(ours, theirs) for ours, theirs in pairs)


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)
