"""Features on a plane: a point an image, a colour and a number a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchbox.figures.style import CLASSES, INK, Drawing, bare, canvas

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 1.9


def draw(
    name: str,
    title: str,
    rows: Sequence[tuple[str, Sequence[NDArray[np.float32]]]],
    columns: Sequence[str],
    label: NDArray[np.int64],
    caption: tuple[str, ...],
) -> Drawing:
    """A panel for each model and kind of image.

    Args:
        name: Of the files.
        title: Above the figure.
        rows: Model and its (N, 2) points, one for each column.
        columns: Kinds of images.
        label: (N,) classes.
        caption: Sentences.
    """
    figure = canvas(SIDE * len(columns) + 0.4, SIDE * len(rows) + 0.4)
    figure.suptitle(title, x=0.01, ha="left", weight="bold", size=9)
    panels = figure.subplots(len(rows), len(columns), squeeze=False)
    for i, (model, clouds) in enumerate(rows):
        for j, points in enumerate(clouds):
            axes = panels[i, j]
            bare(axes)
            for spine in axes.spines.values():
                spine.set_visible(True)
                spine.set_color("#dddddd")
            axes.scatter(*points.T, s=5, c=[CLASSES[k % len(CLASSES)] for k in label], lw=0)
            for k in np.unique(label):
                x, y = np.median(points[label == k], axis=0)
                box = {"boxstyle": "circle,pad=0.15", "fc": "white", "ec": CLASSES[k % len(CLASSES)], "lw": 0.8}
                axes.text(x, y, str(k), size=6, ha="center", va="center", color=INK, bbox=box)
            if i == 0:
                axes.set_title(columns[j], size=8, weight="normal", loc="center")
            if j == 0:
                axes.set_ylabel(model)
    return Drawing(name, figure, caption)
