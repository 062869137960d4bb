"""A grid file: what it may say, and what is said to a user who got it wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchbox.domain import Access
from benchbox.engine import request as gridfile
from benchbox.engine.request import Grid, Request
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
    assert first.radius == 8 / 255
    assert first.overrides == {"pssr": {"epochs": 5}}
    assert first.axes == {"pssr.alpha": [0.9, 1.5]}


def test_options_replace_values_and_add_settings(ablation: Path) -> None:
    options = {"samples": 7, "set": {"pssr": {"alpha": 2}, "pgd": {"steps": 3}}}
    request = gridfile.read(ablation).with_options(options).requests()[0]
    assert request.samples == 7
    assert request.seeds == (0, 1)
    assert request.overrides == {"pssr": {"epochs": 5, "alpha": 2}, "pgd": {"steps": 3}}


def test_nothing_given_is_the_request_s_own_defaults() -> None:
    assert Grid(defense="none").requests() == [Request(defense="none", dataset="digits")]
    assert Request(defenses=("none",), dataset="digits").attacks == ("all",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("defences = ['pssr']", "unknown key 'defences'; did you mean defenses?"),
        ("sed = [1]", "unknown key 'sed'; did you mean"),
        ("samples = 0", "samples = 0 does not fit"),
        ("samples = 'many'", "samples = 'many' does not fit"),
        ("epsilon = 'wide'", "epsilon 'wide' is no number; write it as 0.3 or 8/255"),
        ("epsilon = '1/0'", "epsilon '1/0' is no number"),
        ("norm = 'l3'", "unknown norm 'l3'"),
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
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_several_radii_are_a_request_each() -> None:
    grid = Grid(defense="none", dataset="digits,mnist", epsilon="2/255, 4/255,8/255")
    assert [(one.dataset, one.radius) for one in grid.requests()] == [
        (dataset, steps / 255) for dataset in ("digits", "mnist") for steps in (2, 4, 8)
    ]
    with pytest.raises(RequestError, match="6 data sets or radii are named"):
        grid.only()


@pytest.mark.parametrize("name", ["linf", "Linf", "L∞", "LINF"])
def test_a_norm_is_taken_as_the_field_writes_it(name: str) -> None:
    assert Grid(norm=name).norm == "linf"
    assert Grid(norm="L2").norm == "l2"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l0"}, "norm 'l0': no attack here searches such a ball; use linf, l2, l1, flow or recolor"),
        ({"norm": "L0"}, "norm 'L0'"),
        ({"epsilon": 8}, "did you mean 8/255?"),
        ({"epsilon": 300}, "did you mean 8/255?"),
        ({"epsilon": "0.1,2"}, "did you mean 2/255?"),
        ({"epsilon": "nan"}, "epsilon must be a finite number of at least 0, got nan"),
        ({"epsilon": float("inf")}, "epsilon must be a finite number of at least 0, got inf"),
        ({"epsilon": "-8/255"}, "epsilon must be a finite number of at least 0, got -8/255"),
    ],
    ids=str,
)
def test_a_ball_that_nobody_means_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        Grid(defense="none").with_options(options)
    assert message in str(caught.value)


def test_an_l2_ball_may_be_wider_than_one_pixel() -> None:
    assert Grid(norm="l2", epsilon=2).epsilon == (2.0,)


def test_weights_are_a_setting_of_the_one_defence() -> None:
    (one,) = Grid(defense="model.py:net", weights="net.pt").requests()
    assert one.overrides == {"model.py:net": {"weights": "net.pt"}}
    with pytest.raises(RequestError, match=r"net\.pt belongs to one defence and 2 are named"):
        Grid(defense="a.py:x,b.py:y", weights="net.pt").requests()


def test_the_record_of_a_run_keeps_its_shape() -> None:
    record = Request(defense="none", dataset="digits", epsilon="8/255", seeds=(0, 1)).as_dict()
    assert set(record) == {
        "defenses", "dataset", "attacks", "accesses", "samples", "sample_seed", "seeds",
        "attack_seed", "epsilon", "norm", "overrides", "axes", "scoring_draws", "eot",
        "search_precision", "sources", "protocol",
    }  # fmt: skip
    assert (record["dataset"], record["epsilon"]) == ("digits", 8 / 255)
