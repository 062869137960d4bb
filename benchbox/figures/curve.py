"""Lines with bands: accuracy against the radius, or against a setting of a recipe."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

from benchbox.analysis.curves import balls_said
from benchbox.figures.style import LINES, Drawing, canvas, file_name, percent_axis, wrapped

if TYPE_CHECKING:
    from benchbox.analysis.curves import Curves


def draw(found: Curves, name: str) -> Drawing:
    """Every line of some curves.

    Args:
        found: What to draw.
        name: Of the figure, for its files.
    """
    figure = canvas(4.8, 3.2)
    axes = figure.add_subplot()
    axes.set_title(wrapped(f"{found.samples.dataset}: {found.title}", 46))
    axes.set_xlabel(found.axis)
    axes.set_ylabel("% classified correctly")
    axes.set_ylim(-2, 102)
    percent_axis(axes.yaxis)
    axes.grid(axis="y", color="#eeeeee", zorder=0)
    for line, (colour, marker, dashes) in zip(found.lines, cycle(LINES), strict=False):
        x = [point.x for point in line.points]
        axes.fill_between(
            x,
            [point.score.low for point in line.points],
            [point.score.high for point in line.points],
            color=colour,
            alpha=0.12,
            lw=0,
        )
        y = [point.score.percent for point in line.points]
        axes.plot(
            x, y, color=colour, marker=marker, ls=dashes, label=wrapped(line.label, 26), clip_on=False, zorder=3
        )
    places = sorted({point.x for line in found.lines for point in line.points})
    axes.set_xticks(places, [f"{x:.3g}" for x in places])
    axes.tick_params(axis="x", rotation=45 if len(places) > 6 else 0)
    # Beside the lines: wherever it lay among them, it would hide the point that matters.
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0)
    seeds = ", ".join(map(str, found.seeds))
    caption = (
        f"{found.title}, against {found.axis}; {found.samples.dataset}, {balls_said(found.balls)}.",
        f"n = {len(found.samples)} {found.samples.split} images, training seed {seeds}, attack seed "
        f"{', '.join(map(str, found.attack_seeds))}.",
        "Points: share of all images that are classified correctly clean and under every attack named; bands: "
        "95 % intervals. A point is left out where one of the attacks of its line is not finished, or where it "
        "would be of several trainings.",
    )
    return Drawing(file_name(name, found.samples.dataset, found.title), figure, caption)
