"""Published results: one JSON file that answers as a store does, without a database.

The file keeps what every number can be computed from again: for each image the predicted class on the clean and on
the adversarial image in every scoring draw. What repeats is kept once, in `pools`, and referred to by its place.
Distances and passes are kept as one figure a cell: `Outcome` gets the largest distance and the mean passes for
each of its images, and no forward pass at which an image fell. `benchbox.engine.publish` writes the file; its
JSON Schema, published.schema.json beside this module, is that of `Publication`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache, cached_property, lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchbox.canonical import digest
from benchbox.domain import DECLARED, Cell, Evidence, SampleList
from benchbox.errors import StoreError, unknown
from benchbox.store.packed import Packed
from benchbox.store.packing import unpack, unpack_predictions
from benchbox.store.which import Which

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from numpy.typing import NDArray

#: What a file of this format begins with; raised when the meaning of a field changes.
FORMAT = "benchbox-published/1"
#: Outcomes that are kept unpacked.
KEPT = 64
#: Where a workspace keeps its published files.
FOLDER = Path("results/published")


class Predictions(BaseModel):
    """Predicted classes of some images in R draws, relative to their labels.

    Attributes:
        draws: R.
        right: Base64 of N · R bits, row by row: whether the class is the label.
        wrong: Base64 of the classes that are not, `width` bits each, in the same order.
    """

    model_config = ConfigDict(extra="forbid")

    draws: int = Field(ge=1)
    right: str
    wrong: str


class Labels(BaseModel):
    """True classes of a sample list.

    Attributes:
        width: Bits of a class.
        classes: Base64 of one class an image, in the order of the list; 0 for an image that nobody scored.
    """

    model_config = ConfigDict(extra="forbid")

    width: int = Field(ge=1, le=32)
    classes: str


class PublishedCell(BaseModel):
    """A cell and what came of it.

    Attributes:
        key: SHA-256 of the cell; checked when the file is read.
        cell: Its fields; those that have a pool by their place in it.
        status: As in the store.
        error: Why it failed, if it did.
        seconds: What its batches took.
        created: When it was added, ISO 8601, UTC.
        provenance: Place in the pool.
        scored: Base64 of one bit an image of the list, where not all are scored.
        clean: Place in `predictions`.
        adversarial: Likewise.
        linf: Largest change of a pixel over the scored images.
        l2: Largest Euclidean length of a change.
        forwards: Forward passes of all scored images together.
        backwards: Backward passes likewise.
        certified: Base64 of one bit a scored image, whether the defence proves it, where it was asked.
    """

    model_config = ConfigDict(extra="forbid")

    key: str = Field(pattern="^[0-9a-f]{64}$")
    cell: dict[str, Any]
    status: Literal["done", "partial", "failed"]
    error: str = ""
    seconds: float
    created: str
    provenance: int = Field(ge=0)
    scored: str | None = None
    clean: int = Field(ge=0)
    adversarial: int = Field(ge=0)
    linf: float
    l2: float
    forwards: float
    backwards: float
    certified: str | None = None


class Attachment(BaseModel):
    """A record about a cell or about weights: an audit, how well images transferred."""

    model_config = ConfigDict(extra="forbid")

    subject: str
    kind: str
    record: dict[str, Any]


class Publication(BaseModel):
    """A whole file.

    Attributes:
        format: `benchbox-published/1`.
        defenses: What the store remembers of each defence, by name.
        pools: What repeats, by field.
        labels: One for each sample list of the pool.
        provenance: Code, packages, machine and command of each run.
        cards: How weights were trained, by digest; `provenance` is a place in the pool.
        attachments: Audits and the like.
        predictions: What `clean` and `adversarial` refer to.
        cells: In the order they were measured.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal["benchbox-published/1"]
    defenses: dict[str, dict[str, Any]]
    pools: dict[str, list[Any]]
    labels: list[Labels]
    provenance: list[dict[str, Any]]
    cards: dict[str, dict[str, Any]]
    attachments: list[Attachment]
    predictions: list[Predictions]
    cells: list[PublishedCell]


class Published:
    """A published file, read as a store.

    Args:
        file: What is in it.
        name: What messages call it.
    """

    def __init__(self, file: Publication, name: str) -> None:
        self._file, self._name = file, name

    @classmethod
    def open(cls, file: Traversable) -> Self:
        """Read a file.

        Raises:
            StoreError: It is not there or no published result.
        """
        return cls(_read(file, str(file)), str(file))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def evidence(self, **which: Unpack[Which]) -> list[Evidence]:
        """As `Store.evidence`."""
        dataset, defenses, keys = which.get("dataset"), which.get("defenses"), which.get("keys")
        return [
            item
            for item in self._evidence
            if dataset in (None, item.cell.samples.dataset)
            and (defenses is None or item.cell.defense.name in defenses)
            and (keys is None or item.cell.key in keys)
        ]

    def artifacts(self) -> dict[str, Mapping[str, Any]]:
        """As `Store.artifacts`."""
        return {name: {**card, **self._trained_on(card)} for name, card in self._file.cards.items()}

    def _trained_on(self, card: Mapping[str, Any]) -> Mapping[str, Any]:
        place = card.get("provenance")
        return {"provenance": self._file.provenance[place]} if isinstance(place, int) else {}

    def artifact(self, digest: str) -> Mapping[str, Any] | None:
        """As `Store.artifact`."""
        return self.artifacts().get(digest)

    def recall(self, key: str) -> Any:
        """As `Store.recall`; of what a store remembers, only what it knows of defences is published."""
        kind, _, name = key.partition(" ")
        return self._file.defenses.get(name) if kind == "defense" else None

    def attached(self, subject: str, kind: str) -> Mapping[str, Any] | None:
        """As `Store.attached`."""
        return self._attachments.get((subject, kind))

    def attachments(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        """As `Store.attachments`."""
        return self._attachments

    @cached_property
    def _attachments(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        return {(one.subject, one.kind): one.record for one in self._file.attachments}

    @cached_property
    def _evidence(self) -> list[Evidence]:
        return list(_cells(self._file, self._name))


def shelf(name: str = "") -> list[Traversable]:
    """The published files: those of the workspace, then those of this installation that have other names.

    Args:
        name: The one of this name, without its ending; all by default.

    Raises:
        StoreError: There is none.
    """
    found: dict[str, Traversable] = {}
    for folder in (FOLDER, files("benchbox.plugins.published")):
        if folder.is_dir():
            for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
                if file.name.endswith(".json"):
                    found.setdefault(file.name.removesuffix(".json"), file)
    if name and name not in found:
        raise StoreError(str(unknown("published result", name, found, "`benchbox publish` writes one")))
    if not found:
        raise StoreError(f"nothing is published in {FOLDER}; write it with `benchbox publish NAME`")
    return [found[name]] if name else list(found.values())


def _read(file: Traversable, name: str) -> Publication:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"cannot read {name}: {error.strerror}; check the path") from None
    except ValueError as error:
        raise StoreError(f"{name} is no JSON ({error}); take the file from where it was published") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        said = record.get("format") if isinstance(record, dict) else None
        raise StoreError(
            f"{name} is no published result of this benchbox (format {said!r}); `benchbox publish` writes one"
        )
    try:
        return Publication.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StoreError(f"{name}: {where} does not fit: {first['msg']}; publish it again") from None


def _cells(file: Publication, name: str) -> Iterator[Evidence]:
    reader = _Reader(file)
    for place, row in enumerate(file.cells):
        try:
            yield reader.evidence(place)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise StoreError(f"{name}: cell {row.key[:12]} cannot be read ({reason}); publish it again") from None
        except StoreError as error:
            raise StoreError(f"{name}: cell {row.key[:12]}: {error}") from None


class _Reader:
    """Unpacks the cells of a file, and again when somebody looks at an image; what is shared nobody writes to."""

    def __init__(self, file: Publication) -> None:
        self._file = file
        self._list = cache(lambda place: SampleList.from_dict(file.pools["samples"][place]))
        self._images = lru_cache(KEPT)(self._unpacked_images)
        self._predicted = lru_cache(KEPT)(self._unpacked_predictions)
        self._arrays = lru_cache(KEPT)(self._unpacked)

    def evidence(self, place: int) -> Evidence:
        """A cell and what came of it, by its place in the file."""
        row = self._file.cells[place]
        pools = self._file.pools
        record = {name: pools[name][v] if name in pools else v for name, v in row.cell.items()}
        # A field that this benchbox gives another meaning has another key: then the number is about another thing.
        if digest({name: value for name, value in record.items() if name not in DECLARED}) != row.key:
            raise StoreError("its key is not that of what it says; take the file from where it was published")
        cell = Cell.from_dict(record, self._list(row.cell["samples"]))
        position, _ = self._images(row.cell["samples"], len(cell.samples), row.scored)
        outcome = Packed.of(partial(self._arrays, place), len(position), measured=False)
        # Now: a file that cannot be unpacked is refused as a whole.
        _ = outcome.gist
        known = self._file.provenance[row.provenance]
        run = row.provenance + 1
        return Evidence(cell, outcome, row.status, row.error, row.seconds, run, row.created, known)

    def _unpacked(self, place: int) -> Mapping[str, NDArray[Any]]:
        row = self._file.cells[place]
        images = row.cell["samples"], len(self._list(row.cell["samples"])), row.scored
        position, label = self._images(*images)
        n = len(position)
        proven = {} if row.certified is None else {"certified": unpack(row.certified, 1, n).astype(bool)}
        return {
            "position": position,
            "label": label,
            "clean": self._predicted(row.clean, *images),
            "adversarial": self._predicted(row.adversarial, *images),
            "first_success": np.broadcast_to(np.int64(-1), n),
            "linf": np.broadcast_to(np.float64(row.linf), n),
            "l2": np.broadcast_to(np.float64(row.l2), n),
            "forwards": _spread(row.forwards, n),
            "backwards": _spread(row.backwards, n),
            **proven,
        }

    def _unpacked_images(
        self, samples: int, n: int, scored: str | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(N,) positions that are scored, and their true classes."""
        labels = self._file.labels[samples]
        label = unpack(labels.classes, labels.width, n)
        position = np.arange(n) if scored is None else np.flatnonzero(unpack(scored, 1, n))
        return position, label[position]

    def _unpacked_predictions(self, place: int, samples: int, n: int, scored: str | None) -> NDArray[np.int64]:
        kept = self._file.predictions[place]
        _, label = self._images(samples, n, scored)
        return unpack_predictions(kept.right, kept.wrong, label, kept.draws, self._file.labels[samples].width)


def _spread(total: float, n: int) -> NDArray[np.float64]:
    """(n,) that sum to a total: whole numbers where the total is one, so that the mean is exactly what it was."""
    if n == 0 or total != int(total):
        return np.broadcast_to(np.float64(total / n if n else 0.0), n)
    each, more = divmod(int(total), n)
    if more == 0:
        return np.broadcast_to(np.float64(each), n)
    return np.where(np.arange(n) < more, each + 1.0, float(each))


def schema() -> str:
    """The JSON Schema of a file, as it is committed."""
    return json.dumps(Publication.model_json_schema(), indent=1, sort_keys=True) + "\n"
