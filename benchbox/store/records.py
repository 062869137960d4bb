"""What reports are made from, wherever it is kept: in a database or in published files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from benchbox.domain import Evidence
from benchbox.store.published import ALL, Published
from benchbox.store.store import Store


class Records(Protocol):
    """The part of a store that is read; `Store` and `Published` have it."""

    def evidence(
        self,
        *,
        dataset: str | None = None,
        defenses: Sequence[str] | None = None,
        keys: Sequence[str] | None = None,
    ) -> list[Evidence]:
        """Cells with what is known of them; None stands for all."""

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


def open_records(place: str | Path) -> Records:
    """Open what is to be read and not written.

    Args:
        place: A store as `Store.open` takes it; a published file, by its ending `.json`; `published` for every
            published file, `published:NAME` for one.

    Raises:
        StoreError: It is not there, or cannot be read.
    """
    text = str(place)
    if text == ALL or text.startswith(f"{ALL}:") or text.endswith(".json"):
        return Published.open(place)
    return Store.open(place, must_exist=True)
