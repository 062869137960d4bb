"""A plug-in file runs as from its own folder, leaves nothing behind, and is known by all of its code."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

import pytest

from benchbox.contract import border, home, registry
from benchbox.errors import RequestError

DEFENSE = """
from benchbox import Card, Defense

class Mine(Defense):
    card = Card({name!r}, "mine")
    def __init__(self, recipe, images, classifier=None):
        super().__init__(recipe, images)
        {late}
        self.classifier = Net()
    def losses(self, batch):
        return {{}}
"""


def written(folder: Path, early: str = "", late: str = "", name: str = "mine", **files: str) -> Path:
    """A plug-in file `own.py` and others by path, `/` written as `__`."""
    for path, text in {"own": early + DEFENSE.format(name=name, late=late), **files}.items():
        place = folder / f"{path.replace('__', '/').replace('@', '__init__')}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return folder / "own.py"


NET = "from torch import nn\nclass Net(nn.Identity):\n    place = {0!r}\n"


def code(file: Path) -> str:
    return registry.defenses().get(f"{file}:Mine").code


def built(file: Path) -> str:
    """Where the network of a plug-in comes from."""
    from benchbox import ImageSpec, Recipe
    from benchbox.errors import DefenseError

    cls = registry.defenses().get(f"{file}:Mine").cls
    with border.crossing(cls, DefenseError):
        return str(cls(Recipe(), ImageSpec(1, 4, 2)).classifier.place)


WAYS = {
    "beside": ("from net import Net", {"net": NET.format("net")}),
    "package": ("from models.wrn import Net", {"models__wrn": NET.format("net"), "models__@": ""}),
    "with init": ("from models import Net", {"models__@": NET.format("net")}),
    "through another": ("from a import Net", {"a": "from b import Net", "b": NET.format("net")}),
    "relative inside": (
        "from models.a import Net",
        {"models__a": "from .b import Net", "models__b": NET.format("net")},
    ),
    "path of its own": (
        "import sys, pathlib; sys.path.insert(0, str(pathlib.Path(__file__).parent / 'lib'))\nfrom net import Net",
        {"lib__net": NET.format("net")},
    ),
}


@pytest.mark.parametrize("when", ["early", "late"])
@pytest.mark.parametrize("way", WAYS)
def test_files_beside_it_are_imported_and_part_of_its_identity(tmp_path: Path, way: str, when: str) -> None:
    line, files = WAYS[way]
    if when == "late" and "\n" in line:
        file = written(tmp_path, line.split("\n")[0], line.split("\n")[1], **files)
    else:
        file = written(tmp_path, **{when: line}, **files)
    path, before = list(sys.path), code(file)
    assert built(file) == "net"
    assert sys.path == path
    assert {"net", "models", "a", "b"}.isdisjoint(name.partition(".")[0] for name in sys.modules)
    helper = next(f for f in tmp_path.rglob("*.py") if "class Net" in f.read_text())
    helper.write_text(NET.format("another"))
    assert code(file) != before
    helper.write_text(NET.format("net"))
    assert code(file) == before


def test_one_file_alone_is_known_by_its_own_digest(tmp_path: Path) -> None:
    file = written(tmp_path, "import json, torch.nn, numpy\nfrom pathlib import Path")
    (tmp_path / "json.py").write_text("a file that nobody imports: the standard library goes first")
    assert code(file) == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


def test_the_folder_may_lie_anywhere(tmp_path: Path) -> None:
    first, second = (
        written(tmp_path / place, "from net import Net", net=NET.format("net")) for place in ("one", "two/three")
    )
    assert code(first) == code(second)


def test_two_plug_ins_have_a_helper_of_one_name(tmp_path: Path) -> None:
    one, two = (
        written(tmp_path / place, "import net\nfrom net import Net", net=NET.format(place))
        for place in ("one", "two")
    )
    assert (built(one), built(two), built(one)) == ("one", "two", "one")
    lazy = written(tmp_path / "lazy", late="from net import Net", net=NET.format("lazy"))
    assert (built(lazy), built(two), built(lazy)) == ("lazy", "two", "lazy")


def test_a_module_of_the_caller_stays_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "net.py").write_text("place = 'of the caller'")
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    import net  # type: ignore[import-not-found]

    try:
        assert built(written(tmp_path / "plug", "from net import Net", net=NET.format("plug"))) == "plug"
        assert sys.modules["net"] is net
        assert net.place == "of the caller"
    finally:
        del sys.modules["net"]


def test_an_edited_file_is_executed_again(tmp_path: Path) -> None:
    file = written(tmp_path, "from net import Net", net=NET.format("before"))
    assert built(file) == "before"
    (tmp_path / "net.py").write_text(NET.format("afterwards"))
    assert built(file) == "afterwards"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import argparse\np = argparse.ArgumentParser()\np.add_argument('--lr', required=True)\np.parse_args()",
         r"own\.py, line 4: it ends the program while it is imported, SystemExit: 2 \(own\.py: error: .*--lr\)"),
        ("\n\nimport sys\nsys.exit()", r"own\.py, line 4: it ends the program while it is imported"),
        ("raise KeyboardInterrupt", r"own\.py, line 1: KeyboardInterrupt; mend it"),
        ("from .net import Net", r"own\.py, line 1: ImportError: .*relative import.*imported by their names"),
        ("import nobody_has_this", r"line 1: ModuleNotFoundError: .*; install it, or lay it beside the file"),
        ("import helper", r"own\.py, line 1 \(.*helper\.py, line 2\): ZeroDivisionError"),
        ("import crooked", r"own\.py, line 1 \(.*crooked\.py, line 1\): SyntaxError"),
        ("x = (", r"own\.py, line 1: SyntaxError"),
        ("raise BaseException('a\\nb')", r"line 1: BaseException: a b; mend it"),
    ],
)  # fmt: skip
def test_what_fails_is_one_line(
    tmp_path: Path, text: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "helper.py").write_text("\n1 / 0")
    (tmp_path / "crooked.py").write_text("def f(:")
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(RequestError, match=sentence) as caught:
        registry.defenses().get(f"{tmp_path / 'own.py'}:Mine")
    assert "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")


def test_arguments_are_those_of_the_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["benchbox", "run", "--lr", "3"])
    file = written(tmp_path, "import argparse\np = argparse.ArgumentParser()\np.add_argument('--lr', default=1)\n"
                   "lr = p.parse_args().lr\nimport sys\nargv = list(sys.argv)")  # fmt: skip
    module = home.at(file).module
    assert (module.lr, module.argv) == (1, [str(file)])
    assert sys.argv == ["benchbox", "run", "--lr", "3"]


def test_what_it_prints_is_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code(written(tmp_path, "print('hello')"))
    assert capsys.readouterr() == ("", "hello\n")


# ---- what a class has to say --------------------------------------------------------------------------------

WRONG = {
    "no card": ("card = Card('mine', \"mine\")", "pass", "has no card; write card = Card"),
    "a text as card": ("Card('mine', \"mine\")", "'mine'", "has a str as its card"),
    "a name of none": ("'mine'", "None", r"'None\(\)' is no name for a defence"),
    "an empty name": ("'mine'", "''", "'' is no name for a defence; use up to 80"),
    "a name with a line break": ("'mine'", r"'mi\nne'", r"'mi\\nne' is no name"),
    "a name with an escape": ("'mine'", r"'mi\x1b[31mne'", "is no name"),
    "a name that turns the line": ("'mine'", r"'mi\u202ene'", "is no name"),
    "a formula": ("'mine'", "'=1+1'", "'=1.1' is no name"),
    "a formula of a member": ("'mine'", "'mine:=1+1'", "'=1.1' is no name"),
    "markup": ("'mine'", "'<b>'", "'<b>' is no name"),
    "a path": ("'mine'", "'../x'", "is no name"),
    "a summary with a line break": ('"mine")', r"'a\nb')", r"card\.summary is 'a\\nb'; give one line"),
    "no method": ("def losses", "def loses", "lacks losses; write the method"),
    "no recipe": ("card =", "recipe_type = 3; card =", "recipe_type is 3; derive a class"),
    "no default": ("card =", "recipe_type = Needy; card =", "width has no default"),
    "a default nobody can write down": ("card =", "recipe_type = Odd; card =", "the default of what is a object"),
}  # fmt: skip
RECIPES = """
from benchbox import Recipe
class Needy(Recipe):
    width: int
class Odd(Recipe):
    model_config = {"arbitrary_types_allowed": True}
    what: object = object()
"""


@pytest.mark.parametrize("way", ["workspace", "path"])
@pytest.mark.parametrize("kind", WRONG)
def test_what_a_class_does_not_say(tmp_path: Path, kind: str, way: str) -> None:
    old, new, sentence = WRONG[kind]
    text = RECIPES + DEFENSE.format(name="mine", late="")
    assert old in text
    file = tmp_path / "defenses" / "own.py"
    file.parent.mkdir()
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(RequestError, match=sentence) as caught:
        registry.defenses(tmp_path).get("mine" if way == "workspace" else f"{file}:Mine")
    assert str(caught.value).isprintable()
    assert re.search(r"own\.py:Mine", str(caught.value))


def test_an_attack_has_a_default_for_everything(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from dataclasses import dataclass\nfrom benchbox import Attack, Card\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Mine(Attack):\n    card = Card('mine', 'mine')\n"
        "    steps: int\n    def search(self, model, x, y, threat, draws): return x\n"
    )
    with pytest.raises(RequestError, match=r"own\.py:Mine: steps has no default"):
        registry.attacks(tmp_path).get("own.py:Mine")


def test_the_inside_of_a_file_is_no_plug_in(tmp_path: Path) -> None:
    folder = tmp_path / "defenses"
    folder.mkdir()
    base = "class Base(Defense):\n    def losses(self, batch): return {}\nclass _Half(Defense): pass\n"
    rest = "class Mine(Base):\n    card = Card('mine', 'mine')\n"
    (folder / "own.py").write_text(f"from benchbox import Card, Defense\n{base}{rest}")
    assert registry.defenses(tmp_path).get("mine").cls.__name__ == "Mine"


def test_the_workspace_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "defenses").mkdir()
    (tmp_path / "defenses" / "bad.py").write_text("raise SystemExit")
    assert "pssr" in registry.defenses(tmp_path, local=False).names()


def test_an_import_that_a_file_forbids_is_forbidden_to_nobody_else(tmp_path: Path) -> None:
    json = sys.modules["json"]
    home.Home(written(tmp_path, early="import sys\nsys.modules['json'] = None\nNet = object\n"))
    assert sys.modules["json"] is json
