"""`compare`, `report --against` and `diff` as commands, on a store of three runs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rows import first, outcome

from benchbox.cli import main
from benchbox.domain import Evidence, Spec
from benchbox.store import Store


@pytest.fixture
def stored(empty_workspace: Path, duel: list[Evidence]) -> Path:
    """Run 1 is the duel; run 2 attacked `none` with newer code, and run 3 found everything there."""
    newer = replace(duel[2], cell=replace(duel[2].cell, attack=Spec("pgd", {}, "benchbox/2")))
    newer = replace(newer, outcome=outcome(~first(62), first(99)))
    with Store.open("results/benchbox.sqlite") as store:
        for commit, items in (("abc", duel), ("def", [newer]), ("ghi", [])):
            run = store.begin_run({"defenses": ["none"]}, {"commit": commit, "dirty": False})
            for item in items:
                store.add_cell(item.cell, run)
                store.commit_batch(item.cell, item.outcome, seconds=1.0)
            store.finish_run(run, "done")
    return empty_workspace


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main(words)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_command_compares(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, "compare", "pssr", "none", "--dataset", "mnist", "--attacks", "cw,pgd")
    assert status == 0
    assert "pssr − none on mnist" in out
    status, out, _ = said(capsys, "compare", "pssr", "none", "--format", "json")
    assert (status, len(json.loads(out)["comparisons"])) == (0, 1)
    status, out, err = said(capsys, "compare", "pssr", "none", "--format", "xml")
    assert (status, out, err.count("\n")) == (2, "", 1)
    status, _, err = said(capsys, "compare", "pssr", "nobody")
    assert (status, err.count("\n")) == (2, 1)
    status, _, err = said(capsys, "compare", "pssr", "none", "--dataset", "cifar10")
    assert (status, "holds nothing of cifar10" in err) == (2, True)


def test_the_command_reports_against(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, "report", "--against", "none")
    assert status == 0
    assert "vs none" in out
    status, _, err = said(capsys, "report", "--against", "nobody")
    assert (status, err.count("\n")) == (2, 1)


def test_the_command_tells_runs_apart(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, "diff", "1", "2")
    assert status == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "environment: commit abc def" in lines
    assert any(line.endswith("adversarial, lost (2): 60 61") for line in lines)
    assert any(line.endswith("attack.code benchbox/1 benchbox/2") for line in lines)
    assert out.count("only in run 1") == 3
    status, out, _ = said(capsys, "diff", "1", "1", "--other-store", "results/benchbox.sqlite", "--format", "json")
    record = json.loads(out)
    assert (status, record["environment"], len(record["cells"])) == (0, {}, 4)
    assert all(cell["adversarial"] == {"lost": [], "won": [], "otherwise": []} for cell in record["cells"])
    for run, message in (("9", "no run 9 in results/benchbox.sqlite; it has 1, 2, 3"), ("3", "computed no cell")):
        status, _, err = said(capsys, "diff", "1", run)
        assert (status, err.count("\n")) == (2, 1)
        assert message in err


@pytest.mark.parametrize("words", [["compare", "pssr", "none"], ["diff", "1", "2"]], ids=" ".join)
def test_the_commands_do_not_import_torch(stored: Path, words: list[str]) -> None:
    code = f"import sys; from benchbox.cli import main; main({words!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
