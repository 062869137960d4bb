"""Tasks done by processes of this machine, each with its share of the threads or a GPU of its own.

Images are handed over once, in files that all of them map; weights are read from theirs. A process that dies is
replaced, and its task is lost: whoever submitted it submits it again. On a CPU all of them are forked, where that
can be done, from one that has loaded torch and done nothing else: so it is loaded once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchbox.engine import device
from benchbox.engine.executors.images import Filed, filed
from benchbox.engine.executors.shop import Shop
from benchbox.engine.executors.task import Ended, Event, Lost, Task, Told
from benchbox.engine.executors.worker import packed
from benchbox.errors import RequestError

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

    from benchbox.data.dataset import Dataset
    from benchbox.training.artifacts import Training
    from benchbox.training.loop import Progress

#: Processes that may end before they did a single task; then something is wrong with all of them.
STILLBORN = 3


@dataclass
class _Hand:
    """One process, the pipe to it, what it works on, and the data sets it has."""

    process: BaseProcess
    pipe: Connection
    place: str
    number: int | None = None
    known: frozenset[str] = frozenset()


class Processes:
    """Does tasks in other processes.

    Args:
        shop: What each of them makes its workers of.
        images: Gives a data set.
        workers: How many processes.
    """

    def __init__(self, shop: Shop, images: Callable[[str], Dataset], workers: int) -> None:
        self.shop = shop
        self.images = images
        self.workers = workers
        self._threads = max(1, torch.get_num_threads() // workers)
        self._hands: list[_Hand] = []
        self._said: list[Event] = []
        self._ended = 0
        self._died = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files: dict[str, Filed] = {}

    @property
    def free(self) -> int:
        """Processes that have nothing to do."""
        return sum(hand.number is None for hand in self._hands) if self._hands else self.workers

    def describe(self) -> str:
        """A GPU's name, or how many threads each process has."""
        where = device.choose(self.shop.settings.device)
        return device.describe(where) if where.type == "cuda" else f"{where.type}, {self._threads} threads"

    def submit(self, number: int, task: Task) -> None:
        """Give a task to a process that has none.

        Raises:
            RequestError: The images cannot be handed over: the temporary folder is full.
        """
        if not self._hands:
            self._hands = [self._start(place) for place in self._places()]
        hand = next(hand for hand in self._hands if hand.number is None)
        name = dataset_of(task)
        images = None if name in hand.known else self._filed(name)
        hand.number = number
        try:
            if images is not None:
                hand.pipe.send(images)
                hand.known |= {name}
            hand.pipe.send((number, task))
        except OSError:
            pass  # it has just died: `next` finds that out

    def next(self, timeout: float) -> Event | None:
        """Wait for a result, a loss, or word of a training."""
        if not self._said and self._hands:
            ready = wait([hand.pipe for hand in self._hands], timeout)
            for hand in [hand for hand in self._hands if hand.pipe in ready]:
                self._hear(hand)
        return self._said.pop(0) if self._said else None

    def close(self) -> None:
        """Stop every process, whatever it does."""
        for hand in self._hands:
            hand.process.terminate()
        for hand in self._hands:
            hand.process.join(5)
            if hand.process.is_alive():
                hand.process.kill()
            hand.pipe.close()
        self._hands.clear()
        self._said.clear()
        if self._folder is not None:
            self._folder.cleanup()
        self._folder, self._files = None, {}

    def _filed(self, name: str) -> Filed:
        if name not in self._files:
            images = self.images(name)
            try:
                if self._folder is None:
                    self._folder = tempfile.TemporaryDirectory(prefix="benchbox-images-")
                self._files[name] = filed(images, Path(self._folder.name))
            except OSError as error:
                raise RequestError(
                    f"cannot write the images of {name} to a temporary folder for the workers: "
                    f"{error.strerror or error}; make room, name another folder in TMPDIR, or leave out --workers"
                ) from error
        return self._files[name]

    def _hear(self, hand: _Hand) -> None:
        try:
            event: Event = hand.pipe.recv()
        except (EOFError, OSError):
            self._replace(hand)
            return
        if isinstance(event, Ended):
            hand.number = None
            self._ended += 1
        self._said.append(event)

    def _replace(self, hand: _Hand) -> None:
        """Start another process in the place of one that died.

        Raises:
            RequestError: One after the other dies before it has done anything.
        """
        hand.process.join()
        hand.pipe.close()
        self._died += 1
        if not self._ended and self._died >= STILLBORN:
            raise RequestError(
                f"{self._died} worker processes ended before they did anything (the last with status "
                f"{hand.process.exitcode}); try fewer --workers, or leave it out to see why"
            )
        if hand.number is not None:
            self._said.append(Lost(hand.number))
        self._hands[self._hands.index(hand)] = self._start(hand.place)

    def _places(self) -> list[str]:
        """Where each process runs its models: GPUs are dealt out in turn."""
        where = device.choose(self.shop.settings.device)
        if where != torch.device("cuda"):  # one card was named, or there is none
            return [str(where)] * self.workers
        return [f"cuda:{i % torch.cuda.device_count()}" for i in range(self.workers)]

    def _start(self, place: str) -> _Hand:
        context = _context(device.choose(place))
        ours, theirs = context.Pipe()
        words = theirs, self.shop, place, self._threads, dict(os.environ)
        process = context.Process(target=_serve, args=words, name="benchbox worker", daemon=True)
        process.start()
        theirs.close()
        return _Hand(process, ours, place)


def _context(where: torch.device) -> ForkServerContext | SpawnContext:
    """How processes are started; a GPU does not survive a fork, should anything have looked at it before."""
    if where.type != "cpu" or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchbox.engine.executors.worker"])
    return context


def dataset_of(task: Task) -> str:
    """Name of the data set that a task is about."""
    return task.trainings[0].dataset


def _serve(pipe: Connection, shop: Shop, place: str, threads: int, environment: Mapping[str, str]) -> None:
    """What a process does until its parent is gone."""
    os.environ.clear()  # it may have been forked from one that was started long ago
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which stops us
    threading.Thread(target=_follow, daemon=True).start()
    torch.set_num_threads(threads)

    def report(training: Training, progress: Progress) -> None:
        pipe.send(Told(training, progress))

    workers: dict[str, Any] = {}
    while True:
        try:
            said = pipe.recv()
            if isinstance(said, Filed):
                workers[said.name] = shop.worker(said.read(), place, report)
                continue
            number, task = said
            pipe.send(packed(workers[dataset_of(task)].end(number, task)))
        except (EOFError, OSError):
            return


def _follow() -> None:
    """End with the parent, however it ends: its next run may want what we are at work on."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
