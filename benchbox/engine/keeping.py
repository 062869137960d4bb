"""Trained weights that go with published results: from beside a store to beside the file, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchbox.engine.reproduce import training_of
from benchbox.engine.session import artifacts_folder
from benchbox.store.published import shelf
from benchbox.store.records import ALL, is_same_training
from benchbox.training.artifacts import Artifacts


def folders(place: str) -> Iterator[Path]:
    """Where the weights of results lie, which are named as `open_records` takes them."""
    if place == ALL or place.startswith(f"{ALL}:"):
        files = shelf(place.removeprefix(ALL).removeprefix(":"))
        yield from {Path(str(file)).parent / "artifacts": None for file in files}
    else:
        yield artifacts_folder(place)


def keep(cards: Mapping[str, Mapping[str, Any]], sources: Iterable[Path], target: Path) -> tuple[str, ...]:
    """Copy weights, as they were trained, into a folder that may have some of them.

    Args:
        cards: Of the weights that are wanted, by digest.
        sources: Folders of weights, the first that has them is heard.
        target: Where they go. Nothing that lies there is written over.

    Returns:
        The digests of those that no source has, or of which the target has another training.

    Raises:
        ArtifactError: A file is damaged, or the folder cannot be written.
    """
    there, known = Artifacts(target), [Artifacts(folder) for folder in sources]
    return tuple(name for name, card in cards.items() if not _kept(card, known, there))


def _kept(card: Mapping[str, Any], sources: Iterable[Artifacts], target: Artifacts) -> bool:
    if "training" not in card:
        return False  # cards of the first schema do not say what they are of
    key = training_of(card["training"]).weights
    if (own := target.card(key)) is not None:
        return is_same_training(own, card)
    for source in sources:
        if (found := source.card(key)) is not None and is_same_training(found, card):
            target.receive(key, source.path(key).read_bytes())
            return True
    return False
