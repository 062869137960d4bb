"""The progress of a run: bars with the time left on a terminal, a line per finished step anywhere else."""

from __future__ import annotations

import importlib.util
import time
from typing import TYPE_CHECKING, Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Column

from benchbox.engine.budget import duration
from benchbox.text import counted

if TYPE_CHECKING:
    from rich.console import Console

    from benchbox.domain import Cell
    from benchbox.training.artifacts import Training
    from benchbox.training.loop import Progress


def watcher(console: Console | None, cells: int) -> Silent:
    """The observer that fits a console: bars where they can be drawn, else lines.

    Args:
        console: Where it draws; None for nowhere.
        cells: How many have to be run; 0 for a training alone.
    """
    if console is None:
        return Silent()
    return Drawn(console, cells) if console.is_terminal or _draws_bars(console) else Lines(console, cells)


def _draws_bars(console: Console) -> bool:
    """Whether this is a notebook with widgets; without them rich would print a warning for every bar."""
    return console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None


def describe_cell(cell: Cell) -> str:
    """`pssr, seed 0: pgd, bpda through identity`."""
    through = f" through {cell.view.stand_in}" if cell.view.stand_in else ""
    return f"{cell.defense.name}, seed {cell.training_seed}: {cell.attack.name}, {cell.access}{through}"


def describe_training(wanted: Training) -> str:
    """`pssr for digits, seed 0`; of a substitute also whose answers teach it."""
    taught = f", taught by {wanted.teacher.defense.name}" if wanted.teacher else ""
    return f"{wanted.defense.name} for {wanted.dataset}, seed {wanted.seed}{taught}"


def _cut(ratio: int | None = None) -> Column:
    return Column(no_wrap=True, overflow="ellipsis", ratio=ratio)


class Silent:
    """An observer that draws nothing, and what the others are derived from."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def training(self, wanted: Training, progress: Progress) -> None:
        """A training moved on."""
        return

    def cell(self, cell: Cell, done: int, total: int) -> None:
        """`done` of `total` samples of a cell are in the store."""
        return

    def failed(self, cell: Cell, error: str) -> None:
        """A cell ended with an error."""
        return


class Lines(Silent):
    """One line for each training and each cell that has ended."""

    def __init__(self, console: Console, cells: int) -> None:
        self.console = console
        self.cells = cells
        self._ended = 0
        self._since = time.monotonic()

    def training(self, wanted: Training, progress: Progress) -> None:
        """Speaks at the last step."""
        if progress.phase == "train" and progress.done == progress.total:
            self._say(f"trained {describe_training(wanted)}: {counted(progress.epoch, 'epoch')}")

    def cell(self, cell: Cell, done: int, total: int) -> None:
        """Speaks at the last sample."""
        if done == total:
            self._ended += 1
            self._say(f"[{self._ended}/{self.cells}] {describe_cell(cell)}: {total} images")

    def failed(self, cell: Cell, error: str) -> None:
        """The reasons are collected at the end of the run."""
        self._ended += 1
        self._say(f"[{self._ended}/{self.cells}] {describe_cell(cell)}: failed")

    def _say(self, text: str) -> None:
        now = time.monotonic()
        self.console.print(f"{text}, {duration(now - self._since)}", soft_wrap=True)
        self._since = now


class Drawn(Silent):
    """A bar for the whole run, and one for what is being done."""

    def __init__(self, console: Console, cells: int) -> None:
        narrow = console.width < 100
        self.bars = Bars(
            # Moves while a batch is computed, which may take minutes.
            SpinnerColumn(finished_text=" "),
            # What does not fit loses its end: a bar that breaks its line is drawn anew below itself for ever.
            TextColumn("{task.description}", markup=False, table_column=_cut(ratio=1)),
            BarColumn(bar_width=8 if narrow else 24),
            MofNCompleteColumn(table_column=_cut()),
            TextColumn("{task.fields[unit]}", table_column=_cut()),
            *([] if narrow else [TimeElapsedColumn(table_column=_cut())]),
            TimeRemainingColumn(compact=True, table_column=_cut()),
            TextColumn("left", table_column=_cut()),
            *([] if narrow else [TextColumn("{task.fields[detail]}", markup=False, table_column=_cut())]),
            console=console,
            transient=True,
            expand=narrow,
            # Cells take minutes; the usual half a minute would forget the last one.
            speed_estimate_period=3600,
        )
        self._whole = self.bars.add_task("all cells", total=cells, unit="cells", detail="", visible=cells > 0)
        self._current: tuple[str, TaskID] | None = None
        self._begun: dict[str, tuple[int, int]] = {}  # images of each cell that were there first, and that are

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def training(self, wanted: Training, progress: Progress) -> None:
        """Shows the epoch and the loss terms."""
        detail = " ".join(f"{name} {value:.3f}" for name, value in (progress.terms or {}).items())
        if progress.epoch:
            detail = f"epoch {progress.epoch}  {detail}"
        verb = "training" if progress.phase == "train" else f"{progress.phase}:"
        self._show(f"{verb} {describe_training(wanted)}", progress.done, progress.total, "steps", detail)

    def cell(self, cell: Cell, done: int, total: int) -> None:
        """Moves the whole on."""
        self._show(describe_cell(cell), done, total, "images")
        self._move(cell, done, total)

    def failed(self, cell: Cell, error: str) -> None:
        """Says so at once: a long run may be stopped and mended."""
        self.bars.console.print(f"failed: {describe_cell(cell)}", soft_wrap=True)
        self._move(cell, 1, 1)

    def _move(self, cell: Cell, done: int, total: int) -> None:
        """Move the whole on by a part of a cell: several workers are at work on many cells at once."""
        first, before = self._begun.get(cell.key, (done, done))
        if done == total:
            share = 1.0 - (before - first) / max(total - first, 1)
            self._begun.pop(cell.key, None)
        else:
            share = (done - before) / max(total - first, 1)
            self._begun[cell.key] = first, done
        self.bars.advance(self._whole, share)

    def _show(self, name: str, done: int, total: int, unit: str, detail: str = "") -> None:
        if self._current is None or self._current[0] != name:
            if self._current:
                self.bars.remove_task(self._current[1])
            # What was there before this run must not count towards its speed.
            self._current = name, self.bars.add_task(name, total=total, completed=done, unit=unit, detail=detail)
        else:
            self.bars.update(self._current[1], completed=done, detail=detail)
