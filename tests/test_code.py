"""A class that is handed over is known by all the code it runs: in a file, in a script and in a notebook."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchbox.contract import home
from benchbox.domain import ImageSpec
from benchbox.engine.lent import lent, of_class

HEAD = """
import argparse, functools, sys
from types import SimpleNamespace
import numpy as np, torch, torch.nn.functional as F, benchbox
from torch import nn
"""
REST = """
class Mine(benchbox.Defense):
    card = benchbox.Card("mine", "a defence of a script")
    factor = 1
    class Recipe(benchbox.Recipe):
        depth: int = 3
    def __init__(self, recipe, images, classifier=None):
        super().__init__(recipe, images)
        self.classifier = Net()
    @property
    def half(self):
        return decorated(0.5)
    def losses(self, batch):
        import late
        return {"classifier": {"ce": own_loss(self.classifier(batch.x), batch.y)}}
    def surrogates(self):
        return {word: TABLE[word] for word in {"a", "b", "c"}}
"""
BESIDE = """
SCALE = float(sys.argv[1])
ARGS = SimpleNamespace(width=10)
TABLE = {"a": [lambda x: x + 1], "b": torch.ones(2), "c": np.arange(3)}
import helper
class Layer(nn.Linear):
    pass
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = Layer(784, ARGS.width)
    def forward(self, x):
        return self.layer((x.flatten(1) - 0.5) * 1.0)
def own_loss(z, y, weight=1):
    return helper.loss(z, y) * SCALE * weight
@functools.cache
@torch.no_grad()
def decorated(x):
    return x
"""
EDITS = {
    "a network beside": ("* 1.0)", "* 0.0)"),
    "its base": ("class Layer(nn.Linear):\n    pass", "class Layer(nn.Linear):\n    other = 2"),
    "a default": ("weight=1", "weight=2"),
    "a setting": ("width=10", "width=11"),
    "a lambda in a table": ("x + 1]", "x + 2]"),
    "a tensor": ("torch.ones", "torch.zeros"),
    "an array": ("np.arange(3)", "np.arange(4)"),
    "behind decorators": ("    return x\n", "    return -x\n"),
    "an attribute": ("factor = 1", "factor = 2"),
    "a property": ("(0.5)", "(0.25)"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "helper.py").write_text("def loss(z, y):\n    return z\n")
    (tmp_path / "late.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def program(monkeypatch: pytest.MonkeyPatch, text: str, file: Path | None = None, scale: str = "1") -> Any:
    """What a text defines that is run as a script, where a file is named, or else as a cell of a notebook."""
    module = ModuleType("__main__")
    if file:
        file.write_text(text)
        module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.delitem(sys.modules, "helper", raising=False)
    monkeypatch.setattr(sys, "argv", ["run.py", scale])
    exec(compile(text, str(file or "<stdin>"), "exec"), vars(module))
    return module


def code(monkeypatch: pytest.MonkeyPatch, text: str, file: Path | None = None, scale: str = "1") -> str:
    return of_class(program(monkeypatch, text, file, scale).Mine).code


@pytest.mark.parametrize("as_script", [False, True])
def test_whatever_its_functions_name_is_part_of_its_identity(
    folder: Path, monkeypatch: pytest.MonkeyPatch, as_script: bool
) -> None:
    text, file = HEAD + BESIDE + REST, folder / "run.py" if as_script else None
    found = {"as it is": code(monkeypatch, text, file), "an argument": code(monkeypatch, text, file, "2")}
    for what, (before, after) in EDITS.items():
        assert text.count(before) == 1, what
        found[what] = code(monkeypatch, text.replace(before, after), file)
    for helper in ("helper.py", "late.py"):
        (folder / helper).write_text("def loss(z, y):\n    return -z\n")
        found[helper] = code(monkeypatch, text, file)
    assert len(set(found.values())) == len(found), found


def test_what_it_does_not_name_is_none_of_its_identity_in_a_notebook(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = HEAD + BESIDE + REST
    assert code(monkeypatch, text) == code(monkeypatch, f"# a comment\n{text}\nother = [print]\n")
    assert code(monkeypatch, text, folder / "a.py") != code(monkeypatch, text + "other = 1", folder / "a.py")


def test_it_is_the_same_in_every_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = HEAD + BESIDE + REST
    asked = "\nfrom benchbox.engine.lent import of_class\nprint(of_class(Mine).code)"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", text + asked, "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [code(monkeypatch, text)]


def test_a_network_of_a_script_is_known_by_the_functions_beside_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that draws has no logits to be told by."""
    text = HEAD + (
        "def noise(x):\n    return 0.1 * torch.randn_like(x)\n"
        "class Net(nn.Module):\n    randomized = True\n"
        "    def forward(self, x):\n        return (x + noise(x)).flatten(1)[:, :10]\n"
    )
    found = {
        lent(program(monkeypatch, one).Net(), ImageSpec(1, 4, 10)).code
        for one in (text, f"{text}# more\n", text.replace("0.1", "0.2"))
    }
    assert len(found) == 2


def test_a_class_of_a_file_is_known_by_it_and_by_the_files_it_imports(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = folder / "own.py"
    own.write_text(HEAD + BESIDE.replace("sys.argv[1]", "1") + REST)
    monkeypatch.delitem(sys.modules, "helper", raising=False)
    import own as imported  # type: ignore[import-not-found]

    before = of_class(imported.Mine).code
    assert before == home.digest(own, [own, folder / "helper.py", folder / "late.py"])
    (folder / "helper.py").write_text("def loss(z, y):\n    return -z\n")
    assert of_class(imported.Mine).code != before
    monkeypatch.delitem(sys.modules, "own")
