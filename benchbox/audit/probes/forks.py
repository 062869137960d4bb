"""Asks a defence in a fork of this process: a copy of everything it could remember in, which ends with the answer.

A copy of the object shares what lies beside it, a table in another module, say; a fork shares files alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from benchbox.engine.isolation import wire

#: Seconds after which a fork that says nothing is given up.
PATIENCE = 120.0

#: What a fork computes.
Work = Callable[[], Mapping[str, Tensor]]


def possible(device: torch.device) -> bool:
    """Whether this system forks, and what is on the device is forked too: the memory of a GPU is not."""
    return hasattr(os, "fork") and device.type == "cpu" and not torch.cuda.is_initialized()


def forked(work: Work) -> Mapping[str, Tensor] | None:
    """The tensors that some work makes in a fork of this process; None if it failed or did not end in time.

    Nothing of what it did is left: this process goes on as if it had not been.
    """
    here, there = Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        _answer(there, work)
    there.close()
    try:
        return wire.receive(here).tensors if here.poll(PATIENCE) else None
    except (EOFError, ValueError):
        return None
    finally:
        here.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _answer(pipe: Connection, work: Work) -> None:
    """Say it and end, whatever happens, and clean up nothing that belongs to the other process."""
    try:
        torch.set_num_threads(1)  # no other thread is in a fork
        wire.send(pipe, {}, work())
    finally:
        os._exit(0)
