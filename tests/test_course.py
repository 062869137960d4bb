"""An audit is cut down on its way where the machine gives less than it was planned for, and says so."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from broken_defenses import SPEC, THREAT, Wrapped
from commands import SHORT, WHITE, Said
from digits import held_out, images

from benchbox.audit import Effort, Stored, Subject, audit, conduct, price
from benchbox.audit.conduct import Ready
from benchbox.audit.course import Course
from benchbox.audit.price import Pace
from benchbox.audit.probes.passes import ORDER, READ_BY, passes
from benchbox.audit.probes.probe import probe
from benchbox.data.dataset import load, sample_list
from benchbox.engine.judge import Judge
from benchbox.errors import DefenseError
from benchbox.training.layout import Layout

EFFORT = Effort(
    samples=20, steps=8, restarts=2, random_points=30, queries=40, doubled=20, elsewhere=20, pursued=10,
    binarisation=4, directions=2, noise=10,
)  # fmt: skip
#: A randomised purifier, as far as a plan looks.
RANDOM = SimpleNamespace(randomized=True, base="none", stand_ins={"identity": ""}, exact=None, images=SPEC)
#: Every call takes as long, with a backward pass or without, about one image or twenty.
PACE = Pace((0.02, 0.02), (0.02, 0.02), 100)


#: What the whole of it takes at most, at that pace.
PLANNED = PACE.cost(SimpleNamespace(defense=Wrapped(), effort=EFFORT)).seconds / price.RESERVE


class Clock:
    """Seconds that pass when somebody says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Slow(Wrapped):
    """Each call takes so many times what the pace says, by a clock of its own."""

    def __init__(self, clock: Clock, times: float) -> None:
        super().__init__()
        self.clock, self.times = clock, times

    def forward(self, x, draws=None):
        self.clock.seconds += 0.02 * self.times
        return super().forward(x, draws)


def audited(times: float, effort: Effort = EFFORT):
    """The probes of a slow defence in the seconds of the plan, what was told, and the seconds that they took."""
    clock, told = Clock(), []
    defense = Slow(clock, times)
    course = Course(defense, PACE, PLANNED, told.append, clock)
    held = tuple(t[:20] for t in images())
    probes = probe(Judge(defense, Layout()), *held_out(20), THREAT, effort, held=held, plan=course)
    return replace(probes, left_out=course.left_out), told, clock.seconds


def test_what_goes_as_planned_is_left_as_it_was_planned() -> None:
    probes, told, spent = audited(1)
    assert probes.effort == EFFORT
    assert (probes.left_out, told) == ({}, [])
    assert spent < PLANNED


@pytest.mark.parametrize("times", [6, 20])
def test_a_slow_machine_ends_in_time_and_says_what_was_left_out(times: float) -> None:
    probes, told, spent = audited(times)
    assert spent < 1.1 * PLANNED
    assert "times what was planned, so less is done from now on: " in told[0]
    less = price.lessened(EFFORT, probes.effort)
    assert "samples" not in less
    zero = {name for name, (_, done) in less.items() if not done} & {*price.WHOLE}
    assert zero
    assert set(probes.left_out) == zero
    found = {one.check: one for one in audit(Stored(Subject("slow", "a"), THREAT, (1, 8, 8)), probes)}
    for field, check in (("radii", "A5"), ("elsewhere", "A14"), ("doubled", "B7"), ("binarisation", "B14")):
        if field in zero:
            assert found[check].verdict == "INCOMPLETE"
            assert "left out on the way" in found[check].sentence


class Leaping(Slow):
    """Calls take a thousand times longer once some seconds have passed, so that no plan is right."""

    def __init__(self, clock: Clock, after: float) -> None:
        super().__init__(clock, 1)
        self.after = after

    def forward(self, x, draws=None):
        self.times = 1000 if self.clock.seconds > self.after else 1
        return super().forward(x, draws)


class Deaf(Course):
    """One that looks at the clock between probes alone."""

    def is_over(self) -> bool:
        return False


@pytest.mark.parametrize("after", [3.0, 4.0, 5.0])
def test_where_the_load_leaps_within_a_probe_it_is_left(after: float) -> None:
    found = {}
    for kind in (Course, Deaf):
        clock, told = Clock(), []
        defense = Leaping(clock, after)
        course = kind(defense, PACE, PLANNED, told.append, clock)
        held = tuple(t[:20] for t in images())
        probes = probe(Judge(defense, Layout()), *held_out(20), THREAT, EFFORT, held=held, plan=course)
        found[kind] = replace(probes, left_out=course.left_out), clock.seconds, told
    (probes, spent, told), (_, deaf, _) = found[Course], found[Deaf]
    assert spent < PLANNED + 4 * 20 < deaf  # four passes of twenty seconds, which no audit goes without
    assert any(sentence.startswith("the time is up, so less is done: no ") for sentence in told)
    (late,) = (field for field, why in probes.left_out.items() if "before it ended" in why)
    assert getattr(probes.effort, late) == 0


def test_the_effort_that_is_recorded_gives_the_same_audit_again() -> None:
    first = audited(6)[0]
    again, told, _ = audited(0, first.effort)
    assert again.effort == first.effort
    assert told == []
    assert [run.broken.tolist() for run in first.panel.runs] == [run.broken.tolist() for run in again.panel.runs]


def test_what_was_read_already_is_not_changed_any_more() -> None:
    clock = Clock()
    course, effort = Course(Wrapped(), PACE, 1.0, now=clock), EFFORT
    for calls in ORDER:
        before, effort = effort, course.before(calls, effort, 1.0)
        clock.seconds += 1000.0
        late = {name for name in price.lessened(before, effort) if ORDER.index(READ_BY[name]) < ORDER.index(calls)}
        assert not late


def test_every_call_has_its_place() -> None:
    assert {one.what for one in passes(RANDOM, Effort()).most} == set(ORDER)
    assert set(READ_BY) == set(price.WORDS)
    assert set(READ_BY.values()) <= set(ORDER)


def test_an_audit_runs_on_the_threads_that_were_found_to_be_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []

    class Threads(Wrapped):
        """Notes how many there are."""

        def forward(self, x, draws=None):
            heard.append(torch.get_num_threads())
            return super().forward(x, draws)

    def begin(*asked: object, **more: object) -> None:
        heard.append(torch.get_num_threads())
        raise RuntimeError

    dataset, before = load("digits"), torch.get_num_threads()
    small = replace(dataset, train=dataset.train.rows([]), spec=SPEC)
    judge, three = Judge(Threads(), Layout(threads=1)), sample_list(dataset, 3)
    ready = Ready(judge, None, small, three, THREAT, EFFORT, torch.device("cpu"), None, {})
    monkeypatch.setattr(conduct, "probe", begin)
    torch.set_num_threads(3)
    try:
        with pytest.raises(DefenseError):
            conduct.conduct(ready, None)
        price.pace(ready, 1.0)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert set(heard) == {1}


def test_an_audit_asks_a_defence_in_the_layout_that_a_run_found_to_be_fastest(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object, **__: object) -> None:
        raise AssertionError("a layout was measured again")

    assert said("run", "--defense", "none", "--attacks", "noise", *WHITE, "--samples", "2")[0] == 0
    monkeypatch.setattr("benchbox.engine.bench.measure", measured)
    few = ["--samples", "2", "--steps", "2", "--random-points", "2", "--budget", "20s"]
    status, _, err = said("audit", "none", *SHORT, *few)
    assert status == 0, err
