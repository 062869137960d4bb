"""What can go wrong, as a tree.

BenchboxError
├── RequestError      the request names something that does not exist or does not fit
├── DataError         images or labels are not what they have to be
├── DefenseError      a defence broke its contract (probabilities, NaN, wrong number of classes)
├── AttackError       an attack broke its contract (left the ball, NaN, changed the batch)
├── ArtifactError     trained weights are missing, corrupt or belong to something else
└── StoreError        the store cannot be read or written

Each message carries the offending value and the remedy. The command line prints a `BenchboxError` as
one line and exits with status 2; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchboxError(Exception):
    """Root of everything a user can mend."""


class RequestError(BenchboxError):
    """The request names something that does not exist, or asks for what cannot be done."""


class DataError(BenchboxError):
    """Images or labels are missing or break the input contract."""


class DefenseError(BenchboxError):
    """A defence broke its contract."""


class AttackError(BenchboxError):
    """An attack broke its contract."""


class ArtifactError(BenchboxError):
    """Trained weights are missing, corrupt, or belong to another recipe."""


class StoreError(BenchboxError):
    """The store cannot be opened, read or written."""


def uninstalled(what: str, extra: str) -> RequestError:
    """An error for what needs a library that benchbox does without.

    Args:
        what: Needs what, a sentence without its final stop.
        extra: Of pyproject.toml. It is named by the folder: benchbox on PyPI is another project.
    """
    return RequestError(f"{what}; pip install -e '.[{extra}]' in benchbox's folder")


def unknown(kind: str, name: str, known: Iterable[str], remedy: str = "") -> RequestError:
    """An error for a name nobody claims, with the closest known names.

    Args:
        kind: What was looked up, in the user's words ("defence", "recipe field").
        name: The name that was not found.
        known: Every name that would have been.
        remedy: What to do when no name is close; a full sentence without its final stop.
    """
    names = sorted(known)
    same = [one for one in names if one.lower() == name.lower()]
    close = same or difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else remedy or f"known: {', '.join(names)}"
    return RequestError(f"unknown {kind} {name!r}; {hint}")
