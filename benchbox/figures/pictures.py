"""Images in rows: each on its way through an attack and a defence, with what the classifier sees in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchbox.figures.style import Drawing, bare, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from benchbox.figures.specimens import Stage

#: Inches: side of an image, and room for the words above and below.
SIDE, WORDS, MARGIN = 0.82, 0.26, 0.35


def draw(
    name: str,
    title: str,
    stages: Sequence[Stage],
    label: NDArray[np.int64],
    names: Sequence[str],
    caption: tuple[str, ...],
) -> Drawing:
    """One row an image, one column a stage; with Grad-CAM over the stages that have it.

    Args:
        name: Of the files.
        title: Above the figure.
        stages: Columns.
        label: (N,) true classes.
        names: (K,) what the classes are called.
        caption: Sentences.
    """
    n = len(label)
    width = max(SIDE * len(stages) * 1.12 + 0.3, 4.2)
    figure = canvas(width, (SIDE + WORDS) * n + MARGIN + 0.25)
    figure.suptitle(title, x=0.01, ha="left", weight="bold", size=9)
    grid = figure.subplots(n, len(stages), squeeze=False)
    for row in range(n):
        for column, stage in enumerate(stages):
            axes = grid[row, column]
            _image(axes, stage, row)
            if row == 0:
                axes.set_title(stage.name, size=7.5, weight="normal", loc="center")
            if stage.predicted is not None and stage.confidence is not None:
                _word(axes, names[stage.predicted[row]], stage.confidence[row], stage.predicted[row] == label[row])
        grid[row, 0].set_ylabel(names[label[row]], rotation=0, ha="right", va="center", labelpad=6)
    return Drawing(name, figure, caption)


def _image(axes: Axes, stage: Stage, row: int) -> None:
    bare(axes)
    picture = stage.images[row]
    shown = picture[0] if len(picture) == 1 else np.moveaxis(picture, 0, -1)
    axes.imshow(shown, vmin=0, vmax=1, interpolation="nearest", cmap="gray")
    if stage.heat is not None:
        # Cividis reads the same with and without red-green vision; the image stays visible below it.
        axes.imshow(stage.heat[row], vmin=0, vmax=1, cmap="cividis", alpha=0.6, interpolation="bilinear")
    for spine in axes.spines.values():
        # A white image on white paper needs an edge.
        spine.set_visible(True)
        spine.set_color("#bbbbbb")
        spine.set_linewidth(0.5)


def _word(axes: Axes, name: str, confidence: float, right: bool) -> None:
    colour = "#007a5a" if right else "#c24e00"
    axes.set_xlabel(f"{'✓' if right else '✗'} {name} ({100 * confidence:.0f} %)", color=colour, size=7, labelpad=2)
