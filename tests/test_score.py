"""From shares to what a table prints: numbers, statuses and which cells may be united, case by case."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import BPDA, SAMPLES, WHITE, N, evidence, failed, first, only, row, unfinished

from benchbox.analysis.intervals import clopper_pearson, mean_of_shares
from benchbox.analysis.score import (
    BOOTSTRAP_SEED,
    Entry,
    Measurement,
    Score,
    combine,
    measure,
    shares_by_class,
    union,
    united,
)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_a_score_of_right_and_wrong_gives_back_what_it_was_made_of(right: list[bool]) -> None:
    shares = np.array(right, np.float64)
    score = Score(shares)
    assert score.shares.tolist() == shares.tolist()
    assert (score.n, score.draws) == (len(right), 1)
    assert score.percent == pytest.approx(100 * sum(right) / len(right))
    exact = clopper_pearson(sum(right), len(right))
    assert (score.low, score.high) == pytest.approx((100 * exact.low, 100 * exact.high))
    assert score.method == "Clopper-Pearson"


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_a_score_of_draws_has_the_interval_of_shares(counts: list[int]) -> None:
    shares = np.array(counts) / 4
    score = Score(shares, 4)
    exact = mean_of_shares(shares)
    assert score.shares is shares
    assert (score.low, score.high) == pytest.approx((100 * exact.low, 100 * exact.high))
    assert score.as_dict() == {
        "percent": score.percent, "low": score.low, "high": score.high, "n": len(counts), "draws": 4,
        "interval": "Clopper-Pearson for shares",
    }  # fmt: skip


@pytest.mark.parametrize(("n", "said", "digits"), [(1000, "50.0", 1), (1001, "49.95", 2)])
def test_decimals_are_those_that_a_sample_moves(n: int, said: str, digits: int) -> None:
    score = Score((np.arange(n) < 500).astype(float))
    assert (str(score), score.digits) == (said, digits)
    assert score.interval == f"[{score.low:.{digits}f}, {score.high:.{digits}f}]"
    assert BOOTSTRAP_SEED == 0


def measurement(right: int, scored: int | None = None, status: str = "done") -> Measurement:
    item = evidence("none", right=right)
    return measure(item if status == "done" else unfinished(item, scored or 0))


def test_one_cell_s_number_is_that_of_what_was_scored_from_the_beginning() -> None:
    assert (measurement(60).status, str(measurement(60).score)) == ("done", "60.0")
    begun = measurement(60, 80, "partial")
    assert (begun.status, str(begun.score)) == ("partial", "75.0")
    # Finished, it says, and is not.
    short = replace(evidence("none", right=60), outcome=unfinished(evidence("none", right=60), 80).outcome)
    assert measure(short).status == "partial"
    middle = evidence("none", right=60)
    middle = replace(middle, status="partial", outcome=middle.outcome.rows(slice(10, 30)))
    assert (measure(middle).status, measure(middle).score) == ("partial", None)
    assert measure(failed(evidence("none"), "NaN")).score is None
    assert measure(replace(evidence("none"), status="failed")).score is None


def test_several_cells_are_one_entry_if_all_are_finished() -> None:
    other = measure(evidence("none", right=first(60)[::-1]))
    whole = combine([measurement(60), other], "white-box pgd")
    assert (whole.status, whole.figure, whole.where) == ("done", "20.0", "white-box pgd")  # 40 to 59
    assert len(whole.measurements) == 2
    assert whole.passes == 2 * 81
    begun = measurement(30, 50, "partial")
    both = combine([measurement(60), begun])
    assert (both.status, both.figure) == ("partial", "60.0…")
    assert combine([begun]).figure == "60.0…"
    assert combine([measurement(30, 60, "partial"), begun]).figure == "50.0…"  # the lower of the two
    assert combine([]) == Entry()
    lost = measure(failed(evidence("none"), "NaN"))
    assert (combine([lost]).status, combine([lost]).figure) == ("failed", "failed")
    assert (combine([lost, measurement(60)]).status) == "partial"
    nothing = measurement(30, 0, "partial")
    assert (combine([nothing]).status, combine([nothing]).figure) == ("partial", "…")
    assert combine([lost, nothing]).figure == "…"
    held = replace(measurement(60), score=None, status="withheld")
    assert (combine([held, measurement(60)]).status, combine([held]).figure) == ("withheld", "withheld")


def test_what_stands_where_a_row_meets_a_column() -> None:
    score = Score(np.ones(4))
    said = {
        "not run": "n/r", "withheld": "withheld", "failed": "100.0", "same": "= 100.0", "partial": "100.0…",
        "done": "100.0",
    }  # fmt: skip
    for status, figure in said.items():
        assert Entry(status, score).figure == figure  # type: ignore[arg-type]
    assert (Entry("failed").figure, Entry("partial").figure, Entry("done").figure) == ("failed", "…", "…")
    assert (Entry().status, Entry().passes, Entry().where) == ("not run", 0, "")


def test_classes_are_counted_each_for_itself() -> None:
    found = shares_by_class(np.array([3, 1, 3, 3]), np.array([1.0, 0.5, 0.0, 0.5]))
    assert found == {"1": (1, 50.0), "3": (3, 50.0)}
    assert list(found) == ["1", "3"]


def test_of_a_randomised_defence_votes_and_single_draws_are_shown_beside() -> None:
    right = np.array([[True, True, False], [True, False, False], [False, True, True], [True, True, True]])
    item = evidence("noisy", right=right, samples=replace(SAMPLES, indices=(0, 1, 2, 3)))
    found = measure(item)
    assert found.extra == {"majority_vote": 75.0, "worst_of_r": 25.0} | {
        name: value for name, value in found.extra.items() if name not in ("majority_vote", "worst_of_r")
    }
    assert 75.0 in [value for name, value in found.extra.items() if name not in ("majority_vote", "worst_of_r")]
    assert measurement(60).extra == {}


def test_worst_cases_are_united_and_the_clean_image_counts_where_it_is_said() -> None:
    cells = [evidence("none", right=60), evidence("none", right=first(70)[::-1], clean=50)]
    found, clean = united(cells), united(cells, with_clean=True)
    assert found is not None
    assert clean is not None
    assert (found.percent, clean.percent) == (30.0, 30.0)
    alone = united([evidence("none", right=100, clean=50)], with_clean=True)
    assert alone is not None
    assert alone.percent == 50.0
    assert united([]) is None
    assert union([np.ones((N, 1), bool), np.ones((N, 3), bool)]).draws == 3


def test_a_row_s_number_is_over_everything_finished_and_its_cause_is_named() -> None:
    rows = [
        evidence("none", WHITE, "pgd", 60),
        evidence("none", WHITE, "cw", first(70)[::-1]),
        unfinished(evidence("none", WHITE, "aa", 10), 50),
        evidence("pssr", BPDA, "pgd", 40, stand_in="soft"),
        evidence("pssr", BPDA, "pgd", first(70)[::-1], stand_in="identity"),
    ]
    found = row(only(rows), "none")
    assert found.robust is not None
    assert found.robust.percent == 30.0  # 30 to 59
    assert (str(found.set_by), found.over) == ("white-box pgd", 2)
    assert found.clean.figure == "99.0"
    purified = row(only(rows), "pssr")
    assert {str(c): e.figure for c, e in purified.entries.items() if e.measurements} == {"bpda pgd": "10.0"}
    assert "white-box aa" in {str(column) for column in found.missing}
