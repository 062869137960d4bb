"""The progress of a run: what is drawn, and that it stays on its line."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from rows import BPDA, evidence

from benchbox.progress import Drawn, Lines, watcher


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_bars_take_one_line_each_and_say_what_is_done(width: int) -> None:
    cell = evidence("pssr", BPDA, "pgd", 60, stand_in="identity").cell
    cell = replace(cell, attack=replace(cell.attack, name="torchattacks:EOTPGD"))
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    bars = Drawn(console, 12)
    bars.cell(cell, 40, 1000)
    bars.cell(cell, 125, 1000)
    console.print(bars.bars.get_renderable())
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 2
    assert "0/12" in lines[0]
    assert "125/1000" in lines[1]
    assert "images" in lines[1]
    assert "left" in lines[1]
    assert "pssr" in lines[1]


def test_a_file_gets_lines_and_nobody_nothing() -> None:
    assert type(watcher(Console(file=io.StringIO()), 1)) is Lines
    assert not isinstance(watcher(None, 1), Lines | Drawn)
