"""Tasks done by the machines of a Ray cluster, one actor a GPU or a share of the CPU cores.

Images and weights travel through Ray's object store, once to each actor. One that is lost is replaced by whatever
Ray finds, and its task is lost: whoever submitted it submits it again. What is trained there comes back as a file.
Plug-ins are imported where they run: every machine needs the same packages, and the files of the workspace at the
same path.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchbox.contract import checkpoint
from benchbox.engine import address as addresses
from benchbox.engine import device
from benchbox.engine.executors.processes import STILLBORN, dataset_of
from benchbox.engine.executors.shop import Shop
from benchbox.engine.executors.task import Ended, Event, Failure, Lost, Make, Task, Told
from benchbox.engine.executors.worker import packed
from benchbox.errors import RequestError
from benchbox.training.artifacts import Artifacts, Training

if TYPE_CHECKING:
    from benchbox.data.dataset import Dataset
    from benchbox.training.loop import Progress


@dataclass
class _Hand:
    """An actor, what it works on, and the data sets and weights it has."""

    actor: Any
    number: int | None = None
    known: set[str] = field(default_factory=set)


class Cluster:
    """Does tasks on a Ray cluster.

    Args:
        shop: What each actor makes its workers of.
        images: Gives a data set.
        workers: How many actors; as many as the cluster has GPUs, or else cores, by default.

    Raises:
        RequestError: Ray is not installed, or no cluster is at the address.
    """

    def __init__(self, shop: Shop, images: Callable[[str], Dataset], workers: int | None) -> None:
        self.ray = _ray(shop.settings.ray or "local")
        self.shop = shop
        self.images = images
        self.artifacts = Artifacts(shop.settings.artifacts)
        found = self.ray.cluster_resources()
        cores, cards = int(found.get("CPU", 1)), int(found.get("GPU", 0))
        self.workers = workers or cards or cores
        self._cores = max(1, cores // self.workers)
        self._cards = min(1.0, cards / self.workers)
        self._hands: list[_Hand] = []
        self._refs: dict[Any, _Hand] = {}
        self._objects: dict[str, Any] = {}  # what lies in the object store, by name
        self._said: list[Event] = []
        self._ended = self._died = 0

    @property
    def free(self) -> int:
        """Actors that have nothing to do."""
        return sum(hand.number is None for hand in self._hands) if self._hands else self.workers

    def describe(self) -> str:
        """What one actor runs on, as it says itself."""
        self._start_all()
        said: str = self.ray.get(self._hands[0].actor.describe.remote())
        return said

    def submit(self, number: int, task: Task) -> None:
        """Give a task to an actor that has none, with the images and weights it lacks."""
        self._start_all()
        hand = next(hand for hand in self._hands if hand.number is None)
        hand.number = number
        name = f"images {dataset_of(task)}"
        if name not in hand.known:
            hand.actor.learn.remote(self._object(name, lambda: self.images(dataset_of(task))))
            hand.known.add(name)
        for training in _all(task.trainings):
            self._hand_over(hand, training)
        self._refs[hand.actor.end.remote(number, task)] = hand

    def next(self, timeout: float) -> Event | None:
        """Wait for a result or a loss."""
        if not self._said and self._refs:
            first, rest = self.ray.wait(list(self._refs), num_returns=1, timeout=timeout)
            # What else is there already: one question for all of it.
            more = self.ray.wait(rest, num_returns=len(rest), timeout=0)[0] if first and rest else []
            for ref in (*first, *more):
                self._hear(ref)
        elif not self._said:
            time.sleep(timeout)
        return self._said.pop(0) if self._said else None

    def close(self) -> None:
        """Stop the actors; a cluster that was started for us goes too."""
        for hand in self._hands:
            self.ray.kill(hand.actor)
        self._hands.clear()
        self._refs.clear()
        self._objects.clear()
        self.ray.shutdown()

    def _hear(self, ref: Any) -> None:
        hand = self._refs.pop(ref)
        assert hand.number is not None
        try:
            ended, weights, progress = self.ray.get(ref)
        except self.ray.exceptions.RayTaskError:
            raise  # a bug of ours
        except self.ray.exceptions.RayError as error:
            self._replace(hand, error)
            return
        hand.number = None
        self._ended += 1
        for training, content in weights.items():
            self.artifacts.receive(training, content)
            hand.known.add(training)
        self._said += [Told(*told) for told in progress]
        self._said.append(ended)

    def _replace(self, hand: _Hand, error: Exception) -> None:
        self._died += 1
        if not self._ended and self._died >= STILLBORN:
            raise RequestError(
                f"{self._died} workers on the cluster ended before they did anything: "
                f"{str(error).strip().splitlines()[0]}; see the logs of Ray"
            )
        assert hand.number is not None
        self._said.append(Lost(hand.number))
        self._hands[self._hands.index(hand)] = self._start()

    def _start_all(self) -> None:
        if not self._hands:
            self._hands = [self._start() for _ in range(self.workers)]

    def _start(self) -> _Hand:
        options = {"num_cpus": self._cores, "num_gpus": self._cards, "max_restarts": 0}
        return _Hand(self.ray.remote(Actor).options(**options).remote(self.shop, self._cores))

    def _object(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._objects:
            self._objects[name] = self.ray.put(make())
        return self._objects[name]

    def _hand_over(self, hand: _Hand, training: Training) -> None:
        """Weights that an actor has not got, where there are any."""
        key, source = training.weights, training.source
        if key in hand.known or source == Path(training.defense.name.rpartition(":")[0]):
            return  # in the second case its factory holds them
        path, _ = checkpoint.split(source) if source else (self.artifacts.path(key), "")
        if path.is_file():
            within = str(source)[len(str(path)) :] if source else None
            hand.actor.receive.remote(key, path.name, self._object(key, path.read_bytes), within)
            hand.known.add(key)


class Actor:
    """One worker of the cluster.

    Args:
        shop: What it makes its workers of.
        threads: Its share.
    """

    def __init__(self, shop: Shop, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.shop = shop
        self.where = device.choose(shop.settings.device)
        self.folder = Path(tempfile.mkdtemp(prefix="benchbox-"))
        self.artifacts = Artifacts(self.folder)
        self._workers: dict[str, Any] = {}
        self._sources: dict[str, Path] = {}
        self._told: dict[str, tuple[Training, Progress]] = {}

    def describe(self) -> str:
        """What it runs on."""
        return device.describe(self.where)

    def learn(self, dataset: Dataset) -> None:
        """Take the images of a data set."""
        self._workers[dataset.name] = self.shop.worker(dataset, str(self.where), self._tell, self.folder)

    def receive(self, key: str, name: str, content: bytes, within: str | None) -> None:
        """Take the weights of an artifact.

        Args:
            key: Whose.
            name: Of their file, which others may share.
            content: What lies in it.
            within: `#key` of a set in it, or nothing; None if they were trained by benchbox.
        """
        file = self.folder / name if within is None else self.folder / key / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        if within is not None:
            self._sources[key] = Path(f"{file}{within}")

    def end(self, number: int, task: Task) -> tuple[Ended, dict[str, bytes], list[tuple[Training, Progress]]]:
        """Do a task; also gives the weights that it made, and how the training ended."""
        self._told.clear()
        name = dataset_of(task)
        ended = packed(self._workers[name].end(number, self._here(task)))
        made = {}
        if isinstance(task, Make) and not isinstance(ended.value, Failure):
            made[task.training.weights] = self.artifacts.path(task.training.weights).read_bytes()
        return ended, made, list(self._told.values())

    def _tell(self, training: Training, progress: Progress) -> None:
        self._told[training.digest] = training, progress

    def _here(self, task: Task) -> Task:
        """The task with the files of weights where they lie on this machine."""
        named = {key: self._located(value) for key, value in vars(task).items() if isinstance(value, Training)}
        return replace(task, **named)  # type: ignore[arg-type]

    def _located(self, training: Training) -> Training:
        base, teacher = (one and self._located(one) for one in (training.base, training.teacher))
        source = training.source and self._sources.get(training.weights, training.source)
        return replace(training, base=base, source=source, teacher=teacher)


def _all(trainings: Iterable[Training]) -> list[Training]:
    """Trainings and what they build on, each once."""
    found: dict[str, Training] = {}
    for training in trainings:
        found |= {step.digest: step for step in training.chain}
    return list(found.values())


def _ray(address: str) -> Any:
    addresses.check(address)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its own log, or each attempt to connect is a line
    import ray

    words: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}

    def connect() -> object:
        return ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **words)

    try:
        # Starting one of our own takes as long as it takes.
        connect() if address == "local" else addresses.patiently(connect, address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise addresses.absent(address, reason) from None
    return ray
