"""What tests of the command line share."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchbox.cli import main

#: A classifier that trains in a second, on the images of `workspace`.
SHORT = ["--dataset", "tiny", "--set", "none.epochs=1", "--quiet"]
WHITE = [*SHORT, "--access", "white-box"]

Said = Callable[..., tuple[int, str, str]]


def refusal(result: tuple[int, str, str]) -> str:
    """The one line of a refused command."""
    status, _, err = result
    lines = [line for line in err.splitlines() if "loading workspace file" not in line]
    assert status == 2
    assert len(lines) == 1, err
    assert lines[0].startswith("benchbox: error: ")
    return lines[0].removeprefix("benchbox: error: ")


class Started:
    """A command in a process of its own, on one thread, as a user without any setting would start it.

    It is forked from one that has loaded torch and done nothing else, which saves seconds each.
    """

    def __init__(self, folder: Path, *command: str) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["benchbox.engine.executors.worker", "sklearn.datasets"])
        handle, name = tempfile.mkstemp(dir=folder, suffix=".errors")
        os.close(handle)
        self.errors = Path(name)
        self.process = context.Process(target=_run, args=(command, str(folder), name))
        self.process.start()

    @property
    def returncode(self) -> int | None:
        """Its exit status; negative where a signal ended it, None while it runs."""
        return self.process.exitcode

    def kill(self) -> None:
        """`kill -9`."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)

    def end(self, timeout: float | None = None) -> str:
        """Wait for its end; what it wrote to the standard error."""
        self.process.join(timeout)
        return self.errors.read_text()


def _run(command: tuple[str, ...], folder: str, errors: str) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update({"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": folder})
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(errors, os.O_WRONLY), 2)
    sys.exit(main(command))
