"""Everything that a table, a comparison and a verdict say of a defence beside its numbers, field by field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

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
    first,
    only,
    row,
    small_print,
    unfinished,
)
from test_probed import record

from benchbox.analysis import leaderboard, pairs
from benchbox.analysis.background import Background
from benchbox.analysis.compare import compare
from benchbox.analysis.probed import probed
from benchbox.analysis.score import measure
from benchbox.analysis.table import Column
from benchbox.analysis.worth import worth
from benchbox.domain import Access, Evidence, Nature, ThreatModel

IMPORTED = Access.IMPORTED


# --- tables --------------------------------------------------------------------------------------------------


def test_tables_stand_by_norm_then_radius_then_length_of_the_list() -> None:
    few = replace(SAMPLES, indices=tuple(range(50)), digest="z" * 64)
    twin = replace(SAMPLES, digest="a" * 64)
    balls = [ThreatModel("linf", 0.3), ThreatModel("l2", 9.0), ThreatModel("linf", 0.1)]
    cells = [evidence(threat=ball) for ball in balls]
    cells += [evidence(samples=few, right=first(3, 50), clean=first(9, 50)), evidence(samples=twin)]
    found = [
        (t.threat.norm, t.threat.epsilon, len(t.samples), t.samples.digest[0]) for t in leaderboard.build(cells)
    ]
    assert found == [
        ("l2", 9.0, 100, "d"), ("linf", 0.1, 100, "d"),
        ("linf", 0.3, 50, "z"), ("linf", 0.3, 100, "a"), ("linf", 0.3, 100, "d"),
    ]  # fmt: skip


def test_a_seed_that_is_not_the_first_of_its_name_is_said_wherever_the_row_stands() -> None:
    few = replace(SAMPLES, indices=tuple(range(50)), digest="z" * 64)
    second = evidence(samples=few, right=first(3, 50), clean=first(9, 50), training_seed=1, artifact="b")
    assert [row.label for table in leaderboard.build([evidence(), second]) for row in table.rows] == [
        "none (seed 1)",
        "none",
    ]
    assert [row.label for row in leaderboard.build([second])[0].rows] == ["none"]


def test_a_table_keeps_what_was_noted_beside_its_cells() -> None:
    cell = evidence("mine").cell
    known = Background(
        gradients={cell.craft_key: {"samples": 3}},
        contract={cell.artifact: {"remark": "slow"}},
        papers={"mine": "@article{mine}"},
        cards={cell.artifact: {"seconds": 9.0}, "of another": {"seconds": 1.0}},
    )
    found = only([evidence("mine")], known)
    assert (found.gradients, found.contract, found.papers) == (known.gradients, known.contract, known.papers)
    assert found.cards == {cell.artifact: {"seconds": 9.0}}
    assert (found.samples, found.threat) == (SAMPLES, THREAT)


def test_a_row_says_what_is_known_of_its_defence() -> None:
    cells = [
        evidence("mine", GRAY, right=60),
        evidence("mine", WHITE, right=40, training_seed=0),
        evidence("none"),
    ]
    audit = record([0, 1, 70]) | {
        "summary": {"counts": {"PASS": 9}, "integrity": [], "masking": ["B1"], "attack": []},
    }
    known = Background(oracles={"mine"}, audits={cells[0].cell.artifact: audit})
    found = only(cells, known)
    mine, none = row(found, "mine"), row(found, "none")
    assert (mine.oracle, mine.purifier, mine.usual, mine.rank) == (True, True, True, None)
    assert (none.oracle, none.purifier, none.usual, none.rank) == (False, False, True, 1)
    assert (mine.defense, mine.artifact, mine.training_seed) == (cells[0].cell.defense, cells[0].cell.artifact, 0)
    assert (str(mine.badge), str(none.badge)) == ("masking B1", "not audited")
    assert (mine.fallen, none.fallen) == (2, 0)
    assert mine.probed is not None
    assert none.probed is None
    assert mine.robust is not None
    assert mine.robust.percent == 38.0
    assert (mine.clean.figure, mine.over, str(mine.set_by)) == ("99.0", 2, "white-box pgd")
    assert mine.missing == none.missing == ()
    assert none.entries[Column(GRAY, "pgd")].status == "same"


def test_an_unusual_recipe_or_a_seed_is_said_and_its_paper_is_not() -> None:
    cells = [
        evidence("pssr", GRAY, arguments={"alpha": 1.5}),
        evidence("pssr", GRAY, arguments={"alpha": 1.5}, attack="cw"),
        evidence("pssr", GRAY, arguments={"alpha": 2.5}),
    ]
    found = only(cells)
    usual, other = row(found, "pssr"), row(found, "pssr (alpha=2.5)")
    assert (usual.usual, other.usual) == (True, False)
    assert usual.clean.paper is not None
    assert usual.clean.paper.percent == 99.30
    assert other.clean.paper is None
    seeds = [replace_training(evidence("none"), seed) for seed in (0, 3)]
    assert [(r.label, r.training_seed) for r in only(seeds).rows] == [("none (seed 0)", 0), ("none (seed 3)", 3)]


def replace_training(item: Evidence, seed: int) -> Evidence:
    artifact = f"{seed}" * 64
    view = replace(item.cell.view, artifact=artifact)
    return replace(item, cell=replace(item.cell, training_seed=seed, artifact=artifact, view=view))


def test_what_a_rank_lacks_hangs_on_what_was_noted_and_on_what_is_left() -> None:
    alone = Nature("iterative", climbs=("margin",), steps=40, step=0.1)
    noted = {"stand_ins": ["soft"], "exact": None, "substitute": True}
    cells = [evidence("mine", GRAY, nature=alone), evidence("mine", WHITE, nature=alone)]
    lacks = ("stand-in soft", "a score-based attack", "a hard-label attack", "a transfer attack")
    assert row(only(cells, Background(kinds={"mine": noted})), "mine").lacking == lacks
    assert row(only(cells), "mine").lacking == lacks[1:3]
    broken = [replace(item, outcome=evidence("mine", right=0).outcome) for item in cells]
    assert row(only(broken, Background(kinds={"mine": noted})), "mine").lacking == ()
    # Nothing is finished, so nothing is left to break either.
    begun = [unfinished(item, 10) for item in cells]
    nothing = row(only(begun), "mine")
    assert (nothing.robust, nothing.lacking, nothing.fallen, nothing.set_by, nothing.over) == (
        None,
        (),
        0,
        None,
        0,
    )
    assert nothing.clean.status == "partial"
    assert nothing.clean.figure == "100.0…"


def test_the_longest_beginning_speaks_for_the_clean_images_where_nothing_is_finished() -> None:
    shorter = unfinished(evidence("a", clean=5), 10)
    longer = unfinished(evidence("a", attack="cw", clean=5), 40)
    middle = replace(longer, outcome=evidence("a", attack="cw").outcome.rows(slice(10, 90)))
    assert only([shorter, longer]).rows[0].clean.figure == "12.5…"
    assert only([shorter, middle]).rows[0].clean.figure == "50.0…"
    assert only([middle]).rows[0].clean.status == "not run"


def test_of_equal_attacks_the_one_that_knows_most_sets_the_number_then_the_first_by_name() -> None:
    cells = [evidence("mine", access, right=20, artifact="m") for access in (TRANSFER, GRAY, BPDA, IMPORTED)]
    assert only(cells).rows[0].set_by == Column(BPDA, "pgd")
    assert only([*cells, evidence("mine", WHITE, "zoo", right=20, artifact="m")]).rows[0].set_by == Column(
        WHITE, "zoo"
    )
    equals = [evidence("mine", attack=name, right=20) for name in ("b", "c", "a")]
    assert only(equals).rows[0].set_by == Column(WHITE, "a")
    said = "the single attack that gets furthest, of equals the one whose attacker knows most, then the cheapest."
    assert any(line.endswith(said) for line in small_print(only(equals)))


def test_white_box_stands_for_other_accesses_of_what_does_not_purify() -> None:
    cells = [evidence("sponge", GRAY), evidence("net", WHITE), unfinished(evidence("net", WHITE, "cw"), 50)]
    cells += [evidence("sponge", GRAY, "cw"), evidence("net", WHITE, "square")]
    found = only(cells)
    assert [str(column) for column in found.columns] == ["gray-box pgd", "gray-box cw", "white-box square"]
    net = row(found, "net")
    assert [net.entries[c].status for c in found.columns] == ["same", "partial", "done"]
    assert [row(found, "sponge").entries[c].status for c in found.columns] == ["done", "done", "not run"]
    assert [str(c) for c in net.missing] == ["gray-box cw"]
    # A white-box number of somebody else's weights is about somebody else.
    elsewhere = [replace(cells[1], cell=replace(cells[1].cell, artifact="another")), cells[0]]
    assert row(only(elsewhere), "net").entries[Column(GRAY, "pgd")].status == "not run"


def test_the_cell_with_most_draws_speaks_for_the_clean_images() -> None:
    once = evidence("dice", right=50, clean=40, eot=2)
    often = evidence("dice", attack="cw", right=np.repeat(first(50), 3, 1), clean=90, eot=2)
    assert only([once, often]).rows[0].clean.figure == "90.0"


# --- one cell ------------------------------------------------------------------------------------------------


def test_what_is_said_of_one_cell() -> None:
    right = np.array([[True, True, False], [True, False, False], [False, True, True], [True, True, True]])
    few = replace(SAMPLES, indices=(0, 1, 2, 3))
    item = evidence("noisy", right=right, clean=~right, samples=few)
    labels = np.array([1, 1, 0, 2])
    moved = {name: getattr(item.outcome, name) + labels[:, None] for name in ("clean", "adversarial")}
    item = replace(item, outcome=replace(item.outcome, label=labels, **moved))
    found = measure(item)
    assert found.extra == {"majority_vote": 75.0, "worst_of_r": 25.0, "fixed_seed": 75.0}
    assert found.by_class == {
        "0": {"n": 1, "clean": pytest.approx(100 / 3), "percent": pytest.approx(200 / 3)},
        "1": {"n": 2, "clean": pytest.approx(50), "percent": pytest.approx(50)},
        "2": {"n": 1, "clean": 0.0, "percent": 100.0},
    }
    assert found.passes == (41.0, 40.0)
    assert measure(unfinished(item, 0)).passes is None
    assert (measure(unfinished(item, 0)).by_class, measure(unfinished(item, 0)).extra) == ({}, {})
    assert measure(evidence("noisy", IMPORTED)).passes is None
    through = [(WHITE, None, ""), (BPDA, None, "exact"), (BPDA, "soft", "soft"), (GRAY, None, "")]
    for access, stand_in, said in through:
        assert measure(evidence("noisy", access, stand_in=stand_in)).stand_in == said


# --- verdicts ------------------------------------------------------------------------------------------------


def test_what_a_number_is_worth_item_by_item() -> None:
    cells = [
        evidence("pure", TRANSFER, "pgd", 90),
        evidence("pure", GRAY, "cw", 80),
        evidence("pure", GRAY, "apgd", 85),
        evidence("pure", BPDA, "pgd", 70, stand_in="soft"),
        evidence("pure", BPDA, "pgd", 40),
        evidence("pure", WHITE, "pgd", 40),
    ]
    bare = [evidence("none", right=10), evidence("none", attack="cw", right=first(N - 5)[::-1])]
    found = worth(cells, bare, probed(record([0, 1, 2, 70]), SAMPLES))
    assert (found["n"], found["robust"]["percent"], found["alone"], found["fallen"]) == (100, 37.0, 40.0, 3)
    assert [(w["route"], w["attacks"], w["percent"]) for w in found["weaker"]] == [
        ("white-box", ["pgd"], 40.0), ("bpda through soft", ["pgd"], 70.0), ("gray-box", ["apgd", "cw"], 80.0),
        ("transfer", ["pgd"], 90.0),
    ]  # fmt: skip
    right = (np.arange(N) < 40) & (np.arange(N) > 2)
    expected = pairs.bootstrap((np.arange(N) < 80).astype(float), right.astype(float))
    gray = found["weaker"][2]
    assert gray["difference"] == pytest.approx(43)
    assert (gray["low"], gray["high"]) == pytest.approx((100 * expected.low, 100 * expected.high))
    gain = found["gain"]
    # Of the bare classifier the images 5 to 9 are left.
    assert (gain["over"], gain["test"], gain["significant"]) == ("none", "exact McNemar", True)
    assert gain["difference"] == pytest.approx(32)
    assert gain["p"] == pytest.approx(pairs.mcnemar(32, 0))
    assert worth(cells, [evidence("none", right=90)])["gain"]["significant"] is False
    assert worth(cells)["gain"] is None
    assert len(found["said"]) == 5
    assert len(worth(cells[4:])["said"]) == 1


# --- comparisons ---------------------------------------------------------------------------------------------


def told(a: list[Evidence], b: list[Evidence], **more: Any) -> Any:
    (found,) = compare([*a, *b], a[0].cell.defense.name, b[0].cell.defense.name, **more)
    return found


def test_a_comparison_says_of_each_side_what_it_left_out() -> None:
    dice = np.repeat(first(70), 4, 1)
    a = [
        evidence("dice", GRAY, right=dice),
        evidence("dice", WHITE, right=dice),
        evidence("dice", WHITE, "cw", dice),
        evidence("dice", attack="null", right=np.repeat(first(99), 4, 1)),
        unfinished(evidence("dice", BPDA, right=dice), 5),
    ]
    b = [evidence("none", WHITE, right=40), evidence("none", WHITE, "square", 30)]
    found = told(a, b, known=Background(audits={b[0].cell.artifact: record([0, 1])}))
    assert (found.samples, found.threat, found.lists) == (SAMPLES, THREAT, ())
    assert [str(c) for c in found.common] == ["gray-box pgd", "white-box pgd"]
    left, right = found.a, found.b
    assert (left.name, left.defense, left.purifier) == ("dice", a[0].cell.defense, True)
    assert (right.name, right.defense, right.purifier) == ("none", b[0].cell.defense, False)
    assert (left.trained, right.trained) == ({0: a[0].cell.artifact}, {0: b[0].cell.artifact})
    assert (left.unfinished, right.unfinished, left.fallen, right.fallen) == (1, 0, 0, 2)
    assert ([str(c) for c in left.alone], [str(c) for c in right.alone]) == (
        ["white-box cw"],
        ["white-box square"],
    )
    assert [control.verdict for control in left.controls] == ["agrees"]
    assert right.controls == ()
    assert found.family == len(found.pairs) == 5
    for pair in found.pairs:
        n = 100
        assert pair.detectable == pairs.detectable(n, pair.discordance)
        assert pair.interval is not None
    white = next(pair for pair in found.pairs if pair.label == "white-box pgd")
    assert (white.a, white.b, white.only_a, white.only_b) == ((0.7,), (0.4,), tuple(range(40, 70)), ())
    assert (white.discordance, white.unit, white.scope) == (pytest.approx(0.3), "sample", "attack")
    expected = pairs.bootstrap(first(70)[:, 0].astype(float), first(40)[:, 0].astype(float))
    assert white.interval == pytest.approx(expected)
    own = next(pair for pair in found.pairs if pair.label == "own worst case")
    assert (own.a, own.b) == ((0.7,), (0.28,))


def test_an_attack_may_be_named_and_then_no_other_counts() -> None:
    a = [evidence("a", right=70), evidence("a", attack="cw", right=60)]
    b = [evidence("b", right=50), evidence("b", attack="cw", right=55), evidence("b", attack="fgsm")]
    found = told(a, b, attacks=["cw"])
    assert [pair.label for pair in found.pairs] == ["clean", "common worst case", "white-box cw"]
    assert (found.pairs[1].a, found.pairs[1].b) == ((0.6,), (0.55,))
    assert (found.a.alone, found.b.alone) == ((), ())


def test_three_trainings_on_one_side_are_no_spread_of_both() -> None:
    a = [replace_training(evidence("a", right=50 + k), k) for k in range(3)]
    b = [replace_training(evidence("b", right=40 + k), k + 5) for k in range(2)]
    found = told(a, b)
    assert {pair.unit for pair in found.pairs} == {"sample"}
    more = [*b, replace_training(evidence("b", right=45), 9)]
    units = {pair.label: pair.unit for pair in told(a, more).pairs}
    # All trainings are equally accurate on clean images: no spread to compare with.
    assert units == {"clean": "sample", "common worst case": "training seed", "white-box pgd": "training seed"}
    assert told(a, more).a.trained == {k: f"{k}" * 64 for k in range(3)}
