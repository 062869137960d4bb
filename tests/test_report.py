"""Tables from synthetic evidence: known answers, the marks of what is missing, the paper beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rows import (
    BPDA,
    GRAY,
    SAMPLES,
    THREAT,
    TRANSFER,
    WHITE,
    N,
    evidence,
    failed,
    first,
    footnotes,
    only,
    percent,
    row,
    small_print,
    unfinished,
)

from benchbox.analysis import leaderboard, paper
from benchbox.analysis.background import Background
from benchbox.analysis.table import Column
from benchbox.domain import Access, Evidence, ThreatModel
from benchbox.report.remarks import remarks

# --- numbers -------------------------------------------------------------------------------------------------


def test_robust_accuracy_is_the_per_sample_worst_case() -> None:
    half, other = first(60), ~first(40)
    found = only([evidence(attack="pgd", right=half), evidence(attack="square", right=other)]).rows[0]
    assert found.robust is not None
    # Right under both: 40 to 59; sample 99 is wrong when clean.
    assert (found.robust.percent, found.robust.n) == (20.0, 100)
    assert (found.set_by, found.over) == (Column(WHITE, "pgd"), 2)


def test_among_equals_the_cheapest_attack_is_named() -> None:
    dear = evidence("none", WHITE, "aa", 12)
    dear = replace(dear, outcome=replace(dear.outcome, forwards=np.full(N, 7857.0)))
    cheap = evidence("none", WHITE, "pgd", 12)
    assert only([dear, cheap]).rows[0].set_by == Column(WHITE, "pgd")


def test_no_defence_is_more_robust_than_it_is_accurate() -> None:
    found = only([evidence(right=100, clean=97)]).rows[0]
    assert found.robust is not None
    assert found.robust.percent == 97.0
    assert found.entries[Column(WHITE, "pgd")].figure == "100.0"


def test_positions_are_aligned_before_attacks_are_united() -> None:
    a, b = evidence(attack="pgd", right=50), evidence(attack="cw", right=50)
    order = np.random.default_rng(0).permutation(N)
    shuffled = b.outcome.rows(order)
    found = only([a, replace(b, outcome=shuffled)]).rows[0]
    assert found.robust is not None
    assert found.robust.percent == 50.0


def test_a_randomised_defence_is_not_punished_for_bad_luck() -> None:
    generator = np.random.default_rng(0)
    lucky = [generator.random((N, 10)) < 0.8 for _ in range(8)]
    items = [evidence("dice", attack=f"a{i}", right=r, clean=np.ones((N, 10), bool)) for i, r in enumerate(lucky)]
    found = only(items).rows[0]
    assert found.robust is not None
    assert found.robust.percent == pytest.approx(80, abs=3)
    assert found.robust.method == "Clopper-Pearson for shares"
    extra = found.entries[Column(WHITE, "a0")].measurements[0].extra
    assert extra["majority_vote"] > 90 > 30 > extra["worst_of_r"]


def test_a_bpda_number_is_the_union_over_stand_ins(both: list[Evidence]) -> None:
    entry = row(only(both), "pssr").entries[Column(BPDA, "pgd")]
    assert entry.figure == "40.0"  # 60 right through one, 80 through the other, 40 through both
    assert {m.stand_in: m.score.percent for m in entry.measurements if m.score} == {
        "exact": 60.0,
        "identity": 80.0,
    }


# --- arrangement ---------------------------------------------------------------------------------------------


def test_tables_stand_in_the_catalogues_order_and_others_after_it() -> None:
    names = ("a-set-of-mine", "cifar10", "mnist", "digits")
    lists = [replace(SAMPLES, dataset=name, digest=name[0] * 64) for name in names]
    tables = leaderboard.build([evidence(samples=samples) for samples in lists])
    assert [table.samples.dataset for table in tables] == ["digits", "mnist", "cifar10", "a-set-of-mine"]


def test_columns_stand_in_the_papers_order(both: list[Evidence]) -> None:
    items = [
        *both,
        evidence("pssr", GRAY, "zebra", 90),
        evidence("pssr", GRAY, "cw", 90),
        evidence("pssr", GRAY, "ant"),
    ]
    gray = [column.attack for column in only(items).under(GRAY)]
    assert gray == ["fgsm", "pgd", "cw", "ant", "zebra"]
    assert only(items).accesses == (GRAY, TRANSFER, WHITE, BPDA)


def test_a_defence_without_purifier_shows_its_number_under_every_access(both: list[Evidence]) -> None:
    found = only(both)
    none = row(found, "none")
    assert none.entries[Column(GRAY, "fgsm")].figure == "= 40.0"
    assert none.entries[Column(BPDA, "pgd")].figure == "= 1.0"
    assert none.entries[Column(TRANSFER, "pgd")].figure == "2.0"
    assert Column(WHITE, "fgsm") not in found.columns
    assert none.missing == ()
    assert any(remark.startswith("=: same model") for remark in small_print(found))


def test_a_purifier_is_never_credited_with_an_access_nobody_ran(both: list[Evidence]) -> None:
    items = [*both, evidence("sponge", WHITE, "pgd", 5)]
    known = row(only(items, Background(purifiers={"sponge"})), "sponge")
    assert known.entries[Column(GRAY, "pgd")].figure == "n/r"
    assert known.headline == "5.0†"


def test_rows_are_ranked_by_the_worst_case_and_oracles_are_not() -> None:
    items = [evidence("a", right=10), evidence("b", right=90), evidence("c", right=10), evidence("god", right=99)]
    found = only(items, Background(oracles={"god"}))
    assert [(r.label, r.rank) for r in found.rows] == [("b", 1), ("a", 2), ("c", 2), ("god", None)]


def test_unfinished_defences_are_not_ranked() -> None:
    items = [evidence("a", right=10), evidence("b", right=90), failed(evidence("b", attack="cw"), "NaN")]
    items.append(unfinished(evidence("c", right=95), 40))
    found = only(items)
    assert [(r.label, r.rank, r.headline) for r in found.rows] == [
        ("a", 1, "10.0†"),
        ("b", None, "90.0†"),
        ("c", None, "n/r"),
    ]


def test_an_attack_that_stopped_where_nothing_was_left_to_break_costs_no_rank() -> None:
    zero = [evidence("a", right=0), unfinished(evidence("a", attack="cw"), 40)]
    found = only([*zero, evidence("b", right=90), evidence("b", attack="cw", right=90)])
    assert [(r.label, r.rank, r.headline) for r in found.rows] == [("b", 1, "90.0"), ("a", 2, "0.0†")]
    assert not any("is not ranked" in remark for remark in small_print(found))


def test_fewer_attacks_are_marked() -> None:
    items = [evidence("a", attack="pgd"), evidence("a", attack="cw"), evidence("b", attack="pgd", right=60)]
    found = only(items)
    assert row(found, "b").headline == "60.0†"
    assert row(found, "b").entries[Column(WHITE, "cw")].figure == "n/r"
    assert any(remark.startswith("†") for remark in small_print(found))


def test_ranks_are_transitive_whatever_each_row_was_attacked_with() -> None:
    # One pair has cw in common, one pgd, one aa: duels on what both finished would make a circle of equal numbers.
    items = [
        *(evidence("a", attack=attack, right=right) for attack, right in (("pgd", 0), ("cw", 90), ("aa", 90))),
        *(evidence("b", attack=attack, right=right) for attack, right in (("pgd", 90), ("cw", 0))),
        *(evidence("c", attack=attack, right=right) for attack, right in (("cw", 90), ("aa", 0))),
    ]
    assert {r.rank for r in only(items).rows} == {1}


def test_nobody_rises_by_being_attacked_less() -> None:
    items = [
        evidence("whole", attack="pgd", right=80),
        evidence("whole", attack="cw", right=30),
        evidence("spared", attack="pgd", right=60),
    ]
    assert [(r.label, r.place, r.headline) for r in only(items).rows] == [
        ("spared", "(≈1)", "60.0†"),
        ("whole", "≈1", "30.0"),
    ]
    # What both went through counts too: there it has to be better by more than chance.
    alike = [evidence("alike", attack="pgd", right=80)]
    assert [(r.label, r.rank) for r in only([*alike, *items[:2]]).rows] == [("alike", 1), ("whole", 1)]
    better = [evidence("better", attack="pgd", right=95)]
    assert [(r.label, r.rank) for r in only([*better, *items[:2]]).rows] == [("better", 1), ("whole", 2)]


def test_a_purifier_and_a_classifier_are_compared_under_the_same_access() -> None:
    # What a classifier withstands white-box it withstands gray-box too: that is what the purifier is held to.
    items = [
        evidence("net", WHITE, "pgd", 70),
        evidence("sponge", GRAY, "pgd", 90),
        evidence("sponge", WHITE, "pgd", 80),
        evidence("sponge", TRANSFER, "pgd", 20),
    ]
    found = only(items)
    assert [(r.label, r.place, r.headline) for r in found.rows] == [
        ("net", "(≈1)", "70.0†"),
        ("sponge", "≈1", "20.0"),
    ]


def test_rows_that_share_a_name_say_how_they_differ() -> None:
    items = [
        evidence("pssr", attack="pgd", arguments={"alpha": 1.5, "epochs": 8}),
        evidence("pssr", attack="cw", arguments={"epochs": 8, "alpha": 1.5}),
        evidence("pssr", arguments={"alpha": 2.0, "epochs": 8}),
    ]
    assert {r.label for r in only(items).rows} == {"pssr", "pssr (alpha=2)"}


def test_seeds_and_weights_are_rows_of_their_own() -> None:
    seeds = [evidence("a"), evidence("a", training_seed=1)]
    assert {r.label for r in only(seeds).rows} == {"a (seed 0)", "a (seed 1)"}
    weights = [evidence("a", artifact="1" * 64), evidence("a", artifact="2" * 64)]
    assert {r.label for r in only(weights).rows} == {"a (weights 11111111)", "a (weights 22222222)"}


def test_variants_of_an_attack_are_columns_of_their_own() -> None:
    items = [evidence("a", settings={"steps": 40}), evidence("b", settings={"steps": 40})]
    found = only([*items, evidence("a", settings={"steps": 100}, right=10)])
    assert found.attacks == ("pgd", "pgd (steps=100)")


def test_attack_seeds_are_united_and_said() -> None:
    found = only([evidence(right=50), evidence(right=~first(10), attack_seed=7)])
    entry = found.rows[0].entries[Column(WHITE, "pgd")]
    assert entry.figure == "40.0"
    assert footnotes(found) == ("none, white-box pgd: worst case over attack seeds 0, 7.",)


def test_a_search_in_bfloat16_is_said() -> None:
    coarse = evidence("a")
    coarse = replace(coarse, cell=replace(coarse.cell, search_precision="bfloat16"))
    said = "Searched in bfloat16, what they broke confirmed in float32: pgd."
    assert said in list(remarks(only([coarse])))
    assert said not in list(remarks(only([evidence("a")])))


@pytest.mark.parametrize(("clean", "said"), [(45, False), (40, True), (3, True)])
def test_who_is_no_better_than_a_constant_answer_is_said_to_have_nothing_to_defend(clean: int, said: bool) -> None:
    item = evidence("a", right=clean, clean=clean)
    label = np.repeat([0, 1, 2], [40, 30, 30])
    outcome = replace(item.outcome, label=label, clean=(item.outcome.clean.T + label).T)
    outcome = replace(outcome, adversarial=outcome.clean)
    found = [
        line for line in remarks(only([replace(item, outcome=outcome)])) if "nothing is left to defend" in line
    ]
    assert bool(found) == said
    assert all(
        line.startswith("a: no better on clean images than naming one class always (40.0 %)") for line in found
    )


def test_other_samples_and_other_balls_are_other_tables() -> None:
    item = evidence()
    bigger = replace(item, cell=replace(item.cell, threat=ThreatModel("linf", 0.4)))
    elsewhere = replace(item, cell=replace(item.cell, samples=replace(SAMPLES, digest="e" * 64)))
    assert len(leaderboard.build([item, bigger, elsewhere])) == 3


# --- what went wrong -----------------------------------------------------------------------------------------


def test_an_unfinished_cell_is_shown_and_not_counted() -> None:
    found = only([evidence(attack="pgd", right=50), unfinished(evidence(attack="cw", right=0), 40)])
    entry = found.rows[0].entries[Column(WHITE, "cw")]
    assert (entry.status, entry.figure) == ("partial", "0.0…")
    assert percent(found.rows[0]) == 50.0
    assert found.rows[0].headline == "50.0†"
    assert footnotes(found) == ("none, white-box cw: 40 of 100 images so far; not in the worst case.",)


def test_a_cell_that_says_done_but_lacks_images_is_unfinished() -> None:
    short = replace(unfinished(evidence(), 99), status="done")
    assert only([short]).rows[0].entries[Column(WHITE, "pgd")].status == "partial"


def test_a_failed_cell_says_why() -> None:
    found = only([failed(evidence(), "left the ball by 0.1;\nproject")])
    entry = found.rows[0].entries[Column(WHITE, "pgd")]
    assert entry.figure == "failed"
    assert found.rows[0].robust is None
    assert found.rows[0].headline == "n/r"
    assert found.rows[0].clean.figure == "n/r"
    assert footnotes(found) == ("none, white-box pgd: failed: left the ball by 0.1; project.",)


def test_a_stand_in_that_failed_leaves_the_union_unfinished(both: list[Evidence]) -> None:
    broken = failed(evidence("pssr", BPDA, "pgd", stand_in="soft"), "NaN")
    found = only([*both, broken])
    assert row(found, "pssr").entries[Column(BPDA, "pgd")].figure == "40.0…"
    assert percent(row(found, "pssr")) == 10.0


# --- the paper -----------------------------------------------------------------------------------------------


def test_every_value_of_the_paper_is_there() -> None:
    lines = list(paper.values())
    assert len(lines) == 360
    assert sum(line["value"] == "" for line in lines) == 9  # its dashes
    assert {line["table"] for line in lines} == {"1", "2", "3", "4"}


@pytest.mark.parametrize(
    ("place", "percent"),
    [
        ((1, "mnist", "pssr", "pgd"), 98.92),
        ((2, "mnist", "trades", "fgsm"), 95.35),
        ((3, "mnist", "pssr", "bpda"), 94.67),
        ((4, "mnist", "ps", "pgd"), 31.24),
        ((1, "cifar100", "bagt", "cw"), 33.16),
        ((1, "cifar10", "baseline", "cw"), 7.41),
        ((4, "cifar10", "baseline", "cw"), 0.00),
        ((1, "cifar10", "pssr", "cw"), 80.99),
        ((4, "cifar10", "ps-cae-ard", "cw"), 83.91),
    ],
)
def test_values_of_the_paper(place: tuple[int, str, str, str], percent: float) -> None:
    found = paper.printed(*place)
    assert found is not None
    assert found.percent == percent


def test_a_dash_of_the_paper_is_no_number() -> None:
    assert paper.printed(1, "mnist", "pcl", "aa") is None


def test_table_4_agrees_with_table_1_but_for_two_values() -> None:
    numbers = [paper.printed(1, line["dataset"], line["row"], line["column"]) for line in paper.values()]
    told = {
        (n.dataset, n.row, n.column, n.percent, other.percent)
        for n in numbers
        if n
        for other in paper.contradictions(n)
    }
    assert told == {
        ("cifar10", "baseline", "cw", 7.41, 0.0),
        ("cifar10", "pssr", "cw", 80.99, 83.91),
        ("cifar10", "trades", "benign", 58.89, 57.21),
    }


@pytest.mark.parametrize(
    ("defense", "access", "attack", "expected"),
    [
        ("pssr", None, "", (1, 99.30)),
        ("pssr", GRAY, "pgd", (1, 98.92)),
        ("pssr", TRANSFER, "pgd", (2, 98.95)),
        ("pssr", BPDA, "pgd", (3, 94.67)),
        ("pssr", WHITE, "pgd", None),
        ("pssr", BPDA, "cw", None),
        ("none", WHITE, "pgd", (1, 0.48)),
        ("none", GRAY, "pgd", (1, 0.48)),
        ("none", BPDA, "pgd", None),
        ("pssr:ps", GRAY, "pgd", (4, 31.24)),
        ("pssr:ps", TRANSFER, "pgd", None),
        ("mine", GRAY, "pgd", None),
        ("none", WHITE, "square", None),
    ],
)
def test_where_the_papers_numbers_stand(
    defense: str, access: Access | None, attack: str, expected: tuple[int, float] | None
) -> None:
    found = paper.beside("mnist", defense, THREAT, access, attack)
    assert (found and (found.table, found.percent)) == expected


@pytest.mark.parametrize(
    ("dataset", "defense", "percent"),
    [
        ("cifar100", "rice", 23.83),
        ("cifar100", "bagt-pgd-at", 31.21),
        ("cifar100", "bagt-trades", 31.21),
        ("cifar10", "uat", 64.44),
        ("cifar10", "rst", 64.44),
    ],
)
def test_rows_that_the_paper_names_after_their_idea_are_found(dataset: str, defense: str, percent: float) -> None:
    found = paper.beside(dataset, defense, ThreatModel("linf", 8 / 255), WHITE, "pgd")
    assert found is not None
    assert found.percent == percent


def test_another_ball_or_recipe_has_no_number_of_the_paper(both: list[Evidence]) -> None:
    assert paper.beside("mnist", "pssr", ThreatModel("linf", 0.1), GRAY, "pgd") is None
    assert paper.beside("mnist", "pssr", ThreatModel("l2", 0.3), GRAY, "pgd") is None
    found = only([*both, evidence("pssr", GRAY, "pgd", arguments={"alpha": 9})])
    assert row(found, "pssr").entries[Column(GRAY, "pgd")].paper is not None
    assert row(found, "pssr (alpha=9)").entries[Column(GRAY, "pgd")].paper is None


def test_contradictions_are_printed_where_the_number_is() -> None:
    samples = replace(SAMPLES, dataset="cifar10")
    item = evidence(attack="cw")
    item = replace(item, cell=replace(item.cell, samples=samples, threat=ThreatModel("linf", 8 / 255)))
    told = "baseline, cifar10, cw: Table 1 prints 7.41, Table 4 prints 0.00"
    assert any(told in remark for remark in small_print(only([item])))
