"""What is being worked on: claimed, given to a worker, and to another one where the first is lost or slow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from benchbox.engine.agenda import Block, Item, Likeness, Pace, Trained
from benchbox.engine.executors import Ended, Executor, Failure, Lost, Task, Told, Work, divided
from benchbox.store import Batch, Progress, Store

#: How often a task may lose its worker before its cell fails.
LOSSES = 3
#: What takes so many times as long as the like did is started once more where a worker is idle.
STRAGGLES = 1.5
#: Workers that share what straggled, at most; the images that each of them is worth starting for, or the seconds
#: that an image may take; and how often a piece that is late itself is shared out in turn.
PIECES = 8
WORTH = 8
TURNS = 3
#: Seconds between two looks for stragglers.
LOOKS = 1.0
#: Results that are taken up at once, at most: what is waited for is committed together.
TOGETHER = 64
#: Of every task of this process, whichever run it belongs to: a result that comes late is nobody else's.
_NUMBERS = count()


@dataclass(eq=False)
class Part:
    """A task of an item.

    Attributes:
        flight: Whose it is.
        task: What is to be done.
        whole: The part that it is a piece of, which is at work too, but late.
        pieces: Those that it was cut into when it was late.
        since: When it was begun.
        is_begun: Whether a worker has it.
        losses: How many workers it has lost, since it came any further.
        reached: How far it had come at most, of what tells.
        ended: What came of it.
    """

    flight: Flight
    task: Task
    whole: Part | None = None
    pieces: list[Part] = field(default_factory=list)
    since: float = 0.0
    is_begun: bool = False
    losses: int = 0
    reached: tuple[bool, int] = (False, 0)
    ended: Ended | None = None

    @property
    def images(self) -> int:
        """How many it is about; 0 of what cannot be cut."""
        if not isinstance(self.flight.item, Block) or not isinstance(self.task, Work):
            return 0
        return len(self.task.unit.positions)

    @property
    def wholes(self) -> Iterator[Part]:
        """Itself, and what it is a piece of."""
        part: Part | None = self
        while part is not None:
            yield part
            part = part.whole

    @property
    def leaves(self) -> Iterator[Part]:
        """Itself, or the smallest pieces that it was cut into."""
        if not self.pieces:
            yield self
        for piece in self.pieces:
            yield from piece.leaves

    def cut(self, count: int) -> None:
        """Have it done in pieces, whoever is at work on it as a whole."""
        assert isinstance(self.task, Work)
        self.pieces += (Part(self.flight, task, self, losses=self.losses) for task in divided(self.task, count))


@dataclass(eq=False)
class Flight:
    """An item that is being worked on, and its parts."""

    item: Item
    parts: list[Part]


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
        pace: How long work took.
    """

    def __init__(self, store: Store, executor: Executor, clock: Callable[[], float]) -> None:
        self.held: dict[str, Flight] = {}
        self.pace = Pace()
        self._store = store
        self._executor = executor
        self._clock = clock
        self._claimed: set[str] = set()
        self._over: set[str] = set()  # of what is claimed, that which is done
        self._flying: dict[int, Part] = {}  # by the number of the task; copies share one
        self._waiting: deque[Part] = deque()  # for a worker; what was lost comes first
        self._looked = 0.0

    def claim(self, items: Sequence[Item], made: Sequence[Batch] = ()) -> tuple[set[Item], Mapping[str, Progress]]:
        """Those of some items that nobody else is at work on; they are ours until they are let go.

        What came of others is committed with it, and the claims of those that were let go are given back.

        Args:
            items: What is to be done next.
            made: What was done.

        Returns:
            The items that are ours, and how far their cells are: somebody may have done some of it since they were
            put on the agenda.
        """
        names = [item.name for item in items if _is_claimed(item)]
        cells = [item.job.cell for item in items if isinstance(item, Block | Likeness)]
        mine, known = self._store.exchange(made, self._over, names, cells)
        self._claimed = (self._claimed - self._over) | mine
        self._over.clear()
        return {item for item in items if item.name in mine or not _is_claimed(item)}, known

    @property
    def room(self) -> int:
        """How many more tasks can be worked on at once."""
        return max(0, self._executor.free - len(self._waiting))

    def start(self, item: Item, tasks: Sequence[Task]) -> None:
        """Have an item done, in one or several parts."""
        self.held[item.name] = flight = Flight(item, [])
        flight.parts += (Part(flight, task) for task in tasks)
        self._waiting += flight.parts
        self.submit()

    def submit(self) -> None:
        """Give workers what waits for one."""
        while self._waiting and self._executor.free:
            if self._is_wanted(part := self._waiting.popleft()):
                self._submit(part)

    def hurry(self) -> None:
        """Have several do once more what takes far longer than the like did: its host may be slow, or gone."""
        now = self._clock()
        if now - self._looked < LOOKS:
            return
        self._looked = now
        for leaf in [leaf for flight in self.held.values() for part in flight.parts for leaf in part.leaves]:
            if self.room == 0:
                return
            expected = self.pace.expects(leaf.flight.item, leaf.task) if self._is_wanted(leaf) else None
            is_late = expected is not None and now - leaf.since > max(LOOKS, STRAGGLES * expected)
            if leaf.is_begun and expected and is_late and len(list(leaf.wholes)) <= TURNS:
                worth = max(leaf.images // WORTH, min(leaf.images, int(expected / WORTH)))
                leaf.cut(min(self.room, PIECES, max(1, worth)))
                self._waiting += leaf.pieces
                self.submit()

    def hear(self, timeout: float) -> Iterator[Told | Landed]:
        """What has happened, after waiting for the first of it."""
        for turn in range(TOGETHER):
            match event := self._executor.next(0.0 if turn else timeout):
                case None:
                    return
                case Told():
                    self._came_further(event)
                    yield event
                case Lost(number):
                    yield from self._lose(self._flying.pop(number, None))
                case Ended(number):
                    yield from self._end(self._flying.pop(number, None), event)

    def let_go(self, items: Sequence[Item]) -> None:
        """Items are done; their claims end with the next `claim`, which commits what came of them."""
        for item in items:
            self._over |= {item.name} & self._claimed
            self.held.pop(item.name, None)

    @property
    def owes(self) -> bool:
        """Whether there are claims to give back."""
        return bool(self._over)

    def close(self) -> None:
        """Give back what is claimed; what is still at work is nobody's any more."""
        self._store.release(self._claimed)
        self._claimed.clear()
        self._over.clear()
        self.held.clear()
        self._waiting.clear()

    def _submit(self, part: Part) -> None:
        number = next(_NUMBERS)
        self._flying[number] = part
        part.is_begun, part.since = True, self._clock()
        self._executor.submit(number, part.task)

    def _is_wanted(self, part: Part | None) -> bool:
        """Whether its item is still at work, and nobody else has done the same."""
        if part is None or self.held.get(part.flight.item.name) is not part.flight:
            return False
        return all(one.ended is None for one in part.wholes)

    def _end(self, part: Part | None, ended: Ended) -> Iterator[Landed]:
        if part is None or not self._is_wanted(part):
            return
        part.ended = ended
        flight = part.flight
        if not part.pieces and not isinstance(ended.value, Failure):
            self.pace.note(flight.item, ended.seconds, part.images)
        if isinstance(ended.value, Failure) or flight.parts == [part]:
            yield Landed(flight.item, ended.value, ended.seconds)
        elif part.whole is not None:
            if (joined := _joined(part.whole.pieces)) is not None:
                yield from self._end(part.whole, joined)
        elif (joined := _joined(flight.parts)) is not None:
            yield Landed(flight.item, joined.value, joined.seconds)

    def _lose(self, part: Part | None) -> Iterator[Landed]:
        if part is None or not self._is_wanted(part):
            return
        part.losses += 1
        if part.losses >= LOSSES:
            killed = f"its worker process was killed {LOSSES} times"
            failure = Failure(f"{killed}, perhaps for want of memory; try fewer --workers")
            yield Landed(part.flight.item, failure, 0.0)
        elif part.pieces:
            pass  # others are at work on the same
        elif part.images > 1:
            part.cut(2)  # less memory is needed, and less is lost the next time
            self._waiting.extendleft(part.pieces)
        else:
            self._waiting.appendleft(part)

    def _came_further(self, told: Told) -> None:
        """A training goes on where it was: one that comes further each time may lose any number of workers."""
        flight = self.held.get(Trained(told.training).name)
        reached = told.progress.phase == "train", told.progress.done
        for part in flight.parts if flight else ():
            if reached > part.reached:
                part.reached, part.losses = reached, 0


def _joined(parts: Sequence[Part]) -> Ended | None:
    """What came of all of them; None while one is at work."""
    known = [part.ended for part in parts if part.ended is not None]
    if len(known) < len(parts):
        return None
    return Ended(known[0].number, [done for one in known for done in one.value], sum(one.seconds for one in known))


def _is_claimed(item: Item) -> bool:
    """Two that find out a layout or describe a transfer at once find the same: those need no claim."""
    return isinstance(item, Block | Trained)
