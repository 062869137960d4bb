"""Keeps an audit to its time: before each probe the plan is corrected by what the machine gave until then."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from benchbox.audit import price
from benchbox.audit.price import Pace
from benchbox.audit.probes.measurements import Effort
from benchbox.audit.probes.passes import ORDER, READ_BY, Calls, passes
from benchbox.audit.probes.probe import Plan
from benchbox.contract.defense import Defense
from benchbox.engine.budget import duration


class Course(Plan):
    """A plan that is less and less as a machine gives less than it was made for; it never becomes more.

    What was done is known by its passes, and its seconds are read from a clock; so it is known what a pass takes
    here, and whether what is left will end in time.

    Args:
        defense: That is audited.
        pace: That the plan was made with.
        seconds: That the probes may take, from now on.
        tell: Told what is left out on the way.
        now: Seconds of a clock.
    """

    def __init__(
        self,
        defense: Defense,
        pace: Pace,
        seconds: float,
        tell: Callable[[str], None] = lambda sentence: None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.left_out: dict[str, str] = {}
        self._defense = defense
        self._pace = pace
        self._tell = tell
        self._now = now
        self._then = now()
        self._end = self._then + seconds
        self._spent = 0.0
        self._standing = pace.standing
        self._done: list[tuple[Effort, list[Calls]]] = []
        self._at = 0

    def is_over(self) -> bool:
        """Whether the seconds are over: a machine may give less and less while a probe runs."""
        return self._now() > self._end

    def note_late(self, field: str) -> None:
        """Why a probe was left out as a whole though it had begun."""
        self._tell(f"the time is up, so less is done: no {price.WORDS[field]}")
        self.left_out[field] = (
            "left out on the way, for the time was up before it ended; --whole has it, or a longer --budget"
        )

    def before(self, calls: str, effort: Effort, standing: float | None = None) -> Effort:
        """The effort from some calls in `ORDER` on: the same, but for fields that nothing has read yet."""
        ahead, now = ORDER.index(calls), self._now()
        self._standing = self._standing if standing is None else standing
        # Who asks first of all forks, which says nothing of a pass.
        if self._at >= ORDER.index("gradients"):
            self._spent += now - self._then
            self._done.append((effort, self._calls(effort, self._at, ahead)))
        self._at, self._then = ahead, now
        planned = sum(self._expected(before, made) for before, made in self._done)
        slowness = self._spent / planned if planned else 1 / self._pace.share

        def cost(effort: Effort) -> float:
            return slowness * self._expected(effort, self._calls(effort, ahead, len(ORDER)))

        fewer = price.cut(
            effort, cost, max(self._end - now, 0.0), lambda field: ORDER.index(READ_BY[field]) >= ahead
        )
        if less := price.lessened(effort, fewer):
            self._tell(
                f"a pass takes {slowness * self._pace.share:.2g} times what was planned, so less is done from now "
                f"on: {price.said(less)}"
            )
            self._note(effort, less, slowness)
        return fewer

    def _calls(self, effort: Effort, start: int, end: int) -> list[Calls]:
        return [one for one in passes(self._defense, effort).most if start <= ORDER.index(one.what) < end]

    def _expected(self, effort: Effort, calls: Sequence[Calls]) -> float:
        """Seconds of a processor, as the pace was."""
        return self._pace.expected(calls, effort.steps, self._standing)

    def _note(self, effort: Effort, less: dict[str, tuple[int, int]], slowness: float) -> None:
        """Why a probe was left out as a whole."""
        for field, (_, done) in less.items():
            if done or field not in price.WHOLE:
                continue
            calls = [one for one in passes(self._defense, effort).most if one.what in price.WHOLE[field]]
            wanted = duration(slowness * self._expected(effort, calls))
            self.left_out[field] = (
                "left out on the way, for the machine gave less than was planned: it would take "
                f"{wanted} here; --whole has it, or a longer --budget"
            )
