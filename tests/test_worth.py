"""What the audit says of a number beyond its checks: what sets it, what weaker attacks report, what is gained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rows import BPDA, GRAY, SAMPLES, THREAT, WHITE, evidence, first

from benchbox.analysis.worth import sentences, worth
from benchbox.audit import Case, Stored, Subject, check
from benchbox.domain import NULL_ATTACK, SampleList

PARTS = ("pure:half",)


def stored(*others, **changes) -> Stored:
    """A purifier that gray-box attacks leave at 90 %, the identity at 70 and white-box PGD at 12."""
    cells = (
        evidence("pure", GRAY, "pgd", 90),
        evidence("pure", BPDA, "pgd", 70, stand_in="identity"),
        evidence("pure", BPDA, "pgd", 12),
        evidence("pure", WHITE, "pgd", 12),
        evidence("pure", WHITE, "square", 30),
    )
    subject = Subject("pure", cells[0].cell.artifact, purifies=True, stand_ins=("identity",), ablations=PARTS)
    static = tuple(e for e in others if e.cell.defense.name == "none")
    return replace(Stored(subject, THREAT, (1, 28, 28), cells, static, (), others, ("pure",)), **changes)


def found_of(case: Stored):
    return worth(case.finished, case.bare)


def judged(id: str, case: Stored):
    return check(id)(Case(case, None))


def test_the_attack_that_sets_the_number_is_named_with_the_gaps_to_the_weaker_ones() -> None:
    found = found_of(stored(evidence("none", WHITE, "pgd", 10)))
    assert found["set_by"] == {"access": "white-box", "attack": "pgd", "through": "white-box"}
    assert found["ties"] == []  # the exact stand-in is the white-box attack once more
    gaps = {other["route"]: other for other in found["weaker"]}
    assert gaps["gray-box"]["difference"] == pytest.approx(78)
    assert gaps["bpda through identity"]["difference"] == pytest.approx(58)
    # Binomial standard deviation of 78 of 100 is 4.1 points.
    low, high = gaps["gray-box"]["low"], gaps["gray-box"]["high"]
    assert 69 <= low <= 71.5
    assert 84.5 <= high <= 87
    assert found["said"][0] == (
        "12.0 % [6.4, 20.0] of 100 images are robust; white-box pgd sets the number: it alone leaves 12.0 %"
    )
    assert any(
        said.startswith("gray-box alone (pgd) would report 90.0 %: +78.0 points [") for said in found["said"]
    )


def test_among_equals_the_cheapest_attack_sets_the_number() -> None:
    case = stored()
    dear = evidence("pure", WHITE, "aa", 12)
    dear = replace(dear, outcome=replace(dear.outcome, forwards=np.full(100, 7857.0)))
    found = found_of(replace(case, cells=(dear, *case.cells)))
    assert found["set_by"]["attack"] == "pgd"
    assert found["ties"] == ["white-box aa"]


@pytest.mark.parametrize(("bare", "word"), [(10, "not significant"), (2, "significant"), (60, "no gain")])
def test_a_gain_is_called_significant_only_if_it_is(bare: int, word: str) -> None:
    case = stored(evidence("none", WHITE, "pgd", bare))
    said = found_of(case)["said"][-1]
    assert said.startswith(f"gain over the bare classifier (none): {12 - bare:+}.0 points [")
    assert f"], {word} (exact McNemar, p = " in said
    assert judged("C3", case).verdict == ("PASS" if word == "significant" else "WARN")


def test_what_was_recorded_once_is_told_in_the_words_of_today() -> None:
    percent = {"percent": 24.5, "low": 21.8, "high": 27.3}
    gain = {"over": "pgd-at", "difference": -66.0, "low": -68.9, "high": -63.0, "significant": False}
    by = {"access": "white-box", "attack": "pgd", "through": "white-box"}
    old = {
        **{"n": 1000, "robust": percent, "set_by": by, "alone": 25.0, "ties": [], "weaker": [], "fallen": 0},
        **{
            "gain": {**gain, "p": 5e-05, "test": "sign-flip"},
            "said": ["-66.0 points, not significant"],
        },
    }
    said = sentences(old)
    assert said[-1].endswith("-66.0 points [-68.9, -63.0], no gain (sign-flip, p = 5e-05)")
    assert len(said) == 2
    assert sentences({"said": ["as it was"], "robust": percent}) == ["as it was"]
    assert sentences({}) == []


def test_without_a_finished_cell_nothing_is_claimed() -> None:
    assert found_of(stored(cells=()))["said"] == [
        "nothing finished is stored, so there is no number yet; `benchbox run` fills it"
    ]


def test_an_ablation_names_what_is_missing() -> None:
    bare, half = evidence("none", WHITE, "pgd", 10), evidence("pure:half", WHITE, "pgd", 5)
    assert "missing on these samples: the bare classifier, pure:half" in judged("C4", stored()).sentence
    assert "missing on these samples: pure:half" in judged("C4", stored(bare)).sentence
    found = judged("C4", stored(bare, half))
    assert found.verdict == "PASS"
    assert found.numbers == {"the bare classifier": pytest.approx(0.02), "pure:half": pytest.approx(0.07)}
    elsewhere = replace(SAMPLES, indices=tuple(range(100, 200)))
    other = replace(half, cell=replace(half.cell, samples=SampleList(**vars(elsewhere))))
    assert judged("C4", stored(bare, other)).verdict == "INCOMPLETE"


def test_other_defences_are_compared_with_holm() -> None:
    assert judged("D2", stored()).verdict == "INCOMPLETE"
    # 12 against 2: ten one-sided discordant samples, p = 2 / 2 ** 10.
    alone = judged("D2", stored(evidence("none", WHITE, "pgd", 2)))
    assert alone.verdict == "PASS"
    assert "none +10.0 points" in alone.sentence
    assert "(p = 0.002)" in alone.sentence
    both = judged("D2", stored(evidence("none", WHITE, "pgd", 2), evidence("even", WHITE, "pgd", ~first(88))))
    assert both.verdict == "WARN"
    assert both.numbers == {"alike": 1, "compared": 2}
    assert "even" in both.sentence
    assert "none" not in both.sentence


def test_another_defence_without_a_finished_attack_is_no_comparison() -> None:
    alone = evidence("none", WHITE, NULL_ATTACK, 2)
    assert judged("D2", stored(alone)).verdict == "INCOMPLETE"
    assert judged("D2", stored(alone, evidence("even", WHITE, "pgd", 2))).numbers["compared"] == 1


def test_two_trainings_of_one_name_are_told_apart() -> None:
    bare = evidence("none", WHITE, "pgd", 2)
    twice = [
        replace(bare, cell=replace(bare.cell, artifact=a, view=replace(bare.cell.view, artifact=a)))
        for a in ("first", "again")
    ]
    found = judged("D2", stored(*twice))
    assert found.numbers["compared"] == 2
    assert "none (first)" in found.sentence
    assert "none (again)" in found.sentence
