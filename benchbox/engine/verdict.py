"""Is a defence broken? Cheap attacks on a random list of images that grows, until the answer is sure.

Every attack of the ladder meets only what still stands. What is found is in the store, in the cells of
`benchbox run` on the same list, so nothing is run twice. There is no way from here to "robust": what
withstands cheap attacks has withstood cheap attacks.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchbox.analysis.anytime import confidence_sequence
from benchbox.analysis.intervals import Interval
from benchbox.domain import Access, Cell
from benchbox.engine import ladder
from benchbox.engine.budget import Budget
from benchbox.engine.ladder import Ladder
from benchbox.engine.observer import Report
from benchbox.engine.plan import Plan
from benchbox.engine.runner import Runner
from benchbox.errors import RequestError

#: A defence that leaves less than this share standing is broken.
BROKEN = 0.10
#: One that leaves at most this much more standing than its bare classifier adds nothing to it.
MARGIN = 0.10
#: A verdict is wrong at most this often; each of its two questions gets half of it.
ERROR = 0.05
#: Images of the first round; each further one doubles them.
FIRST = 64

Ruling = Literal["broken", "no better", "withstood", "open"]


@dataclass(frozen=True)
class Answer:
    """What is known when the search ends.

    Attributes:
        ruling: `broken`: fewer than `BROKEN` stand. `no better`: at most `MARGIN` more than of the bare classifier
            do. `withstood`: neither, and more images of this list would not change it. `open`: not settled.
        images: How many of the list were attacked.
        standing: How many of them stand, so far.
        wrong: How many of them are wrong as they are.
        interval: Share of all images that would stand these attacks, at any time.
        advantage: By how much that is more than of the bare classifier, from -1 to 1; None where there is none.
        significant: Whether the defence leaves more standing than its bare classifier, beyond chance; None where
            there is none.
        breakers: The attacks that broke images, with how many, the most first.
        untried: What was not tried and why, in words.
        unused: Names of attacks of which nothing was tried.
        complete: Whether every image of the list that stands has met every attack: no budget would say more.
        plan: What was planned.
    """

    ruling: Ruling
    images: int
    standing: int
    wrong: int
    interval: Interval
    advantage: Interval | None
    breakers: Sequence[tuple[Cell, int]]
    untried: Sequence[tuple[Cell, str]]
    unused: frozenset[str]
    complete: bool
    plan: Plan

    @property
    def significant(self) -> bool | None:
        """See above."""
        return None if self.advantage is None else self.advantage.low > 0


@dataclass
class Search:
    """Looks for the answer; `Session.run` takes it as `how`, and `answer` has what was found.

    Attributes:
        budget: When to stop.
        every: Try every attack of the plan, because they were asked for by name.
        is_there: Whether the weights of an artifact are there; no substitute is trained for a quick answer.
        tell: Hears, after each attack, what was attacked and what stands.
    """

    budget: Budget
    is_there: Callable[[str], bool]
    every: bool = False
    tell: Callable[[Cell, int, int], None] = lambda cell, images, standing: None
    answer: Answer | None = None
    _untried: dict[str, tuple[Cell, str]] = field(default_factory=dict)
    _rates: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0]))
    _passes: float = 0.0
    _start: float = 0.0
    _sizes: list[int] = field(default_factory=list)

    def __call__(self, runner: Runner, plan: Plan, run: int) -> Report:
        """Attack until it is settled or the budget is spent.

        Raises:
            RequestError: No attack of the plan is one that a quick answer tries.
            BenchboxError: The defence cannot be obtained, or breaks its contract.
        """
        self._runner, self._plan, self._run, self._report = runner, plan, run, Report()
        self._defence = Ladder.of(self._usable(plan))
        self._bare = Ladder.of(ladder.bare(self._defence.cells, plan))
        for side in (self._defence, self._bare):
            for rung in range(len(side.cells)):
                self._learn(side, rung)
        for cell in (self._defence.cells[0], *self._bare.cells[:1]):
            runner.require(plan.trainings[cell.artifact], len(cell.samples))
        self._start = time.perf_counter()
        self.answer = self._search()
        self._report.total = time.perf_counter() - self._start
        return self._report

    def _usable(self, plan: Plan) -> list[Cell]:
        found = []
        for cell in ladder.rungs(plan, every=self.every):
            if cell.access is Access.TRANSFER and not self.is_there(cell.view.artifact):
                self._untried[cell.key] = cell, "its substitute is not trained"
            else:
                found.append(cell)
        if not found:
            raise RequestError(
                "no attack of the request can be tried at once; name some with --attacks, or use benchbox run"
            )
        return found

    def _search(self) -> Answer:
        whole = min(len(self._defence.cells[0].samples), self.budget.images)
        size = self._reach(min(FIRST, int(whole)))
        while True:
            self._sizes.append(size)
            settled = self._climb(self._defence, size) or self._climb(self._bare, size)
            larger = self._reach(min(2 * size, int(whole)))
            if settled or larger <= size:
                return self._judge()
            size = larger

    def _reach(self, size: int) -> int:
        """How many images the first attack can go through with what is left of the budget, up to a size."""
        wanted = self._defence.open(0, size)
        within = self._affordable(self._defence, 0, wanted)
        return size if len(within) == len(wanted) else int(wanted[len(within)])

    def _climb(self, side: Ladder, size: int) -> bool:
        """Every attack on what stands of the first images; whether that settles it."""
        for rung, cell in enumerate(side.cells):
            wanted = self._affordable(side, rung, side.open(rung, size))
            if len(wanted):
                self._attack(side, rung, wanted)
                if cell.key in self._report.failed:
                    continue
                self.tell(cell, size, int(side.standing(size).sum()))
            if self._judge().ruling != "open":
                return True
        return False

    def _attack(self, side: Ladder, rung: int, wanted: NDArray[np.int64]) -> None:
        # Only now: a cell of which nothing is attacked would lie in the store as an unfinished one.
        cell = self._runner.add(side.cells[rung], self._run)
        self._learn(side, rung)  # what is known from other lists takes no passes
        wanted = np.intersect1d(wanted, side.open(rung, len(side.fallen)))
        spent = self._report.crafting + self._report.scoring
        self._runner.some(cell, wanted, self._plan.trainings, self._report)
        if cell.key in self._report.failed:
            self._untried[cell.key] = cell, f"it failed: {self._report.failed[cell.key]}"
            side.drop(rung)
            return
        made = self._learn(side, rung, wanted)
        self._passes += made
        rate = self._rates[_model(cell)]
        rate[0] += self._report.crafting + self._report.scoring - spent
        rate[1] += made

    def _learn(self, side: Ladder, rung: int, new: NDArray[np.int64] | None = None) -> float:
        """Read what the store holds; the passes that the new images took."""
        found = self._runner.store.evidence(keys=[side.cells[rung].key])
        if not found or not len(found[0].outcome):
            return 0.0
        outcome = found[0].outcome
        side.learn(rung, outcome)
        fresh = np.isin(outcome.position, new if new is not None else [])
        return float((outcome.forwards + outcome.backwards)[fresh].sum())

    def _affordable(self, side: Ladder, rung: int, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """As many of the images as the rest of the budget allows, by what passes have taken so far."""
        each = ladder.passes(side.cells[rung])
        left = (self.budget.passes - self._passes) / each
        seconds, made = self._rates[_model(side.cells[rung])]
        remaining = self.budget.seconds - (time.perf_counter() - self._start)
        if made:
            left = min(left, remaining / (seconds / made * each))
        elif remaining <= 0:
            left = 0
        return wanted[: max(0, int(min(left, len(wanted))))]

    def _judge(self) -> Answer:
        """The answer as things stand; both intervals hold at every size at once, so the narrowest end counts."""
        size, attacked = self._sizes[-1], self._defence
        stands = _narrowest([self._share(n) for n in self._sizes])
        advantage = _narrowest([self._advantage(n) for n in self._sizes]) if self._bare.cells else None
        ruling: Ruling = "open"
        if stands.high < BROKEN:
            ruling = "broken"
        elif advantage and advantage.high <= MARGIN:
            ruling = "no better"
        elif stands.low > BROKEN and (advantage is None or advantage.low > 0):
            ruling = "withstood"
        used = {cell.attack.name for rung, cell in enumerate(attacked.cells) if attacked.tried[rung].any()}
        return Answer(
            ruling=ruling,
            images=size,
            standing=int(attacked.standing(size).sum()),
            wrong=int((attacked.fallen[:size] & (attacked.by[:size] < 0)).sum()),
            interval=stands,
            advantage=advantage,
            breakers=attacked.breakers(size),
            untried=self._left_out(size),
            unused=frozenset(cell.attack.name for cell in self._plan.cells) - used,
            complete=self._is_complete(),
            plan=self._plan,
        )

    def _share(self, n: int) -> Interval:
        """Of images that stand every attack of the ladder, from those that have met some of them.

        An image that stands so far may yet fall, so it counts for the upper end; for the lower end counts what has
        met every attack.
        """
        level = 1 - ERROR / 2
        high = confidence_sequence(int(self._defence.standing(n).sum()), n, level).high
        return Interval(confidence_sequence(int(self._defence.proven(n).sum()), n, level).low, high)

    def _advantage(self, n: int) -> Interval:
        """How many more stand than of the bare classifier: where one stands and the other falls, each way."""
        level = 1 - ERROR / 4
        ours, proven = self._defence.standing(n), self._defence.proven(n)
        bare, bare_proven = self._bare.standing(n), self._bare.proven(n)

        def ends(least: NDArray[np.bool_], most: NDArray[np.bool_]) -> Interval:
            low = confidence_sequence(int(least.sum()), n, level).low
            return Interval(low, confidence_sequence(int(most.sum()), n, level).high)

        gained = ends(proven & ~bare, ours & ~bare_proven)
        lost = ends(~ours & bare_proven, ~proven & bare)
        return Interval(gained.low - lost.high, gained.high - lost.low)

    def _is_complete(self) -> bool:
        n = len(self._defence.fallen)
        sides = (self._defence, self._bare)
        return self._sizes[-1] == n and not any(
            len(side.open(rung, n)) for side in sides for rung in range(len(side.cells))
        )

    def _left_out(self, size: int) -> list[tuple[Cell, str]]:
        """What was not tried on all that stands."""
        found = dict(self._untried)
        for rung, cell in enumerate(self._defence.cells):
            left = len(self._defence.open(rung, size))
            if cell.key not in found and (left or not self._defence.tried[rung].any()):
                found[cell.key] = cell, f"not on {left} that stand" if left else ""
        tried = {cell.key for cell in self._defence.cells}
        rest = {cell.key: (cell, "") for cell in self._plan.cells if cell.key not in tried}
        return list({**rest, **found}.values())


def _narrowest(intervals: Sequence[Interval]) -> Interval:
    return Interval(max(one.low for one in intervals), min(one.high for one in intervals))


def _model(cell: Cell) -> str:
    """Cells that differentiate or query the same model take equally long a pass."""
    return f"{cell.view.artifact}/{cell.view.stand_in}"
