"""What is being worked on: claimed, given to a worker, and to another one where the first is lost or slow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from benchbox.engine.agenda import Block, Item, Pace, Trained
from benchbox.engine.executors import Ended, Executor, Failure, Lost, Task, Told
from benchbox.store import Store

#: How often a task may lose its worker before its cell fails.
LOSSES = 3
#: What takes so many times as long as the like did is started once more where a worker is idle.
STRAGGLES = 2.0
#: Seconds between two looks for stragglers.
LOOKS = 1.0
#: Results that are taken up at once, at most: what is waited for is committed together.
TOGETHER = 64
#: Of every task of this process, whichever run it belongs to: a result that comes late is nobody else's.
_NUMBERS = count()


@dataclass(eq=False)
class Flight:
    """An item that is being worked on: its task, since when, by how many, and how many of them were lost."""

    item: Item
    task: Task
    since: float
    copies: int = 1
    losses: int = 0


@dataclass(frozen=True)
class Landed:
    """An item is done, or has failed: what came of it, and the seconds that it took."""

    item: Item
    value: object
    seconds: float


class Flights:
    """Items at work.

    Args:
        store: Where they are claimed.
        executor: Does them.
        clock: Seconds that pass.

    Attributes:
        held: By name.
    """

    def __init__(self, store: Store, executor: Executor, clock: Callable[[], float]) -> None:
        self.held: dict[str, Flight] = {}
        self._store = store
        self._executor = executor
        self._clock = clock
        self._claimed: set[str] = set()
        self._flying: dict[int, Flight] = {}  # by the number of the task; copies share one
        self._again: list[Flight] = []  # those whose worker was lost
        self._looked = 0.0

    def claim(self, items: Sequence[Item]) -> set[Item]:
        """Those of some items that nobody else is at work on; they are ours until they are let go."""
        names = [item.name for item in items if _is_claimed(item)]
        mine = self._store.claim_all(names) if names else set()
        self._claimed |= mine
        return {item for item in items if item.name in mine or not _is_claimed(item)}

    def start(self, item: Item, task: Task) -> None:
        """Have an item done."""
        self._submit(Flight(item, task, self._clock()))

    def start_again(self) -> None:
        """Have done once more what was lost, as far as there is room."""
        while self._executor.free and self._again:
            self._submit(self._again.pop())

    def double(self, pace: Pace) -> None:
        """Start once more what takes far longer than the like did: its host may be slow, or gone."""
        now = self._clock()
        if now - self._looked < LOOKS:
            return
        self._looked = now
        for flight in list(self.held.values()):
            expected = pace.expects(flight.item) if flight.copies == 1 and self._executor.free else None
            if expected is not None and now - flight.since > max(LOOKS, STRAGGLES * expected):
                flight.copies += 1
                self._submit(flight)

    def hear(self, timeout: float) -> Iterator[Told | Landed]:
        """What has happened, after waiting for the first of it."""
        event = self._executor.next(timeout)
        for _ in range(TOGETHER):
            match event:
                case None:
                    return
                case Told():
                    yield event
                case Lost(number):
                    yield from self._lose(self._flying.pop(number, None))
                case Ended(number, value, seconds):
                    flight = self._flying.pop(number, None)
                    if self._is_held(flight):
                        assert flight is not None
                        yield Landed(flight.item, value, seconds)
            event = self._executor.next(0.0)

    def claimed(self, items: Sequence[Item]) -> list[str]:
        """Names that are claimed for some items; whoever commits them gives them back with it."""
        return [item.name for item in items if item.name in self._claimed]

    def let_go(self, items: Sequence[Item]) -> None:
        """Items are done, and their claims given back."""
        for item in items:
            self._claimed.discard(item.name)
            self.held.pop(item.name, None)

    def close(self) -> None:
        """Give back what is claimed; what is still at work is nobody's any more."""
        self._store.release(self._claimed)
        self._claimed.clear()
        self.held.clear()

    def _submit(self, flight: Flight) -> None:
        number = next(_NUMBERS)
        self._flying[number] = self.held[flight.item.name] = flight
        self._executor.submit(number, flight.task)

    def _is_held(self, flight: Flight | None) -> bool:
        return flight is not None and self.held.get(flight.item.name) is flight

    def _lose(self, flight: Flight | None) -> Iterator[Landed]:
        if flight is None or not self._is_held(flight):
            return
        flight.losses += 1
        flight.copies -= 1
        if flight.losses >= LOSSES:
            error = (
                f"its worker process was killed {LOSSES} times, perhaps for want of memory; try fewer --workers"
            )
            yield Landed(flight.item, Failure(error), 0.0)
        elif flight.copies <= 0:
            flight.copies = 1
            self._again.append(flight)


def _is_claimed(item: Item) -> bool:
    """Two that find out a layout or describe a transfer at once find the same: those need no claim."""
    return isinstance(item, Block | Trained)
