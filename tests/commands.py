"""What tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable

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
