"""Requests that were carried out to the end: asked again, they are answered without loading torch or a plug-in.

A request is known again by its words, by the time stamps of benchbox's own files and by the versions of what they
use. Only requests whose cells hang on nothing else are kept: built-in plug-ins, data sets of the catalogue or the
data folder. What else is asked for, or was edited meanwhile, is planned anew, as ever.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import benchbox
from benchbox import provenance
from benchbox.canonical import digest
from benchbox.data.catalogue import KNOWN
from benchbox.domain import Access, Evidence

if TYPE_CHECKING:
    from benchbox.contract.registry import Registry
    from benchbox.engine.request import Grid
    from benchbox.store import Store


def name_of(asked: Grid, registries: Sequence[Registry[Any]], data_folder: Path) -> str | None:
    """What a request is remembered as; None where its words alone do not say what it is about.

    Args:
        asked: The request.
        registries: The defences and the attacks.
        data_folder: Where data sets lie; a file there counts before the catalogue.
    """
    own = [file for name in asked.datasets if (file := data_folder / f"{name}.npz").is_file()]
    nowhere = {*asked.datasets} - KNOWN.keys() - {file.stem for file in own}
    if nowhere or asked.weights or not all(registry.is_built_in for registry in registries):
        return None
    record = [one.as_dict() for one in asked.requests()]
    if any(_may_be_a_file(text) for text in _texts(record)):
        return None
    return f"finished {digest([record, [*map(_stamp, own), *_files(registries)], provenance.packages()])}"


def note(store: Store, name: str, keys: Sequence[str], said: Sequence[str]) -> None:
    """Keep which cells a request came to, and what its user was told of the images."""
    store.remember(name, {"cells": list(keys), "said": list(said)})


def answer(store: Store, name: str) -> tuple[list[Evidence], list[str]] | None:
    """The evidence of a request and what its user is to be told; None unless all of it is there."""
    kept = store.recall(name)
    if kept is None:
        return None
    evidence = store.evidence(keys=kept["cells"])
    is_whole = len(evidence) == len(kept["cells"]) > 0 and all(
        item.status == "done"
        and (item.cell.access is not Access.TRANSFER or store.attached(item.cell.key, "transfer") is not None)
        for item in evidence
    )
    return (evidence, kept["said"]) if is_whole else None


def _may_be_a_file(text: str) -> bool:
    return bool({"/", "\\"} & set(text)) or ".py" in text


def _texts(record: Any) -> Iterator[str]:
    """Every text in a record."""
    if isinstance(record, dict):
        for key, value in record.items():
            yield from (*_texts(key), *_texts(value))
    elif isinstance(record, list | tuple):
        for value in record:
            yield from _texts(value)
    elif isinstance(record, str):
        yield record


def _files(registries: Sequence[Registry[Any]]) -> Iterator[tuple[str, int, int]]:
    """Benchbox's own code: a stamp of every file."""
    folders = {*benchbox.__path__, *(folder for registry in registries for folder in registry.folders())}
    for top in sorted(folders):
        for folder, _, names in os.walk(top):
            for name in sorted(names):
                if name.endswith(".py"):
                    yield _stamp(os.path.join(folder, name))


def _stamp(path: str | Path) -> tuple[str, int, int]:
    status = os.stat(path)
    return str(path), status.st_size, status.st_mtime_ns
