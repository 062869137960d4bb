"""Tasks done in this process, one after the other."""

from __future__ import annotations

from collections import deque

from benchbox.engine import device
from benchbox.engine.executors.task import Ended, Task
from benchbox.engine.executors.worker import Worker


class Inside:
    """Does a task when somebody waits for it.

    Args:
        worker: Does it.
    """

    workers = 1

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._submitted: deque[tuple[int, Task]] = deque()

    @property
    def free(self) -> int:
        """One at a time."""
        return 0 if self._submitted else 1

    def describe(self) -> str:
        """This machine's device."""
        return device.describe(self.worker.device)

    def submit(self, number: int, task: Task) -> None:
        """Keep it until somebody waits."""
        self._submitted.append((number, task))

    def next(self, timeout: float) -> Ended | None:
        """Do the next one."""
        return self.worker.end(*self._submitted.popleft()) if self._submitted else None

    def close(self) -> None:
        """Nothing is left behind."""
        self._submitted.clear()
