"""A grid file: what it may say, and what is said to a user who got it wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchbox.domain import Access
from benchbox.engine import request as gridfile
from benchbox.engine.request import Grid
from benchbox.errors import RequestError

ABLATION = """
defenses = ["none", "pssr"]
datasets = ["digits", "mnist"]
attacks = "fgsm, pgd"
accesses = ["gray-box"]
samples = 50
seeds = [0, 1]
epsilon = "8/255"
scoring_draws = 5

[set.pssr]
epochs = 5

[axes]
"pssr.alpha" = [0.9, 1.5]
"""


@pytest.fixture
def ablation(tmp_path: Path) -> Path:
    path = tmp_path / "ablation.toml"
    path.write_text(ABLATION)
    return path


def test_a_file_becomes_one_request_a_data_set(ablation: Path) -> None:
    first, second = gridfile.read(ablation).requests()
    assert (first.dataset, second.dataset) == ("digits", "mnist")
    assert first.defenses == ("none", "pssr")
    assert first.attacks == ("fgsm", "pgd")
    assert first.accesses == (Access.GRAY_BOX,)
    assert (first.samples, first.seeds, first.scoring_draws, first.eot) == (50, (0, 1), 5, 20)
    assert first.epsilon == 8 / 255
    assert first.overrides == {"pssr": {"epochs": 5}}
    assert first.axes == {"pssr.alpha": [0.9, 1.5]}


def test_options_replace_values_and_add_settings(ablation: Path) -> None:
    options = {"samples": 7, "set": {"pssr": {"alpha": 2}, "pgd": {"steps": 3}}}
    request = gridfile.read(ablation).with_options(options).requests()[0]
    assert request.samples == 7
    assert request.seeds == (0, 1)
    assert request.overrides == {"pssr": {"epochs": 5, "alpha": 2}, "pgd": {"steps": 3}}


def test_nothing_given_is_the_request_s_own_defaults() -> None:
    from benchbox.engine.plan import Request

    assert Grid(defenses=("none",)).requests() == [Request(("none",), "digits")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("defences = ['pssr']", "unknown key 'defences'; did you mean defenses?"),
        ("sed = [1]", "unknown key 'sed'; did you mean"),
        ("samples = 0", "samples = 0 does not fit"),
        ("samples = 'many'", "samples = 'many' does not fit"),
        ("epsilon = 'wide'", "epsilon 'wide' is no number; write it as 0.3 or 8/255"),
        ("epsilon = '1/0'", "epsilon '1/0' is no number"),
        ("norm = 'l3'", "norm = 'l3' does not fit"),
        ("accesses = ['greybox']", "unknown access 'greybox'; did you mean gray-box"),
        ("seeds = []", "seeds = [] does not fit"),
        ("seeds = ['a']", "seeds.0 = 'a' does not fit"),
        ("[axes]\n'pssr.alpha' = []", "axes.pssr.alpha = [] does not fit"),
        ("[set]\npssr = 5", "set.pssr = 5 does not fit"),
        ("defenses = [", "is no TOML"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_file_and_the_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    with pytest.raises(RequestError) as caught:
        gridfile.read(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"cannot read the grid file .*none\.toml"):
        gridfile.read(tmp_path / "none.toml")


def test_a_request_names_a_defence() -> None:
    with pytest.raises(RequestError, match="no defenses are named; give --defense"):
        Grid().requests()


def test_reading_a_file_does_not_wait_for_torch(ablation: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from benchbox.engine import request;"
        f"request.read(Path({str(ablation)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
