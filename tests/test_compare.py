"""Two defences, a ranking, two runs: numbers by hand, refusals, and what each format shows."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rows import BPDA, SAMPLES, N, evidence, failed, first, only, outcome, rendered, small_print, unfinished

from benchbox import report
from benchbox.analysis.compare import compare
from benchbox.analysis.comparison import Comparison, Pair
from benchbox.analysis.difference import compare_runs
from benchbox.analysis.pairs import holm, mcnemar
from benchbox.analysis.welch import welch
from benchbox.domain import Evidence, Spec, ThreatModel
from benchbox.errors import RequestError
from benchbox.report import comparison


def only_pairs(items: list[Evidence], a: str, b: str, **options: Any) -> dict[str, Pair]:
    (found,) = compare(items, a, b, **options)
    return {pair.label: pair for pair in found.pairs}


# --- two defences --------------------------------------------------------------------------------------------


def test_a_comparison_by_hand(duel: list[Evidence]) -> None:
    found = only_pairs(duel, "pssr", "none")
    assert list(found) == ["clean", "common worst case", "own worst case", "gray-box pgd", "white-box pgd"]
    common = found["common worst case"]
    # Sample 99 is wrong when clean.
    assert (common.a, common.b) == ((0.30,), (0.39,))
    assert common.difference == pytest.approx(-0.09)
    assert common.p == mcnemar(30, 39)
    assert common.only_a == tuple(range(30))
    assert common.only_b == tuple(range(60, 99))
    assert common.discordance == pytest.approx(0.69)
    assert found["own worst case"].b == (0.0,)
    assert found["gray-box pgd"].b == (0.4,)
    assert (found["gray-box pgd"].only_a, found["gray-box pgd"].only_b) == (tuple(range(60)), (97, 98, 99))
    raw = [pair.p for pair in found.values()]
    assert [pair.p_holm for pair in found.values()] == holm(raw)


def test_what_is_left_out_is_said(duel: list[Evidence]) -> None:
    items = [*duel, failed(evidence("pssr", BPDA, "pgd"), "NaN")]
    (found,) = compare(items, "pssr", "none")
    assert "pssr: 1 unfinished or failed cells are left out." in list(comparison.remarks(found))
    assert "none alone was attacked with white-box cw: in its own worst case only." in list(
        comparison.remarks(found)
    )
    assert [str(column) for column in found.common] == ["gray-box pgd", "white-box pgd"]


def test_equal_attack_sets_have_one_worst_case(duel: list[Evidence]) -> None:
    assert "own worst case" not in only_pairs(duel[:-1], "pssr", "none")
    assert "own worst case" not in only_pairs(duel, "pssr", "none", attacks=["pgd"])


def test_indices_are_those_of_the_split_whatever_the_order_of_rows() -> None:
    samples = replace(SAMPLES, indices=tuple(range(500, 500 + N)))
    a, b = (
        replace(e, cell=replace(e.cell, samples=samples)) for e in (evidence("a", right=3), evidence("b", right=5))
    )
    order = np.random.default_rng(0).permutation(N)
    a = replace(a, outcome=a.outcome.rows(order))
    assert only_pairs([a, b], "a", "b")["white-box pgd"].only_b == (503, 504)


def test_a_randomised_defence_is_compared_by_its_expectation() -> None:
    rng = np.random.default_rng(0)
    items = [evidence("carso", right=rng.random((N, 10)) < 0.6), evidence("none", right=20)]
    pair = only_pairs(items, "carso", "none")["white-box pgd"]
    assert pair.test == "sign-flip permutation"
    assert pair.a[0] == pytest.approx(items[0].outcome.robust.mean())
    assert pair.significant


def test_more_attack_seeds_on_one_side_do_not_count_in_common() -> None:
    items = [
        evidence("a", right=50),
        evidence("a", right=~first(30), attack_seed=1),
        evidence("b", right=50),
    ]
    found = only_pairs(items, "a", "b")
    assert found["white-box pgd"].difference == 0
    assert found["own worst case"].a == (0.20,)


def test_an_attack_set_otherwise_is_another_attack() -> None:
    items = [evidence("a", settings={"steps": 10}), evidence("b", settings={"steps": 100})]
    (found,) = compare(items, "a", "b")
    assert [pair.label for pair in found.pairs] == ["clean"]
    assert sum("alone was attacked" in said for said in comparison.remarks(found)) == 2


def printed(found: list[Comparison], format: str, **options: int) -> str:
    return report.render(comparison.document(found), format, **options)


def seeded(name: str, *right: int) -> list[Evidence]:
    return [evidence(name, right=k, training_seed=i, artifact=f"{name}{i}" * 10) for i, k in enumerate(right)]


def test_with_three_seeds_each_the_seed_is_the_unit() -> None:
    pair = only_pairs(seeded("aaaa", 50, 51, 52) + seeded("bbbb", 44, 45, 46, 47), "aaaa", "bbbb")["white-box pgd"]
    expected = welch([0.50, 0.51, 0.52], [0.44, 0.45, 0.46, 0.47])
    assert expected is not None
    assert (pair.unit, pair.a, pair.p, pair.interval) == (
        "training seed",
        (0.50, 0.51, 0.52),
        expected.p,
        expected.interval,
    )
    record = json.loads(printed(compare(seeded("a", 50, 51, 52) + seeded("b", 1, 2, 3), "a", "b"), "json"))
    last = record["comparisons"][0]["pairs"][-1]
    assert (last["a"], last["a_sd"], last["a_min"]) == pytest.approx((51, 1, 50))


def test_with_fewer_seeds_it_says_that_their_spread_is_unknown() -> None:
    (found,) = compare(seeded("aaaa", 50, 51) + seeded("bbbb", 44, 45, 46), "aaaa", "bbbb")
    assert found.pairs[-1].unit == "sample"
    assert any("nothing of the spread between trainings" in note for note in comparison.remarks(found))


def test_one_of_several_seeds_can_be_named_by_its_weights() -> None:
    pair = only_pairs(seeded("aaaa", 50, 51) + seeded("bbbb", 44), "aaaa1", "bbbb")["white-box pgd"]
    assert pair.a == (0.51,)


# --- refusals ------------------------------------------------------------------------------------------------


def test_other_images_are_refused_and_both_lists_named() -> None:
    a = evidence("a")
    b = evidence("b", samples=replace(SAMPLES, dataset="digits", digest="e" * 64))
    with pytest.raises(RequestError) as refusal:
        compare([a, b], "a", "b")
    message = str(refusal.value)
    assert "100 test images of mnist (dddddddd" in message
    assert "100 test images of digits (eeeeeeee" in message
    assert "\n" not in message


def test_two_lists_are_compared_on_the_images_of_both() -> None:
    a = evidence("a", right=50)
    part = tuple(range(40, 140))  # the images 40 … 139, of which the first 20 withstand
    b = evidence("b", right=20, clean=100, samples=replace(SAMPLES, indices=part, digest="e" * 64))
    (found,) = compare([a, b], "a", "b")
    assert found.samples.indices == tuple(range(40, 100))
    attack = next(pair for pair in found.pairs if pair.label == "white-box pgd")
    assert (attack.a, attack.b) == ((10 / 60,), (20 / 60,))
    assert (attack.only_a, attack.only_b) == ((), tuple(range(50, 60)))
    said = list(comparison.remarks(found))
    assert "Over the 60 images both have: a was scored on the first 100 test images" in said[1]
    # A list that both have is enough.
    both = replace(b, cell=replace(b.cell, samples=SAMPLES))
    assert [one.samples for one in compare([a, b, both], "a", "b")] == [SAMPLES]


def test_other_images_of_the_same_name_are_not_common() -> None:
    a, b = evidence("a"), evidence("b", samples=replace(SAMPLES, digest="e" * 64))
    b = replace(b, outcome=replace(b.outcome, label=b.outcome.label + 1))
    with pytest.raises(RequestError, match="no image in common"):
        compare([a, b], "a", "b")


def test_another_ball_is_refused() -> None:
    with pytest.raises(RequestError, match=r"ε = 0\.3.*ε = 0\.1"):
        compare([evidence("a"), evidence("b", threat=ThreatModel("linf", 0.1))], "a", "b")


def test_several_recipes_are_refused_and_listed() -> None:
    items = [
        evidence("pssr", arguments={"alpha": 1.5}, artifact="1" * 64),
        evidence("pssr", arguments={"alpha": 2.0}, artifact="2" * 64),
        evidence("none"),
    ]
    with pytest.raises(
        RequestError, match=r"111111111111 \(usual recipe, seed 0\), 222222222222 \(alpha=2, seed 0\)"
    ):
        compare(items, "pssr", "none")
    (found,) = compare(items, "2" * 64, "none")
    assert (found.a.name, found.a.defense.arguments) == ("pssr (22222222)", {"alpha": 2.0})
    assert compare(items[1:], "2222", "none")[0].a.name == "pssr"


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ("nonne", "pssr", "unknown defence or digest of weights 'nonne'; did you mean none"),
        ("pssr", "pssr", "the same trained defence"),
    ],
)
def test_names_that_make_no_sense(duel: list[Evidence], a: str, b: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        compare(duel, a, b)


def test_a_list_that_was_only_begun_does_not_stand_before_a_finished_one() -> None:
    long = replace(SAMPLES, indices=tuple(range(200)), digest="e" * 64)
    short = replace(SAMPLES, indices=tuple(range(40)), digest="f" * 64)
    begun = [unfinished(evidence(name, samples=long), 0) for name in "ab"]
    b = evidence("b", right=first(20, 40), clean=first(40, 40), samples=short)
    (found,) = compare([evidence("a"), b, *begun], "a", "b")
    assert (len(found.samples), found.pairs[0].label) == (40, "clean")
    # Nor is a list printed on which there is nothing to test.
    (same,) = compare([evidence("a"), evidence("b"), *begun], "a", "b")
    assert same.samples == SAMPLES
    # What a begun list knows of the shared images is enough, if it is all of them.
    (found,) = compare([unfinished(evidence("a"), 64), b], "a", "b")
    assert len(found.samples) == 40


def test_nothing_finished_is_said() -> None:
    with pytest.raises(RequestError, match="no finished result"):
        compare([evidence("a"), failed(evidence("b"), "NaN")], "a", "b")


# --- printed -------------------------------------------------------------------------------------------------


def test_every_format_has_every_pair(duel: list[Evidence]) -> None:
    found = compare(duel, "pssr", "none")
    lines = list(csv.DictReader(io.StringIO(printed(found, "csv"))))
    assert [line["scope"] for line in lines][:3] == ["clean", "common worst case", "own worst case"]
    record = json.loads(printed(found, "json"))["comparisons"][0]
    assert record["tests"] == 5
    assert record["pairs"][1]["only_b"] == list(range(60, 99))
    assert "| common worst case | 30.0 | 39.0 | -9.0 |" in printed(found, "markdown")
    text = printed(found, "terminal", width=140)
    assert (
        "Right with pssr, wrong with none: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 … and 10 more" in text
    )


# --- ranks ---------------------------------------------------------------------------------------------------


def test_a_table_shares_ranks_and_says_so() -> None:
    found = only([evidence("a", right=50), evidence("b", right=48), evidence("c", right=10)])
    assert [(row.label, row.rank) for row in found.rows] == [("a", 1), ("b", 1), ("c", 3)]
    assert any("Holm over all pairs" in remark for remark in small_print(found))


def test_a_report_against_one_defence() -> None:
    items = [evidence("a", right=50), evidence("b", right=40), evidence("c", right=49), evidence("c", attack="cw")]
    found = only(items, against="b")
    said = {row.label: row.versus for row in found.rows}
    assert found.against == "b"
    assert said["b"] is None
    a, c = said["a"], said["c"]
    assert a is not None
    assert c is not None
    assert (a.difference, a.significant, a.alike) == (pytest.approx(10), True, True)
    assert a.p == pytest.approx(2 * mcnemar(10, 0))
    assert (str(a), c.alike) == ("+10.0*", False)
    assert a.low < 10 < a.high


@pytest.mark.parametrize("format", ["markdown", "latex", "html", "csv", "json"])
def test_every_format_shows_the_difference(format: str) -> None:
    items = [evidence("a", right=50), evidence("b", right=40)]
    text = rendered(items, format, against="b")
    plain = rendered(items, format)
    for mark in {"csv": ["sign-flip", "McNemar"], "json": ['"versus": {']}.get(format, ["vs b", "+10.0"]):
        assert mark not in plain
    assert {"csv": "exact McNemar", "json": '"difference": 10.0'}.get(format, "+10.0") in text


def test_against_nobody_and_against_several() -> None:
    with pytest.raises(RequestError, match="no finished row is 'zzz'; rows: a"):
        only([evidence("a")], against="zzz")
    recipes = [evidence("a", right=50, arguments={"alpha": 1}), evidence("a", right=51, arguments={"alpha": 2})]
    with pytest.raises(RequestError, match=r"2 rows.*\(a \(alpha=2\)\)"):
        only(recipes, against="weights of")
    # Two trainings of one recipe are one defence.
    assert only(seeded("aaaa", 50, 51), against="aaaa").against == "aaaa (mean of 2 trainings)"
    assert only(seeded("aaaa", 50, 51), against="aaaa (seed 1)").against == "aaaa (seed 1)"


# --- runs ----------------------------------------------------------------------------------------------------


def test_a_run_after_a_code_change() -> None:
    before = evidence("a", right=50, artifact="1")
    newer = replace(
        before,
        cell=replace(before.cell, attack=Spec("pgd", {}, "benchbox/2"), artifact="2"),
        outcome=outcome(first(48), first(99)),
        provenance={"commit": "def456", "packages": {"torch": "2.7"}},
    )
    old = replace(before, provenance={"commit": "abc123", "packages": {"torch": "2.7"}})
    found = compare_runs([old], [newer])
    (cell,) = found.cells
    assert (cell.adversarial.lost, cell.adversarial.won, cell.clean.lost) == ((48, 49), (), ())
    assert found.environment == {"commit": ("abc123", "def456")}
    assert cell.settings["attack.code"] == ("benchbox/1", "benchbox/2")
    assert (found.only_a, found.only_b, cell.compared) == ((), (), N)


def test_cells_meet_their_closest_counterpart() -> None:
    left = [evidence(settings={"steps": 10}), evidence(settings={"steps": 20}), evidence(attack="cw")]
    right = [evidence(settings={"steps": 40}), evidence(settings={"steps": 10}, attack_seed=5)]
    found = compare_runs(left, right)
    met = {
        (c.a.attack.arguments.get("steps"), c.b.attack.arguments.get("steps"), c.b.attack_seed)
        for c in found.cells
    }
    assert met == {(10, 10, 5), (20, 40, 0)}
    assert [cell.attack.name for cell in found.only_a] == ["cw"]


def test_a_changed_class_that_is_wrong_either_way_is_no_lost_flag() -> None:
    a = evidence(right=50)
    predicted = a.outcome.adversarial.copy()
    predicted[70] = 2
    b = replace(a, outcome=replace(a.outcome, adversarial=predicted))
    flags = compare_runs([a], [b]).cells[0].adversarial
    assert (flags.lost, flags.won, flags.otherwise) == ((), (), (70,))


def test_comparing_needs_neither_torch_nor_a_database() -> None:
    code = (
        "import sys, benchbox.analysis.compare, benchbox.analysis.difference, benchbox.report.comparison;"
        "import benchbox.engine.exchange;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'sqlalchemy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
