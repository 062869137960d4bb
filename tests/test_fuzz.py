"""A part of what `tests/fuzz` tries by the hundred."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
import bad_plugins
import flipped_stores
import passwords
import wrong_words


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHBOX_DATA", "set by the script, put back here")


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_wrong_command_lines_are_refused_in_one_line(every: int) -> None:
    count, faults = wrong_words.run(every)
    assert count >= 360 // every
    assert faults == {}


@pytest.mark.parametrize("every", [23, pytest.param(1, marks=pytest.mark.slow)])
def test_bad_plug_ins_end_nothing_and_move_no_other_number(every: int) -> None:
    count, faults = bad_plugins.run(every)
    assert count >= 180 // every
    assert faults == {}


@pytest.mark.parametrize("trials", [12, pytest.param(300, marks=pytest.mark.slow)])
def test_a_flipped_store_prints_no_wrong_number(trials: int) -> None:
    ends = flipped_stores.run(trials)
    assert set(ends) <= {"same", "refused", "missing"}
    assert ends["refused"] >= trials // 10


@pytest.mark.slow
def test_no_password_comes_out() -> None:
    count, leaks = passwords.run()
    assert count >= 50
    assert leaks == []
