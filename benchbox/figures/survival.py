"""What the claim survives: the accuracy of one defence under every access and attack, and what its paper claims.

Drawn for the eye before the mind: the accesses stand in the order of what the attacker knows, each dot hangs from
the line of the claim by the distance that it has fallen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchbox.analysis.survival import ORDER, survivals
from benchbox.domain import Access
from benchbox.figures.style import (
    ACCESS_COLOURS,
    ACCESS_MARKERS,
    INK,
    Drawing,
    ball,
    canvas,
    file_name,
    percent_axis,
    style,
    svg,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchbox.analysis.survival import Claim, Dot, Survival
    from benchbox.analysis.table import Table

#: What each access means, in as many words as fit beside it.
MEANINGS = {
    Access.WHITE_BOX: "the attacker knows the whole defence",
    Access.BPDA: "likewise, through stand-ins for its gradient",
    Access.TRANSFER: "knows a substitute, trained alike",
    Access.GRAY_BOX: "knows the classifier, not the defence",
    Access.IMPORTED: "images made elsewhere",
}
#: Inches.
WIDTH, LINE, MARGINS = 6.3, 0.19, 0.95
#: Rows that a page has pictures for.
MOST = 60


def draw(found: Survival) -> Drawing:
    """The picture of one defence on one list of images inside one ball."""
    lines = list(_lines(found.dots))
    figure = canvas(WIDTH, LINE * (len(lines) + 2) + MARGINS)
    axes = figure.add_subplot()
    of = f"the claim of {found.label}" if found.claim is not None else found.label
    axes.set_title(wrapped(f"What {of} survives", 52))
    axes.set_xlim(-2, 102)
    axes.set_ylim(len(lines) - 0.4, -3.2)
    percent_axis(axes.xaxis)
    axes.set_xlabel(f"% of all images classified correctly ({found.setting})")
    axes.spines["left"].set_visible(False)
    axes.tick_params(left=False)
    axes.grid(axis="x", color="#eeeeee", zorder=0)
    if found.claim is not None:
        _claim(axes, found.claim, len(lines))
    named = [(y, dot) for y, dot in ((-2, found.clean), (-1, found.worst)) if dot is not None]
    for y, dot in named:
        _dot(axes, y, dot, found, INK, "X" if dot is found.worst else "o")
        _number(axes, y, (dot,))
    for y, line in enumerate(lines):
        if line.access is not None:
            axes.axhspan(y - 0.5, y + 0.5 + line.below, color=ACCESS_COLOURS[line.access], alpha=0.08, lw=0)
            said = f"{line.access}: {MEANINGS[line.access]}"
            axes.text(-1, y, said, color=ACCESS_COLOURS[line.access], weight="bold", va="center", size=7.5)
        for dot in line.dots:
            _dot(axes, y, dot, found, ACCESS_COLOURS[dot.access], ACCESS_MARKERS[dot.access])
        _number(axes, y, line.dots)
    ticks = [*((y, dot.name) for y, dot in named), *((y, line.name) for y, line in enumerate(lines) if line.dots)]
    axes.set_yticks([y for y, _ in ticks], [name for _, name in ticks])
    return Drawing(file_name("survives", found.dataset, ball(found.threat), found.label), figure, _caption(found))


def inline(tables: Sequence[Table]) -> list[dict[str, str]]:
    """For each table, the picture of each defence as SVG text to be set into a page, by `Survival.recipe`.

    None for more than `MOST` rows: each takes a quarter of a second, and hundreds are more than a page can hold.
    """
    if sum(len(table.rows) for table in tables) > MOST:
        return [{} for _ in tables]
    with style():
        return [{found.recipe: svg(draw(found)) for found in survivals([table])} for table in tables]


@dataclass(frozen=True)
class _Line:
    """A line of the picture: the head of an access, or an attack with a dot for each training."""

    name: str = ""
    dots: tuple[Dot, ...] = ()
    access: Access | None = None
    below: int = 0


def _lines(dots: Sequence[Dot]) -> Iterator[_Line]:
    for access in ORDER:
        own = [dot for dot in dots if dot.access is access]
        names = list(dict.fromkeys(dot.name for dot in own))
        if names:
            yield _Line(access=access, below=len(names))
        yield from (_Line(name, tuple(dot for dot in own if dot.name == name)) for name in names)


def _claim(axes: Axes, claim: Claim, lines: int) -> None:
    axes.plot([claim.percent] * 2, [-2.5, lines - 0.5], color=INK, lw=1.2, ls=(0, (4, 2)), zorder=2)
    side = "right" if claim.percent > 50 else "left"
    axes.text(claim.percent, -2.65, f"{claim.source}: {claim.percent:.1f}", ha=side, va="bottom")


def _dot(axes: Axes, y: float, dot: Dot, found: Survival, colour: str, marker: str) -> None:
    score = dot.score
    if found.claim is not None and score.percent < found.claim.percent and dot is not found.clean:
        axes.plot([score.percent, found.claim.percent], [y, y], color=colour, lw=0.8, alpha=0.35, zorder=2)
    axes.plot([score.low, score.high], [y, y], color=colour, lw=2.2, alpha=0.55, zorder=3, solid_capstyle="butt")
    axes.plot([score.percent], [y], marker, color=colour, zorder=4, mec="white", mew=0.5, ms=6.5, clip_on=False)


def _number(axes: Axes, y: float, dots: Sequence[Dot]) -> None:
    """In the right margin: the number with its interval, or from where to where several trainings go."""
    if not dots:
        return
    scores = sorted((dot.score for dot in dots), key=lambda score: score.percent)
    alone = f"{scores[0]} {scores[0].interval}"
    said = alone if len(scores) == 1 else f"{scores[0]} to {scores[-1]}"
    axes.text(103.5, y, said, va="center", size=7, clip_on=False)


def _caption(found: Survival) -> tuple[str, ...]:
    seeds = ", ".join(map(str, found.seeds))
    attacks = ", ".join(map(str, found.attack_seeds))
    several = "; a dot for each training" if len(found.seeds) > 1 else ""
    claim = (
        f"Dashed: the lowest number under attack that {found.claim.source} prints for it ({found.claim.column}, "
        f"{found.claim.table}): {found.claim.percent:.2f} %."
        if found.claim is not None
        else "Its paper prints no number for this data set and ball."
    )
    return (
        f"What the claim of {found.label} survives: {found.title}.",
        f"n = {found.n} images, training seed {seeds}, attack seed {attacks}{several}.",
        "Dots: share of all images that the deployed defence classifies correctly, unfinished attacks left out; "
        "bars: 95 % intervals; cross: per-image worst case over the clean image and every finished attack.",
        claim,
        *found.warnings,
    )
