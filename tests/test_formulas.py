"""Statistics against SciPy and against the formula that each one's docstring gives, at random places."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rows import BPDA, GRAY, SAMPLES, TRANSFER, WHITE, N, evidence, first, unfinished
from scipy import stats

from benchbox.analysis import anytime, control, intervals, pairs, welch, worst_case
from benchbox.analysis.badge import NOT_AUDITED, badge
from benchbox.analysis.panel import crosses, lacking
from benchbox.analysis.probed import Probed, probed
from benchbox.analysis.score import Measurement
from benchbox.domain import Evidence, Nature
from benchbox.errors import DataError

TENTHS = st.lists(st.integers(0, 10), min_size=2, max_size=30).map(lambda counts: np.array(counts) / 10)


def test_what_is_called_sure_significant_and_found() -> None:
    assert (intervals.LEVEL, intervals.PLACE, control.LEVEL) == (0.95, 0.01, 0.999)
    assert (pairs.ALPHA, pairs.POWER, pairs.FEWEST) == (0.05, 0.8, 6)
    assert (pairs.RESAMPLES, pairs.FLIPS, welch.ENOUGH) == (10_000, 20_000, 3)


@given(TENTHS, st.floats(0.5, 0.99))
def test_an_interval_of_shares_is_that_of_a_beta_variable(means: np.ndarray, level: float) -> None:
    """Of the mean and the variance of the weighted mean, with one value more that nobody has seen."""
    found = intervals.mean_of_shares(means, level)

    def upper(values: np.ndarray) -> float:
        if values.min() == 1:
            return 1.0
        low, n = values.min(), len(values) + 1
        unit = np.append((values - low) / (1 - low), 1.0)
        mean, variance = unit.mean(), unit.var() / (n + 1)  # of a Dirichlet-weighted mean
        total = mean * (1 - mean) / variance - 1
        return float(low + (1 - low) * stats.beta.ppf((1 + level) / 2, mean * total, (1 - mean) * total))

    assert found == pytest.approx((1 - upper(1 - means), upper(means)), abs=1e-9)
    for wrong in (0.0, 1.0):
        with pytest.raises(DataError, match="is no coverage"):
            intervals.mean_of_shares(means, wrong)


@given(TENTHS, st.integers(0, 5))
def test_flips_and_resamples_are_those_of_their_seed(shares: np.ndarray, seed: int) -> None:
    other = np.roll(shares, 1)
    differences = shares - other
    sizes, counts = np.unique(np.abs(differences), return_counts=True)
    kept = np.random.default_rng(seed).binomial(counts, 0.5, size=(500, len(counts)))
    extreme = (np.abs((2 * kept - counts) @ sizes) >= abs(differences.sum()) - 1e-9).sum()
    assert pairs.sign_flip(differences, seed, 500) == (1 + extreme) / 501
    values, often = np.unique(differences, return_counts=True)
    assume(len(values) > 1)
    drawn = np.random.default_rng(seed).multinomial(len(shares), often / len(shares), size=400)
    expected = np.quantile(drawn @ values / len(shares), [0.05, 0.95])
    assert pairs.bootstrap(shares, other, seed, 400, 0.9) == pytest.approx(tuple(expected))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_two_groups_of_trainings_are_compared_as_scipy_does(a: list[float], b: list[float]) -> None:
    assume(min(np.var(a), np.var(b)) > 1e-6)
    found, theirs = welch.welch(a, b), stats.ttest_ind(a, b, equal_var=False)
    assert found is not None
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)), abs=1e-9)
    error = np.sqrt(np.var(a, ddof=1) / len(a) + np.var(b, ddof=1) / len(b))
    reach = (stats.t.ppf(0.975, theirs.df) + stats.t.ppf(0.8, theirs.df)) * error
    assert found.detectable == pytest.approx(reach)


def test_one_training_has_no_spread() -> None:
    for sides in (([0.5], [0.1, 0.2]), ([0.1, 0.2], [0.5]), ([], [])):
        with pytest.raises(DataError, match="have no spread; train at least 3 seeds of each"):
            welch.welch(*sides)


@given(st.integers(6, 3000), st.floats(0.001, 1.0))
def test_what_could_have_been_seen_is_the_inverse_of_what_it_takes(n: int, discordance: float) -> None:
    least = stats.beta.ppf(0.8, 6, n - 5)  # six of n, with the power
    found = pairs.detectable(n, discordance)
    assert found is not None
    assert found >= least * (1 - 1e-9)
    if found > least * (1 + 1e-6):
        null, power = stats.norm.ppf(0.975) * np.sqrt(discordance), stats.norm.ppf(0.8)
        assert ((null + power * np.sqrt(discordance - found**2)) / found) ** 2 == pytest.approx(n, rel=1e-6)


def test_a_difference_is_no_more_than_what_is_discordant() -> None:
    assert pairs.needed(0.1, 0.1) == 77  # (1.95996 √0.1 + 0.84162 √0.09)² / 0.01 = 76.09
    assert pairs.needed(1.0, 1.0) == 4
    for difference, discordance in ((0.0, 0.1), (-0.1, 0.1), (0.2, 0.1), (0.5, 1.1)):
        with pytest.raises(DataError, match="is none"):
            pairs.needed(difference, discordance)
    assert pairs.detectable(6, 0.01) is not None
    for a, b in ((np.ones(2), np.ones(3)), (np.empty(0), np.empty(0)), (np.ones((2, 1)), np.ones((2, 1)))):
        with pytest.raises(DataError, match="the same samples, at least one"):
            pairs.significance(a, b)


def test_before_the_first_image_anything_is_possible() -> None:
    assert anytime.confidence_sequence(0, 0) == (0.0, 1.0)
    low, high = anytime.confidence_sequence(8, 10)
    assert anytime.confidence_sequence(8, 10, 0.95) == (low, high)
    assert anytime.confidence_sequence(2, 10) == pytest.approx((1 - high, 1 - low))


# --- worst cases ---------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.booleans(), min_size=24, max_size=24), min_size=1, max_size=3))
def test_a_worst_case_is_chosen_by_one_half_and_scored_by_the_other(flat: list[list[bool]]) -> None:
    arrays = [np.array(one).reshape(6, 4) for one in flat]
    halves = [(array[:, 0::2].mean(axis=1), array[:, 1::2].mean(axis=1)) for array in arrays]
    expected = np.zeros(6)
    for select, score in ((0, 1), (1, 0)):
        for i in range(6):
            worst = min(range(len(arrays)), key=lambda a: halves[a][select][i] + 1e-9 * halves[a][select].mean())
            expected[i] += halves[worst][score][i] / 2
    assert worst_case.worst_case(arrays).tolist() == pytest.approx(expected.tolist())


def test_what_is_finished_and_which_of_it_counts() -> None:
    whole, half = evidence("none"), unfinished(evidence("none", attack="cw"), 50)
    few = evidence("none", right=first(20, 40), samples=replace(SAMPLES, indices=tuple(range(40))))
    assert worst_case.finished([few, half, whole]) == (whole,)
    assert worst_case.finished([half]) == ()
    assert [worst_case.is_beginning(e) for e in (whole, half, unfinished(whole, 0))] == [True, True, False]
    assert [worst_case.is_null(e) for e in (whole, evidence("none", attack="null"))] == [False, True]
    many = evidence("none", right=np.repeat(first(5), 3, 1), attack_seed=0)
    later = evidence("none", attack_seed=1)
    assert sorted([later, whole, many], key=worst_case.by_draws) == [many, whole, later]
    assert worst_case.fixed_seed(np.array([[True, False], [False, True]])).tolist() == [True, False]


def test_images_that_an_audit_broke_are_those_that_mostly_stood() -> None:
    stood = np.ones((N, 4), bool)
    stood[0, :2] = False  # half of the draws is not most of them
    cells = [evidence("none", right=stood, clean=stood)]
    right = np.ones((N, 4), bool)
    right[1, :2] = False
    right[2, :1] = False
    asked = np.ones(N, bool)
    assert worst_case.fallen(cells, Probed(asked, (right,))) == 1
    assert worst_case.fallen(cells, None) == 0
    assert Probed(asked, (right,)).on(np.arange(N) > 1)[0][:3].all(axis=1).tolist() == [True, True, False]


def test_an_audit_counts_where_it_is_about_these_images() -> None:
    record = {"samples": SAMPLES.as_dict(), "broken": [3]}
    assert probed(None, SAMPLES) is None
    assert probed({"broken": [3]}, SAMPLES) is None
    assert probed({"samples": SAMPLES.as_dict()}, SAMPLES) is None
    assert probed(record, replace(SAMPLES, split="validation")) is None
    assert probed(record, replace(SAMPLES, dataset="digits")) is None
    few = replace(SAMPLES, indices=(3, 4, 500))
    found = probed({**record, "samples": replace(SAMPLES, indices=(4,)).as_dict()}, few)
    assert found is not None
    assert found.asked.tolist() == [True, True, False]
    assert [array.tolist() for array in found.right] == [[[False], [True], [True]]]
    drawn = probed({**record, "draws": {"4": ["10", "01"], "77": ["00", "00"]}}, few)
    assert drawn is not None
    assert [array.tolist() for array in drawn.right] == [
        [[True, True], [True, False], [True, True]], [[True, True], [False, True], [True, True]],
    ]  # fmt: skip
    assert probed(record, replace(SAMPLES, indices=(500,))) is None
    for one in (found, drawn):
        assert {array.dtype for array in (one.asked, *one.right, *one.on(one.asked))} == {np.dtype(bool)}
    assert [array.all(axis=1).tolist() for array in drawn.on(np.array([True, False, False]))] == [[True] * 3] * 2


# --- panels, controls, badges --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nature", "step", "said"),
    [
        (Nature("iterative", steps=30, step=1 / 30), None, True),
        (Nature("iterative", steps=29, step=1 / 30), None, False),
        (Nature("ensemble", steps=10, step=0.1), None, True),
        (Nature("one-step", steps=1, step=1.0), None, False),
        (Nature("iterative", steps=10), 0.1, True),
        (Nature("iterative", steps=10), 0.09, False),
        (Nature("iterative", steps=10), None, False),
        (Nature("iterative", steps=10), "auto", False),
        (None, 1.0, False),
    ],
)
def test_steps_cross_the_ball_if_together_they_are_as_long(nature: Nature | None, step: Any, said: bool) -> None:
    settings = {} if step is None else {"step": step}
    assert crosses(evidence("none", settings=settings, nature=nature).cell) is said


CROSSING = Nature("iterative", steps=10, step=0.2)
SCORES, LABELS = Nature("score-based", queries=9), Nature("decision-based", queries=9)


def panel(*cells: tuple[Any, ...], eot: int = 1, **asked: Any) -> list[str]:
    found = []
    for access, nature, *stand_in in cells:
        item = evidence("pssr", access, nature=nature, stand_in=stand_in[0] if stand_in else None, eot=eot)
        found.append(item)
    return list(lacking(found, **{"purifies": True, "randomized": False, **asked}))


def test_what_a_rank_lacks_is_named_item_by_item() -> None:
    whole = [(WHITE, CROSSING), (WHITE, SCORES), (WHITE, LABELS)]
    assert panel(*whole) == []
    assert panel(*whole[1:]) == ["an iterated gradient attack whose steps cross the ball"]
    assert panel(*whole[:2]) == ["a hard-label attack"]
    assert panel(whole[0], whole[2]) == ["a score-based attack"]
    assert panel(*whole, randomized=True) == ["gradients averaged over draws (EOT)"]
    assert panel(*whole, randomized=True, eot=2) == []
    noted = {"stand_ins": ["identity", "soft"], "exact": "identity", "substitute": True}
    assert panel(*whole, noted=noted) == ["stand-in soft", "a transfer attack"]
    assert panel(*whole, (BPDA, CROSSING, "soft"), (TRANSFER, CROSSING), noted=noted) == []
    assert panel((BPDA, CROSSING, "soft"), *whole[1:], noted={**noted, "substitute": False}) == ["plain autograd"]
    assert panel((BPDA, CROSSING, "soft"), *whole[1:], noted={"stand_ins": ["soft"]}) == []
    assert panel(*whole, noted=noted, purifies=False) == ["a transfer attack"]
    # On the bare classifier alone nothing was learnt of the defence.
    assert panel((GRAY, CROSSING), *whole[1:]) == ["an iterated gradient attack whose steps cross the ball"]
    assert panel(*whole, (WHITE, None)) == ["(what pgd is was not recorded)"]
    both = replace(SCORES, families=("decision-based",))
    assert panel(whole[0], (WHITE, both)) == []


def held(null: np.ndarray, clean: np.ndarray, randomized: bool) -> control.Control | None:
    cell = evidence("noisy", attack="null", right=null, clean=clean)
    reference: Evidence = evidence("noisy", right=clean, clean=clean)
    return control.hold([Measurement(cell, None, "done")], reference, randomized=randomized)


def test_a_control_may_differ_by_chance_and_a_deterministic_one_not_at_all() -> None:
    same = np.ones((N, 1), bool)
    for lost, verdict in ((0, "agrees"), (10, "agrees"), (11, "differs")):  # 2 / 2¹⁰ is above a thousandth
        found = held(np.arange(N)[:, None] >= lost, same, True)
        assert found is not None
        assert found.verdict == verdict
        assert found.difference == pytest.approx(-lost)
        assert found.p == pytest.approx(pairs.mcnemar(0, lost))
        assert found.low is not None
        assert found.high is not None
        assert found.low <= -lost <= found.high
    once = held(np.arange(N)[:, None] >= 1, same, False)
    assert once is not None
    assert once.verdict == "differs"
    assert control.hold([], evidence("noisy"), randomized=False) is None
    missing = control.hold([], evidence("noisy"), randomized=True)
    assert missing == control.Control("not run")
    begun = Measurement(unfinished(evidence("noisy", attack="null"), 4), None, "partial")
    assert control.hold([begun], evidence("noisy"), randomized=True) == control.Control("unfinished", begun)
    assert control.hold([begun], evidence("noisy"), randomized=False) is None


def test_a_badge_is_the_worst_that_was_found() -> None:
    findings = [
        {"check": check, "verdict": verdict, "sentence": sentence}
        for check, verdict, sentence in [
            ("A1", "FAIL", "no"), ("B2", "WARN", "odd"), ("C1", "INCOMPLETE", "?"), ("D1", "PASS", "y"),
        ]
    ]  # fmt: skip
    nothing: dict[str, Any] = {"integrity": [], "masking": [], "attack": [], "counts": {"PASS": 1}}
    said = {
        "withdrawn A1": {"integrity": ["A1"], "masking": ["B1"]},
        "masking B1": {"masking": ["B1"], "attack": ["B3"]},
        "weak attack B3": {"attack": ["B3"]},
        "1 WARN B2": {},
    }
    for words, summary in said.items():
        found = badge({"summary": nothing | summary, "findings": findings, "standing": {"said": ["so much"]}})
        assert str(found) == words
        assert (found.invalid, found.masked) == (words.startswith("withdrawn"), words.startswith("masking"))
        assert found.sentences == {"A1": "no", "B2": "odd"}
        assert found.detail == "so much\nA1: no\nB2: odd"
        assert found.as_dict()["counts"] == {"PASS": 1}
    assert str(badge({"summary": nothing, "findings": findings[2:]})) == "incomplete (1 checks)"
    assert str(badge({"summary": nothing})) == "pass"
    assert badge({"summary": nothing}).detail == "pass"
    assert badge(None) is NOT_AUDITED
    assert str(NOT_AUDITED) == "not audited"
