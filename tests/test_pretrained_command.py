"""Anybody's own checkpoint on the command line."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from checkpoints import DICE, MODEL, network, planner, settle
from commands import Said
from safetensors.torch import save_file

from benchbox.contract import registry
from benchbox.contract.pretrained import from_factory
from benchbox.engine.plan import Request

NET = ("--defense", "model.py:net", "--dataset", "tiny", "--quiet")
WEIGHTS = ("--weights", "net.safetensors")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return settle(tmp_path, monkeypatch)


def test_a_checkpoint_is_run_without_training_and_once_whatever_the_seeds(said: Said, workspace: Path) -> None:
    status, out, err = said("run", *NET, *WEIGHTS, "--attacks", "fgsm", "--seeds", "0,1")
    assert (status, err) == (0, "")
    assert "1 cell done, 0 reused" in out
    assert not list((workspace / "results").glob("artifacts/*"))
    assert "0 cells done, 1 reused" in said("run", *NET, *WEIGHTS, "--attacks", "fgsm")[1]
    assert "nothing has to be trained" in said("run", *NET, *WEIGHTS, "--attacks", "pgd", "--dry-run")[1]


def test_it_is_attacked_white_box_and_has_no_substitute(said: Said) -> None:
    _, out, err = said("run", *NET, *WEIGHTS, "--attacks", "fgsm", "--access", "transfer")
    assert out == ""
    assert "nothing to run" in err


def test_a_purifier_stands_before_it(said: Said) -> None:
    """Its weights are a setting of the factory, which is named as the base alone."""
    before = ("run", "--defense", "jpeg", "--set", "jpeg.base=model.py:net", "--dataset", "tiny", "--quiet")
    words = ("--attacks", "fgsm", "--access", "gray-box")
    status, out, err = said(*before, "--set", "model.py:net.weights=net.safetensors", *words)
    assert (status, err) == (0, "")
    assert "1 cell done" in out
    status, _, err = said(*before, *words)
    assert (status, err.count("\n")) == (2, 1)
    assert "--set model.py:net.weights=FILE where it stands below another defence" in err
    status, _, err = said(*before, "--set", "other.py:net.weights=net.safetensors", *words)
    assert (status, err.count("\n")) == (2, 1)
    assert "unknown plug-in in --set 'other.py:net'" in err


def test_train_says_that_it_was_there(said: Said) -> None:
    status, out, _ = said("train", *NET, *WEIGHTS)
    assert status == 0
    assert out.strip() == "model.py:net for tiny, seed 0: was there already, net.safetensors"


def test_an_audit_takes_a_checkpoint(said: Said) -> None:
    words = ("--steps", "2", "--random-points", "5", "--samples", "4", "--whole", "--format", "json", "--quiet")
    status, out, err = said("audit", "model.py:net", *WEIGHTS, "--dataset", "tiny", *words)
    assert status == 0, err
    assert '"defense": "model.py:net"' in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("run", *NET), "model.py:net builds a network without weights; add --weights"),
        (("run", "--defense", "none,model.py:net", *WEIGHTS), "belongs to one defence and 2 are named"),
        (("run", *WEIGHTS), "no defenses are named|belongs to one defence and 0 are named"),
        (("run", "--defense", "none", "--dataset", "tiny", *WEIGHTS), "none is trained here; weights belong"),
        (("train", *NET), "model.py:net builds a network without weights"),
        (("run", "--defense", "pssr", "--dataset", "tiny", "--set", "carso.epochs=1"), "does not use carso"),
        (("run", "--defense", "pssr", "--dataset", "tiny", "-a", "fgsm", "--set", "pgd.steps=1"), "not use pgd"),
        (("run", "--defense", "none", "--dataset", "mnist", "--no-download"), "mnist"),
    ],
)
def test_mistakes_on_the_command_line(said: Said, words: tuple[str, ...], sentence: str) -> None:
    status, _, err = said(*words)
    assert status == 2
    assert err.startswith("benchbox: error: ")
    assert err.count("\n") == 1
    assert re.search(sentence, err)


def test_settings_of_a_base_and_of_a_used_attack_are_allowed(workspace: Path) -> None:
    made, dataset = planner()
    overrides = {"none": {"epochs": 1}, "pgd": {"steps": 2}}
    request = Request(defense="pssr", dataset="tiny", attacks="pgd", overrides=overrides)
    assert {t.defense.arguments["epochs"] for t in made.trainings(request, dataset).values()} == {1, 9}


def test_compare_tells_checkpoints_apart_by_their_files(said: Said, workspace: Path) -> None:
    save_file({key: -value for key, value in network().state_dict().items()}, workspace / "other.safetensors")
    for file, samples in (("net", "20"), ("other", "10")):
        said("run", *NET, "--weights", f"{file}.safetensors", "--attacks", "fgsm", "--samples", samples)
    two = ("compare", "model.py:net", "model.py:net")
    status, out, err = said(*two, "--weights", "net.safetensors", "--weights", "other.safetensors")
    assert (status, err) == (0, "")
    assert "10 images both have" in " ".join(out.split())
    status, _, err = said(*two, "--weights", "net.safetensors")
    assert (status, err.count("\n")) == (2, 1)
    assert "give each of these its own" in err
    status, _, err = said(*two, "--weights", "net.safetensors", "--weights", "model.py")
    assert (status, err.count("\n")) == (2, 1)


def test_a_data_file_that_a_factory_reads_is_noticed(said: Said, workspace: Path) -> None:
    body = MODEL.replace("return nn.Sequential(", "return nn.Sequential(Shift(),").replace("784, 10", "784, 10", 1)
    shift = "class Shift(nn.Module):\n    def forward(self, x):\n        return x - SHIFT\n"
    (workspace / "model.py").write_text(f"SHIFT = float(open('shift.txt').read())\n{body}\n{shift}")
    (workspace / "shift.txt").write_text("0.0")
    keys = {key.replace("1.", "2."): value for key, value in network().state_dict().items()}
    save_file(keys, workspace / "net.safetensors")
    asked = ("run", *NET, *WEIGHTS, "--attacks", "fgsm")
    assert said(*asked)[0] == 0
    registry.home._OPENED.clear()  # as another process
    from_factory.cache_clear()
    assert "1 reused" in said(*asked)[1]
    (workspace / "shift.txt").write_text("0.5")
    registry.home._OPENED.clear()
    from_factory.cache_clear()
    status, _, err = said(*asked)
    assert (status, err.count("\n")) == (2, 1)
    assert "it reads another file that did change" in err
    assert said("remove", "defenses", "model.py:net", "--yes")[0] == 0
    assert "1 cell done, 0 reused" in said(*asked)[1]


def test_a_random_checkpoint_is_refused_until_it_is_declared_and_then_batches_change_nothing(
    said: Said, workspace: Path
) -> None:
    (workspace / "dice.py").write_text(DICE)
    asked = ("run", "--defense", "dice.py:Net", *NET[2:], *WEIGHTS, "--attacks", "fgsm", "--epsilon", "0.1")
    status, _, err = said(*asked)
    assert status == 2
    assert "--set dice.py:Net.randomized=true, or Net.randomized = True in dice.py" in err
    tables = []
    for size in ("20", "3"):
        place = (
            "--store",
            f"{size}.sqlite",
            "--batch-size",
            size,
            "--scoring-draws",
            "3",
            "--eot",
            "2",
            "--secret",
            "00",
        )
        assert said(*asked, *place, "--set", "dice.py:Net.randomized=true")[0] == 0
        table = said("report", "--store", f"{size}.sqlite", "--format", "csv")[1].splitlines()
        tables.append(
            [{k: v for k, v in row.items() if k not in ("seconds", "created")} for row in csv.DictReader(table)]
        )
    assert tables[0] == tables[1]
    assert "null" in {row["attack"] for row in tables[0]}
