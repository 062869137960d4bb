"""Accuracies side by side: what an attack leaves as a whole, and what its parts leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from benchbox.figures.style import LINES, Drawing, canvas, percent_axis

if TYPE_CHECKING:
    from benchbox.analysis.score import Score


def draw(
    name: str, title: str, scores: Mapping[str, Mapping[str, Score]], clean: Score, caption: tuple[str, ...]
) -> Drawing:
    """Dots with 95 % intervals.

    Args:
        name: Of the files.
        title: Above the figure.
        scores: By attack and by part of it.
        clean: Of the images as they are, as a line.
        caption: Sentences.
    """
    figure = canvas(1.6 + 0.9 * len(scores) + 1.2, 2.8)
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_ylabel("% classified correctly")
    axes.set_ylim(-2, 102)
    axes.set_xlim(-0.6, len(scores) - 0.4)
    percent_axis(axes.yaxis)
    axes.grid(axis="y", color="#eeeeee", zorder=0)
    axes.axhline(clean.percent, color="#777777", lw=1, ls=(0, (4, 2)), label="clean images")
    parts = list(next(iter(scores.values())))
    for i, part in enumerate(parts):
        colour, marker, _ = LINES[(1, 0, 2)[i % 3]]
        places = [k + 0.22 * (i - (len(parts) - 1) / 2) for k in range(len(scores))]
        for k, (x, found) in enumerate(zip(places, scores.values(), strict=True)):
            score = found[part]
            axes.plot([x, x], [score.low, score.high], color=colour, lw=2.2, alpha=0.55, solid_capstyle="butt")
            word = f"{part} attack" if k == 0 else None
            axes.plot(
                [x], [score.percent], marker, color=colour, mec="white", mew=0.5, ms=7, label=word, clip_on=False
            )
    axes.set_xticks(range(len(scores)), list(scores))
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0)
    return Drawing(name, figure, caption)
