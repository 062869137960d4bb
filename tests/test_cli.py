"""The command line: what each command prints, writes and returns, and that every mistake is one line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from typer.testing import CliRunner

from benchbox.cli import build, main
from benchbox.cli.options import artifacts_folder, names, scalar, settings
from benchbox.errors import RequestError

#: A classifier that trains in a second, on the images of `workspace`.
SHORT = ["--dataset", "tiny", "--set", "none.epochs=1", "--quiet"]
WHITE = [*SHORT, "--access", "white-box"]

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and a data set of 64 training and 20 test images: class k is a bright row k."""
    rng = np.random.default_rng(0)
    y = np.arange(84) % 10
    x = rng.integers(0, 60, (84, 28, 28)).astype(np.uint8)
    for image, label in zip(x, y, strict=True):
        image[2 * label : 2 * label + 3] += 150
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "tiny.npz", x_train=x[:64], y_train=y[:64], x_test=x[64:], y_test=y[64:])
    monkeypatch.setenv("BENCHBOX_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def said(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs a command in the workspace: exit status, standard output, standard error."""

    def call(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(words)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def refusal(result: tuple[int, str, str]) -> str:
    """The one line of a refused command."""
    status, _, err = result
    lines = [line for line in err.splitlines() if "loading workspace file" not in line]
    assert status == 2
    assert len(lines) == 1, err
    assert lines[0].startswith("benchbox: error: ")
    return lines[0].removeprefix("benchbox: error: ")


# ---- help -------------------------------------------------------------------------------------------------


def commands(command: Any, path: str = "benchbox") -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{path} {name}")


COMMANDS = dict(commands(typer.main.get_command(build())))


def test_all_commands_are_there() -> None:
    assert {path.removeprefix("benchbox ") for path in COMMANDS} >= {
        "run", "report", "list defenses", "list attacks", "list datasets", "list runs",
        "show", "train", "new defense", "init", "doctor",
    }  # fmt: skip


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_every_option_is_explained(path: str) -> None:
    command = COMMANDS[path]
    assert command.help
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{path} {parameter.name}"
    page = CliRunner().invoke(build(), [*path.split()[1:], "--help"])
    assert page.exit_code == 0
    assert "Usage:" in page.output


@pytest.mark.parametrize("path", ["run", "report", "train", "show", "doctor", "init", "list", "new defense"])
def test_help_ends_with_examples(path: str) -> None:
    assert "benchbox " in COMMANDS[f"benchbox {path}"].epilog


@pytest.mark.parametrize(
    "words",
    [["--help"], ["run", "--help"], ["list", "datasets"], ["report"], ["list", "runs"], ["--version"]],
    ids=" ".join,
)
def test_light_commands_do_not_import_torch(workspace: Path, words: list[str]) -> None:
    code = f"import sys; from benchbox.cli import main; main({words!r}); sys.exit('torch' in sys.modules)"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Half a second on an idle machine; torch alone would take longer than this.
    assert time.perf_counter() - start < 5


def test_version(said: Said) -> None:
    status, out, _ = said("--version")
    assert status == 0
    assert re.fullmatch(r"benchbox \d+\.\d+\.\d+\n", out)


def test_no_words_are_a_cry_for_help(said: Said) -> None:
    assert "Usage:" in said()[1]


# ---- words ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5), ("1.5", 1.5), ("1e-3", 1e-3), ("true", True), ("null", None), ("[1, 2]", [1, 2]),
        ("sample", "sample"), ('"5"', "5"), ("8/255", "8/255"),
        ("2024-01-01", "2024-01-01"), ("1\nb = 2", "1\nb = 2"),
    ],
)  # fmt: skip
def test_scalar(text: str, value: Any) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


def test_settings_are_grouped_by_plug_in() -> None:
    found = settings(["pssr.epochs=5", "pssr.threshold=sample", "my/own.py:Mine.alpha=1.5"])
    assert found == {"pssr": {"epochs": 5, "threshold": "sample"}, "my/own.py:Mine": {"alpha": 1.5}}


@pytest.mark.parametrize("text", ["epochs=5", "pssr.epochs", "=5", ".epochs=5", "pssr.=5", ""])
def test_a_malformed_setting_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match=r"write --set pssr\.epochs=5"):
        settings([text])


def test_names_are_split_and_kept_once() -> None:
    assert names(["none, pssr", "pssr", ""]) == ("none", "pssr")


def test_weights_lie_beside_the_store() -> None:
    assert artifacts_folder("results/benchbox.sqlite") == Path("results/artifacts")
    assert artifacts_folder("sqlite:////tmp/x/y.sqlite") == Path("/tmp/x/artifacts")
    assert artifacts_folder("postgresql://host/name") == Path("results/artifacts")


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

    report = said("report", "--format", "json")[1]
    json.loads(report)
    key = re.search(r'"key": "([0-9a-f]{64})"', report)
    assert key is not None
    status, shown, _ = said("show", key[1][:12])
    assert status == 0
    assert "accuracy under the attack" in shown
    assert '"epsilon": 0.0313' in shown

    status, runs, _ = said("list", "runs")
    assert status == 0
    assert runs.count("done") == 2


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


def test_dry_run_prints_the_plan_and_touches_nothing(said: Said, workspace: Path) -> None:
    status, out, _ = said("run", "--defense", "none,trades", "--attacks", "fgsm,null", *SHORT, "--dry-run")
    assert status == 0
    assert "to be trained first" in out
    assert "none for tiny, seed 0 (1 epochs)" in out
    assert not (workspace / "results").exists()

    said("run", "--defense", "none", "--attacks", "null", *WHITE)
    _, out, _ = said("run", "--defense", "none", "--attacks", "null,fgsm", *WHITE, "--dry-run")
    assert "2 cells: 1 stored, 1 to run; 2 craftings" in out
    assert "nothing has to be trained" in out


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


def test_a_failing_cell_is_one_line_and_status_2_and_a_crash_is_status_1(said: Said, workspace: Path) -> None:
    (workspace / "attacks").mkdir()
    plugin = workspace / "attacks" / "bad.py"
    plugin.write_text(BAD_ATTACK)
    status, out, err = said("run", "--defense", "none", "--attacks", "far,null", "--seeds", "0,1", *WHITE)
    lines = [line for line in err.splitlines() if "loading" not in line]
    assert status == 2
    assert "2 cells done, 0 reused from the store, 2 failed" in out
    assert len(lines) == 1
    assert "attack far left the ball" in lines[0]

    status, _, err = said("run", "--defense", "none", "--attacks", "buggy", *WHITE)
    assert status == 1
    assert "ZeroDivisionError" in err
    assert "bad.py:" in err


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


# ---- train, new, init, doctor -------------------------------------------------------------------------------


def test_train_trains_and_says_where(said: Said) -> None:
    words = ("train", "--defense", "none", "--seeds", "0,1", *SHORT)
    status, out, _ = said(*words)
    assert status == 0
    paths = re.findall(r"seed \d: trained, (\S+\.safetensors)", out)
    assert len(paths) == 2
    assert all(Path(path).is_file() for path in paths)
    assert said(*words)[1].count("was there already") == 2


@pytest.mark.parametrize("kind", ["purifier", "classifier"])
def test_a_new_defense_runs_as_it_stands_and_passes_its_test(said: Said, workspace: Path, kind: str) -> None:
    status, out, _ = said("new", "defense", f"my-{kind}", "--kind", kind)
    assert status == 0
    assert f"wrote defenses/my_{kind}.py" in out
    assert (workspace / "tests" / f"test_my_{kind}.py").is_file()
    epochs = [f"my-{kind}.epochs=1", *(["none.epochs=1"] if kind == "purifier" else [])]
    short = ["--dataset", "tiny", "--quiet", *(word for text in epochs for word in ("--set", text))]
    status, out, _ = said("run", "--defense", f"my-{kind}", "--attacks", "pgd", *short)
    assert status == 0, out
    assert f"my-{kind}" in out
    assert "is the name of a defence already" in refusal(said("new", "defense", f"my-{kind}"))


def test_new_defense_overwrites_nothing(said: Said, workspace: Path) -> None:
    (workspace / "tests").mkdir()
    (workspace / "tests" / "test_mine.py").write_text("mine")
    assert "tests/test_mine.py exists" in refusal(said("new", "defense", "mine"))
    assert (workspace / "tests" / "test_mine.py").read_text() == "mine"
    assert not (workspace / "defenses").exists()


@pytest.mark.parametrize("name", ["Mine", "my defense", "../x", "1st", "a--b", "x.py"])
def test_new_defense_wants_a_name(said: Said, name: str) -> None:
    assert "is no name for a defence" in refusal(said("new", "defense", name))


def test_the_written_test_passes(said: Said, workspace: Path) -> None:
    """As the user would run it, on digits and with its own settings."""
    said("new", "defense", "mine")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_mine.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=workspace,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_init_makes_a_workspace_and_keeps_what_is_there(said: Said, workspace: Path) -> None:
    assert said("init")[0] == 0
    assert all((workspace / folder).is_dir() for folder in ("defenses", "attacks", "results", "reports"))
    ignored = (workspace / ".gitignore").read_text()
    assert "/results/benchbox.sqlite*" in ignored
    (workspace / ".gitignore").write_text("mine\n")
    status, out, _ = said("init")
    assert status == 0
    assert "consider adding" in out
    assert (workspace / ".gitignore").read_text() == "mine\n"


def test_doctor_finds_what_is_there_and_what_is_broken(said: Said, workspace: Path) -> None:
    status, out, _ = said("doctor")
    assert status == 0
    for word in ("python", "torch", "torchvision", "pyautoattack", "robustbench", "device", "tiny.npz"):
        assert word in out
    assert "is not there yet" in out
    said("run", "--defense", "none", "--attacks", "null", *WHITE)
    assert "benchbox.sqlite: 1 cells" in said("doctor")[1]
    (workspace / "text.sqlite").write_text("this is no database, however long one makes it")
    status, out, err = said("doctor", "--store", "text.sqlite", "--device", "abacus")
    assert (status, err) == (1, "")
    assert out.count("BROKEN") == 2


# ---- mistakes -----------------------------------------------------------------------------------------------

RUN = ("run", "--defense", "none", "--dataset", "tiny")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "--defense", "psssr", "--dataset", "tiny"), "unknown defence 'psssr'; did you mean pssr"),
        ((*RUN, "--attacks", "pgdd"), "unknown attack 'pgdd'; did you mean pgd"),
        (("run", "--defense", "none", "--dataset", "minst"), "unknown data set 'minst'; did you mean mnist"),
        ((*RUN, "--set", "none.epohcs=5"), "unknown recipe field of none 'epohcs'; did you mean epochs"),
        ((*RUN, "--set", "nnoe.epochs=5"), "unknown plug-in in --set 'nnoe'"),
        ((*RUN, "--set", "none.epochs=many"), "none.epochs = 'many' does not fit"),
        ((*RUN, "--set", "pgd.steps=many"), "pgd.steps = 'many' does not fit"),
        ((*RUN, "--set", "pgd.stepps=5"), "unknown setting of attack pgd 'stepps'; did you mean steps"),
        ((*RUN, "--set", "epochs=5"), "write --set pssr.epochs=5"),
        ((*RUN, "--epsilon", "wide"), "epsilon 'wide' is no number; write it as 0.3 or 8/255"),
        ((*RUN, "--epsilon=-1"), "epsilon must be a finite number of at least 0"),
        ((*RUN, "--epsilon", "8/0"), "epsilon '8/0' is no number"),
        ((*RUN, "--norm", "l3"), "norm = 'l3' does not fit"),
        ((*RUN, "--access", "greybox"), "unknown access 'greybox'; did you mean gray-box"),
        ((*RUN, "--device", "abacus"), "device 'abacus' is not available here"),
        ((*RUN, "--samples", "21"), "asked for 21 test images of tiny, which has 20"),
        ((*RUN, "--samples", "many"), "--samples"),
        ((*RUN, "--seeds", "0,x"), "seeds.1 = 'x' does not fit"),
        ((*RUN, "--batch-size", "0"), "--batch-size"),
        ((*RUN, "--store", "nodb://x/y"), "nodb"),
        ((*RUN, "--sampels", "3"), "--sampels"),
        (("run", "--dataset", "tiny"), "no defenses are named; give --defense"),
        (("run", "--grid", "no.toml"), "cannot read the grid file no.toml"),
        (("rnu",), "rnu"),
        (("report",), "there is no store results/benchbox.sqlite; make it with `benchbox run`"),
        (("report", "--format", "docx"), "unknown format 'docx'"),
        (("report", "--standalone"), "--standalone is for --format latex"),
        (("list", "runs"), "there is no store"),
        (("new", "defense", "x", "--kind", "purfier"), "did you mean purifier"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_line_with_its_remedy(said: Said, words: tuple[str, ...], message: str) -> None:
    assert message in refusal(said(*words))


def test_an_error_s_line_breaks_are_taken_out(monkeypatch: pytest.MonkeyPatch, said: Said) -> None:
    from benchbox import gridfile

    def fail(path: Path) -> None:
        raise RequestError("two\nlines")

    monkeypatch.setattr(gridfile, "read", fail)
    assert refusal(said("run", "--grid", "x")) == "two lines"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, workspace: Path) -> None:
    from benchbox import gridfile

    def fail(path: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(gridfile, "read", fail)
    with pytest.raises(ZeroDivisionError):
        main(["run", "--grid", "x"])


# ---- interruption -------------------------------------------------------------------------------------------


def test_an_interrupted_run_says_what_is_stored_and_continues(said: Said, workspace: Path) -> None:
    """The real process, the real signal."""
    request = ["run", "--defense", "none", "--attacks", "null,pgd", *WHITE[:-3], "--access", "white-box"]
    slow = [*request, "--set", "pgd.steps=1000000", "--set", "pgd.step=0.01"]
    code = "import sys; from benchbox.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *slow], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=workspace, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[1/2]"):
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "benchbox: interrupted: 1 of 2 cells are stored; the same command continues from there\n"

    status, out, _ = said(*request, "--set", "pgd.steps=2")
    assert status == 0
    assert "1 cells done, 1 reused from the store, 0 failed" in out
    assert "interrupted" in said("list", "runs")[1]
