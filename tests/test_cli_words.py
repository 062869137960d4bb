"""The words of the command line: help, settings, and that every mistake is one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer.main
from commands import Said, refusal
from typer.testing import CliRunner

from benchbox.cli import build, main, menu
from benchbox.cli.words import names, scalar, settings
from benchbox.engine.session import artifacts_folder
from benchbox.errors import RequestError

# ---- help -------------------------------------------------------------------------------------------------


def commands(command: Any, path: str = "benchbox") -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{path} {name}")


COMMANDS = dict(commands(typer.main.get_command(build())))


def test_all_commands_are_there() -> None:
    assert {path.removeprefix("benchbox ") for path in COMMANDS} >= {
        "run", "report", "list defenses", "list attacks", "list datasets", "list runs",
        "show", "train", "new defense", "new attack", "init", "doctor",
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


@pytest.mark.parametrize(
    ("path", "flag", "said"),
    [
        ("verdict", "--sample-seed", "(default: 0)"),
        ("verdict", "--attacks", "(default: all but one-step attacks and ensembles)"),
        ("verdict", "--epsilon", "0.3 or 8/255, for images in [0, 1].  (default: the data set's)"),
        ("verdict", "--dataset", "Data set.  (default: digits)"),
        ("verdict", "--seeds", "Training seed.  (default: 0)"),
        ("audit", "--epsilon", "0.3 or 8/255, for images in [0, 1].  (default: the data set's)"),
        ("import-adversarials", "--epsilon", "0.3 or 8/255, for images in [0, 1].  (default: the data set's)"),
        ("run", "--epsilon", "several with commas make a curve.  (default: the data set's)"),
        ("report", "--epsilon", "(default: all that are stored)"),
        ("report", "--samples", "(default: all that are stored)"),
        ("report", "--norm", "(default: all that are stored)"),
        ("figures", "--defense", "(default: all that are stored)"),
    ],
)
def test_the_help_of_an_option_is_what_it_does_in_that_command(path: str, flag: str, said: str) -> None:
    (option,) = (one for one in COMMANDS[f"benchbox {path}"].params if flag in one.opts)
    assert option.help.endswith(said)


@pytest.mark.parametrize(
    "path", ["run", "report", "train", "show", "doctor", "init", "list", "new defense", "new attack"]
)
def test_help_ends_with_examples(path: str) -> None:
    assert "benchbox " in COMMANDS[f"benchbox {path}"].epilog


@pytest.mark.parametrize("path", ["run", "verdict", "publish", "import-adversarials"])
def test_a_paragraph_of_help_is_wrapped_once(path: str) -> None:
    page = CliRunner().invoke(build(), [path, "--help"], env={"COLUMNS": "80"}).output
    lines = [line.strip() for line in page.partition("╭")[0].splitlines()]
    for line, after in pairwise(lines):
        # A line ends where the next word has no room, or the paragraph does.
        assert not (line and after) or len(f"{line} {after.split()[0]}") > 78


@pytest.mark.parametrize("word", menu.COMMANDS)
def test_the_sentence_of_a_command_is_its_own(word: str) -> None:
    assert menu.sentence(menu.COMMANDS[word]) == COMMANDS[f"benchbox {word}"].help


def test_a_command_whose_file_fails_is_not_called_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(menu.COMMANDS, "broken", "run.run")
    monkeypatch.setattr("importlib.import_module", lambda name: {}[name])
    with pytest.raises(KeyError, match=r"benchbox\.cli\.run"):
        main(["broken"])


def test_help_imports_no_command(workspace: Path) -> None:
    code = "import sys; from benchbox.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "rank defences by it" in " ".join(done.stdout.split())
    assert not {"pydantic", "numpy", "sqlalchemy", "benchbox.cli.run", "benchbox.api"} & {*done.stderr.split()}


@pytest.mark.parametrize(
    "words",
    [
        ["--help"], ["run", "--help"], ["list", "datasets"], ["list", "defenses"], ["list", "attacks"], ["report"],
        ["list", "runs"], ["--version"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_light_commands_do_not_import_torch(workspace: Path, words: list[str]) -> None:
    code = f"import sys; from benchbox.cli import main; main({words!r}); sys.exit('torch' in sys.modules)"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Half a second on an idle machine; torch alone would take longer than this.
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    "words",
    [
        ["run", "-d", "psssr"], ["run", "-d", "none", "-a", "pgdd"], ["run", "-d", "none", "--dataset", "minst"],
        ["run", "-d", "none", "--set", "nnoe.epochs=5"], ["run", "-d", "none", "--epsilon", "8"],
        ["train", "-d", "psssr"], ["audit", "psssr"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_typing_mistake_is_answered_before_anything_heavy_is_loaded(workspace: Path, words: list[str]) -> None:
    (workspace / "results").mkdir()
    (workspace / "results" / "benchbox.sqlite").touch()
    heavy = "{'torch', 'sqlalchemy', 'numpy'} & sys.modules.keys()"
    code = f"import sys; from benchbox.cli import main; print(main({words!r})); sys.exit(bool({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


def test_the_module_ends_with_the_status_of_the_command() -> None:
    for words, status in ((["--version"], 0), (["run", "-d", "psssr"], 2)):
        assert subprocess.run([sys.executable, "-m", "benchbox", *words], capture_output=True).returncode == status


@pytest.mark.parametrize(
    "words",
    [
        ["report", "--store", "one.json", "--store", "two.json"],
        ["run", "-d", "none", "--device", "cpu", "--device", "cpu"],
        ["list", "cells", "--store", "a", "--store", "b"],
    ],
)
def test_a_second_value_does_not_silently_win(said: Said, words: list[str]) -> None:
    assert "is given 2 times and takes one value; give it once" in refusal(said(*words))


def test_options_of_several_values_and_flags_may_be_repeated(said: Said, workspace: Path) -> None:
    status, _, _ = said(
        "run", "-d", "none", "-d", "jpeg", "-q", "-q", "--dry-run", "--samples", "3", "--attacks", "fgsm"
    )
    assert status == 0


def test_version(said: Said) -> None:
    status, out, _ = said("--version")
    assert status == 0
    assert re.fullmatch(r"benchbox \d+\.\d+\.\d+\n", out)


def test_no_words_are_a_cry_for_help(said: Said) -> None:
    assert "Usage:" in said()[1]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("benchbox run --defense psr", set()),
        ("benchbox run --defense trad", {"trades"}),
        ("benchbox run --defense none,trad", {"none,trades"}),
        ("benchbox run --attacks fgsm,pg", {"fgsm,pgd", "fgsm,pgd-t", "fgsm,pgd-200", "fgsm,pgd-keep"}),
        ("benchbox run --dataset cifar1", {"cifar10", "cifar100"}),
        ("benchbox report --access gray", {"gray-box"}),
    ],
)
def test_the_shell_completes_names_without_torch(workspace: Path, words: str, offered: set[str]) -> None:
    code = "import sys; from benchbox.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    environment = {**os.environ, "_BENCHBOX_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert "Error" not in done.stderr
    assert set(done.stdout.split()) == offered


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
    assert names(["none, pssr", "pssr"], "--defense") == ("none", "pssr")
    with pytest.raises(RequestError, match="--defense is given '', which names nothing"):
        names(["pssr", ""], "--defense")


def test_weights_lie_beside_the_store() -> None:
    assert artifacts_folder("results/benchbox.sqlite") == Path("results/artifacts")
    assert artifacts_folder("sqlite:////tmp/x/y.sqlite") == Path("/tmp/x/artifacts")
    assert artifacts_folder("postgresql://host/name") == Path("results/artifacts")


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
        ((*RUN, "--norm", "l3"), "unknown norm 'l3'"),
        ((*RUN, "--norm", "L0"), "norm 'L0': no attack here searches such a ball"),
        ((*RUN, "--norm", "L2"), "tiny has no customary radius in l2; name one with --epsilon"),
        ((*RUN, "--norm", "L2", "--epsilon", "128"), "did you mean 128/255?"),
        ((*RUN, "--epsilon", "8"), "did you mean 8/255?"),
        ((*RUN, "--samples", "3", "--samples", "4"), "--samples is given 2 times: 3, 4; give it once"),
        (("run", "-d", "a.py:b", "--weights", "x.pt", "--weights", "y.pt"), "--weights is given 2 times"),
        ((*RUN, "--access", "greybox"), "unknown access 'greybox'; did you mean gray-box"),
        ((*RUN, "--device", "abacus"), "device 'abacus' is not available here"),
        ((*RUN, "--eot", "0"), "eot = '0' does not fit"),
        ((*RUN, "--scoring-draws", "-1"), "scoring_draws = '-1' does not fit"),
        ((*RUN, "--precision", "float16"), "unknown precision 'float16'"),
        ((*RUN, "--samples", "21"), "asked for 21 test images of tiny, which has 20"),
        ((*RUN, "--samples", "many"), "samples = 'many' does not fit"),
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
    from benchbox.engine import request as gridfile

    def fail(path: Path) -> None:
        raise RequestError("two\nlines")

    monkeypatch.setattr(gridfile, "read", fail)
    assert refusal(said("run", "--grid", "x")) == "two lines"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, workspace: Path) -> None:
    from benchbox.engine import request as gridfile

    def fail(path: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(gridfile, "read", fail)
    with pytest.raises(ZeroDivisionError):
        main(["run", "--grid", "x"])
