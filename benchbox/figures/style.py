"""One look for every figure, and files that come out the same byte for byte.

Colours are Okabe and Ito's (2008) and Tol's "muted": both are told apart with any kind of colour vision. What a
colour says is also said by a marker, a place or a word.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

from benchbox.domain import Access, ThreatModel, format_epsilon
from benchbox.errors import RequestError
from benchbox.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("pdf", "svg", "png")
INK = "#333333"
ACCESS_COLOURS: Mapping[Access, str] = {
    Access.WHITE_BOX: "#d55e00",
    Access.BPDA: "#aa4499",
    Access.TRANSFER: "#0072b2",
    Access.GRAY_BOX: "#009e73",
    Access.IMPORTED: "#7f7f7f",
}
ACCESS_MARKERS: Mapping[Access, str] = {
    Access.WHITE_BOX: "o",
    Access.BPDA: "s",
    Access.TRANSFER: "D",
    Access.GRAY_BOX: "^",
    Access.IMPORTED: "P",
}
#: For lines: colour, marker and dashes change together.
LINES = tuple(
    zip(
        ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333"),
        ("o", "s", "^", "D", "v", "P", "X"),
        ("-", "--", "-.", (0, (3, 1, 1, 1, 1, 1)), (0, (5, 1)), ":", "-"),
        strict=True,
    )
)
#: For up to ten classes.
CLASSES = (
    "#332288", "#88ccee", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255", "#aa4499", "#888888",
)  # fmt: skip

_SETTINGS: Any = {
    "font.family": "sans-serif",  # whose first is DejaVu Sans, which comes with matplotlib: the same everywhere
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "savefig.facecolor": "white",
    "svg.hashsalt": "benchbox",
    "svg.fonttype": "none",  # text that can be searched and read aloud, and a fifth of the size
    "pdf.fonttype": 42,
    "image.cmap": "gray",
}
#: Neither dates nor versions: the same numbers give the same file.
_METADATA: Mapping[str, Mapping[str, str | None]] = {
    "svg": {"Date": None, "Creator": "benchbox"},
    "pdf": {"CreationDate": None, "Creator": "benchbox", "Producer": None},
    "png": {"Software": None},
}


@dataclass(frozen=True)
class Drawing:
    """A finished figure.

    Attributes:
        name: Of its files, without ending.
        figure: What matplotlib drew.
        caption: Sentences: what is shown, of how many images, with which seeds.
    """

    name: str
    figure: Figure
    caption: tuple[str, ...]


def apart(drawings: Iterable[Drawing]) -> Iterator[Drawing]:
    """Each as it comes; a name that was used before is numbered, so that no file is written over another."""
    used: Counter[str] = Counter()
    for drawing in drawings:
        used[drawing.name] += 1
        count = used[drawing.name]
        yield drawing if count == 1 else replace(drawing, name=f"{drawing.name}-{count}")


@contextmanager
def style() -> Iterator[None]:
    """Draw and save inside of it; whatever the user's matplotlib is set to, it is as before afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def canvas(width: float, height: float) -> Figure:
    """An empty figure, in inches; nothing of matplotlib's global state knows of it."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def percent_axis(axis: Any) -> None:
    """An axis of accuracies."""
    axis.set_ticks([0, 20, 40, 60, 80, 100])


def wrapped(text: str, width: int) -> str:
    """Text in lines of some letters: names with many settings are longer than a figure is wide."""
    return textwrap.fill(text, width, break_on_hyphens=False)


def bare(axes: Axes) -> None:
    """A picture: no ticks, no frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def save(drawing: Drawing, folder: Path, command: str, formats: tuple[str, ...] = FORMATS) -> list[Path]:
    """Write a figure in every format, and beside it a text file with its caption and the command that makes it.

    Raises:
        RequestError: The folder cannot be written.
    """
    paths = [folder / f"{drawing.name}.{ending}" for ending in formats]
    note = folder / f"{drawing.name}.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, ending in zip(paths, formats, strict=True):
            drawing.figure.savefig(path, format=ending, metadata=dict(_METADATA[ending]))
        note.write_text("\n".join([*drawing.caption, f"Made by: {command}"]) + "\n", encoding="utf-8")
    except OSError as error:
        raise RequestError(f"cannot write {folder}: {error.strerror}; name another folder with --output") from None
    return [*paths, note]


def svg(drawing: Drawing) -> str:
    """A figure as text, to be set into a page."""
    text = io.StringIO()
    drawing.figure.savefig(text, format="svg", metadata=dict(_METADATA["svg"]))
    return printable(text.getvalue())


def file_name(*parts: object) -> str:
    """A name for files out of any words."""
    text = "-".join(str(part) for part in parts if part != "")
    return re.sub("-+", "-", re.sub(r"[^A-Za-z0-9._=+-]", "-", text)).strip("-")


def ball(threat: ThreatModel) -> str:
    """`linf-0.3`, `l2-0.5`, `linf-8-255`, for names of files."""
    return file_name(threat.norm, format_epsilon(threat.epsilon))
