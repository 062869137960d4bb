"""Starts the process of an isolated defence and speaks with it: an empty folder, a clean environment, one pipe."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchbox.contract.defense import Defense
from benchbox.contract.registry import Registry
from benchbox.domain import ImageSpec
from benchbox.engine.isolation import wire
from benchbox.engine.isolation.order import Order
from benchbox.errors import DefenseError
from benchbox.training.artifacts import Artifacts, Training

#: Variables that decide how numbers are computed, or where libraries lie; the process gets no others.
KEPT = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG", "CUDA_VISIBLE_DEVICES", "SYSTEMROOT")
KEPT_FAMILIES = ("OMP_", "MKL_", "OPENBLAS_", "KMP_", "TORCH_", "CUBLAS_")
#: What runs on the other side.
MODULE = "benchbox.engine.isolation.cell"


class Process:
    """A process that holds one defence.

    Args:
        name: Of the defence, for messages.
        order: Which defence it is, as `cell.Order` says it.
        folder: A temporary one of its own, removed with it; `here` in it is its working folder.
    """

    _end: weakref.finalize[..., Process]

    def __init__(self, name: str, order: Mapping[str, Any], folder: Path) -> None:
        self.name = name
        here = folder / "here"
        here.mkdir()
        ours, theirs = socket.socketpair()
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE, str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            cwd=here,
            env={**_environment(), "HOME": str(here), "TMPDIR": str(here)},
            stdin=subprocess.DEVNULL,
            stdout=2,  # what it prints is for people, as in any process
            start_new_session=True,  # Ctrl-C is for benchbox, whose end it notices
        )
        theirs.close()
        self._pipe = Connection(ours.detach())
        self._forgotten: list[int] = []
        self._end = weakref.finalize(self, _stop, self._child, self._pipe, folder)
        self.facts = self._exchange(order, None).words

    @property
    def pid(self) -> int:
        """Its number."""
        return self._child.pid

    def fork(self) -> Process:
        """A copy of the process as it is now, which ends with the last who asks it.

        Raises:
            DefenseError: It does not fork, or is gone.
        """
        ours, theirs = socket.socketpair()
        try:
            wire.send(self._pipe, {"do": "fork", "copy": 0})
            reduction.send_handle(self._pipe, theirs.fileno(), self.pid)
            self._heard()
        except OSError as error:
            raise self._gone() from error
        finally:
            theirs.close()
        copy = object.__new__(Process)
        copy.name, copy.facts, copy._child, copy._forgotten = self.name, self.facts, self._child, []
        copy._pipe = Connection(ours.detach())
        copy._end = weakref.finalize(copy, copy._pipe.close)
        return copy

    def ask(self, words: Mapping[str, Any], tensors: Mapping[str, Tensor] | None) -> wire.Message:
        """Say something and hear the answer.

        Raises:
            DefenseError: The defence failed, or its process is gone.
            RuntimeError: Autograd refused.
        """
        forget, self._forgotten = self._forgotten, []
        return self._exchange({**words, "forget": forget}, tensors)

    def forget(self, graph: int) -> None:
        """A graph is needed no longer; said with the next question."""
        self._forgotten.append(graph)

    def _exchange(self, words: Mapping[str, Any], tensors: Mapping[str, Tensor] | None) -> wire.Message:
        if not self._end.alive:
            raise DefenseError(self._lost)
        try:
            wire.send(self._pipe, words, tensors)
        except OSError as error:
            raise self._gone() from error
        return self._heard()

    def _heard(self) -> wire.Message:
        try:
            found = wire.receive(self._pipe)
        except (EOFError, OSError) as error:
            raise self._gone() from error
        except ValueError as error:
            self._end()
            raise DefenseError(f"defence {self.name}: its process answered no message: {error}") from error
        if "error" in found.words:
            kind = {"memory": torch.OutOfMemoryError, "runtime": RuntimeError}.get(
                found.words["kind"], DefenseError
            )
            raise kind(str(found.words["error"]))
        return found

    def _gone(self) -> DefenseError:
        """The error for a process that ended, as it is told from now on."""
        try:
            status = self._child.wait(5)
        except subprocess.TimeoutExpired:
            status = 0
        why = f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        self._lost = f"defence {self.name}: its process was {why} while it was asked; mend its code"
        self._end()
        return DefenseError(self._lost.replace("was ended", "ended"))


def start(
    wanted: Training, images: ImageSpec, artifacts: Artifacts, defenses: Registry[Defense], device: torch.device
) -> Process:
    """A process that holds a trained defence, with copies of its weights and no way shown to the others.

    Raises:
        DefenseError: It cannot be loaded there.
    """
    folder = Path(tempfile.mkdtemp(prefix="benchbox-apart-"))
    weights = folder / "weights"
    weights.mkdir()
    for step in wanted.chain:
        if step.weights in artifacts:
            shutil.copyfile(artifacts.path(step.weights), weights / artifacts.path(step.weights).name)
    workspace = defenses.workspace.absolute()
    order = Order(wanted, images, workspace, defenses.local, weights, str(device), torch.get_num_threads())
    return Process(wanted.defense.name, order.as_dict(), folder)


def loader(
    images: ImageSpec, artifacts: Artifacts, defenses: Registry[Defense], device: torch.device
) -> Callable[[Training], Defense]:
    """What loads trained defences in processes of their own.

    Args:
        images: What they are built for.
        artifacts: Where their weights lie.
        defenses: The plug-ins.
        device: Where they run.
    """
    from benchbox.engine.isolation.stranger import stranger

    def load(wanted: Training) -> Defense:
        process = start(wanted, images, artifacts, defenses, device)
        return stranger(defenses.get(wanted.defense.name).cls, process, images, process.facts)

    return load


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k in KEPT or k.startswith(KEPT_FAMILIES)}


def _stop(child: subprocess.Popen[bytes], pipe: Connection, folder: Path) -> None:
    pipe.close()
    if child.poll() is None:
        child.kill()
    child.wait()
    shutil.rmtree(folder, ignore_errors=True)
