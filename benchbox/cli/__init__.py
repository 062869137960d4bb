"""The command line: parse, call one function, print.

Nothing here imports torch until a command needs it, so that `benchbox --help` answers at once.
"""

from __future__ import annotations

import atexit
import errno
import os
import sys
import threading
from collections.abc import Sequence
from typing import Annotated

import typer

from benchbox.cli.console import Interrupted, complain, hear, notice, spell_out
from benchbox.cli.menu import Menu, epilog
from benchbox.errors import BenchboxError

INTERRUPTED = 130
#: Seconds that a thread is given to end by itself.
PATIENCE = 1.0
EXAMPLES = ("benchbox run --defense pssr --dataset digits --attacks all", "benchbox report --format html")
#: A disk, a quota or a file that takes no more.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def _version(asked: bool) -> None:
    if asked:
        from benchbox import __version__

        typer.echo(f"benchbox {__version__}")
        raise typer.Exit


def build() -> typer.Typer:
    """The application with every command."""
    app = typer.Typer(
        name="benchbox",
        cls=Menu,
        rich_markup_mode="rich",
        # A failure the user can mend is one line (see `main`); a bug keeps Python's own traceback.
        pretty_exceptions_enable=False,
        epilog=epilog(EXAMPLES),
    )

    @app.callback()
    def benchbox(
        version: Annotated[
            bool,
            typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave."),
        ] = False,
    ) -> None:
        """Measure how much robustness a defence really has, keep the evidence, and rank defences by it."""

    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console script: a command, and an end of the process that no plug-in holds up."""
    status = carry_out(arguments)
    if arguments is None:
        _leave_threads(status)
        if status == INTERRUPTED:
            _end(status)
    return status


def _leave_threads(status: int) -> None:
    """Python waits for threads until they end, also for those that a plug-in left behind and that never do."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(PATIENCE)
    if left := [t.name for t in threading.enumerate() if t is not threading.current_thread() and not t.daemon]:
        notice(f"a plug-in left a thread running ({', '.join(left)}); benchbox does not wait for it")
        _end(status)


def _end(status: int) -> None:
    """End at once: on a busy machine Python takes seconds to take itself apart, which who stopped it waits for."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _give_up_output() -> None:
    """An output that takes no more will not do so when Python ends, either, which would complain once more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def carry_out(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The words after `benchbox`; those of the process by default.

    Returns:
        The exit status: 0; 2 when the user, or the author of a plug-in, can mend it; 1 when a cell met a bug of
        benchbox or `doctor` found something broken; 130 when interrupted.
    """
    # Read by torch when it loads. Threads that spin while they wait for one another cost nothing on idle cores,
    # and a multiple of the run on cores that are shared with anything else.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    hear()
    spell_out()
    try:
        status = build()(words, prog_name="benchbox", standalone_mode=False)
    except BenchboxError as error:
        complain(error)
        return 2
    except Interrupted as stop:
        notice(f"interrupted: {stop}")
        return INTERRUPTED
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            _give_up_output()
            complain(f"no more can be written ({error.strerror}); make room, and run the same command again")
            return 2
        # The usage errors of typer, whose class has moved from one version to the next.
        if not hasattr(error, "format_message"):
            raise
        complain(f"{error.format_message().rstrip('.')}; see benchbox --help")
        return 2
    if status == INTERRUPTED:  # which newer versions of typer return for Ctrl-C
        notice("interrupted; what was stored stays, the same command continues")
    return status if isinstance(status, int) else 0
