"""What a runner keeps account of: what is left to do, what is claimed, what is shared and taken over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from evidence import images, outcome
from hands import Hands, Heard, told
from test_driving import DIGITS, TRANSFER, WHITE, driven, planned, run

from benchbox.domain import Access
from benchbox.engine import gradients, secret
from benchbox.engine import runner as running
from benchbox.engine.agenda import Trained
from benchbox.engine.bench import Bench
from benchbox.engine.executors import Ended, Failure, Liken, Make, Prepared, Task, Told, Work
from benchbox.engine.plan import Plan
from benchbox.engine.readiness import Readiness
from benchbox.engine.runner import PAUSE, Runner
from benchbox.engine.unit import Done
from benchbox.store import Batch, Store
from benchbox.training.artifacts import Artifacts
from benchbox.training.layout import Layout
from benchbox.training.workshop import Workshop

CPU = torch.device("cpu")

GRAY = Access.GRAY_BOX
STEPS = {"pgd": {"steps": 10}}  # 22 passes an image, 20 of them to craft it


def places(hands: Hands) -> list[list[int]]:
    return [task.unit.positions.tolist() for task in hands.asked if isinstance(task, Work)]


@pytest.mark.parametrize("fails", [True, False])
def test_all_that_is_left_is_known_from_the_beginning_and_nothing_at_the_end(session, store, fails: bool) -> None:
    left: list[float] = []

    def answer(task: Task) -> Any:
        left.append(runner._agenda.work)
        return Failure("no") if fails and isinstance(task, Make) and task.training.seed == 1000 else None

    plan = planned(session, "none", overrides=STEPS)
    runner, _ = driven(session, store, Hands(answer=answer))
    report = runner.run(plan, store.begin_run({}, {}))
    assert len(report.failed) == fails
    assert left[0] == 2 * 10 * 22
    assert left == sorted(left, reverse=True)
    assert runner._agenda.work == 0


def test_nothing_is_held_when_it_is_over(session, store, path) -> None:
    plan = planned(session, "none")
    run(session, store, plan, Hands())
    names = {Trained(training).name for training in plan.trainings.values()}
    names |= {f"craft/{cell.craft_key}/4/{number}" for cell in plan.cells for number in (0, 4, 8)}
    with Store.open(path) as other:
        assert other.claim_all(names) == names


def test_a_cell_fails_once_however_many_of_its_blocks_do(session, store) -> None:
    plan = planned(session, "none", accesses=(WHITE,))
    hands = Hands(3, answer=lambda task: Failure("no", crashed=True) if isinstance(task, Work) else None)
    report, heard = run(session, store, plan, hands)
    assert len(places(hands)) == 3
    assert [message for _, message in heard.errors] == ["no"]
    assert (report.crashed, report.done, len(report.failed)) == (1, 0, 1)


def test_what_is_known_of_an_image_from_another_list_is_not_asked_for_again(session, store) -> None:
    first, second = Hands(), Hands()
    run(session, store, planned(session, "none", samples=6, accesses=(WHITE,)), first)
    second.made = first.made
    report, heard = run(session, store, planned(session, "none", samples=10, accesses=(WHITE,)), second)
    assert places(second) == [[6, 7], [8, 9]]
    assert (report.kept, report.done) == (6, 1)
    assert heard.cells[0] == (WHITE, 6, 10)


@pytest.mark.parametrize(
    ("begun", "given", "kept"), [("ab", "ab", 6), ("ab", "cd", 0), (None, None, 6), (None, "cd", 0)]
)
def test_of_a_randomised_defence_only_under_the_same_secret(session, store, begun, given, kept: int) -> None:
    words: dict[str, Any] = {"accesses": (WHITE,), "scoring_draws": 2}
    hands = Hands()
    for samples, named in ((6, begun), (10, given)):
        runner, _ = driven(session, store, hands, named)
        plan = planned(session, "randomized-resize-pad", samples=samples, **words)
        report = runner.run(plan, store.begin_run({}, {}))
    assert report.kept == kept * len(plan.cells)
    assert {store.attached(c.key, secret.KIND)["secret"] for c in plan.cells} == {given or secret.of(store)}


@pytest.mark.parametrize("missing", [0, 1])
def test_a_transfer_of_which_all_is_stored_is_described_and_no_image_is_heard_of(session, store, missing) -> None:
    plan, hands = planned(session, "none", accesses=(TRANSFER,)), Hands()
    (cell,) = plan.cells
    store.add_cell(cell, store.begin_run({}, {}))
    there = range(10 - missing)
    store.commit_batch(cell, outcome(cell, there), seconds=1.0, crafted=images(cell.craft_key, there))
    report, heard = run(session, store, plan, hands)
    assert [row[:2] for row in told(hands)[-1 - missing :]] == [(TRANSFER, [9])] * missing + [("liken", 10)]
    assert heard.cells == [(TRANSFER, 9, 10), (TRANSFER, 10, 10)] * missing
    assert (report.done, report.reused, report.kept) == (1, 0, 10 - missing)
    assert store.attached(cell.key, "transfer") == {"agreement": 0.5}


def test_what_a_transfer_is_worth_is_said_of_all_of_it_at_once(session, store) -> None:
    """However long that takes: it is one number."""
    plan = planned(session, "none", samples=40, accesses=(TRANSFER,), overrides=STEPS)
    hands = Hands(2, layout=Layout(batch=64, seconds=500.0))
    run(session, store, plan, hands)
    assert [len(task.unit.positions) for task in hands.asked if isinstance(task, Liken)] == [40]
    assert len(places(hands)) > 5


def test_work_is_expected_to_take_its_passes_until_it_is_known_what_it_takes(session, store) -> None:
    plan = planned(session, "none", samples=40, accesses=(WHITE,), overrides=STEPS)
    runner, _ = driven(session, store, Hands(2, layout=Layout(batch=64, seconds=2.0)))
    expected: list[tuple[int, int, float | None]] = []
    real = runner._portions.cut

    def cut(task: Work, agenda: Any, batch: int, seconds: float | None) -> list[Work]:
        expected.append((len(task.unit.positions), batch, seconds))
        return real(task, agenda, batch, seconds)

    runner._portions.cut = cut  # type: ignore[method-assign, assignment]
    runner.run(plan, store.begin_run({}, {}))
    n, batch, seconds = expected[0]
    assert (batch, seconds) == (64, 2.0 * 22 * n)
    n, _, seconds = expected[-1]
    assert seconds is not None
    assert seconds < 2.0 * 22 * n  # each part took two seconds


def test_images_of_two_cells_are_made_once_while_both_are_at_work(session, store) -> None:
    plan = planned(session, "none", "jpeg", accesses=(WHITE, GRAY))
    hands = Hands(4)
    report, _ = run(session, store, plan, hands)
    shared = next(cell.craft_key for cell in plan.cells if cell.access is GRAY)
    cells = [cell for cell in plan.cells if cell.craft_key == shared]
    assert len(cells) == 2
    work = [task for task in hands.asked if isinstance(task, Work) and task.unit.cell in cells]
    made = [place for task in work if task.unit.stored is None for place in task.unit.positions.tolist()]
    assert sorted(made) == list(range(10))
    assert sum(len(task.unit.positions) for task in work) == 20
    assert (report.done, report.failed) == (3, {})


def test_images_of_which_some_are_missing_are_made_anew(session, store) -> None:
    plan = planned(session, "none", "jpeg", accesses=(WHITE, GRAY))
    bare, gray = plan.cells[0], next(cell for cell in plan.cells if cell.access is GRAY)
    assert bare.craft_key == gray.craft_key
    store.add_cell(bare, store.begin_run({}, {}))
    some = [0, 1, 4, 5, 6, 7]
    store.commit_batch(bare, outcome(bare, some), seconds=1.0, crafted=images(bare.craft_key, some))
    hands = Hands()
    run(session, store, Plan(plan.request, (gray,), plan.trainings), hands)
    stored = [task.unit.stored is not None for task in hands.asked if isinstance(task, Work)]
    assert stored == [False, True, False]


def test_a_plan_without_cells_is_done(session, store) -> None:
    plan, hands = planned(session, "none"), Hands()
    report, heard = run(session, store, Plan(plan.request, (), {}), hands)
    assert (report.done, report.reused, report.failed, hands.asked, heard.cells) == (0, 0, {}, [], [])


def test_where_all_that_is_wanted_is_there_nothing_happens(session, store) -> None:
    plan, hands = planned(session, "none", accesses=(WHITE,)), Hands()
    (cell,) = plan.cells
    runner, heard = driven(session, store, hands)
    runner.add(cell, store.begin_run({}, {}))
    runner.some(cell, np.array([2, 3]), plan.trainings, running.Report())
    asked, count = len(hands.asked), len(heard.cells)
    runner.some(cell, np.array([3]), plan.trainings, running.Report())
    assert (len(hands.asked), len(heard.cells)) == (asked, count)
    runner.some(cell, np.array([3, 4]), plan.trainings, running.Report())
    assert places(hands)[-1] == [4]


def test_images_a_call_are_as_many_as_was_asked_for(session, store) -> None:
    hands = Hands()
    run(session, store, planned(session, "none", accesses=(WHITE,)), hands)
    asked = Hands(made=hands.made)
    made: Any = asked.made
    runner = Runner(store, asked, made, session.attacks, DIGITS, Heard(), session.defenses, batch_size=3)  # type: ignore[arg-type]
    other = planned(session, "none", accesses=(WHITE,), overrides=STEPS)
    runner.run(other, store.begin_run({}, {}))
    assert places(asked) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert {task.layouts[task.attacked.digest].batch for task in asked.asked if isinstance(task, Work)} == {3}


def test_a_batch_size_that_was_asked_for_once_is_not_remembered(session, store, tmp_path) -> None:
    (training,) = planned(session, "none", accesses=(WHITE,)).trainings.values()

    def batch(asked: int | None) -> int:
        hands = Hands(layout=Layout(batch=asked or 4))
        ready = Readiness(store, hands, Artifacts(tmp_path), session.defenses, asked, None)  # type: ignore[arg-type]
        if ready.layout(training) is None:
            ready.keep(Trained(training), Prepared(hands.layout))
        return ready.layouts[training.digest].batch

    def measured(asked: int | None) -> int:
        shop = Workshop(Artifacts(tmp_path), session.defenses, DIGITS, CPU)
        shop.lend(training.digest, shop.untrained(training))
        return Bench(shop, store, DIGITS, CPU, asked, 10).judge(training).layout.batch

    assert [batch(asked) for asked in (1, None, 2, None)] == [1, 4, 2, 4]
    assert measured(1) == 1
    most = measured(None)
    assert most > 1
    assert [measured(asked) for asked in (2, None)] == [2, most]


def test_what_a_worker_has_packed_is_not_packed_again(session, store, monkeypatch) -> None:
    kept: list[Batch] = []
    real = store.exchange

    def exchange(made: Sequence[Batch], *rest: Any) -> Any:
        kept.extend(made)
        return real([replace(batch, encoded=None) for batch in made], *rest)

    def answer(task: Task) -> Any:
        if not isinstance(task, Work):
            return None
        cell, where = task.unit.cell, task.unit.positions
        return [Done(outcome(cell, where), None, 3.0, 1.0, np.zeros(len(where)), False, b"packed")]

    monkeypatch.setattr(store, "exchange", exchange)
    run(session, store, planned(session, "none", accesses=(WHITE,)), Hands(answer=answer))
    assert [batch.encoded for batch in kept] == [b"packed"] * 3


def test_what_others_are_at_work_on_is_asked_for_when_nothing_else_is_left(session, store, path, monkeypatch):
    plan = planned(session, "none", accesses=(WHITE,), samples=24)
    name, asked, waits = f"craft/{plan.cells[0].craft_key}/4/4", [], []
    real = store.exchange

    def exchange(made: Any, done: Any, names: list[str], cells: Any) -> Any:
        asked.extend(one for one in names if one == name)
        return real(made, done, names, cells)

    with Store.open(path) as other:
        other.claim_all([name])

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                other.release([name])

        monkeypatch.setattr(running.time, "sleep", sleep)
        monkeypatch.setattr(store, "exchange", exchange)
        report, _ = run(session, store, plan, Hands())
    assert report.done == 1
    assert waits == [PAUSE] * 3
    assert len(asked) == 1 + 1 + 3  # in its turn, beside the last block, and after each pause
    assert PAUSE <= 0.25  # or a user would see it


class Slow(Hands):
    """Has nothing to say every other time."""

    silent = False

    def next(self, timeout: float) -> Ended | Told | None:
        self.silent = not self.silent
        return None if self.silent else super().next(timeout)


def test_a_defence_that_is_required_is_waited_for(session, store) -> None:
    plan, hands = planned(session, "none", accesses=(WHITE,)), Slow()
    training = plan.trainings[plan.cells[0].artifact]
    runner, _ = driven(session, store, hands)
    runner.require(training, 30)
    assert runner._ready.is_made(training)
    assert runner._ready.layout(training) == hands.layout
    assert [type(task).__name__ for task in hands.asked] == ["Make", "Prepare"]


def test_gradients_that_were_no_numbers_are_kept_with_the_images_they_were_asked_for(session, store) -> None:
    def answer(task: Task) -> Any:
        if not isinstance(task, Work):
            return None
        cell, where = task.unit.cell, task.unit.positions
        return [Done(outcome(cell, where), images(cell.craft_key, where), 3.0, 1.0, 2.0 * (where < 6), False)]

    plan = planned(session, "none", accesses=(WHITE,))
    run(session, store, plan, Hands(answer=answer))
    record = store.attached(plan.cells[0].craft_key, gradients.KIND)
    assert (record["samples"], record["gradients"]) == (6, 12.0)


def test_a_cell_that_was_begun_under_another_secret_fails_and_no_other(session, store) -> None:
    plan = planned(session, "randomized-resize-pad", accesses=(WHITE,), scoring_draws=2)
    begun = plan.cells[0]
    store.add_cell(begun, store.begin_run({}, {}))
    secret.note(store, begun, "cd")
    report, heard = run(session, store, plan, Hands())
    said = f"cell {begun.key[:12]} was begun under another secret; give --secret cd to go on with it"
    assert heard.errors == [(begun.key, said)]
    assert (report.failed, report.done) == ({begun.key: said}, len(plan.cells) - 1)
