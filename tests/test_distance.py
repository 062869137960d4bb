"""The column of distances: what attacks on the smallest norm found, and when it is silent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from rows import N, evidence, only

from benchbox.analysis import distance
from benchbox.domain import Evidence, Nature
from benchbox.report import leaderboard

SEARCH = Nature("iterative", families=("minimum norm",))


def searched(nearest: np.ndarray, nature: Nature = SEARCH, measured: bool = True) -> Evidence:
    """A minimum-norm attack that finds errors at these distances in L∞; infinity for none."""
    found = np.isfinite(nearest)
    item = evidence(attack="fmn", right=(~found).astype(float)[:, None], clean=np.ones((N, 1)), nature=nature)
    outcome = replace(item.outcome, linf=np.where(found, nearest, item.cell.threat.epsilon))
    if not measured:
        object.__setattr__(outcome, "measured", False)
    return replace(item, outcome=outcome)


def test_it_is_the_median_of_the_nearest_that_any_attack_found() -> None:
    one, other = np.full(N, 0.2), np.full(N, 0.25)
    one[: N // 4] = np.inf
    other[: N // 4] = 0.1
    assert distance.median([searched(one), searched(other)]) == 0.2
    assert distance.median([searched(other)]) == 0.25


def test_images_without_an_error_in_the_ball_are_farther_than_all_others() -> None:
    nearest = np.full(N, 0.1)
    nearest[: N // 2 + 1] = np.inf
    assert distance.median([searched(nearest)]) == float("inf")
    nearest[: N // 2 + 1] = 0.2
    assert distance.median([searched(nearest)]) == 0.2


def test_an_attack_that_stops_at_the_border_says_nothing_nor_does_a_file_without_distances() -> None:
    nearest = np.full(N, 0.1)
    for nature in (replace(SEARCH, kind="decision-based"), replace(SEARCH, kind="ensemble"), Nature("iterative")):
        assert distance.median([searched(nearest, nature)]) is None
    assert distance.median([searched(nearest, measured=False)]) is None
    assert distance.median([evidence(nature=None)]) is None


def test_the_table_has_the_column_where_somebody_searched() -> None:
    plain, table = only([evidence()]), only([searched(np.full(N, 0.123456))])
    titles = [[column.key for column in leaderboard.columns(each)] for each in (plain, table)]
    assert "distance" not in titles[0]
    assert "distance" in titles[1]
    far = only([searched(np.full(N, np.inf))])
    shown = [leaderboard._distance(line).text for t in (table, far) for line in leaderboard._lines(t)]
    assert shown == ["0.123", f"> {far.threat.epsilon:.3g}"]
