"""What tests of the command line share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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


def started(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    """A command in a process of its own, on one thread, as a user without any setting would start it."""
    return subprocess.Popen(
        [sys.executable, "-m", "benchbox", *command],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(folder)},
    )
