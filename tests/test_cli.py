"""The command line at work: what run, report, show and list print, store and return."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import SHORT, WHITE, Said, refusal

from benchbox.training.precision import choose

# ---- run, report, show, list --------------------------------------------------------------------------------


def test_run_trains_attacks_stores_and_prints_then_answers_from_the_store(said: Said, workspace: Path) -> None:
    request = ("run", "--defense", "none", "--attacks", "null,fgsm", "--epsilon", "8/255", *WHITE)
    status, out, err = said(*request)
    assert (status, err) == (0, "")
    assert "none" in out
    assert "2 cells done, 0 reused from the store, 0 failed" in out
    assert (workspace / "results" / "benchbox.sqlite").is_file()
    assert len(list((workspace / "results" / "artifacts").glob("*.safetensors"))) == 1

    status, again, _ = said(*request)
    assert status == 0
    assert "0 cells done, 2 reused from the store, 0 failed" in again
    table = out.partition("2 cells done")[0]
    assert again.startswith(table)

    (weights,) = (workspace / "results" / "artifacts").glob("*.safetensors")
    weights.write_bytes(b"damaged")
    status, whole, _ = said(*request)
    assert status == 0
    assert whole.startswith(table), "a table that is stored needs no weights"

    report = said("report", "--format", "json")[1]
    ((_, card),) = json.loads(report)["tables"][0]["weights"].items()
    assert card["training"]["defense"]["name"] == "none"
    assert card["precision"] == choose(None, torch.device("cpu"))
    assert card["seconds"] > 0
    assert card["provenance"]["packages"]["torch"]
    key = re.search(r'"key": "([0-9a-f]{64})"', report)
    assert key is not None
    status, shown, _ = said("show", key[1][:12])
    assert status == 0
    assert "accuracy under the attack" in shown
    assert '"epsilon": 0.0313' in shown

    status, runs, _ = said("list", "runs")
    assert status == 0
    assert runs.count("done") == 1, "what was answered from the store is no run"


def test_the_draws_of_a_randomised_defence_are_the_users_to_choose(said: Said, workspace: Path) -> None:
    words = ("run", "--defense", "randomized-resize-pad", "--attacks", "fgsm", *WHITE)
    status, _, err = said(*words, "--eot", "3", "--scoring-draws", "4")
    assert (status, err) == (0, "")
    lines = csv.DictReader(io.StringIO(said("report", "--format", "csv")[1]))
    (cell,) = (line for line in lines if line["measure"] == "cell")
    assert (cell["eot"], cell["draws"], cell["n"]) == ("3", "4", "20")


def test_several_data_sets_and_a_grid_file_give_one_table_each(said: Said, workspace: Path) -> None:
    data = workspace / "data"
    (data / "other.npz").write_bytes((data / "tiny.npz").read_bytes())
    grid = workspace / "grid.toml"
    grid.write_text(
        'defenses = "none"\ndatasets = ["tiny", "other"]\nattacks = "null"\nsamples = 10\n'
        "[set.none]\nepochs = 1\n[axes]\n'none.batch_size' = [32, 64]"
    )
    status, out, err = said("run", "--grid", str(grid), "--access", "white-box")
    assert status == 0
    assert "4 cells done" in out
    assert "tiny" in out
    assert "other" in out
    # Without a terminal: a line for each step, and no control codes.
    assert [line.partition("]")[0] for line in err.splitlines() if line.startswith("[")] == [
        "[1/4", "[2/4", "[3/4", "[4/4",
    ]  # fmt: skip
    assert err.count("trained none for") == 4
    assert "\x1b" not in out + err
    assert "\r" not in out + err


def test_dry_run_cuts_no_word_in_a_narrow_window(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    asked = ("--defense", "none,trades", "--attacks", "fgsm,pgd", "--access", "white-box,transfer")
    status, out, _ = said("run", *asked, *SHORT, "--dry-run")
    assert status == 0
    assert "…" not in out


def test_dry_run_prints_the_plan_and_touches_nothing(said: Said, workspace: Path) -> None:
    status, out, _ = said("run", "--defense", "none,trades", "--attacks", "fgsm,null", *SHORT, "--dry-run")
    assert status == 0
    assert "to be trained first" in out
    assert "none for tiny, seed 0 (1 epoch)" in out
    assert "by their passes and one timed pass" in out
    assert "not known: training none, training trades" in out
    assert not (workspace / "results").exists()

    said("run", "--defense", "none", "--attacks", "null", *WHITE)
    _, out, _ = said("run", "--defense", "none", "--attacks", "null,fgsm", *WHITE, "--dry-run")
    assert "2 cells: 1 stored, 1 to run; 2 craftings" in out
    assert "(1 by their passes and one timed pass)" in out
    said("run", "--defense", "none", "--attacks", "fgsm", *WHITE)
    _, out, _ = said("run", "--defense", "none", "--attacks", "fgsm", *WHITE, "--attack-seed", "1", "--dry-run")
    assert "(1 as long as their like took here before)" in out
    assert "nothing has to be trained" in out


def test_dry_run_times_an_oracle_by_showing_it_the_images(said: Said) -> None:
    words = [*WHITE, "--set", "pssr:oracle.epochs=1", "--dry-run"]
    status, out, err = said("run", "--defense", "pssr:oracle", "--attacks", "null,fgsm", *words)
    assert (status, err) == (0, "")
    assert "by their passes and one timed pass" in out


def test_cheap_attacks_come_first(said: Said) -> None:
    _, out, _ = said("run", "--defense", "none", "--attacks", "aa,square,pgd,fgsm,noise,null", *WHITE, "--dry-run")
    order = ["noise", "fgsm", "pgd", "square", "aa", "null"]
    assert [line.split("│")[3].strip() for line in out.splitlines() if "to run │" in line] == order


def test_images_that_say_little_are_named(said: Said, workspace: Path) -> None:
    with np.load(workspace / "data" / "tiny.npz") as file:
        arrays = dict(file)
    arrays["y_test"] = np.full_like(arrays["y_test"], 3)
    np.savez(workspace / "data" / "odd.npz", **{**arrays, "x_test": (arrays["x_test"] > 100).astype(np.uint8)})
    words = ("run", "--defense", "none", "--attacks", "null", "--dataset", "odd", "--dry-run")
    _, _, err = said(*words)
    assert "all 20 images of odd are of class 3" in err
    assert "every pixel of odd is 0 or 1 of 255" in err


def test_report_keeps_what_is_asked_for(said: Said, workspace: Path) -> None:
    said("run", "--defense", "none", "--attacks", "fgsm,noise", "--epsilon", "8/255,0.1", *WHITE)

    def cells(*words: str) -> set[tuple[str, str]]:
        lines = csv.DictReader(io.StringIO(said("report", "--format", "csv", *words)[1]))
        return {(line["attack"], line["epsilon"][:4]) for line in lines if line["attack"]}

    assert cells() == {(attack, radius) for attack in ("fgsm", "noise") for radius in ("0.03", "0.1")}
    assert cells("--attacks", "fgsm") == {("fgsm", "0.03"), ("fgsm", "0.1")}
    assert cells("--epsilon", "8/255", "--norm", "Linf", "--access", "white-box") == {
        ("fgsm", "0.03"),
        ("noise", "0.03"),
    }
    assert cells("--samples", "20") == cells()
    assert "holds nothing of samples 7" in refusal(said("report", "--samples", "7"))
    assert "holds nothing of norm l2" in refusal(said("report", "--norm", "l2"))

    images = list(csv.DictReader(io.StringIO(said("report", "--per-image", "--attacks", "fgsm")[1])))
    fgsm = [image for image in images if image["attack"] == "fgsm"]
    assert len(fgsm) == 2 * 20
    assert {image["label"] for image in fgsm} == set(map(str, range(10)))

    (table, _) = json.loads(said("report", "--format", "json")[1])["tables"]
    (row,) = table["rows"]
    (cell,) = next(entry for entry in row["entries"] if entry["attack"] == "fgsm")["cells"]
    for name, its in cell["by_class"].items():
        of_it = [i for i in fgsm if i["label"] == name and float(i["epsilon"]) == table["threat"]["epsilon"]]
        right = sum(float(image["adversarial"]) for image in of_it)
        assert its["n"] == len(of_it)
        assert its["percent"] == pytest.approx(100 * right / len(of_it))
        assert row["robust"]["by_class"][name]["percent"] <= its["percent"] <= its["clean"]


def test_report_formats_and_files(said: Said, workspace: Path) -> None:
    said("run", "--defense", "none", "--attacks", "null", *WHITE)
    for format_, mark in (
        ("markdown", "|"),
        ("csv", ","),
        ("json", "{"),
        ("latex", "\\toprule"),
        ("terminal", "none"),
    ):
        status, out, _ = said("report", "--format", format_)
        assert status == 0
        assert mark in out
    assert "\\documentclass" not in said("report", "--format", "latex")[1]
    assert "\\documentclass" in said("report", "--format", "latex", "--standalone")[1]
    status, out, _ = said("report", "--format", "html")
    assert (status, out) == (0, "reports/leaderboard.html\n")
    assert "<html" in (workspace / "reports" / "leaderboard.html").read_text()
    said("report", "--output", "deep/table.txt")
    assert "none" in (workspace / "deep" / "table.txt").read_text()


def test_report_filters(said: Said) -> None:
    said("run", "--defense", "none", "--attacks", "null", *WHITE)
    assert said("report", "--dataset", "tiny", "--defense", "none")[0] == 0
    assert "holds nothing of pssr" in refusal(said("report", "--defense", "pssr"))
    assert "holds nothing of mnist" in refusal(said("report", "--dataset", "mnist"))


def test_a_failing_cell_is_one_line_and_status_2_and_so_is_a_crash(said: Said, workspace: Path) -> None:
    (workspace / "attacks").mkdir()
    plugin = workspace / "attacks" / "bad.py"
    plugin.write_text(BAD_ATTACK)
    status, out, err = said("run", "--defense", "none", "--attacks", "far,null", "--seeds", "0,1", *WHITE)
    lines = [line for line in err.splitlines() if "loading" not in line]
    assert status == 2
    assert "2 cells done, 0 reused from the store, 2 failed" in out
    assert len(lines) == 1
    assert "attack far left the ball" in lines[0]

    error = refusal(said("run", "--defense", "none", "--attacks", "buggy", *WHITE))
    assert re.search(r"attack buggy, attacks/bad\.py, line \d+: ZeroDivisionError", error)


BAD_ATTACK = '''
from dataclasses import dataclass
from benchbox import Attack, Card

@dataclass(frozen=True, kw_only=True)
class Far(Attack):
    """Leaves the ball."""
    card = Card("far", "leaves the ball")
    def search(self, model, x, y, threat, draws):
        return 1 - x

@dataclass(frozen=True, kw_only=True)
class Buggy(Attack):
    """Has a bug."""
    card = Card("buggy", "has a bug")
    def search(self, model, x, y, threat, draws):
        return x / (1 // 0)
'''


def test_list(said: Said) -> None:
    for words, expected in (
        ("defenses", ("none", "pgd-at", "pssr", "arXiv 2402.00304", "identity-removal")),
        ("attacks", ("fgsm", "pgd", "gradient", "gray-box, transfer, white-box, bpda")),
        ("datasets", ("digits", "cifar10", "50,000", "tiny")),
    ):
        status, out, _ = said("list", words)
        assert status == 0
        for word in expected:
            assert word in out, words


def test_a_broken_plug_in_is_a_line_and_hides_no_other(said: Said, workspace: Path) -> None:
    (workspace / "defenses").mkdir()
    (workspace / "defenses" / "broken.py").write_text("import benchbox\n1 / 0\n")
    message = refusal(said("list", "defenses"))
    assert "broken.py, line 2: ZeroDivisionError" in message


def test_show_explains_a_recipe_and_the_settings_of_an_attack(said: Said) -> None:
    status, out, _ = said("show", "pssr")
    assert status == 0
    for word in ("arXiv 2402.00304", "mask-constant", "lambda_ard", "Threshold over the mean saliency", "1.5"):
        assert word in out
    # From the base class, and a departure.
    assert "Passes over the training set." in out
    assert "digits" in out
    status, out, _ = said("show", "pgd")
    assert status == 0
    assert "Number of steps of one run." in out


def test_show_refuses_what_nobody_has(said: Said) -> None:
    assert "did you mean pssr" in refusal(said("show", "psssr"))
    assert "there is no store" in refusal(said("show", "0123abcd"))


# ---- interruption -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "at"),
    [
        (("verdict", "none"), "benchbox.engine.session.Session.plan"),
        (("audit", "none"), "benchbox.audit.conduct.prepare"),
        (("train", "--defense", "none"), "benchbox.engine.session.Session.train"),
        (("list", "runs"), "benchbox.store.Store.open"),
    ],
)
def test_whatever_is_interrupted_says_so_in_one_line(
    said: Said, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], at: str
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(at, stop)
    status, _, err = said(*command, *(["--dataset", "tiny"] if command[0] != "list" else []))
    assert status == 130
    (line,) = err.strip().splitlines()
    assert line.startswith("benchbox: interrupted")


def test_an_interrupted_run_says_what_is_stored_and_continues(said: Said, workspace: Path) -> None:
    """The real process, the real signal."""
    request = ["run", "--defense", "none", "--attacks", "fgsm,pgd", *WHITE[:-3], "--access", "white-box"]
    slow = [*request, "--set", "pgd.steps=1000000", "--set", "pgd.step=0.01"]
    code = "import sys; from benchbox.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *slow], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=workspace, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A shell starts what it runs in the background deaf to Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if line.startswith("[1/2]"):
                break
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err == "benchbox: interrupted: 1 of 2 cells are stored; the same command continues from there\n"

    status, out, _ = said(*request, "--set", "pgd.steps=2")
    assert status == 0
    assert "1 cell done, 1 reused from the store, 0 failed" in out
    assert "interrupted" in said("list", "runs")[1]
