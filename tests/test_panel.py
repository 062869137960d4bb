"""The minimum panel of a rank: what is missing is named, and nothing is ranked without it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rows import BPDA, GRAY, TRANSFER, WHITE, evidence, only, small_print

from benchbox.analysis.background import Background
from benchbox.domain import Evidence, Nature

PGD = Nature("iterative", climbs=("cross-entropy",), steps=40, step=1 / 30)
SCORES, LABELS = Nature("score-based", queries=5000), Nature("decision-based", queries=1000)


def attacked(name: str, nature: Nature | None, attack: str = "pgd", access: Any = WHITE, **cell: Any) -> Evidence:
    return evidence(name, access, attack, 50, nature=nature, **cell)


def panel(name: str = "net") -> list[Evidence]:
    return [
        attacked(name, PGD),
        attacked(name, SCORES, "square"),
        attacked(name, LABELS, "rays"),
        attacked(name, PGD, access=TRANSFER),
    ]


def lacking(*items: Evidence, **noted: Any) -> tuple[str, ...]:
    (row,) = only(list(items), Background(kinds={items[0].cell.defense.name: noted})).rows
    assert (row.rank is None) == bool(row.lacking)
    return row.lacking


def test_a_whole_panel_is_ranked() -> None:
    assert lacking(*panel(), substitute=True, stand_ins=["soft"]) == ()


def test_noise_alone_is_no_evaluation() -> None:
    table = only([attacked("none", Nature("random"), "noise"), *panel("net")])
    assert [(row.label, row.place) for row in table.rows] == [("net", "(≈1)"), ("none", "–")]
    said = " ".join(small_print(table))
    assert (
        "none: not ranked, for want of an iterated gradient attack whose steps cross the ball, a score-based"
        in said
    )
    assert "net: not ranked" not in said


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        (0, "an iterated gradient attack whose steps cross the ball"),
        (1, "a score-based attack"),
        (2, "a hard-label attack"),
        (3, "a transfer attack"),
    ],
)
def test_each_part_is_asked_for(left_out: int, said: str) -> None:
    items = panel()
    del items[left_out]
    assert lacking(*items, substitute=True) == (said,)


def test_no_transfer_where_no_substitute_can_be_trained() -> None:
    assert lacking(*panel()[:3], substitute=False) == ()


def test_steps_that_cannot_cross_the_ball_are_no_search_of_it() -> None:
    _, *others = panel()
    short = attacked("net", replace(PGD, steps=10))
    assert lacking(short, *others) == ("an iterated gradient attack whose steps cross the ball",)
    assert lacking(attacked("net", replace(PGD, steps=30)), *others) == ()
    # Stored before a nature said how long its steps are: the settings do.
    assert lacking(attacked("net", replace(PGD, step=None), settings={"step": 1 / 30}), *others) == ()
    assert lacking(attacked("net", replace(PGD, step=None)), *others) != ()


def test_every_stand_in_and_plain_autograd_where_there_is_any() -> None:
    noted = {"stand_ins": ["exact", "identity", "soft"], "exact": "exact", "substitute": False}
    _, scores, labels, _ = panel("sponge")
    through = [attacked("sponge", PGD, access=BPDA, stand_in=name) for name in ("identity", "soft")]
    gray = attacked("sponge", PGD, access=GRAY)
    assert lacking(gray, scores, labels, *through, **noted) == ("plain autograd",)
    assert lacking(gray, scores, labels, *through, stand_ins=["identity", "soft"]) == ()
    plain = attacked("sponge", PGD)
    assert lacking(gray, scores, labels, plain, **noted) == ("stand-in identity", "stand-in soft")
    assert lacking(gray, scores, labels, plain, *through, **noted) == ()


def test_a_randomised_defence_is_attacked_over_its_draws() -> None:
    _, scores, labels, _ = panel()
    known = Background(randomized=["net"])
    for eot, said in ((1, ("gradients averaged over draws (EOT)",)), (20, ())):
        (row,) = only([attacked("net", PGD, eot=eot), scores, labels], known).rows
        assert row.lacking == said


def test_nothing_left_to_break_needs_no_more_attacks() -> None:
    assert lacking(evidence("net", attack="pgd", right=0, nature=PGD)) == ()


def test_attacks_that_never_said_what_they_are_are_named() -> None:
    assert lacking(attacked("net", None), *panel()[1:]) == (
        "an iterated gradient attack whose steps cross the ball",
        "(what pgd is was not recorded)",
    )
