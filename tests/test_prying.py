"""Who pries into the process is refused, gains nothing, or is named; what was edited is as it was before."""

from __future__ import annotations

import faulthandler
import sys
import time
import tracemalloc
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from broken_defenses import THREAT
from digits import held_out, withstanding
from evidence import RANDOM, outcome
from odd_defenses import ODD
from prying_defenses import EDITED, LEFT, ByLoss, Copies, Corners, Fenced, PooledMemory, Scripted, Watchdog
from test_audit_cheats import NoCheat
from test_audit_cheats import findings as usual
from test_listeners import findings as listening

import benchbox.audit.probes.search
import benchbox.contract.ascent
from benchbox import DefenseError, Draws
from benchbox.audit import Case, Stored, Subject, check, summary
from benchbox.audit.evidence import Panel
from benchbox.contract import border, listeners, overheard
from benchbox.domain import Evidence, SampleList
from benchbox.engine.judge import Judge
from benchbox.training.layout import Layout

#: The check that has to fail, and what its sentence has to name.
EXPECTED = {
    Corners: ("B5", "does not fall as the radius grows"),
    Fenced: ("B1", "breaks what no gradient attack breaks"),
    ByLoss: ("B11", "looks at the loss"),
    Scripted: ("A13", "in a fork of the process"),
    PooledMemory: ("A16", "reads a file again and again"),
    Copies: ("A9", "differ from those that were scored"),
}


def ran(cls):
    """What a run of ten images a batch stores of a randomised defence, which is asked in ten draws at once."""
    if not cls.randomized:
        return ()
    x, y, rows = held_out(40)
    cell = replace(RANDOM, samples=SampleList("digits", "test", tuple(rows.tolist()), "c"), threat=THREAT)
    judge, draws = Judge(cls(), Layout()), Draws(rows)
    tens = torch.arange(40).split(10)
    clean = torch.cat([judge.score(x[ten], draws.rows(ten), cell.scoring_draws) for ten in tens]).numpy()
    still = np.zeros(40)
    told = replace(outcome(cell, range(40)), label=y.numpy(), clean=clean, adversarial=clean, linf=still, l2=still)
    return (Evidence(cell, told, "done"),)


@cache
def findings(cls):
    return listening(cls, samples=40, ran=ran)


@pytest.mark.parametrize("cls", LEFT, ids=lambda cls: cls.card.name)
def test_what_would_tell_later_who_asked_is_refused_and_put_away(cls) -> None:
    def now():
        return list(sys.meta_path), tracemalloc.is_tracing(), torch.autograd._profiler_enabled()

    before = now()
    with pytest.raises(
        DefenseError, match=f"^defence {cls.card.name} leaves .* behind, which would see who asks it"
    ):
        withstanding(cls(), THREAT, 40, 8)
    assert now() == before


@pytest.mark.parametrize("cls", EDITED, ids=lambda cls: cls.card.name)
def test_what_was_edited_is_refused_and_as_it_was(cls) -> None:
    def now():
        ours = benchbox.audit.probes.search
        margin, entropy = benchbox.contract.ascent.margin, torch.nn.functional.cross_entropy
        inside = margin.__code__, entropy.__defaults__, torch.nn.Linear.forward, np.flatnonzero
        return *inside, ours.REACH, dict(ours.LOSSES), float(torch.tensor(2.0).sign())

    before = now()
    with (
        pytest.raises(DefenseError, match=f"defence {cls.card.name} replaces"),
        border.crossing(cls, DefenseError),
    ):
        cls()
    assert now() == before
    assert withstanding(NoCheat(), THREAT, 20, 8) < 0.5


@pytest.mark.parametrize("cls", EXPECTED, ids=lambda cls: cls.card.name)
def test_who_answers_by_what_it_found_out_is_named(cls) -> None:
    name, words = EXPECTED[cls]
    found = findings(cls)[name]
    assert found.verdict == "FAIL", found.sentence
    assert words in found.sentence


def test_a_watchdog_is_named_by_its_code() -> None:
    # Read, and not asked: a dump in the middle of a switch of stacks can end the process.
    (said,) = overheard.written(Watchdog)
    assert "frames of all threads written down" in said


def test_a_watchdog_is_stopped_after_each_question(tmp_path) -> None:
    with (tmp_path / "dump").open("w") as file:
        put_away = listeners.watch()
        faulthandler.dump_traceback_later(0.3, file=file)
        put_away()
        time.sleep(0.5)
    assert (tmp_path / "dump").read_text() == ""


@pytest.mark.parametrize(("right", "verdict"), [(38, "PASS"), (33, "PASS"), (20, "FAIL"), (0, "FAIL")])
def test_a_randomised_defence_that_is_right_only_where_it_is_scored_fails(right, verdict) -> None:
    cell = replace(RANDOM, samples=SampleList("digits", "test", tuple(range(40)), "c"), threat=THREAT)
    told = outcome(cell, range(40))
    said = np.where(np.arange(40)[:, None] < 38, told.label[:, None], told.label[:, None] + 1)
    stored = replace(told, clean=np.repeat(said, cell.scoring_draws, 1))
    subject = Subject("copies", "a", randomized=True)
    panel = Panel("probes", np.arange(40), np.arange(40) < right, ())
    case = Case(
        Stored(subject, THREAT, (1, 8, 8), (Evidence(cell, stored, "done"),)), SimpleNamespace(panel=panel)
    )
    found = check("A9")(case)
    assert found.verdict == verdict, found.sentence


@pytest.mark.parametrize(("changed", "verdict"), [(0, "PASS"), (1, "WARN"), (2, "FAIL")])
def test_one_sample_at_the_border_does_not_withdraw_a_defence(changed: int, verdict: str) -> None:
    cell = replace(
        RANDOM, scoring_draws=1, samples=SampleList("digits", "test", tuple(range(40)), "c"), threat=THREAT
    )
    stored = Evidence(cell, outcome(cell, range(40)), "done")
    panel = Panel("probes", np.arange(40), stored.outcome.clean_correct > 0.5, ())
    panel.correct[:changed] ^= True
    case = Case(Stored(Subject("a", "a"), THREAT, (1, 8, 8), (stored,)), SimpleNamespace(panel=panel))
    assert check("A9")(case).verdict == verdict


@pytest.mark.parametrize("cls", ODD, ids=lambda cls: cls.card.name)
def test_what_papers_propose_is_not_accused(cls) -> None:
    found = usual(cls)
    told = summary(list(found.values()))
    assert told["integrity"] == [], [found[id].sentence for id in told["integrity"]]
    assert told["masking"] == [], [found[id].sentence for id in told["masking"]]
