"""Where words go: results to the standard output, everything else to the standard error."""

from __future__ import annotations

import codecs
import io
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from benchbox.errors import RequestError
from benchbox.text import masked, printable, spelt

if TYPE_CHECKING:
    from rich.console import Console

    from benchbox.report.document import Document

#: Characters of one message.
LONGEST = 3000
#: A file has no edge to wrap a table at.
FILE_WIDTH = 200


class Interrupted(Exception):  # noqa: N818 - not an error
    """The user stopped a command; the message says what is stored."""


def present(document: Document, format: str = "terminal", to: Path | None = None, **options: Any) -> None:
    """Print a document, or write it to a file and say where.

    Args:
        document: What to print.
        format: One of `report.FORMATS`.
        to: The file; None prints.
        options: Those of the format.

    Raises:
        RequestError: There is no such format, or the file cannot be written.
    """
    from benchbox import report

    if format == "terminal" and to is None:
        output().print(report.renderable(document))
        return
    put(report.render(document, format, **options), to)


def put(text: str, to: Path | None) -> None:
    """Print a text, or write it to a file and say where.

    Raises:
        RequestError: The file cannot be written.
    """
    if to is None:
        typer.echo(text, nl=not text.endswith("\n"))
        return
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"cannot write {to}: {error.strerror}; name another file with --output") from None
    typer.echo(str(to))


def output() -> Console:
    """The console of results."""
    return _console(stderr=False)


def errors() -> Console:
    """The console of progress."""
    return _console(stderr=True)


def one_line(text: object) -> str:
    """Any text in one line that only stands there, whatever others put into it; of an endless one, both ends."""
    line = printable(masked(" ".join(str(text).split())))
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} … {line[-LONGEST // 2 :]}"


def complain(text: object) -> None:
    """One line on the standard error: `benchbox: error: …`."""
    notice(f"error: {text}")


class _Heard(logging.Handler):
    """Prints what the engine says through its logger."""

    def emit(self, record: logging.LogRecord) -> None:
        notice(record.getMessage())


def hear() -> None:
    """Print the warnings of the logger `benchbox`, each as one line on the standard error."""
    log = logging.getLogger("benchbox")
    if not any(isinstance(handler, _Heard) for handler in log.handlers):
        log.addHandler(_Heard())


def spell_out() -> None:
    """Let streams write everything: what their encoding lacks, as under Windows or LANG=C, is spelt in ASCII."""
    codecs.register_error("benchbox", _spelt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="benchbox")


def _spelt(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return spelt(error.object[error.start : error.end]), error.end


def notice(text: object) -> None:
    """One line on the standard error. Not through rich, which would wrap it."""
    typer.echo(f"benchbox: {one_line(text)}", err=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.text import Text

    class Harmless(Console):
        """Paths, values and the names of others are printed: nothing in them is a password or a control code."""

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(printable(masked(text)), **options)

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for part in super().render(renderable, options):
                yield part if part.control else part._replace(text=printable(part.text))

    # Nor is anything in them markup.
    console = Harmless(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = FILE_WIDTH
    return console
