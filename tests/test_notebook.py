"""The notebook of the documentation: it runs, and what it shows was really printed."""

from __future__ import annotations

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

FILE = Path(__file__).parents[1] / "docs" / "first-steps.ipynb"


def test_it_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    book = nbformat.read(FILE, 4)
    shown = {cell.id: _kinds(cell) for cell in book.cells if cell.cell_type == "code"}
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert {cell.id: _kinds(cell) for cell in book.cells if cell.cell_type == "code"} == shown
    assert list(tmp_path.iterdir()) == []


def test_its_outputs_are_kept_and_say_nothing_of_the_machine() -> None:
    book = nbformat.read(FILE, 4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum("text/html" in kinds for kinds in map(_kinds, code)) >= 4
    text = FILE.read_text(encoding="utf-8")
    assert "/tmp" not in text
    assert "/home" not in text
    assert "Traceback" not in text


def _kinds(cell: object) -> set[str]:
    """What a cell shows: kinds of results, and `stream` where it prints. Progress is no result."""
    found = set()
    for output in cell.outputs:  # type: ignore[attr-defined]
        if output.output_type == "execute_result":
            found |= set(output.data)
        elif output.output_type == "stream" and output.name == "stdout":
            found.add("stream")
        assert output.output_type != "error"
    return found
