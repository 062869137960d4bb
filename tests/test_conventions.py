"""What one measurement of a randomised defence is under each convention of counting draws."""

from __future__ import annotations

import numpy as np
import pytest
import rows

from benchbox import report
from benchbox.analysis import conventions
from benchbox.report.conventions import document

#: Five draws of four images whose class is 1: always right, mostly but not at first, mostly wrong, always wrong.
PREDICTIONS = np.array([[1, 1, 1, 1, 1], [0, 1, 1, 1, 2], [1, 0, 0, 0, 2], [0, 0, 0, 0, 0]])


def test_the_conventions_count_the_same_draws() -> None:
    found = conventions.scores(PREDICTIONS, np.ones(4, np.int64))
    assert {key: score.percent for key, score in found.items()} == pytest.approx(
        {"one_draw": 50.0, "expected": 45.0, "majority_vote": 50.0, "worst_of_r": 25.0}
    )
    assert found["expected"].draws == 5
    assert found["majority_vote"].method == "Clopper-Pearson"


def test_the_document_sets_them_side_by_side() -> None:
    right = np.zeros((rows.N, 4), bool)
    right[:60], right[60:80, 1:] = True, True
    found = document([rows.evidence("noisy", right=right, eot=5), rows.evidence("plain", right=10)])
    (section,) = found.sections
    (grid,) = section.grids
    assert [column.title for column in grid.columns][2:] == [
        "one draw",
        "expected",
        "vote of 4",
        "worst of 4",
        "spread",
    ]
    assert [value.text for value in grid.rows[0]] == [
        "noisy", "pgd (EOT 5), white-box", "60.0", "75.0", "80.0", "60.0", "20.0"
    ]  # fmt: skip
    assert section.sentences[0].startswith(
        "The conventions differ most on noisy under pgd (EOT 5), white-box: by 20.0"
    )
    assert [line["convention"] for line in found.lines()] == [one.key for one in conventions.CONVENTIONS]
    for format in report.FORMATS:
        assert "noisy" in report.render(found, format)


def test_of_deterministic_defences_there_is_nothing_to_say() -> None:
    (section,) = document([rows.evidence("plain")]).sections
    assert section.sentences == ["Nothing here was scored in more than one draw."]
