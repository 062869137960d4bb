"""The curves of the PSSR paper as grid files: each value is a row, and its name says which."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchbox.analysis.labels import distinctions
from benchbox.cli import main
from benchbox.domain import Spec
from benchbox.engine import request as gridfile

GRIDS = Path(__file__).parent.parent / "docs" / "grids"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 28, 28)).astype(np.uint8), np.arange(40) % 10
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "tiny.npz", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    monkeypatch.setenv("BENCHBOX_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "field", "values", "quick"),
    [
        ("pssr-alpha.toml", "alpha", [f"{0.9 + 0.1 * i:g}" for i in range(12)], ["pssr:ps.attack_steps=1"]),
        ("pssr-passes.toml", "passes", list("12345"), ["pssr.attack_steps=1", "pssr.epochs=1", "pssr.width=4"]),
    ],
)
def test_a_curve_has_a_row_for_each_value(
    workspace: Path, capsys: pytest.CaptureFixture[str], file: str, field: str, values: list[str], quick: list[str]
) -> None:
    settings = [word for text in ("none.epochs=1", *quick) for word in ("--set", text)]
    words = ["--dataset", "tiny", "--samples", "5", "--attacks", "fgsm", *settings, "--quiet"]
    assert main(["run", "--grid", str(GRIDS / file), *words]) == 0
    (name,) = gridfile.read(GRIDS / file).defenses
    out = capsys.readouterr().out
    rows = set(re.findall(rf"{re.escape(name)} \({field}=([\d.]+)\)", out))
    assert rows == set(values)
    assert f"{len(values)} cells done" in out


def test_the_readings_are_all_four_combinations(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--grid", str(GRIDS / "pssr-readings.toml"), "--dataset", "tiny", "--dry-run"]) == 0
    (plan,) = capsys.readouterr().out.split("to be trained first: ")[1:]
    assert plan.count("pssr for tiny") == 4
    assert plan.count("none for tiny") == 1


def pssr(alpha: float) -> Spec:
    return Spec("pssr", {"alpha": alpha, "epochs": 9}, "1")


def test_recipes_that_are_equally_common_all_say_what_they_are() -> None:
    specs = [pssr(alpha) for alpha in (0.9, 1.5, 2.0)]
    said = distinctions(specs)
    assert [said[spec.identity] for spec in specs] == ["alpha=0.9", "alpha=1.5", "alpha=2"]


def test_a_recipe_more_common_than_another_goes_without_saying() -> None:
    said = distinctions([pssr(1.5), pssr(0.9), pssr(1.5)])
    assert said == {pssr(1.5).identity: "", pssr(0.9).identity: "alpha=0.9"}
    assert distinctions([pssr(0.9)]) == {pssr(0.9).identity: ""}
