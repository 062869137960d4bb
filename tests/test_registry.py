"""One door: built-ins, workspace files, single files, installed packages."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchbox.contract import registry
from benchbox.errors import RequestError

MINE = """
from benchbox import Card, Draws, Losses, Purifier

class Mine(Purifier):
    card = Card({name!r}, "mine")
    def purify(self, x, draws):
        return x
    def losses(self, batch):
        return {{}}
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "defenses").mkdir()
    return tmp_path


def write(workspace: Path, name: str, file: str = "mine.py") -> Path:
    path = workspace / "defenses" / file
    path.write_text(MINE.format(name=name))
    return path


def test_built_ins_are_listed_without_loading_them():
    code = (
        "import sys, benchbox.contract.registry as r; print(r.defenses().names());"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert "'pssr'" in done.stdout


def test_every_built_in_loads_and_answers_to_its_name(tmp_path):
    for plugins in (registry.defenses(tmp_path), registry.attacks(tmp_path)):
        for name in plugins.names():
            assert plugins.get(name).cls.card.name == name


def test_a_workspace_file_is_announced_and_found(workspace):
    write(workspace, "mine")
    heard: list[str] = []
    plugin = registry.defenses(workspace, heard.append).get("mine")
    assert heard == ["loading workspace file defenses/mine.py"]
    assert plugin.origin == "./defenses/mine.py"
    assert plugin.code.startswith("sha256:")


def test_an_edited_file_is_other_code(workspace):
    path = write(workspace, "mine")
    before = registry.defenses(workspace).get("mine").code
    path.write_text(path.read_text() + "\n# changed\n")
    assert registry.defenses(workspace).get("mine").code != before


def test_a_file_is_a_plug_in_by_its_path(workspace):
    write(workspace, "mine", "elsewhere.txt").rename(workspace / "one.py")
    plugin = registry.defenses(workspace).get("one.py:Mine")
    assert plugin.name == "one.py:Mine"
    with pytest.raises(RequestError, match=r"unknown name in .*one\.py 'Main'; did you mean Mine"):
        registry.defenses(workspace).get("one.py:Main")
    with pytest.raises(RequestError, match=r"no such plug-in file: two\.py"):
        registry.defenses(workspace).get("two.py:Mine")


def test_an_unknown_name_gets_the_closest_ones(workspace):
    with pytest.raises(RequestError, match="unknown defence 'psr'; did you mean pssr"):
        registry.defenses(workspace).get("psr")


def test_a_name_claimed_twice_names_both_claimants(workspace):
    write(workspace, "trades")
    with pytest.raises(RequestError, match=r"'trades' is claimed twice: by benchbox and by \./defenses/mine\.py"):
        registry.defenses(workspace).get("none")


def test_a_broken_file_is_one_line_with_the_place(workspace):
    (workspace / "defenses" / "bad.py").write_text("import benchbox\n\nx = 1 / 0\n")
    with pytest.raises(RequestError, match=r"bad\.py, line 3: ZeroDivisionError: division by zero; mend it"):
        registry.defenses(workspace).names()
    (workspace / "defenses" / "bad.py").write_text("def f(:\n")
    with pytest.raises(RequestError, match=r"bad\.py, line 1: SyntaxError"):
        registry.defenses(workspace).names()


def test_the_project_itself_is_a_workspace(monkeypatch):
    heard: list[str] = []
    assert "pssr" in registry.defenses(Path(__file__).parents[1], heard.append).names()
    assert heard == []


def test_an_installed_package_goes_through_the_same_door(tmp_path):
    # setuptools leaves its traces in the folder it builds from
    source = shutil.copytree(Path(__file__).parent / "plugin", tmp_path / "plugin")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*install, str(tmp_path / "site"), str(source)], check=True, capture_output=True)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "from benchbox.contract import registry\n"
        "grey, brighten = registry.defenses().get('grey'), registry.attacks().get('brighten')\n"
        "print(grey.origin, grey.cls.__name__, brighten.cls.configure())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["benchbox-example-plugin", "1.2.3", "Grey", "Brighten()"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("model.py", "model.py names nothing in the file; write model.py:NAME"),
        ("pkg", "pkg is a folder; name a file in it, as pkg/__init__.py:NAME"),
        ("pkg:net", "pkg is a folder; name a file in it, as pkg/__init__.py:net"),
        ("first.ipynb:net", "first.ipynb is a notebook; make a file of it, .*, and name first.py:net"),
        ("net.pt", "net.pt is no network; .*--defense file.py:NAME --weights net.pt"),
        ("one.py:Nothing", "unknown name in .*one.py 'Nothing'; it has factory, Net"),
    ],
)
def test_what_was_meant_is_told_from_the_name(workspace, monkeypatch, name, sentence):
    monkeypatch.chdir(workspace)
    (workspace / "pkg").mkdir()
    (workspace / "one.py").write_text("def factory(): ...\nclass Net: ...\ndef _own(): ...\n")
    for ask in ("get", "read") if name.startswith("one") else ("get",):
        with pytest.raises(RequestError, match=sentence):
            getattr(registry.defenses(workspace), ask)(name)
