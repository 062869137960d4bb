"""What cells cost, as it is printed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import rows

from benchbox import report
from benchbox.analysis import labels
from benchbox.domain import Spec
from benchbox.report.cost import document


def costing(name: str, forwards: float, seconds: float, device: str = "cpu, 1 threads", **more: int):
    item = rows.evidence(name, **more)
    spent = np.full(rows.N, forwards)
    outcome = replace(item.outcome, forwards=spent, backwards=spent / 2)
    return replace(item, outcome=outcome, seconds=seconds, provenance={"device": device})


def test_passes_of_an_image_and_minutes_of_all() -> None:
    found = document([costing("noisy", 800, 90, eot=20), costing("plain", 40, 6)])
    (section,) = found.sections
    assert [column.title for column in section.grids[0].columns] == [
        "defence", "attack", "forward", "backward", "minutes"
    ]  # fmt: skip
    assert [value.text for value in section.grids[0].rows[0]] == [
        "noisy", "pgd (EOT 20), white-box", "800", "400", "1.50"
    ]  # fmt: skip
    assert section.sentences == ["Together 1.6 minutes on cpu, 1 threads."]
    assert [line["seconds"] for line in found.lines()] == [90, 6]
    for format in report.FORMATS:
        assert "noisy" in report.render(found, format)


def test_the_devices_are_named_where_there_are_two() -> None:
    (section,) = document([costing("plain", 40, 6), costing("plain", 40, 6, "cuda: A card")]).sections
    assert [row[-1].text for row in section.grids[0].rows] == ["cpu, 1 threads", "cuda: A card"]
    assert section.sentences == ["Together 0.2 minutes."]


def test_a_recipe_that_says_less_needs_no_remark() -> None:
    specs = [Spec("diffpure", {"steps": 5, **more}, "1") for more in ({"base": "pgd-at"}, {})]
    found = labels.departures([*specs, *reversed(specs)])
    assert [found[spec.identity] for spec in specs] == ["base=pgd-at", ""]
    assert [labels.distinctions(specs)[spec.identity] for spec in specs] == ["base=pgd-at", ""]
    common = labels.departures([specs[0], *specs])
    assert [common[spec.identity] for spec in specs] == ["", "base=default"]  # the more common one does not


def test_of_nothing_it_says_so() -> None:
    (section,) = document([]).sections
    assert section.sentences == ["Nothing was run."]
