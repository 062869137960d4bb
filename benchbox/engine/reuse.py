"""What was found out about an image on one sample list holds on every other that has it.

An image's fate is its own: its draws depend on the seed, the purpose and its index in the data set, never on its
company. So a cell of 60 images takes over the 30 of an earlier one, and the other way round.
"""

from __future__ import annotations

import numpy as np

from benchbox.data.dataset import Dataset
from benchbox.domain import Cell, SampleList
from benchbox.engine import gradients
from benchbox.engine import secret as secrets
from benchbox.store import Store


def take_over(store: Store, cell: Cell, dataset: Dataset, secret: str | None = None) -> int:
    """Give a cell what cells that differ in nothing but their sample list know of its images.

    Args:
        store: Where both lie; the cell has been added.
        cell: What is about to be run.
        dataset: The images of today. What was found out about others with the same name is left alone.
        secret: What the run names draws under, as far as that is settled. What was scored under another is left
            alone.

    Returns:
        How many images the cell got.
    """
    place = {index: position for position, index in enumerate(cell.samples.indices)}
    missing = len(place) - len(store.positions(cell))
    taken = 0
    for other in store.siblings(cell) if missing else ():
        if taken == missing:
            break
        shared = [(i, place[index]) for i, index in enumerate(other.samples.indices) if index in place]
        if shared and _is_of(dataset, other.samples) and secrets.join(store, cell, other, secret):
            source, target = np.array(shared).T
            taken += store.take_over(cell, other, source, target)
            gradients.inherit(store, cell, other)
    return taken


def _is_of(dataset: Dataset, samples: SampleList) -> bool:
    """Whether the images of a list are what the data set has at its indices."""
    images = dataset.split(samples.split)
    if max(samples.indices) >= len(images):
        return False
    return images.rows(list(samples.indices)).digest == samples.digest
