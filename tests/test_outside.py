"""Cheats by somebody who has read none of the checks: each is named, and none keeps what it is not worth."""

from __future__ import annotations

from functools import cache

import pytest
from broken_defenses import THREAT
from digits import held_out, images
from outside_defenses import (
    OUTSIDE,
    Album,
    Bomb,
    CoarseSeed,
    FileMemory,
    GridReader,
    Guard,
    HardAnswers,
    Hidden,
    InnerSearch,
    Liar,
    Locked,
    NaturalMemory,
    NotANumber,
    Refusing,
    Repelled,
    Reversed,
    Ripple,
    Sawtooth,
    Scavenger,
    Underflow,
    Watchman,
    WeightsWatch,
)

from benchbox.audit import Effort, Stored, Subject, audit
from benchbox.audit.evidence import Probes, union
from benchbox.audit.probes.probe import probe
from benchbox.contract.process import restored
from benchbox.engine.judge import Judge
from benchbox.training.layout import Layout

EFFORT = Effort(
    samples=20, steps=10, restarts=1, random_points=20, queries=20, doubled=20, elsewhere=20, binarisation=0,
    directions=3, eot=2, scoring_draws=4,
)  # fmt: skip

#: The check that has to fail, and what its sentence has to name.
EXPECTED = {
    Sawtooth: ("B2", "gradients of the defence do not"),
    Reversed: ("B4", "no stronger than a single step"),
    Repelled: ("B4", "no stronger than a single step"),
    FileMemory: ("A16", "a file again and again"),
    NaturalMemory: ("A13", "answered by what was asked before it"),
    Hidden: ("A13", "answered by what was asked before it"),
    Guard: ("A13", "answered by what was asked before it"),
    Bomb: ("A13", "at the end of the audit"),
    Locked: ("A13", "answered by what was asked before it"),
    WeightsWatch: ("A13", "answered by what was asked before it"),
    Scavenger: ("A16", "gc.get_objects"),
    Watchman: ("A16", "sys._current_frames"),
    GridReader: ("A11", "whole grey levels"),
    Underflow: ("B11", "does not match finite differences"),
    Refusing: ("A17", "refuses to answer"),
    NotANumber: ("B9", "NaN or infinite"),
    Liar: ("B21", "called exact"),
    Ripple: ("B7", "has not converged"),
    Album: ("A14", "it knows them"),
}
#: What no check fails, for the probes break it all, and their count is the one that is ranked.
BROKEN = (HardAnswers, CoarseSeed, InnerSearch)


@cache
def probed(cls) -> Probes:
    x, y = (t[:40] for t in images())
    with restored():
        return probe(Judge(cls(), Layout(), "5ec2e7"), *held_out(EFFORT.samples), THREAT, EFFORT, held=(x, y))


@cache
def findings(cls):
    subject = Subject(cls.card.name, "a", cls.randomized, cls.base is not None, tuple(cls.stand_ins), cls.exact)
    return {f.check: f for f in audit(Stored(subject, THREAT, (1, 8, 8)), probed(cls))}


@pytest.mark.parametrize("cls", EXPECTED, ids=lambda cls: cls.card.name)
def test_an_outsider_is_found_out_and_the_mechanism_named(cls) -> None:
    check, words = EXPECTED[cls]
    found = findings(cls)
    assert found[check].verdict == "FAIL", {f.check: f.sentence for f in found.values() if f.verdict == "FAIL"}
    assert words in found[check].sentence


@pytest.mark.parametrize("cls", BROKEN, ids=lambda cls: cls.card.name)
def test_what_no_check_fails_is_broken_by_the_probes(cls) -> None:
    panel = probed(cls).panel
    stand = panel.correct & ~union(panel.runs, len(panel.indices))
    assert panel.correct.sum() > 8
    assert stand.mean() < 0.1


def test_every_outsider_is_tried() -> None:
    assert set(OUTSIDE) == {*EXPECTED, *BROKEN}


@pytest.fixture(scope="module", autouse=True)
def _no_file_is_left():
    yield
    FileMemory.path.unlink(missing_ok=True)
