"""The border around foreign code: whatever a plug-in does, it is named, and nothing of it stays."""

from __future__ import annotations

import atexit
import csv
import io
import logging
import os
import random
import re
import resource
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import WHITE, Said, refusal
from torch import Tensor, nn

from benchbox import Attack, Card, Defense, Draws, ImageSpec, Recipe, cli
from benchbox.contract import border
from benchbox.contract.process import restored
from benchbox.domain import ThreatModel
from benchbox.errors import AttackError, DefenseError

PLUGIN = """
import torch
from torch import nn
from benchbox import Card, Defense

class Foreign(Defense):
    card = Card("foreign", "does what it should not")
    def __init__(self, recipe, images, classifier=None):
        super().__init__(recipe, images)
        {build}
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    def forward(self, x, draws=None):
        logits = self.classifier(x)
        {forward}
    def losses(self, batch):
        loss = nn.functional.cross_entropy(self.classifier(batch.x), batch.y)
        {losses}
"""
SOUND = {
    "build": "pass",
    "forward": "return logits",
    "losses": "return {'classifier': {'loss': loss}}",
}
NAMED = r"defence foreign, defenses/foreign\.py, line \d+: "


def write(workspace: Path, **parts: str) -> None:
    (workspace / "defenses").mkdir(exist_ok=True)
    (workspace / "defenses" / "foreign.py").write_text(PLUGIN.format(**SOUND | parts))


def run(said: Said, *words: str) -> tuple[int, str, str]:
    short = ("--set", "foreign.epochs=1", "--dataset", "tiny", "--quiet", "--access", "white-box")
    return said("run", "--defense", "foreign", "--attacks", "fgsm", *short, *words)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"forward": "import sys; sys.exit()"}, NAMED + "SystemExit"),
        ({"forward": "import os; os._exit(0)"}, NAMED + r"SystemExit: os\._exit\(0\)"),
        ({"losses": "import os; os.abort()"}, NAMED + r"SystemExit: os\.abort\(\)"),
        ({"forward": "raise KeyboardInterrupt"}, NAMED + "KeyboardInterrupt"),
        ({"forward": "raise GeneratorExit"}, NAMED + "GeneratorExit"),
        ({"forward": "raise type('Mine', (BaseException,), {})('x\\ny')"}, NAMED + "Mine: x y"),
        ({"forward": "return 1 / 0"}, NAMED + "ZeroDivisionError"),
        ({"forward": "raise ValueError('x' * 100_000)"}, NAMED + r"ValueError: x{900,1000}… \(100000 characters"),
        ({"forward": "raise ValueError('\\udcff')"}, NAMED + r"ValueError: \\udcff"),
        (
            {"forward": "raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})"},
            NAMED + r"Odd: its text cannot be had \(ZeroDivisionError\)",
        ),
        ({"forward": "return logits.to_sparse()"}, r"a tensor of layout torch.sparse_coo; return a dense one"),
        ({"forward": "return logits.to('meta')"}, "a tensor without numbers, on the device meta; return a dense"),
        ({"forward": "return logits, logits"}, "defence foreign returned a tuple; return its first element alone"),
        ({"forward": "return None"}, "defence foreign returned None; return a torch tensor"),
        (
            {"forward": "return {'aux': 0, 'logits': logits}"},
            "returned a dict; return its 'logits' alone",
        ),
        (
            {"forward": "return {'aux': 0, 'out': logits}"},
            "returned a dict; return its 'out' alone",
        ),
        (
            {"forward": "import types; return types.SimpleNamespace(logits=logits)"},
            "defence foreign returned a SimpleNamespace; return its .logits alone",
        ),
        ({"forward": "return logits.tolist()"}, "defence foreign returned a list; return a torch tensor"),
        ({"forward": "return logits.detach().numpy()"}, "defence foreign returned a ndarray; return a torch"),
        ({"forward": "return logits.to(torch.complex64)"}, r"foreign returned torch\.complex64; return float32"),
        ({"forward": "return logits.argmax(1)"}, r"foreign returned torch\.int64; return float32"),
        ({"build": "quit(0)"}, NAMED + "SystemExit: 0"),
        ({"build": "raise OSError('gone')"}, NAMED + "OSError: gone"),
        ({"losses": "exit()"}, NAMED + "SystemExit"),
        ({"losses": "return None"}, r"foreign: losses\(\) returned NoneType and no terms for 'classifier'"),
        ({"losses": "return loss"}, r"foreign: losses\(\) returned Tensor and no terms for 'classifier'"),
        ({"losses": "return {'net': {'loss': loss}}"}, r"losses\(\) returned \['net'\] and no terms for 'class"),
        ({"losses": "return {'classifier': {'loss': 3}}"}, "loss 'loss' returned an int; return a torch tensor"),
        (
            {"losses": "return {'classifier': {'loss': batch.x}}"},
            r"loss 'loss' has shape \(.*\); reduce it to one number",
        ),
    ],
)
def test_what_a_defence_does_is_one_line(
    said: Said, workspace: Path, parts: dict[str, str], sentence: str
) -> None:
    write(workspace, **parts)
    assert re.search(sentence, refusal(run(said)))


ATTACK = """
from dataclasses import dataclass
from benchbox import Attack, Card

@dataclass(frozen=True, kw_only=True)
class Foreign(Attack):
    card = Card("odd", "does what it should not")
    def search(self, model, x, y, threat, draws):
        {search}
"""


@pytest.mark.parametrize(
    ("search", "sentence"),
    [
        ("raise SystemExit(0)", r"attack odd, attacks/odd\.py, line 9: SystemExit: 0"),
        ("return model(x)[99]", r"attack odd, attacks/odd\.py, line 9: IndexError"),
        ("return None", "attack odd returned None; return a torch tensor"),
        ("return x, y", "attack odd returned a tuple; return its first element alone"),
        ("return x.numpy()", "attack odd returned a ndarray"),
        ("return x.double()", r"attack odd returned torch\.float64 .* for torch\.float32"),
    ],
)
def test_what_an_attack_does_is_one_line(said: Said, workspace: Path, search: str, sentence: str) -> None:
    (workspace / "attacks").mkdir()
    (workspace / "attacks" / "odd.py").write_text(ATTACK.format(search=search))
    assert re.search(sentence, refusal(said("run", "--defense", "none", "--attacks", "odd", *WHITE)))


def test_the_network_that_fails_under_an_attack_is_named_and_not_the_attack(said: Said, workspace: Path) -> None:
    write(workspace, forward="return logits.view(3) if x.requires_grad else logits")
    assert re.match(NAMED + "RuntimeError", refusal(run(said)))


def test_an_attack_that_is_no_culprit_runs_on(said: Said, workspace: Path) -> None:
    write(workspace, forward="raise SystemExit")
    status, out, _ = run(said, "--defense", "foreign,none", "--set", "none.epochs=1")
    assert status == 2
    assert "1 cell done, 0 reused from the store, 1 failed" in out


BENDS = {
    "default type": "torch.set_default_dtype(torch.float64)",
    "default device": "torch.set_default_device('meta')",
    "threads": "torch.set_num_threads(3)",
    "gradients": "torch.set_grad_enabled(False)",
    "deterministic": "torch.use_deterministic_algorithms(True)",
    "cudnn": "torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark",
    "denormals": "torch.set_flush_denormal(True)",
    "autocast": "torch.set_autocast_enabled('cpu', True)",
    "seed": "torch.manual_seed(5); np.random.seed(5); random.seed(5)",
    "numpy errors": "np.seterr(all='raise')",
    "folder": "os.chdir('/')",
    "arguments": "sys.argv.append('--lr')",
    "path": "sys.path.insert(0, '/')",
    "environment": "os.environ['BENCHBOX_DATA'] = '/'; os.environ.pop('HOME', None)",
    "streams": "sys.stdout = sys.stderr = None",
    "warnings": "warnings.simplefilter('error')",
    "signals": "signal.signal(signal.SIGINT, signal.SIG_IGN)",
    "recursion": "sys.setrecursionlimit(4321)",
    "products": "torch.set_float32_matmul_precision('medium')",
    "modules": "sys.modules['json'] = None; del sys.modules['csv']",
    "mask": "os.umask(0o777)",
    "file size": "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))",
    "logging": "logging.disable(logging.CRITICAL)",
}


def state() -> dict[str, object]:
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": torch.backends.cudnn.benchmark,
        "denormals": float(torch.tensor(1e-40, dtype=torch.float32, device="cpu") * 1),
        "autocast": torch.is_autocast_enabled("cpu"),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": np.random.get_state()[1].tobytes(),  # type: ignore[index]
        "random": random.getstate(),
        "errors": np.geterr(),
        "folder": os.getcwd(),
        "argv": list(sys.argv),
        "path": list(sys.path),
        "environment": dict(os.environ),
        "streams": (sys.stdout, sys.stderr),
        "warnings": list(warnings.filters),
        "signal": signal.getsignal(signal.SIGINT),
        "recursion": sys.getrecursionlimit(),
        "products": torch.get_float32_matmul_precision(),
        "modules": (sys.modules.get("json"), sys.modules.get("csv")),
        "mask": os.umask(0o022) or os.umask(0o022),
        "file size": resource.getrlimit(resource.RLIMIT_FSIZE),
        "logging": logging.root.manager.disable,
    }


@pytest.mark.parametrize("bend", BENDS.values(), ids=BENDS)
def test_what_a_plug_in_changes_of_the_process_is_put_back(bend: str) -> None:
    before = state()
    with restored():
        exec(bend)
        sys.stdout, sys.stderr = sys.stdout or sys.__stdout__, sys.stderr or sys.__stderr__
        during = {k for k, v in state().items() if k != "streams" and v != before[k]} | {"streams"}
    after = state()
    assert during, bend
    assert {k for k, v in after.items() if v != before[k]} == set()


@pytest.mark.parametrize("closing", ["sys.stdout.close()", "os.close(1)", "sys.__stdout__.close(); os.close(2)"])
def test_what_closes_the_streams_silences_nobody(closing: str) -> None:
    here, there = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.dup2(there, 1)
            sys.stdout = sys.__stdout__ = os.fdopen(1, "w")  # type: ignore[misc]
            with restored():
                exec(closing)
            sys.stdout.write("still here\n")
            sys.stdout.flush()
        finally:
            os._exit(0)
    os.close(there)
    with os.fdopen(here) as told:
        assert told.read() == "still here\n"
    os.waitpid(child, 0)


def test_a_thread_that_never_ends_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "PATIENCE", 0.01)
    monkeypatch.setattr(atexit, "_run_exitfuncs", lambda: None)
    ended, release = list[int](), threading.Event()
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(sys, "argv", ["benchbox", "--version"])
    left = threading.Thread(target=release.wait, name="mine")
    left.start()
    try:
        cli.main()
    finally:
        release.set()
        left.join()
    assert ended == [0]
    assert "a plug-in left a thread running (mine)" in capsys.readouterr().err


def test_a_defence_that_is_built_otherwise_is_one_line(said: Said, workspace: Path) -> None:
    write(workspace)
    file = workspace / "defenses" / "foreign.py"
    file.write_text(file.read_text().replace(", classifier=None)", ")").replace("images, classifier)", "images)"))
    assert "let it take (self, recipe, images, classifier=None)" in refusal(run(said, "--samples", "4"))


def numbers(said: Said, workspace: Path) -> list[dict[str, str]]:
    """What is reported of `none`, trained and scored in one process after the foreign one."""
    run(said, "--defense", "none", "--set", "none.epochs=1", "--store", "s/s.sqlite")
    table = said("report", "--store", "s/s.sqlite", "--format", "csv", "--defense", "none")[1]
    shutil.rmtree(workspace / "s")
    kept = ("measure", "attack", "artifact", "status", "percent", "n")
    return [{key: row[key] for key in kept} for row in csv.DictReader(io.StringIO(table))]


@pytest.mark.parametrize("part", ["import", "build", "forward"])
def test_the_numbers_of_others_stay(said: Said, workspace: Path, part: str) -> None:
    bend = "torch.set_default_dtype(torch.float64); torch.manual_seed(1); torch.set_num_threads(2)"
    write(workspace)
    before = numbers(said, workspace)
    if part == "import":
        path = workspace / "defenses" / "foreign.py"
        path.write_text(path.read_text() + bend)
    elif part == "build":
        write(workspace, build=bend)
    else:
        write(workspace, forward=f"{bend}; return logits.float()")
    assert numbers(said, workspace) == before
    assert any((row["measure"], row["status"]) == ("attack", "done") for row in before)


# ---- whose error it is --------------------------------------------------------------------------------------


class Mine(Defense):
    card = Card("mine", "one of a test")

    def __init__(self, fails: Callable[[], Tensor]) -> None:
        super().__init__(Recipe(), ImageSpec(1, 4, 2))
        self.classifier = nn.Identity()
        self.fails = fails

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return self.fails()

    def losses(self, batch: object) -> dict[str, dict[str, Tensor]]:
        return {}


class Still(Attack):
    card = Card("still", "one of a test")

    def search(self, model: object, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return x


def test_a_forked_child_may_end() -> None:
    with restored():
        if not (child := os.fork()):
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        with pytest.raises(SystemExit, match=r"os\._exit\(0\)"):
            os._exit(0)


def test_the_users_own_interrupt_passes() -> None:
    # Whoever starts the tests in the background may have told them to ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupted() -> Tensor:
        signal.raise_signal(signal.SIGINT)
        return torch.zeros(1)

    try:
        with pytest.raises(KeyboardInterrupt), border.crossing(Mine, DefenseError):
            Mine(interrupted)(torch.zeros(1))
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_bug_of_ours_stays_a_traceback() -> None:
    def ours() -> Tensor:
        from benchbox.draws import sample_draws

        return sample_draws("three").uniform(1)  # type: ignore[arg-type]

    with pytest.raises(TypeError), border.crossing(Mine, DefenseError):
        Mine(ours)(torch.zeros(1))


def test_a_network_of_torch_alone_is_that_of_the_plug_in() -> None:
    with (
        pytest.raises(DefenseError, match=r"defence mine: RuntimeError: mat1 and mat2"),
        border.crossing(Mine, DefenseError),
    ):
        border.guarded(nn.Linear(3, 2), Mine, "defence mine")(torch.zeros(1, 4))


def test_a_refusal_passes_as_it_is() -> None:
    with pytest.raises(AttackError, match=r"^said already$"), border.crossing(Still, AttackError):
        raise AttackError("said already")


def test_what_a_plug_in_prints_is_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    with border.crossing(Mine, DefenseError):
        sys.stdout.write("hello\n")
    assert capsys.readouterr() == ("", "hello\n")
