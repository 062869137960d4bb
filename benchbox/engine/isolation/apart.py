"""Starts the process of an isolated defence and speaks with it: an empty folder, a clean environment, one pipe."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchbox.contract.defense import Defense
from benchbox.contract.registry import Registry
from benchbox.domain import ImageSpec
from benchbox.engine.isolation import wire
from benchbox.engine.isolation.order import Order
from benchbox.errors import DefenseError, RequestError
from benchbox.training.artifacts import Artifacts, Training, load_tensors
from benchbox.training.loop import Progress

if TYPE_CHECKING:
    from benchbox.training.workshop import Workshop

#: Variables that decide how numbers are computed, or where libraries lie; the process gets no others.
KEPT = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG", "CUDA_VISIBLE_DEVICES", "SYSTEMROOT")
KEPT_FAMILIES = ("OMP_", "MKL_", "OPENBLAS_", "KMP_", "TORCH_", "CUBLAS_")
#: What is raised here for what was raised there.
ERRORS = {"memory": torch.OutOfMemoryError, "runtime": RuntimeError, "request": RequestError}
#: What runs on the other side.
MODULE = "benchbox.engine.isolation"


class Process:
    """A process that holds one defence.

    Args:
        name: Of the defence, for messages.
        order: Which defence it is, as `cell.Order` says it.
        folder: A temporary one of its own, removed with it; `here` in it is its working folder.
        tell: Hears where its training stands.
    """

    _end: weakref.finalize[..., Process]
    _patience = 5.0

    def __init__(
        self,
        name: str,
        order: Mapping[str, Any],
        folder: Path,
        tell: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self.name = name
        self._tell = tell
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
        copy._tell, copy._patience = self._tell, 0.0
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

    def end(self) -> None:
        """It is needed no longer."""
        self._end()

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
            while isinstance(told := found.words.get("progress"), dict):
                self._tell(_progress(told))
                found = wire.receive(self._pipe)
        except (EOFError, OSError) as error:
            raise self._gone() from error
        except ValueError as error:
            self._end()
            raise DefenseError(f"defence {self.name}: its process answered no message: {error}") from error
        if "error" in found.words:
            raise ERRORS.get(str(found.words["kind"]), DefenseError)(str(found.words["error"]))
        return found

    def _gone(self) -> DefenseError:
        """The error for a process that ended, as it is told from now on."""
        try:
            status = self._child.wait(self._patience)
            why = f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        except subprocess.TimeoutExpired:  # a fork's status is nobody's to know
            why = "ended"
        self._lost = f"defence {self.name}: its process was {why} while it was asked; mend its code"
        self._end()
        return DefenseError(self._lost.replace("was ended", "ended"))


@dataclass(frozen=True)
class Apart:
    """Defences in processes of their own, which are asked or trained there.

    Attributes:
        images: What they are built for.
        artifacts: Where their weights lie.
        defenses: The plug-ins.
        device: Where they run.
    """

    images: ImageSpec
    artifacts: Artifacts
    defenses: Registry[Defense]
    device: torch.device

    def load(self, wanted: Training) -> Defense:
        """A trained defence that is asked in its process.

        Raises:
            DefenseError: It cannot be loaded there.
        """
        return self._standing_for(wanted, self.start(wanted))

    def untrained(self, wanted: Training) -> Defense:
        """A defence as it is built, in its process.

        Raises:
            DefenseError: It cannot be built there.
        """
        return self._standing_for(wanted, self.start(wanted, trained=False))

    def start(self, wanted: Training, *, trained: bool = True) -> Process:
        """A process that holds a defence, with copies of its weights and no way shown to the others.

        Raises:
            DefenseError: It cannot be loaded there.
        """
        folder = self._folder(wanted)
        order = replace(self._order(wanted, folder), trained=trained)
        return Process(wanted.defense.name, order.as_dict(), folder)

    def _standing_for(self, wanted: Training, process: Process) -> Defense:
        from benchbox.engine.isolation.stranger import stranger

        return stranger(self.defenses.get(wanted.defense.name).cls, process, self.images, process.facts)

    def train(self, wanted: Training, shop: Workshop) -> None:
        """Train a defence in a process that sees the training images, and keep its weights.

        It tells how far it is, and what it has written down to go on from after a kill is copied each time.

        Raises:
            DefenseError: Its own code failed, or left no weights.
            ArtifactError: The weights are damaged, or cannot be written.
        """
        folder, start = self._folder(wanted), time.perf_counter()
        there, resumed = Artifacts(folder / "weights"), self.artifacts.checkpoint(wanted.weights)
        if was := resumed.exists():
            shutil.copyfile(resumed, there.checkpoint(wanted.weights))
        known = shop.dataset.train
        save_file({"x": known.x.contiguous(), "y": known.y.contiguous()}, folder / "images.safetensors")
        order = replace(
            self._order(wanted, folder), lessons=folder / "images.safetensors", precision=shop.precision
        )

        def tell(progress: Progress) -> None:
            self.artifacts.keep_unfinished(there.checkpoint(wanted.weights), wanted.weights)
            shop.report(wanted, progress)

        process = Process(wanted.defense.name, order.as_dict(), folder, tell)
        if wanted.weights not in there:
            raise DefenseError(f"defence {wanted.defense.name}: its training left no weights; mend its code")
        tensors, card = load_tensors(there.path(wanted.weights))
        process.end()
        self.artifacts.keep(
            wanted,
            tensors,
            {
                "seconds": time.perf_counter() - start,
                "precision": shop.precision,
                "resumed": was,
                "losses": card.get("losses"),
                "provenance": shop.provenance,
            },
        )

    def _folder(self, wanted: Training) -> Path:
        """A folder of its own, with copies of the weights that there are."""
        folder = Path(tempfile.mkdtemp(prefix="benchbox-apart-"))
        (folder / "weights").mkdir()
        for step in wanted.chain:
            if step.weights in self.artifacts:
                file = self.artifacts.path(step.weights)
                shutil.copyfile(file, folder / "weights" / file.name)
        return folder

    def _order(self, wanted: Training, folder: Path) -> Order:
        workspace, threads = self.defenses.workspace.absolute(), torch.get_num_threads()
        return Order(
            wanted, self.images, workspace, self.defenses.local, folder / "weights", str(self.device), threads
        )


def _progress(told: Mapping[str, Any]) -> Progress:
    """Where a training stands, as its process tells it.

    Raises:
        ValueError: It tells something else.
    """
    try:
        terms = {str(name): float(value) for name, value in (told["terms"] or {}).items()}
        done, total, epoch = (int(told[name]) for name in ("done", "total", "epoch"))
        return Progress(str(told["phase"]), done, total, epoch, terms or None)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{error} is no progress") from error


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k in KEPT or k.startswith(KEPT_FAMILIES)}


def _stop(child: subprocess.Popen[bytes], pipe: Connection, folder: Path) -> None:
    pipe.close()
    if child.poll() is None:
        child.kill()
    child.wait()
    shutil.rmtree(folder, ignore_errors=True)
