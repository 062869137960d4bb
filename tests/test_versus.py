"""Rows against one of them, p-values of all pairs and halves of draws, each from its formula."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import BPDA, GRAY, WHITE, N, evidence, failed, first, only, row, unfinished
from scipy import stats

from benchbox.analysis import leaderboard, pairs
from benchbox.analysis.all_pairs import RADEMACHER, p_values
from benchbox.analysis.compare import compare
from benchbox.analysis.ranking import against, best
from benchbox.analysis.score import BOOTSTRAP_SEED
from benchbox.analysis.worst_case import Halves, correctness, majority_vote, worst_of_r
from benchbox.domain import Evidence, ThreatModel
from benchbox.errors import DataError, RequestError


def three() -> list[Evidence]:
    """One that leaves 50 of 100 images, one 80, one 53, the last attacked in one more way."""
    return [
        evidence("none"),
        evidence("pgd-at", right=80),
        evidence("trades", right=first(N - 47)[::-1]),
        evidence("trades", WHITE, "cw", right=90),
    ]


def test_every_row_is_compared_with_the_one_that_is_named() -> None:
    found = only(three(), against="none")
    assert found.against == "none"
    assert row(found, "none").versus is None
    robust, other = row(found, "pgd-at").versus, row(found, "trades").versus
    assert robust is not None
    assert other is not None
    assert robust.difference == pytest.approx(30)
    # The last 53 but those from 90 on, which the other attack breaks.
    assert other.difference == pytest.approx(-7)
    ours, theirs = (np.arange(N) < 80).astype(float), (np.arange(N) < 50).astype(float)
    interval = pairs.bootstrap(ours, theirs, BOOTSTRAP_SEED)
    assert (robust.low, robust.high) == pytest.approx((100 * interval.low, 100 * interval.high))
    raw = [pairs.mcnemar(30, 0), pairs.mcnemar(40, 47)]
    assert [robust.p, other.p] == pytest.approx(pairs.holm(raw))
    assert (robust.significant, other.significant) == (True, False)
    assert (robust.alike, other.alike) == (True, False)
    assert robust.digits == other.digits == 1
    assert "McNemar" in robust.test


def test_intervals_of_randomised_rows_are_those_of_their_seed() -> None:
    rolled = [np.random.default_rng(seed).random((N, 7)) < 0.2 + seed / 10 for seed in range(3)]
    cells = [evidence(name, right=right, clean=100) for name, right in zip("abc", rolled, strict=True)]
    found = only(cells, against="a")
    base = row(found, "a").shares
    for name in ("b", "c"):
        shares, versus = row(found, name).shares, row(found, name).versus
        assert shares is not None
        assert base is not None
        assert versus is not None
        interval = pairs.bootstrap(shares, base, BOOTSTRAP_SEED)
        assert (versus.low, versus.high) == pytest.approx((100 * interval.low, 100 * interval.high), rel=1e-12)
        assert "sign-flip" in versus.test
    raw = [pairs.significance(row(found, n).shares, base, BOOTSTRAP_SEED).p for n in ("b", "c")]  # type: ignore[arg-type]
    assert [row(found, n).versus.p for n in ("b", "c")] == pytest.approx(pairs.holm(raw), rel=1e-12)  # type: ignore[union-attr]


@pytest.mark.parametrize("rows", [three(), [*three(), failed(evidence("jpeg"), "NaN")]])
def test_who_has_no_finished_row_is_nobody_to_compare_with(rows: list[Evidence]) -> None:
    for name in ("nobody", "jpeg"):
        with pytest.raises(RequestError, match=f"no finished row is '{name}'; rows: none, pgd-at, trades"):
            only(rows, against=name)


def test_a_row_may_be_named_by_its_weights_and_several_trainings_are_one() -> None:
    rows = [replace_seed(evidence("none", right=k), seed) for k, seed in ((40, 0), (60, 1))]
    rows += [evidence("pgd-at", right=80)]
    found = only(rows, against="none")
    assert found.against == "none (mean of 2 trainings)"
    versus = row(found, "pgd-at").versus
    assert versus is not None
    assert versus.difference == pytest.approx(30)
    assert [r.versus for r in found.rows if r.defense.name == "none"] == [None, None]
    by_weights = only(rows, against=rows[0].cell.artifact[:10])
    assert row(by_weights, "pgd-at").versus is not None
    other = next(r for r in by_weights.rows if r.artifact == rows[1].cell.artifact)
    assert other.versus is not None
    assert other.versus.difference == pytest.approx(20)


def replace_seed(item: Evidence, seed: int) -> Evidence:
    artifact = f"{seed}abcdef0123456789"
    cell = replace(
        item.cell, training_seed=seed, artifact=artifact, view=replace(item.cell.view, artifact=artifact)
    )
    return replace(item, cell=cell)


def test_a_name_of_two_rows_is_refused_and_a_table_without_it_stays() -> None:
    rows = [evidence("none", arguments={"width": k}, right=70 - k) for k in (3, 4)]
    rows = [replace_seed(item, i) for i, item in enumerate([*rows, evidence("pgd-at", right=80)])]
    rows = [replace(item, cell=replace(item.cell, training_seed=0)) for item in rows]
    with pytest.raises(
        RequestError, match=r"'none' is 2 rows of .*; name one by its weights: .*0abcdef01234.*1abcdef01234"
    ):
        only(rows, against="none")
    far = replace(evidence("none"), cell=replace(evidence("none").cell, threat=ThreatModel("linf", 0.1)))
    tables = leaderboard.build(
        [
            *three()[:2],
            evidence("trades", threat=ThreatModel("linf", 0.1)),
        ],
        against="none",
    )
    assert sorted((t.threat.epsilon, t.against) for t in tables) == [(0.1, ""), (0.3, "none")]
    assert len(against(leaderboard.build([far]), "none")) == 1
    assert against([], "none") == []


COUNTS = st.sampled_from([(0, 4), (0, 1, 2, 3, 4)]).flatmap(
    lambda which: st.lists(st.sampled_from(which), min_size=12, max_size=12)
)
#: Rows that are right or wrong among rows of shares, in any mixture.
SHARES = st.lists(COUNTS, min_size=2, max_size=4)


@given(SHARES)
def test_of_pairs_that_are_right_or_wrong_p_is_exact_and_of_others_a_bound(counts: list[list[int]]) -> None:
    every = np.array(counts) / 4
    found = p_values(every)
    assert found.shape == (len(counts), len(counts))
    assert np.allclose(found, found.T)
    for i, one in enumerate(every):
        for j, other in enumerate(every):
            if i == j:
                continue
            if set(one) | set(other) <= {0.0, 1.0}:
                only_a, only_b = int(((one == 1) & (other == 0)).sum()), int(((one == 0) & (other == 1)).sum())
                expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
            else:
                spread = np.sqrt(max(((one - other) ** 2).sum(), 1e-9))
                expected = min(1.0, 2 * RADEMACHER * stats.norm.sf(abs((one - other).sum()) / spread))
            assert found[i, j] == pytest.approx(expected, rel=1e-6), (one, other)


@given(st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=2, max_size=4))
def test_right_or_wrong_is_counted_as_mcnemar_does(rights: list[list[bool]]) -> None:
    every = np.array(rights, np.float64)
    found = p_values(every)
    for i, one in enumerate(every):
        for j, other in enumerate(every):
            assert found[i, j] == pytest.approx(pairs.mcnemar(int((one > other).sum()), int((other > one).sum())))
    assert p_values(np.empty((0, 3))).shape == (0, 0)


def test_the_best_are_those_that_none_is_significantly_better_than() -> None:
    shares = [first(k)[:, 0].astype(float) for k in (90, 88, 40)]
    assert best(shares) == {0, 1}
    assert best([]) == set()


def test_of_one_draw_both_halves_are_that_draw() -> None:
    """Also beside attacks that were scored in several."""
    once, thrice = first(3, 5), np.repeat(first(2, 5), 3, 1)
    halves = Halves.of([once, thrice])
    assert halves.even.tolist() == halves.odd.tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]
    assert halves.worst().tolist() == [1, 1, 0, 0, 0]
    mixed = Halves.of([np.array([[True, False, True, True]]), np.array([[False, False, True, False]])])
    assert (mixed.even.tolist(), mixed.odd.tolist()) == ([[1.0], [0.5]], [[0.5], [0.0]])
    # The half that chooses the worst attack is not the half that scores it.
    assert mixed.worst().tolist() == [0.25]
    alone = Halves.of([once])
    assert alone.even is alone.odd
    for wrong in ([], [once, first(2, 4)], [np.zeros((3, 0), bool)], [np.zeros(3, bool)]):
        with pytest.raises(DataError, match="a worst case needs one"):
            Halves.of(wrong)


def test_votes_and_worst_draws() -> None:
    said = np.array([[1, 2, 2], [1, 2, 3], [0, 0, 0]])
    assert majority_vote(said, np.array([2, 1, 1])).tolist() == [True, True, False]  # of equals the first drawn
    assert worst_of_r(said == 0).tolist() == [False, False, True]
    assert len(correctness([evidence("none")], with_clean=True)) == 2


def test_clean_accuracy_is_compared_between_the_two_and_not_with_itself() -> None:
    (found,) = compare([evidence("none", clean=90), evidence("pgd-at", right=40, clean=99)], "pgd-at", "none")
    clean = next(pair for pair in found.pairs if pair.label == "clean")
    assert (clean.a, clean.b) == ((0.99,), (0.9,))
    assert clean.difference == pytest.approx(0.09)


def test_a_commit_and_a_number_say_what_is_not_certain() -> None:
    found = only(
        [evidence("none"), unfinished(evidence("none", BPDA, "cw"), 40), failed(evidence("none", GRAY), "no")]
    )
    entries = row(found, "none").entries
    figures = {str(column): entry.figure for column, entry in entries.items()}
    assert figures["white-box pgd"] == "50.0"
    assert figures["bpda cw"].endswith("…")
    assert "…" in figures.values() or "failed" in figures.values()
    (measured,) = next(e for c, e in entries.items() if str(c) == "white-box pgd").measurements
    assert measured.commit == "abc123"
    nowhere = replace(measured, evidence=replace(measured.evidence, provenance={"dirty": True}))
    assert nowhere.commit == "unknown+"
    assert WHITE in {column.access for column in entries}
