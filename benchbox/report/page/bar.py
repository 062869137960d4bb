"""A number as a bar of a hundred units: what is left, its interval, the claim, and what is missing of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup


def bar(
    percent: float, ends: tuple[float, float] | None, claimed: float | None = None, *, lost: bool = False
) -> Markup:
    """One element for the eye alone: the number stands beside it, and the style sheet draws it.

    Args:
        percent: Where the bar ends.
        ends: Of the interval, if there is one.
        claimed: Where the mark of the claim stands, if there is one.
        lost: Whether the way from the number up to the claim is filled.
    """
    from markupsafe import Markup

    places = {"left": percent}
    if ends:
        places |= {"low": ends[0], "high": ends[1]}
    if claimed is not None:
        places["claim"] = claimed
    style = ";".join(f"--{name}:{place:.1f}%" for name, place in places.items())
    missing = " lost" if lost and claimed is not None and claimed > percent else ""
    return Markup(f'<i class="bar{missing}" style="{style}"></i>')
