"""Who listens to the process is refused, who looks sees nothing, who answers by what it heard is found out."""

from __future__ import annotations

import gc
import signal
import sys
from functools import cache

import pytest
import torch
from broken_defenses import THREAT
from digits import held_out, images, withstanding
from listening_defenses import (
    LEAVING,
    LOOKING,
    Allocation,
    Differentiated,
    Environment,
    Finaliser,
    Memory,
    Pace,
)
from test_audit_cheats import EFFORT, NoCheat

from benchbox import DefenseError
from benchbox.audit import Stored, Subject, audit
from benchbox.audit.probes.probe import probe
from benchbox.contract.process import restored
from benchbox.engine.judge import Judge
from benchbox.training.layout import Layout

#: The integrity checks of which one has to fail, and what its sentence has to name.
EXPECTED = {
    Differentiated: ("A12", "answered in two ways"),
    Memory: ("A13", "answered by what was asked before it"),
    Pace: ("A6", "does not answer the same twice"),
    Environment: ("A13", "by what was asked before it"),
}
#: What compares two answers to one image: which of them differ hangs on where memory happens to be free.
TWO_ANSWERS = ("A6", "A10", "A12", "A13")


@pytest.mark.parametrize("cls", LEAVING, ids=lambda cls: cls.card.name)
def test_who_leaves_a_listener_behind_is_refused_and_the_listener_is_gone(cls) -> None:
    def now():
        modes = torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()
        return sys.getprofile(), sys.gettrace(), list(gc.callbacks), signal.getsignal(signal.SIGALRM), modes

    before = now()
    with pytest.raises(
        DefenseError, match=f"^defence {cls.card.name} leaves .* behind, which would see who asks it"
    ):
        withstanding(cls(), THREAT, 40, 8)
    assert now() == before


@pytest.mark.parametrize("cls", [*LOOKING, Finaliser], ids=lambda cls: cls.card.name)
def test_who_looks_gains_nothing(cls) -> None:
    # Any decoy would be right one time in ten.
    assert withstanding(cls(), THREAT, 40, 8) < withstanding(NoCheat(), THREAT, 40, 8) + 0.1


def test_hooks_and_finalisers_see_no_frame_of_who_asks() -> None:
    defense = Finaliser()
    withstanding(defense, THREAT, 40, 8)
    assert len(defense.heard) > 8
    assert not any(defense.heard)


@cache
def findings(cls, samples=EFFORT.samples, ran=lambda cls: ()):
    x, y = (t[:40] for t in images())
    with restored():
        probes = probe(Judge(cls(), Layout(), "5ec2e7"), *held_out(samples), THREAT, EFFORT, held=(x, y))
    subject = Subject(cls.card.name, "a", cls.randomized)
    return {f.check: f for f in audit(Stored(subject, THREAT, (1, 8, 8), ran(cls)), probes)}


def test_who_answers_by_addresses_is_found_out() -> None:
    assert any(findings(Allocation)[check].verdict == "FAIL" for check in TWO_ANSWERS)


@pytest.mark.parametrize("cls", EXPECTED, ids=lambda cls: cls.card.name)
def test_who_answers_by_what_it_heard_is_found_out(cls) -> None:
    check, words = EXPECTED[cls]
    found = findings(cls)
    assert found[check].verdict == "FAIL", {f.check: (str(f.verdict), f.sentence) for f in found.values()}
    assert words in found[check].sentence
