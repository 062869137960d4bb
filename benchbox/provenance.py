"""Where a number comes from: the code, the packages, the machine. Recorded with every run and every artifact."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchbox.text import masked

PACKAGES = (
    "benchbox",
    "torch",
    "torchvision",
    "numpy",
    "pyautoattack",
    "torchattacks",
    "scikit-learn",
    "scipy",
)


def collect(device: str, folder: Path | None = None) -> dict[str, Any]:
    """What is known of the code and the machine.

    Args:
        device: As `benchbox.engine.device.describe` names it.
        folder: Whose git state is recorded; the current folder by default.
    """
    return {
        "commit": _git("rev-parse", "HEAD", folder=folder),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no", folder=folder)),
        "packages": packages(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device,
        "command": [Path(sys.argv[0]).name, *map(masked, sys.argv[1:])],
    }


def packages() -> dict[str, str]:
    """The versions of what numbers are made with, as far as it is installed."""
    return {name: version for name in PACKAGES if (version := _version(name))}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str, folder: Path | None) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None  # not a checkout, or no git: then the package version says which code it was
    return done.stdout.strip()
