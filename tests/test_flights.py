"""What several workers share: large while there is much, small at the end, and again where one straggles."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from evidence import CELL

from benchbox.engine.agenda import Agenda, Block, Job, Trained
from benchbox.engine.executors import Ended, Failure, Lost, Make, Told, Work
from benchbox.engine.flights import LOSSES, TOGETHER, TURNS, Flights
from benchbox.engine.portions import Portions
from benchbox.engine.unit import Unit
from benchbox.training.loop import Progress

TRAINING = SimpleNamespace(digest="d", weights="w", dataset="digits")


class Workers:
    """Four of them, at work for ever unless a test says how a task ends."""

    workers = 4

    def __init__(self) -> None:
        self.tasks: dict[int, Work] = {}
        self.events: list[object] = []

    @property
    def free(self) -> int:
        return 4 - len(self.tasks)

    def submit(self, number, task):
        self.tasks[number] = task

    def end(self, number, value=None):
        task = self.tasks.pop(number)
        self.events.append(Ended(number, [list(task.unit.positions)] if value is None else value, 1.0))

    def lose(self, number):
        del self.tasks[number]
        self.events.append(Lost(number))

    def next(self, timeout):
        return self.events.pop(0) if self.events else None


class Watch:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def work(images: int = 32) -> Work:
    return Work(Unit(CELL, np.arange(images)), TRAINING, TRAINING, {}, "")


def block(images: int = 32) -> Block:
    return Block(Job(CELL, 0, TRAINING, TRAINING), "craft/a", np.arange(images))


def flying(tasks) -> tuple[Flights, Workers, Watch, Block]:
    workers, watch, item = Workers(), Watch(), block()
    flights = Flights(SimpleNamespace(release=lambda names: None), workers, watch)
    flights.start(item, tasks)
    return flights, workers, watch, item


def test_parts_are_joined_when_all_are_there():
    flights, workers, *_ = flying([work(2), work(3)])
    first, second = workers.tasks
    workers.end(second)
    assert list(flights.hear(0)) == []
    workers.end(first)
    (landed,) = flights.hear(0)
    assert landed.value == [[0, 1], [0, 1, 2]]
    assert landed.seconds == 2.0


def test_what_straggles_is_shared_out_and_the_first_result_counts():
    for whole_first in (True, False):
        flights, workers, watch, item = flying([work()])
        (late,) = workers.tasks
        watch.now = 30.0
        flights.hurry()
        assert len(workers.tasks) == 1  # nobody can say how long it should take
        flights.pace.note(item, 32.0, 32)
        watch.now = 40.0
        flights.hurry()
        assert len(workers.tasks) == 1
        watch.now = 60.0
        flights.hurry()
        pieces = [number for number in workers.tasks if number != late]
        assert sorted(np.concatenate([workers.tasks[n].unit.positions for n in pieces])) == list(range(32))
        assert len(pieces) == 3
        for number in [late] if whole_first else pieces:
            workers.end(number)
        (landed,) = flights.hear(0)
        assert sorted(np.concatenate(landed.value)) == list(range(32))
        flights.let_go([item])
        for number in list(workers.tasks):  # those that come late change nothing
            workers.end(number)
        assert list(flights.hear(0)) == []


def test_a_lost_worker_costs_its_part_until_it_is_too_often():
    flights, workers, *_ = flying([work(2), work(1)])
    for _ in range(LOSSES - 1):
        workers.lose(max(workers.tasks))
        assert list(flights.hear(0)) == []
        assert len(workers.tasks) == 1
        flights.submit()
        assert len(workers.tasks) == 2
    workers.lose(max(workers.tasks))
    (landed,) = flights.hear(0)
    assert isinstance(landed.value, Failure)


def test_what_lost_its_worker_is_tried_again_in_halves():
    flights, workers, *_ = flying([work(8)])
    workers.lose(*workers.tasks)
    assert list(flights.hear(0)) == []
    flights.submit()
    assert [task.unit.positions.tolist() for task in workers.tasks.values()] == [[4, 5, 6, 7], [0, 1, 2, 3]]
    first, second = workers.tasks
    workers.lose(second)
    workers.end(first)
    assert list(flights.hear(0)) == []
    flights.submit()
    workers.end(max(workers.tasks))
    assert list(flights.hear(0)) == []
    workers.end(*workers.tasks)
    (landed,) = flights.hear(0)
    assert sorted(np.concatenate(landed.value)) == list(range(8))


def test_a_training_that_comes_further_may_lose_any_number_of_workers():
    flights, workers, *_ = flying([])
    item = Trained(TRAINING)
    flights.start(item, [Make(TRAINING)])

    def lose(done: int) -> list[object]:
        flights.submit()
        workers.events.append(Told(TRAINING, Progress("train", done, 100)))
        workers.lose(*workers.tasks)
        return [event for event in flights.hear(0) if not isinstance(event, Told)]

    for done in range(10, 70, 10):
        assert lose(done) == []
    for _ in range(LOSSES - 2):
        assert lose(60) == []
    (landed,) = lose(60)
    assert isinstance(landed.value, Failure)


def test_pieces_that_are_late_are_shared_out_in_turn():
    flights, workers, watch, item = flying([work(32)])
    flights.pace.note(item, 32.0, 32)
    for _ in range(20):
        watch.now += 1000.0
        flights.hurry()
        for number in list(workers.tasks)[1:]:  # the hosts of all but the first are gone
            del workers.tasks[number]
    begun = [part for part in flights.held[item.name].parts[0].leaves if part.is_begun]
    assert max(len(list(part.wholes)) for part in begun) == TURNS + 1


def test_parts_shrink_with_what_is_left():
    portions, agenda = Portions(4), Agenda(4)
    portions.plan([CELL])
    sizes = []
    for left in (1e6, 200.0, 0.0):
        agenda.work = left
        parts = portions.cut(work(), agenda, batch=32)
        assert np.concatenate([part.unit.positions for part in parts]).tolist() == list(range(32))
        sizes.append(max(len(part.unit.positions) for part in parts))
    assert sizes[0] == 32 >= sizes[1] > sizes[2] == 4
    # Where an image takes ten seconds, two are enough for a worker.
    assert max(len(part.unit.positions) for part in portions.cut(work(), agenda, 32, 32 * 10.0)) == 2
    assert max(len(part.unit.positions) for part in portions.cut(work(), agenda, 32, 1.0)) == 4
    agenda.work = 1e6  # and nobody is given work for a day
    assert max(len(part.unit.positions) for part in portions.cut(work(), agenda, 32, 86_400.0)) == 1
    agenda.work = 0.0
    assert len(Portions(1).cut(work(), agenda, batch=32)) == 1  # one alone waits for nobody
    pools = [Portions(1).block(CELL, batch, is_pooled=True) for batch in (32, 300, 2000)]
    assert pools == [128, 1000, 2000]  # four calls, or a thousand images, or one call


def test_no_result_is_dropped_however_many_there_are_at_once():
    flights, workers, *_ = flying([work(2)])
    workers.events += [Ended(-1 - number, None) for number in range(TOGETHER)]
    workers.end(*workers.tasks)
    assert list(flights.hear(0)) == []
    (landed,) = flights.hear(0)
    assert landed.value == [[0, 1]]
