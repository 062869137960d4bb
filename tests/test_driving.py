"""The runner without a network: what it asks of whoever does the work, in which order, and what it makes of it."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import pytest
from evidence import images, outcome
from hands import Hands, Heard, told

from benchbox.data.dataset import load
from benchbox.domain import Access
from benchbox.engine import runner as running
from benchbox.engine import secret
from benchbox.engine.executors import Failure, Liken, Make, Prepare, Task, Told, Work
from benchbox.engine.plan import Plan
from benchbox.engine.request import Request
from benchbox.engine.runner import PAUSE, Runner
from benchbox.engine.session import Session
from benchbox.errors import DefenseError, StoreError
from benchbox.store import Store
from benchbox.training.layout import Layout
from benchbox.training.loop import Progress

DIGITS = load("digits")
WHITE, TRANSFER = Access.WHITE_BOX, Access.TRANSFER


def planned(session: Session, *defenses: str, samples: int = 10, **rest: Any) -> Plan:
    return session.plan(Request(defenses=defenses, attacks=("pgd",), samples=samples, **rest))


def driven(session: Session, store: Store, hands: Hands, given: str | None = "5ec2e7") -> tuple[Runner, Heard]:
    heard = Heard()
    made: Any = hands.made
    found = Runner(
        store, hands, made, session.attacks, DIGITS, heard, session.defenses, secret=given  # type: ignore[arg-type]
    )  # fmt: skip
    return found, heard


def run(session: Session, store: Store, plan: Plan, hands: Hands) -> tuple[running.Report, Heard]:
    runner, heard = driven(session, store, hands)
    return runner.run(plan, store.begin_run({}, {})), heard


BLOCKS = [([0, 1, 2, 3], True), ([4, 5, 6, 7], False), ([8, 9], False)]


def blocks(access: Access) -> list[tuple[Any, ...]]:
    return [(access, places, first) for places, first in BLOCKS]


def test_one_worker_makes_measures_and_scores_what_is_needed_for_one_cell_after_the_other(session, store) -> None:
    plan, hands = planned(session, "none"), Hands()
    hands.told.append(Told(plan.trainings[plan.cells[0].artifact], Progress("train", 1, 2)))
    begun = time.perf_counter()
    report, heard = run(session, store, plan, hands)
    assert 0 < report.total <= time.perf_counter() - begun
    assert told(hands) == [
        ("make", 0), ("prepare", 0, None, 10), *blocks(WHITE),
        ("make", 1000), ("prepare", 1000, None, 10), *blocks(TRANSFER), ("liken", 10),
    ]  # fmt: skip
    assert (report.done, report.batches, report.reused, report.kept, report.failed) == (2, 6, 0, 0, {})
    assert (report.crafting, report.scoring, report.training) == (18.0, 6.0, 8.0)
    counts = [(0, 10), (4, 10), (8, 10), (10, 10)]
    assert heard.cells == [(access, *count) for access in (WHITE, TRANSFER) for count in counts]
    assert heard.trained == [(0, Progress("train", 1, 2))]
    for item in store.evidence():
        assert (item.status, item.seconds, len(item.outcome)) == ("done", 12.0, 10)
    described = [store.attached(cell.key, "transfer") for cell in plan.cells]
    assert described == [None, {"agreement": 0.5}]
    work = [task for task in hands.asked if isinstance(task, Work)]
    for task in work:
        assert task.deployed.seed == 0
        assert task.attacked.seed == (1000 if task.unit.cell.access is TRANSFER else 0)
        assert task.layouts == {t.digest: hands.layout for t in (task.deployed, task.attacked)}
        assert task.secret == secret.OPEN
        # Images are kept with the block, and a transfer is described on what has been crafted.
        assert (task.unit.stored is not None) == isinstance(task, Liken)
    assert hands.timeouts[0] == PAUSE
    again = Hands(made=hands.made)
    report, _ = run(session, store, plan, again)
    assert (report.done, report.reused, again.asked) == (0, 2, [])


def test_what_is_stored_is_kept_and_only_the_rest_is_asked_for(session, store) -> None:
    plan, hands = planned(session, "none", accesses=(WHITE,)), Hands()
    (cell,) = plan.cells
    store.add_cell(cell, store.begin_run({}, {}))
    store.commit_batch(cell, outcome(cell, [0, 1, 2, 3, 9]), seconds=1.0)
    report, heard = run(session, store, plan, hands)
    assert told(hands)[2:] == [(WHITE, [4, 5, 6, 7], False), (WHITE, [8], False)]
    assert (report.done, report.kept, report.batches) == (1, 5, 2)
    assert [count for _, *count in heard.cells] == [[5, 10], [9, 10], [10, 10]]


def test_images_that_another_cell_has_made_are_scored_as_they_are(session, store) -> None:
    plan, hands = planned(session, "none", "jpeg", accesses=(WHITE, Access.GRAY_BOX)), Hands()
    run(session, store, plan, hands)
    bare, through = plan.cells[0], next(c for c in plan.cells if c.access is Access.GRAY_BOX)
    assert bare.craft_key == through.craft_key
    work = [task for task in hands.asked if isinstance(task, Work) and task.unit.cell.key == through.key]
    assert [task.unit.positions.tolist() for task in work] == [places for places, _ in BLOCKS]
    for task in work:
        made = images(bare.craft_key, task.unit.positions)
        assert task.unit.stored is not None
        np.testing.assert_array_equal(task.unit.stored.x, made.x)
        assert (task.attacked.defense.name, task.deployed.defense.name) == ("none", "jpeg")
        assert len(task.layouts) == 2


def test_several_workers_make_first_then_begin_every_cell_then_take_the_longest(session, store) -> None:
    overrides = {"none": {"epochs": 1}, "pgd": {"steps": 10}}
    plan = planned(session, "none", samples=10, seeds=(0, 1), accesses=(WHITE,), overrides=overrides)
    hands = Hands(workers=2, layout=Layout(batch=8, seconds=1e-6))
    report, _ = run(session, store, plan, hands)
    kinds = [row[0] for row in told(hands)]
    assert kinds[:4] == ["make", "make", "prepare", "prepare"]
    assert [row[2] for row in told(hands)[2:4]] == [None, None]
    work = [task for task in hands.asked if isinstance(task, Work)]
    firsts = [task.first for task in work]
    assert sum(firsts) == 2
    assert {task.unit.cell.training_seed for task in work if task.first} == {0, 1}
    for cell in plan.cells:
        places = [p for task in work if task.unit.cell.key == cell.key for p in task.unit.positions.tolist()]
        assert sorted(places) == list(range(10))
    assert (report.done, report.failed) == (2, {})


def test_what_takes_long_is_handed_out_in_small_parts(session, store) -> None:
    """By the seconds of a pass, before anything has been attacked."""
    plan = planned(session, "none", samples=200, accesses=(WHITE,), overrides={"pgd": {"steps": 10}})
    sizes = {}
    for seconds in (None, 1e-6, 500.0):
        with Store.open(":memory:") as fresh:
            hands = Hands(workers=2, layout=Layout(batch=64, seconds=seconds))
            run(session, fresh, plan, hands)
            work = [task.unit.positions for task in hands.asked if isinstance(task, Work)]
            sizes[seconds] = [len(places) for places in work]
            # Blocks are an eighth of all passes, with 20 of 22 to craft an image, and no part is of two of them.
            assert all(places[0] // 27 == places[-1] // 27 for places in work)
            assert sorted(np.concatenate(work).tolist()) == list(range(200))
    assert sizes[None] == sizes[1e-6]
    assert max(sizes[None]) > 8
    assert sizes[500.0][:8] == [1] * 8
    assert max(sizes[500.0]) > 1  # when it is known how long they took


def test_what_another_process_is_at_work_on_is_left_to_it_and_looked_at_again(session, store, path, monkeypatch):
    plan, waits = planned(session, "none", accesses=(WHITE,)), []
    (cell,) = plan.cells
    name = f"craft/{cell.craft_key}/4/4"
    with Store.open(path) as other:
        assert other.claim_all([name]) == {name}

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 2:  # it is done, and its images are there
                other.commit_batch(cell, outcome(cell, [4, 5, 6, 7]), seconds=1.0)
                other.release([name])

        monkeypatch.setattr(running.time, "sleep", sleep)
        hands = Hands()
        report, _ = run(session, store, plan, hands)
    assert [row[1] for row in told(hands)[2:]] == [[0, 1, 2, 3], [8, 9]]
    assert waits == [PAUSE, PAUSE]
    assert report.done == 1
    assert store.evidence()[0].status == "done"


def test_what_another_process_gave_up_is_done_here(session, store, path, monkeypatch) -> None:
    plan = planned(session, "none", accesses=(WHITE,))
    with Store.open(path) as other:
        name = f"craft/{plan.cells[0].craft_key}/4/0"
        other.claim_all([name])
        monkeypatch.setattr(running.time, "sleep", lambda seconds: other.release([name]))
        hands = Hands()
        run(session, store, plan, hands)
    assert [row[1] for row in told(hands)[2:]] == [[4, 5, 6, 7], [8, 9], [0, 1, 2, 3]]


def test_a_block_that_fails_fails_its_cell_and_no_other(session, store, path) -> None:
    plan = planned(session, "none")

    def answer(task: Task) -> Any:
        is_second = isinstance(task, Work) and task.unit.positions[0] == 4
        return Failure("no such thing", crashed=True) if is_second and task.unit.cell.access is WHITE else None

    hands = Hands(answer=answer)
    report, heard = run(session, store, plan, hands)
    white, transfer = plan.cells
    assert report.failed == {white.key: "no such thing"}
    assert heard.errors == [(white.key, "no such thing")]
    assert (report.crashed, report.done, report.batches) == (1, 1, 4)
    assert [row[1:] for row in told(hands) if row[0] is WHITE] == BLOCKS[:2]  # the third is nobody's any more
    with Store.open(path) as other:  # nothing is claimed any more
        names = {f"craft/{white.craft_key}/4/{number}" for number in (0, 4, 8)}
        assert other.claim_all(names) == names
    stored = {item.cell.key: item for item in store.evidence()}
    assert (stored[white.key].status, stored[white.key].error) == ("failed", "no such thing")
    assert (stored[transfer.key].status, stored[transfer.key].error) == ("done", "")


def test_what_lands_with_a_failure_of_its_cell_is_dropped(session, store) -> None:
    plan = planned(session, "none", accesses=(WHITE,), overrides={"pgd": {"steps": 1}})

    def answer(task: Task) -> Any:
        return Failure("odd") if isinstance(task, Work) and task.first else None

    hands = Hands(workers=3, answer=answer)
    report, _ = run(session, store, plan, hands)
    assert (report.batches, report.done, report.crashed) == (0, 0, 0)
    assert len(store.positions(plan.cells[0])) == 0


@pytest.mark.parametrize("kind", [Make, Prepare])
def test_a_defence_that_cannot_be_had_fails_every_cell_that_needs_it(session, store, kind: type) -> None:
    plan = planned(session, "none", "jpeg", accesses=(WHITE, TRANSFER))

    def answer(task: Task) -> Any:
        return Failure("out of memory") if isinstance(task, kind) and task.training.seed == 1000 else None

    report, heard = run(session, store, plan, Hands(answer=answer))
    assert {cell.key for cell in plan.cells if cell.access is TRANSFER} == set(report.failed)
    assert len(heard.errors) == 2
    assert report.done == 2

    def base_fails(task: Task) -> Any:
        return Failure("no") if isinstance(task, Make) and not task.training.base else None

    # With the base fails what stands on it.
    with Store.open(":memory:") as fresh:
        base = Hands(answer=base_fails)
        report, _ = run(session, fresh, plan, base)
        assert (report.done, len(report.failed)) == (0, 4)
        assert told(base) == [("make", 0)]


def test_a_randomised_defence_hangs_on_the_secret_and_is_begun_when_it_is_loaded(session, store) -> None:
    plan = planned(session, "randomized-resize-pad", accesses=(WHITE,), scoring_draws=2)
    noted: list[bool] = []

    def answer(task: Task) -> Any:
        if isinstance(task, Make | Prepare):
            noted.extend(store.attached(cell.key, secret.KIND) is not None for cell in plan.cells)
        return None

    hands = Hands(answer=answer)
    run(session, store, plan, hands)
    assert not any(noted)
    assert {task.secret for task in hands.asked if isinstance(task, Work)} == {"5ec2e7"}
    for cell in plan.cells:
        assert store.attached(cell.key, secret.KIND) == {"secret": "5ec2e7", "before": 0}


def test_some_images_of_a_cell_are_had_without_the_rest(session, store) -> None:
    plan, hands = planned(session, "none", accesses=(TRANSFER,)), Hands()
    (cell,) = plan.cells
    runner, heard = driven(session, store, hands)
    runner.add(cell, store.begin_run({}, {}))
    report = running.Report()
    places = np.array([1, 2, 9])
    runner.some(cell, places, plan.trainings, report)
    assert [row for row in told(hands) if row[0] is TRANSFER] == [(TRANSFER, [1, 2], True), (TRANSFER, [9], False)]
    assert ("prepare", 1000, None, 10) in told(hands)
    assert store.positions(cell).tolist() == [1, 2, 9]
    assert (report.done, report.batches, report.failed) == (0, 2, {})
    assert store.attached(cell.key, "transfer") is None  # of the whole cell nothing can be said yet
    count = len(hands.asked)
    runner.some(cell, places[:2], plan.trainings, report)
    assert len(hands.asked) == count
    hands.answer = lambda task: Failure("no")
    runner.some(cell, np.array([0, 1]), plan.trainings, report)
    assert told(hands)[count:] == [(TRANSFER, [0], False)]
    runner.some(cell, np.array([0, 1]), plan.trainings, report)  # it has failed
    assert len(hands.asked) == count + 1
    assert [error for _, error in heard.errors] == ["no"]


def test_a_defence_is_made_and_tried_without_any_cell(session, store) -> None:
    plan, hands = planned(session, "jpeg", accesses=(WHITE,)), Hands()
    training = plan.trainings[plan.cells[0].artifact]
    runner, _ = driven(session, store, hands)
    runner.require(training, 30)
    names = [(type(task).__name__, task.training.defense.name) for task in hands.asked]  # type: ignore[union-attr]
    assert names == [("Make", "none"), ("Make", "jpeg"), ("Prepare", "jpeg")]
    assert told(hands)[-1] == ("prepare", 0, None, 30)
    # What is known of it is known from now on.
    fresh = Hands(made=hands.made)
    again, _ = driven(session, store, fresh)
    again.require(training, 30)
    assert told(fresh) == [("prepare", 0, hands.layout, 30)]
    for kind, asked in ((Make, 1), (Prepare, 3)):
        with Store.open(":memory:") as empty:
            broken = Hands(answer=lambda task, kind=kind: Failure("too big") if isinstance(task, kind) else None)
            with pytest.raises(DefenseError, match="too big"):
                driven(session, empty, broken)[0].require(training, 30)
            assert len(broken.asked) == asked


class Stuck(Hands):
    """Never ends with one of the larger parts."""

    stuck: Work | None = None

    @property
    def free(self) -> int:
        return super().free - (self.stuck is not None)

    def submit(self, number: int, task: Task) -> None:
        super().submit(number, task)
        if self.stuck is None and isinstance(task, Work) and not task.first and len(task.unit.positions) > 3:
            self.stuck = task
            self.ends.pop()


def test_what_straggles_is_done_by_who_has_nothing_else_to_do(session, store) -> None:
    plan, hands = planned(session, "none", accesses=(WHITE,), samples=64), Stuck(2, layout=Layout(batch=32))
    runner, _ = driven(session, store, hands)
    seconds = itertools.count(0.0, 50.0)
    runner._flights._clock = lambda: next(seconds)
    report = runner.run(plan, store.begin_run({}, {}))
    assert (report.done, report.failed) == (1, {})
    assert next(seconds) < 1e4
    assert hands.stuck is not None
    work = [
        task.unit.positions.tolist() for task in hands.asked if isinstance(task, Work) and task is not hands.stuck
    ]
    assert sorted(place for part in work for place in part) == list(range(64))


def test_the_first_error_is_the_one_that_is_seen(session, store, monkeypatch) -> None:
    def gone(names: object) -> None:
        raise StoreError("the disk is gone")

    def answer(task: Task) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "release", gone)
    with pytest.raises(KeyboardInterrupt):
        run(session, store, planned(session, "none"), Hands(answer=answer))


def test_who_is_interrupted_gives_back_what_was_claimed(session, store, path) -> None:
    plan = planned(session, "none", accesses=(WHITE,))

    def answer(task: Task) -> Any:
        if isinstance(task, Work):
            raise KeyboardInterrupt
        return None

    with pytest.raises(KeyboardInterrupt):
        run(session, store, plan, Hands(answer=answer))
    name = f"craft/{plan.cells[0].craft_key}/4/0"
    with Store.open(path) as other:
        assert other.claim_all([name]) == {name}
