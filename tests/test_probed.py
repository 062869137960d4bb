"""What the audit's probes break counts: a row is ranked and printed by the union of store and probes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from rows import SAMPLES, THREAT, WHITE, N, evidence, first, only, rendered, row, small_print

from benchbox.analysis.background import Background
from benchbox.analysis.compare import compare
from benchbox.analysis.probed import probed
from benchbox.analysis.worst_case import correctness, surviving, worst_case
from benchbox.analysis.worth import worth
from benchbox.audit import toll
from benchbox.audit.evidence import Panel, Run
from benchbox.domain import Evidence, SampleList, ThreatModel
from benchbox.report.comparison import remarks

NOTHING_FOUND = {"counts": {}, "integrity": [], "masking": [], "attack": []}


def record(broken: list[int], asked: int = N, **more: Any) -> dict[str, Any]:
    """An audit's record of the first so many images."""
    samples = SampleList("mnist", "test", tuple(range(asked)), "e" * 64)
    return {
        "summary": NOTHING_FOUND,
        "threat": vars(THREAT),
        "samples": samples.as_dict(),
        "broken": broken,
        **more,
    }


def known(**records: dict[str, Any]) -> tuple[list[Evidence], Background]:
    """One cell each, 50 of 100 images left by the store, and these audits of them."""
    cells = [evidence(name) for name in records]
    return cells, Background(audits={c.cell.artifact: records[c.cell.defense.name] for c in cells})


def test_a_row_is_the_union_of_store_and_probes():
    # The store left images 0 to 49; of these the audit broke twelve, and two that had fallen already.
    cells, background = known(none=record([*range(12), 60, 61]))
    found = row(only(cells, background), "none")
    assert found.robust.percent == 38.0
    assert found.fallen == 12
    assert str(found.set_by) == "white-box pgd"  # the stored attack that gets furthest, and its own number stays
    assert found.entries[found.set_by].score.percent == 50.0


@pytest.mark.parametrize("format", ["markdown", "html", "latex", "json"])
def test_every_format_says_how_many_more_images_the_audit_broke(format):
    cells, background = known(none=record(list(range(12))))
    text = rendered(cells, format, background)
    assert "audit broke 12 more images" in text
    if format == "json":
        assert json.loads(text)["tables"][0]["rows"][0]["robust"]["fallen_to_probes"] == 12


def test_probes_that_break_nothing_more_are_not_mentioned():
    cells, background = known(none=record([70, 80]))
    assert row(only(cells, background), "none").robust.percent == 50.0
    assert not any("audit broke" in said for said in small_print(only(cells, background)))


def test_one_image_is_one_image():
    cells, background = known(none=record([3]))
    assert any("audit broke 1 more image than" in said for said in small_print(only(cells, background)))


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"threat": {"norm": "linf", "epsilon": 0.1}},
        {"samples": SampleList("mnist", "train", tuple(range(N)), "e").as_dict()},
        {"samples": SampleList("fashion-mnist", "test", tuple(range(N)), "e").as_dict()},
    ],
)
def test_an_audit_of_other_images_or_another_ball_says_nothing_here(elsewhere):
    cells, background = known(none=record([1, 2, 3]) | elsewhere)
    assert row(only(cells, background), "none").robust.percent == 50.0


def test_samples_are_met_by_their_index_and_not_by_their_place():
    backwards = SampleList("mnist", "test", tuple(range(N))[::-1], "f" * 64)
    # In this list the store left the images 99 to 50.
    cell = evidence("none", samples=backwards)
    found = row(only([cell], Background(audits={cell.cell.artifact: record([99, 98, 0])})), "none")
    assert found.robust.percent == 48.0


def test_a_weaker_audit_that_follows_does_not_lift_a_row():
    panel = _panel([_run([True, False, False])], 3)
    now = record([], 3)
    kept = toll.with_earlier(toll.of(panel), record([2, 7]), now)
    assert kept["broken"] == [0, 2, 7]
    assert toll.with_earlier(toll.of(panel), record([2]) | {"threat": vars(ThreatModel("linf", 0.1))}, now) == {
        "broken": [0]
    }


def _run(broken: list[bool], right: np.ndarray | None = None) -> Run:
    flags = np.array(broken)
    return Run("iterative", "PGD", flags, np.zeros(len(flags)), flags, right=right)


def _panel(runs: list[Run], n: int) -> Panel:
    return Panel("probes", np.arange(n), np.ones(n, bool), tuple(runs))


def test_of_a_randomised_defence_the_probe_is_chosen_and_scored_on_different_draws():
    generator = np.random.default_rng(0)
    every = [generator.random((40, 10)) < 0.7 for _ in range(6)]
    runs = [_run(list(r.mean(1) <= 0.5), r) for r in every]
    kept = toll.of(_panel(runs, 40))
    assert kept["broken"] == sorted({int(i) for run in runs for i in np.flatnonzero(run.broken)})
    cell = evidence("none", right=generator.random((N, 10)) < 0.9)
    found = probed(record([], 40) | kept, SAMPLES)
    all_of_them = [np.vstack([r, np.ones((N - 40, 10), bool)]) for r in every]
    # Two rows a sample say what all six runs would have said, but for ties.
    expected = worst_case([*correctness([cell], with_clean=True), *all_of_them])
    np.testing.assert_allclose(surviving([cell], found), expected, atol=0.11)
    assert abs(surviving([cell], found).mean() - expected.mean()) < 0.005
    # Unbiased: not far below what each run leaves.
    assert surviving([cell], found)[:40].mean() > 0.5


def test_nobody_rises_by_not_being_audited():
    # Both are left 50 images; the audit of one breaks 40 more, which the other may not have withstood either.
    cells, background = known(audited=record(list(range(40))), spared=record([]))
    both = row(only(cells, background), "audited")
    assert (both.robust.percent, both.rank) == (10.0, 2)
    spared = Background(audits={k: v for k, v in background.audits.items() if v["broken"]})
    assert row(only(cells, spared), "audited").rank == 1
    # Nor where the other's audit was about two of the images alone.
    few = known(audited=record(list(range(40))), spared=record([], 2))
    assert row(only(*few), "audited").rank == 1


def test_a_comparison_counts_probes_in_the_own_worst_case_alone():
    cells, background = known(a=record(list(range(12))), b=record([]))
    (found,) = compare(cells, "a", "b", known=background)
    pairs = {pair.label: pair for pair in found.pairs}
    assert (pairs["common worst case"].a, pairs["own worst case"].a) == ((0.5,), (0.38,))
    assert "a: audit broke 12 more images: in its own worst case only." in list(remarks(found))
    (under,) = compare(cells, "a", "b", attacks=["pgd"], known=background)
    assert "own worst case" not in {pair.label for pair in under.pairs}


def test_what_sets_the_number_is_told_with_the_probes():
    cell = evidence("none")
    found = worth([cell], probed=probed(record(list(range(12))), SAMPLES))
    assert found["robust"]["percent"] == 38.0
    assert "the audit broke 12 more images than all of them" in found["said"][0]


def test_records_of_old_break_nothing():
    assert probed(None, SAMPLES) is None
    old = record([])
    del old["broken"]
    assert probed(old, SAMPLES) is None
    assert evidence("none", WHITE, right=first(3)).outcome.robust.sum() == 3
