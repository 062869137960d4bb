"""Ratios of what two or more programs cost, for a machine that is never idle.

They run one after the other, in alternating order. On a CPU what counts is the CPU time of this process, on one
thread, which a load of the machine inflates for all of them alike; on a GPU the time until it has finished.
Printed are medians of the ratios of each round, and their range.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

# As the command line does, before torch is loaded: threads that spin would be measured instead of the attacks.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

CPU = torch.device("cpu")


@dataclass
class Rounds:
    """Seconds by program, one a round.

    Attributes:
        seconds: (rounds) of each program.
        last: What each returned in the last round.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    last: dict[str, object] = field(default_factory=dict)

    def ratios(self, one: str, other: str) -> list[float]:
        """Of the seconds of one program to those of another, round by round."""
        return [a / b for a, b in zip(self.seconds[one], self.seconds[other], strict=True)]

    def say(self, one: str, other: str, goal: float | None = None) -> str:
        """`ours / theirs: 0.63 (0.61 to 0.66; 3.60 s and 5.70 s), goal 0.80: met`."""
        ratios = self.ratios(one, other)
        middle = statistics.median(ratios)
        a, b = (statistics.median(self.seconds[name]) for name in (one, other))
        text = f"{one} / {other}: {middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f}; {a:.2f} s and {b:.2f} s)"
        return text if goal is None else f"{text}, goal {goal:.2f}: {'met' if middle <= goal else 'missed'}"


def seconds(device: torch.device) -> float:
    """A clock that has waited for the device."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def measured(programs: Mapping[str, Callable[[], object]], rounds: int, device: torch.device = CPU) -> Rounds:
    """Run each program once a round; the order turns around from one round to the next."""
    if device.type == "cpu":
        torch.set_num_threads(1)
    found = Rounds({name: [] for name in programs})
    for number in range(rounds):
        for name in list(programs)[:: -1 if number % 2 else 1]:
            start = seconds(device)
            found.last[name] = programs[name]()
            found.seconds[name].append(seconds(device) - start)
    return found
