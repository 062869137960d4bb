"""How a network runs fastest: its memory layout, threads and batch size, found by trying and never imposed.

Code of others expects contiguous tensors: `x.view(len(x), -1)` raises on channels-last ones. So whoever attacks or
is asked sees contiguous images, and only a network that was seen to work with channels-last weights gets them. Its
images are converted inside the call, and their gradients come back contiguous.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from benchbox.draws import Draws

Forward = Callable[[Tensor, Draws], Tensor]

#: Images a call: what fits a CPU's cache, and what fills a GPU. The first is the one to beat.
BATCH_SIZES = {"cpu": (125, 60, 250), "cuda": (1000, 2000, 500)}
#: Images that decide whether a layout works, and the first that are timed.
TRIED = 8
#: Another layout or batch size has to save this share of the time: a busy machine shall not decide.
SAVES = 0.1
#: The same of contiguous weights against channels-last ones, which a CPU is nearly always faster with. A card need
#: not be, in float32: PGD on ResNet-18 took 1.1 times what torchattacks took on contiguous weights (H200).
SAVES_CONTIGUOUS = {"cpu": SAVES, "cuda": 0.0}
#: Calls that are timed, the quickest counts; the first one warms up.
REPEATS = 3
#: Calls that layout and threads may take, of those that are affordable. Threads are a CPU's.
TRIALS = {"cpu": 12, "cuda": 8}
#: Share of the seconds of a short run, 100 passes an image, that may go into measuring. On a card a small batch
#: waits for launches and says nothing of a large one; ten passes an image are a thousandth of AutoAttack's.
SHARE = {"cpu": 0.01, "cuda": 0.1}
#: Rounding may move a logit by this share of the largest one.
ROUNDING = 1e-3


@dataclass(frozen=True)
class Layout:
    """How a network is run.

    Attributes:
        channels_last: Whether its weights, and the images handed to it, lie channels-last.
        batch: Images a call.
        threads: Of torch, on a CPU; None for as many as the process has.
        seconds: What a pass over an image took when this was found out, if it was timed.
    """

    channels_last: bool = False
    batch: int = BATCH_SIZES["cpu"][0]
    threads: int | None = None
    seconds: float | None = field(default=None, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Any) -> Self | None:
        """Inverse of `as_dict`; None for anything else."""
        known = {field.name for field in fields(cls)}
        if not isinstance(record, dict) or not {"channels_last", "batch"} <= set(record) <= known:
            return None
        threads = record.get("threads")
        return cls(
            bool(record["channels_last"]),
            max(1, int(record["batch"])),
            None if threads is None else int(threads),
            record.get("seconds"),
        )

    @contextmanager
    def on_threads(self) -> Iterator[None]:
        """While the network is asked in it: its threads, never more than the process has."""
        has = torch.get_num_threads()
        torch.set_num_threads(min(has, self.threads or has))
        try:
            yield
        finally:
            torch.set_num_threads(has)


def lay(module: nn.Module, channels_last: bool) -> None:
    """Put the weights of a network into a layout; their values stay."""
    module.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def hand_over(x: Tensor, channels_last: bool) -> Tensor:
    """A copy of some images (N, C, H, W) in a layout, for a network to do with as it likes.

    The images themselves cannot be changed through it. Their gradient comes in the layout the network left it in.
    """
    return x.clone(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


class Answer(NamedTuple):
    """What a network says of some images (N, C, H, W): logits (N, K), and their gradient, None without one."""

    logits: Tensor
    gradient: Tensor | None


def answer(forward: Forward, x: Tensor, draws: Draws, channels_last: bool = False) -> Answer:
    """Ask once, forwards and backwards, as an attack does."""
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = forward(hand_over(leaf, channels_last), draws)
        if not logits.requires_grad:
            return Answer(logits, None)
        (gradient,) = torch.autograd.grad(logits.sum(), leaf, allow_unused=True)
    return Answer(logits.detach(), None if gradient is None else gradient.contiguous())


def agree(first: Tensor, second: Tensor) -> bool:
    """Whether two logits (N, K) are the same but for rounding, and so are the classes."""
    if first.shape != second.shape or not torch.equal(first.argmax(1), second.argmax(1)):
        return False
    scale = first.abs().amax().clamp_min(1.0)
    return bool((first - second).abs().amax() <= ROUNDING * scale)


def answer_channels_last(module: nn.Module, forward: Forward, x: Tensor, draws: Draws) -> Answer | None:
    """What a network says with channels-last weights, which it keeps; None if it raises, and then not."""
    lay(module, True)
    try:
        return answer(forward, x, draws, channels_last=True)
    except Exception:  # whatever code of others makes of a layout it did not expect
        lay(module, False)
        return None


def works_channels_last(module: nn.Module, forward: Forward, x: Tensor, draws: Draws) -> bool:
    """Whether a network says the same with channels-last weights; leaves it contiguous.

    Args:
        module: Its weights, on the device of `x`.
        forward: How it is asked.
        x: (N, C, H, W) a few images.
        draws: One row an image.
    """
    lay(module, False)
    plain = answer(forward, x, draws)
    other = answer_channels_last(module, forward, x, draws)
    lay(module, False)
    if other is None or not agree(plain.logits, other.logits):
        return False
    if plain.gradient is None or other.gradient is None:
        return plain.gradient is other.gradient
    return _as_finite(plain.gradient, other.gradient)


def _as_finite(plain: Tensor, other: Tensor) -> bool:
    """Whether a gradient is finite wherever the plain one is."""
    return bool((other.isfinite() | ~plain.isfinite()).all())


def measure(
    module: nn.Module, forward: Forward, x: Tensor, draws: Draws, images: int, batch: int | None = None
) -> Layout:
    """The layout, threads and batch size a network is fastest in; leaves its weights in that layout.

    Args:
        module: Its weights, on the device of `x`, in evaluation mode.
        forward: How it is asked.
        x: (N, C, H, W) images to try it on; repeated where a batch needs more.
        draws: One row an image.
        images: How many images will be attacked; says how long measuring may take.
        batch: The batch size, where it was asked for.
    """
    sizes = (batch,) if batch else BATCH_SIZES.get(x.device.type, BATCH_SIZES["cpu"])
    x, draws = x[:TRIED], draws.rows(slice(TRIED))
    works = works_channels_last(module, forward, x, draws)
    on = x.device.type
    affordable = int(SHARE.get(on, SHARE["cpu"]) * 100 * images)
    spent = _Spent(lambda size, last: _seconds(forward, *_enlarged(x, draws, size), last), affordable)
    last, size = works, max(len(x), min(sizes[0], spent.affordable // TRIALS.get(on, TRIALS["cpu"])))
    if works:
        plain = spent.each(size, False)
        lay(module, True)
        turned = spent.each(size, True)
        last = plain is None or turned is None or turned <= plain / (1 - SAVES_CONTIGUOUS.get(on, SAVES))
        lay(module, last)
    threads = _fewer_threads(spent, size, last) if on == "cpu" else None
    best = sizes[0]
    if len(sizes) > 1:
        with Layout(threads=threads).on_threads():
            best = _quickest(sizes, lambda size: spent.each(size, last)) or sizes[0]
    return Layout(last, best, threads, spent.quickest and spent.quickest / 2)  # a pass each way was timed


def _fewer_threads(spent: _Spent, size: int, channels_last: bool) -> int | None:
    """How many threads are faster than all of them; None if fewer are not.

    Threads of small operations wait for one another longer than they work, and those of a busy machine for others.
    """
    most = torch.get_num_threads()

    def timed(threads: int) -> float | None:
        torch.set_num_threads(threads)
        return spent.each(size, channels_last)

    try:
        found = _quickest([most >> n for n in range(most.bit_length())], timed) if most > 1 else most
    finally:
        torch.set_num_threads(most)
    return None if found in (None, most) else found


def _quickest(choices: Sequence[int], timed: Callable[[int], float | None]) -> int | None:
    """The first choice, or a later one that is clearly faster; None if there is no time to find out about any."""
    best: int | None = None
    fastest = math.inf
    for choice in choices:
        seconds = timed(choice)
        if seconds is None:
            break
        if seconds < fastest * (1 - SAVES):
            best, fastest = choice, seconds
    return best


class _Spent:
    """Times calls while the time for it lasts."""

    def __init__(self, timed: Callable[[int, bool], float], affordable: int) -> None:
        self.timed = timed
        #: Images that may be passed through.
        self.affordable = affordable
        self.passed = 0
        #: Seconds an image, of the quickest calls.
        self.quickest: float | None = None

    def each(self, size: int, channels_last: bool) -> float | None:
        """Seconds an image in calls of this size; None if there is no time to find out."""
        if self.passed and self.passed + REPEATS * size > self.affordable:
            return None
        self.passed += REPEATS * size
        try:
            seconds = min(self.timed(size, channels_last) for _ in range(REPEATS)) / size
            self.quickest = min(seconds, self.quickest or seconds)
            return seconds
        except Exception as error:
            if is_out_of_memory(error):
                return None
            raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, has no memory left; torch has a class for one of the two."""
    words = ("out of memory", "not enough memory", "can't allocate memory")
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, RuntimeError) and any(word in str(error) for word in words):
        return True
    # The border around code of others names the plug-in and keeps what it raised as the cause.
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def _enlarged(x: Tensor, draws: Draws, size: int) -> tuple[Tensor, Draws]:
    rows = torch.arange(size, device=x.device) % len(x)
    return x[rows], draws.rows(rows)


def _seconds(forward: Forward, x: Tensor, draws: Draws, channels_last: bool) -> float:
    start = time.perf_counter()
    answer(forward, x, draws, channels_last)
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - start
