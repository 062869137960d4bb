"""What bounds an attack: its passes take so many operations, and the machine does so many in a matrix product.

Three times: what the multiplications would take at that rate, what the bare network takes for as many passes in
full batches with nothing between them, and what the attack took.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rounds import seconds
from subject import Attacked, Subject
from torch.utils.flop_counter import FlopCounterMode

from benchbox.training.layout import Layout

#: Rows of the square matrices; calls of which the median counts.
SIZE, CALLS = 1024, 9


@dataclass(frozen=True)
class Roofline:
    """Of one network on one machine, in one layout; pairs are of a pass forwards, and of one both ways.

    Attributes:
        rate: Operations a second in a matrix product in float32; a multiplication and an addition are two.
        operations: An image.
        alone: Seconds an image, in a full batch.
    """

    rate: float
    operations: tuple[float, float]
    alone: tuple[float, float]

    def bounds(self, made: Attacked) -> tuple[float, float]:
        """Seconds of its operations at that rate, and of its passes by the bare network."""
        gradients, images = made.backwards, len(made.stands)
        passes = (made.forwards - gradients, gradients)
        flops, alone = (
            images * sum(n * each for n, each in zip(passes, pair, strict=True))
            for pair in (self.operations, self.alone)
        )
        return flops / self.rate, alone

    def say(self, name: str, made: Attacked, took: float) -> str:
        """How far something that took so many seconds is from its bounds."""
        least, alone = self.bounds(made)
        return (
            f"{name}: {made.forwards:.0f} forward and {made.backwards:.0f} backward passes an image would take "
            f"{least:.2f} s at the {self.rate / 1e9:.0f} GFLOP/s of a matrix product and take the bare network "
            f"{alone:.2f} s, {least / took:.0%} and {alone / took:.0%} of its {took:.2f} s"
        )


def roofline(subject: Subject, layout: Layout) -> Roofline:
    """Measured now, on images of the subject, whose network is in that layout."""
    lies = torch.channels_last if layout.channels_last else torch.contiguous_format
    x = subject.x[: layout.batch].contiguous(memory_format=lies)
    left, right = torch.rand(2, SIZE, SIZE, device=x.device)

    def forward() -> None:
        with torch.no_grad():
            subject.network(x)

    def both() -> None:
        subject.network(x.clone().requires_grad_()).sum().backward()

    operations = _operations(forward) / len(x), _operations(both) / len(x)
    product, asked, graded = (_median(f, x.device) for f in (lambda: left @ right, forward, both))
    return Roofline(2 * SIZE**3 / product, operations, (asked / len(x), graded / len(x)))


def _operations(call: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counted:
        call()
    return float(counted.get_total_flops())


def _median(call: Callable[[], object], device: torch.device) -> float:
    call()
    times = []
    for _ in range(CALLS):
        start = seconds(device)
        call()
        times.append(seconds(device) - start)
    return statistics.median(times)
