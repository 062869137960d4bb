"""Where tasks are done: in this process, in processes beside it, or on a cluster; behind one interface."""

from benchbox.engine.executors.task import (
    Ended,
    Executor,
    Failure,
    Liken,
    Lost,
    Make,
    Prepare,
    Prepared,
    Task,
    Told,
    Work,
    divided,
)

__all__ = [
    "Ended",
    "Executor",
    "Failure",
    "Liken",
    "Lost",
    "Make",
    "Prepare",
    "Prepared",
    "Task",
    "Told",
    "Work",
    "divided",
]
