"""Parts of a plan, for machines that share no store: each runs its own, and `benchbox merge` joins them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchbox.errors import RequestError

if TYPE_CHECKING:
    from benchbox.engine.plan import Plan


@dataclass(frozen=True)
class Part:
    """The `number`-th of `parts` parts, counted from 1."""

    number: int
    parts: int

    def of(self, plan: Plan) -> Plan:
        """The cells of a plan that belong to it: those that share their images stay together."""
        mine = [cell for cell in plan.cells if int(cell.craft_key[:15], 16) % self.parts == self.number - 1]
        needed = {step for cell in mine for step in (cell.artifact, cell.view.artifact)}
        trainings = {key: step for key, step in plan.trainings.items() if key in needed}
        trainings |= {step.digest: step for last in list(trainings.values()) for step in last.chain}
        return replace(plan, cells=tuple(mine), trainings=trainings)


def part(text: str) -> Part:
    """`"3/16"` as the third of sixteen parts.

    Raises:
        RequestError: It is none.
    """
    found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    number, parts = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= parts:
        raise RequestError(f"--shard {text!r} is no part; write --shard 3/16 for the third of sixteen")
    return Part(number, parts)
