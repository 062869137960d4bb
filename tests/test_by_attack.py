"""Every way of attacking some defences side by side: each stand-in, each number of draws, on the most images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rows

from benchbox import report
from benchbox.analysis import leaderboard
from benchbox.domain import Evidence, SampleList, ViewSpec
from benchbox.report import latex
from benchbox.report.attacks import document

FEW = SampleList("mnist", "test", (5, 3, 8, 1), "e" * 64, seed=0)
DRAWS = 4


def noisy(right: int, n: int = rows.N, name: str = "noisy", **more: object) -> Evidence:
    """The first images are right in every draw but the first, the others in that one alone."""
    answers = np.repeat(rows.first(right, n), DRAWS, 1)
    answers[:, 0] ^= True
    return rows.evidence(name, right=answers, clean=np.ones((n, DRAWS), bool), **more)


def few(right: int, *, samples: SampleList = FEW, **more: object) -> Evidence:
    return noisy(right, len(samples), samples=samples, **more)


def device(item: Evidence, name: str) -> Evidence:
    return replace(item, provenance={"device": name}, seconds=90.0)


def shown(*evidence: Evidence):
    return document(leaderboard.build(evidence))


def test_a_defence_is_called_in_print_what_it_is_called() -> None:
    text = latex.render(shown(noisy(60), noisy(70, name="other")))
    assert r"Attack & other & noisy & Forward & Backward \\" in text
    assert r"Minutes & other & noisy \\" in text


def cells(grid) -> dict[str, list[str]]:
    return {row[0].text: [value.text for value in row[1:]] for row in grid.rows}


def test_each_stand_in_and_each_number_of_draws_has_a_row() -> None:
    (section,) = shown(
        noisy(60, eot=20),
        noisy(80, eot=1),
        noisy(70, eot=5),
        noisy(90, access=rows.BPDA, stand_in="identity"),
        noisy(80, access=rows.BPDA),  # the images of white-box PGD
        noisy(40, access=rows.BPDA, attack="bim"),
        noisy(95, access=rows.GRAY, name="other"),
    ).sections
    (accuracies, _) = section.grids
    assert [[value.text for value in row] for row in accuracies.rows] == [
        ["no attack", "100.0", "100.0", "", ""],
        ["pgd", "72.5", "n/r", "41", "40"],
        ["pgd", "n/r", "65.0", "41", "40"],
        ["pgd, EOT 5", "n/r", "60.0", "41", "40"],
        ["pgd, EOT 20", "n/r", "55.0", "41", "40"],
        ["bim", "n/r", "45.0", "41", "40"],
        ["pgd, through identity", "n/r", "70.0", "41", "40"],
        ["of 4, under the attack that leaves least", "95.0", "40.0", "", ""],
    ]
    assert accuracies.blocks == {
        1: "gray-box", 2: "white-box", 5: "bpda", 7: "another defence: the majority vote"
    }  # fmt: skip


def test_a_number_on_fewer_images_says_so_and_one_on_more_goes_before_it() -> None:
    section, _ = shown(noisy(80), few(1, eot=20), few(1)).sections
    assert section.title.endswith("the first 100 test images")
    (accuracies, minutes) = section.grids
    found = {row[0].text: row[1] for row in accuracies.rows}
    assert (found["pgd"].text, found["pgd"].notes) == ("65.0", ())
    assert found["pgd, EOT 20"].text == "37.5"
    (note,) = found["pgd, EOT 20"].notes
    assert section.notes[note - 1] == "on 4 random test images (seed 0)"
    assert minutes.rows[1][1].notes


def test_attacks_that_saw_fewer_images_are_set_beside_the_others_on_these() -> None:
    # The images 5, 3, 8 and 1, of which those before the fourth are right.
    _, shared = shown(noisy(4), few(1, eot=20)).sections
    assert shared.title.endswith("4 random test images (seed 0)")
    assert cells(shared.grids[0]) == {
        "no attack": ["100.0", "", ""],
        "pgd": ["50.0", "41", "40"],
        "pgd, EOT 20": ["37.5", "41", "40"],
        "of 4, under the attack that leaves least": ["25.0", "", ""],
    }
    apart = replace(FEW, indices=(5, 3, 8, 1000))
    assert len(shown(noisy(4), few(1, eot=20, samples=apart)).sections) == 1


def test_minutes_name_the_device() -> None:
    (section,) = shown(device(noisy(80), "a card"), device(noisy(70, eot=5), "a processor")).sections
    said = [[section.notes[note - 1] for note in row[1].notes] for row in section.grids[1].rows]
    assert said == [["on a card"], ["on a processor"]]
    assert [row[1].text for row in section.grids[1].rows] == ["1.50", "1.50"]


def test_what_the_control_refutes_has_no_number() -> None:
    wrong = rows.evidence("noisy", attack="null", right=noisy(10).outcome.adversarial == 0)
    (section,) = shown(noisy(80), wrong).sections
    assert cells(section.grids[0])["pgd"][0] == "withheld"


def test_what_has_not_finished_is_not_run() -> None:
    (section,) = shown(noisy(80), rows.unfinished(noisy(0, eot=20), 10)).sections
    assert "pgd, EOT 20" not in cells(section.grids[0])


def test_what_else_an_attack_was_run_with_is_taken_together() -> None:
    seeds = [rows.evidence(right=right, attack_seed=seed) for seed, right in enumerate((50, but(50)))]
    (section,) = shown(*seeds).sections
    accuracies, minutes = section.grids
    assert cells(accuracies)["pgd"] == ["0.0", "82", "80"]
    assert [value.text for value in minutes.rows[0]] == ["pgd", "0.05"]
    (note,) = accuracies.rows[1][1].notes
    assert section.notes[note - 1] == "2 runs together, worst for each image"
    found = {line["attack_seed"]: (line["percent"], line["key"]) for line in shown(*seeds).lines()}
    assert found == {0: (50.0, seeds[0].cell.key), 1: (50.0, seeds[1].cell.key)}
    sources = [rows.evidence(access=rows.TRANSFER, right=right, view=ViewSpec(str(right))) for right in (90, 80)]
    assert cells(shown(*sources).sections[0].grids[0])["pgd"][0] == "80.0"


def but(k: int) -> np.ndarray:
    """(N, 1): the first k images are wrong."""
    return ~rows.first(k)


def test_clean_images_that_are_not_all_scored_have_no_number_yet() -> None:
    begun = rows.unfinished(rows.evidence("begun", right=90, clean=60), 10)
    (section,) = shown(rows.evidence(), begun).sections
    columns, (clean, *_) = section.grids[0].columns, section.grids[0].rows
    found = {column.title: value.text for column, value in zip(columns, clean, strict=True)}
    assert (found["none"], found["begun"]) == ("99.0", "n/r")
    less = rows.evidence("begun", right=rows.first(2, 4), clean=rows.first(3, 4), samples=FEW)
    section, _ = shown(rows.evidence(), begun, less).sections
    column = [column.title for column in section.grids[0].columns].index("begun")
    value = section.grids[0].rows[0][column]
    assert value.text == "75.0"
    assert [section.notes[note - 1] for note in value.notes] == ["on 4 random test images (seed 0)"]


def test_trainings_that_differ_in_their_weights_alone_stand_apart() -> None:
    (section,) = shown(noisy(80), noisy(20, artifact="other weights")).sections
    names = [column.title for column in section.grids[0].columns]
    assert names[1:3] == ["noisy (weights weights )", "noisy (weights other we)"]


def test_trainings_are_told_by_their_seeds() -> None:
    (section,) = shown(noisy(80), noisy(20, artifact="other weights", training_seed=1)).sections
    assert [column.title for column in section.grids[0].columns][1:3] == ["noisy (seed 0)", "noisy (seed 1)"]


@pytest.mark.parametrize("format", report.FORMATS)
def test_every_format_has_it(format: str) -> None:
    assert "noisy" in report.render(shown(noisy(80), few(1, eot=20)), format).lower()


def test_a_line_for_each_number() -> None:
    found = shown(noisy(80), few(1, eot=20), noisy(90, access=rows.BPDA, stand_in="identity"))
    assert [(line["stand_in"], line["eot"], line["n"]) for line in found.lines()] == [
        ("", 1, 100), ("identity", 1, 100), ("", 20, 4)
    ]  # fmt: skip
    assert {line["majority_vote"] for line in found.lines()} == {80.0, 90.0, 25.0}


def test_of_nothing_it_says_so() -> None:
    (section,) = document([]).sections
    assert section.sentences == ["No attack has finished."]
