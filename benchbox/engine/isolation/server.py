"""The other side: what every process there does, which is to answer until nobody asks any more."""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from benchbox.contract import border
from benchbox.engine.isolation import wire
from benchbox.errors import DefenseError, RequestError
from benchbox.training.layout import is_out_of_memory

Answer = tuple[Mapping[str, Any], Mapping[str, Tensor]]


class Server(ABC):
    """Answers what comes through a pipe.

    Args:
        pipe: To who asks.
    """

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    @abstractmethod
    def answer(self, asked: wire.Message) -> Answer:
        """Do what is asked."""

    def serve(self) -> None:
        """Answer until the other side is gone.

        Raises:
            EOFError: It is gone.
        """
        while True:
            asked = wire.receive(self.pipe)
            try:
                words, tensors = self.answer(asked)
            except Exception as error:
                wire.send(self.pipe, told(error))
                continue
            wire.send(self.pipe, words, tensors)

    def fork(self) -> Answer:
        """Go on as two: the other one is asked through a pipe of its own, and remembers what this one does."""
        there = reduction.recv_handle(self.pipe)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for it
        if os.fork() == 0:
            self.pipe = Connection(there)
            torch.set_num_threads(1)  # no other thread is in a fork
            try:
                self.serve()
            finally:
                os._exit(0)
        os.close(there)
        return {}, {}


def told(error: Exception) -> dict[str, Any]:
    """An error in words."""
    kind = next(
        (name for name, what in (("request", RequestError), ("defence", DefenseError)) if isinstance(error, what)),
        "runtime",
    )
    kind = "memory" if is_out_of_memory(error) else kind
    # Autograd's refusals are told apart by their words; anything else is one line.
    is_said = kind != "runtime" or isinstance(error, RuntimeError)
    return {"error": str(error) if is_said else border.reason(error), "kind": kind}
