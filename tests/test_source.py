"""What is read from the files of plug-ins agrees with what is found when they are loaded, and needs no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchbox import RequestError
from benchbox.contract import declaration, reading, registry
from benchbox.contract.attack import _hints
from benchbox.contract.written import Unreadable

NOWHERE = Path("/nonexistent")
DEFENSES, ATTACKS = registry.defenses(NOWHERE), registry.attacks(NOWHERE)

DEFENSE = """
from __future__ import annotations
from benchbox import Card, Classifier, ClassifierRecipe, Count, Losses

class MineRecipe(ClassifierRecipe):
    rounds: Count = 3
    {field}

class Mine(Classifier[MineRecipe]):
    {card}
    def losses(self, batch):
        return {{}}
"""
ATTACK = """
from dataclasses import dataclass
import benchbox

@dataclass(frozen=True, kw_only=True)
class Mine(benchbox.Attack):
    card = benchbox.Card("mine", "mine")
    rounds: benchbox.Count = 3
    {field}
    def {method}(self, model, x, y, threat, draws):
        return x
"""
CARD = 'card = Card("mine", "mine")'

#: Files with a mistake, all of which are told without executing them.
WRONG = {
    "syntax": (DEFENSE.format(field="def", card=CARD), "defence"),
    "indentation": (DEFENSE.format(field="   x = 1", card=CARD), "defence"),
    "null byte": ("x = '\0'", "defence"),
    "not there": ("import torch\nfrom no_such_module import net\n", "defence"),
    "no card": (DEFENSE.format(field="pass", card="pass"), "defence"),
    "card is a text": (DEFENSE.format(field="pass", card='card = "mine"'), "defence"),
    "name with a blank": (DEFENSE.format(field="pass", card='card = Card("my defence", "mine")'), "defence"),
    "summary of two lines": (DEFENSE.format(field="pass", card='card = Card("mine", "a\\nb")'), "defence"),
    "summary is a number": (DEFENSE.format(field="pass", card='card = Card("mine", 3)'), "defence"),
    "field without default": (DEFENSE.format(field="width: int", card=CARD), "defence"),
    "default that cannot be recorded": (
        DEFENSE.format(field="width: object = frozenset([1])", card=CARD),
        "defence",
    ),
    "no such class": (DEFENSE.format(field="pass", card=CARD).replace("class Mine(", "class Main("), "defence"),
    "empty": ("", "defence"),
    "no losses": (
        "import benchbox\nclass Mine(benchbox.Defense):\n    card = benchbox.Card('mine', 'x')\n",
        "defence",
    ),
    "no search": (ATTACK.format(field="pass", method="find"), "attack"),
    "setting without default": (ATTACK.format(field="width: int", method="search"), "attack"),
    "setting of a set": (ATTACK.format(field="width: object = frozenset()", method="search"), "attack"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_in_a_file_is_told_in_the_words_of_who_loads_it(tmp_path: Path, name: str) -> None:
    text, kind = WRONG[name]
    (tmp_path / "mine.py").write_text(text)
    found = registry.defenses(tmp_path) if kind == "defence" else registry.attacks(tmp_path)
    with pytest.raises(RequestError) as late:
        found.get("mine.py:Mine")
    with pytest.raises(RequestError) as early:
        found.read("mine.py:Mine")
    assert str(early.value) == str(late.value)


@pytest.mark.parametrize("name", [name for name in WRONG if name not in ("no such class", "empty")])
def test_and_in_those_of_who_loads_the_workspace(tmp_path: Path, name: str) -> None:
    text, kind = WRONG[name]
    found = registry.defenses(tmp_path) if kind == "defence" else registry.attacks(tmp_path)
    folder = tmp_path / found.folder
    folder.mkdir()
    (folder / "mine.py").write_text(text)
    with pytest.raises(RequestError) as late:
        found.names()
    with pytest.raises(RequestError) as early:
        found.read_files()
    assert str(early.value) == str(late.value)


#: Files that are right, though little or nothing of them can be told without executing them.
RIGHT = {
    "a base of a call": DEFENSE.replace("Classifier[MineRecipe]", "base()").replace(
        "class MineRecipe", "def base(): return Classifier[MineRecipe]\nclass MineRecipe"
    ),
    "a path of its own": "import sys\nsys.path.insert(0, 'lib')\nimport far_away\n" + DEFENSE.replace(
        "from __future__ import annotations", ""
    ),
    "everything imported": "from far_away import *\n" + DEFENSE.replace("from __future__ import annotations", ""),
    "a decorated class": DEFENSE.replace("class Mine(", "same = lambda cls: cls\n@same\nclass Mine("),
    "a card that is set later": DEFENSE.replace("{card}", "pass") + "\nMine.card = Card('mine', 'mine')\n",
    "a card by setattr": DEFENSE.replace("{card}", "pass") + "\nsetattr(Mine, 'card', Card('mine', 'mine'))\n",
    "under a condition": DEFENSE.replace("class MineRecipe", "if True:\n  class Other: pass\nclass MineRecipe"),
    "optional imports": "try:\n    import no_such_module\nexcept ImportError:\n    no_such_module = None\n"
    + DEFENSE.replace("from __future__ import annotations", ""),
    "two of one name": DEFENSE.replace("class Mine(", "class Mine: pass\nclass Mine("),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_what_cannot_be_told_is_no_mistake(tmp_path: Path, name: str) -> None:
    (tmp_path / "lib").mkdir()
    for folder in (tmp_path, tmp_path / "lib"):
        (folder / "far_away.py").write_text("")
    (tmp_path / "mine.py").write_text(RIGHT[name].format(field="pass", card=CARD))
    found = registry.defenses(tmp_path)
    found.read("mine.py:Mine")
    assert found.get("mine.py:Mine").cls.card.name == "mine"


@pytest.mark.parametrize("name", DEFENSES.names())
def test_a_recipe_is_read_as_it_is(name: str) -> None:
    written = DEFENSES.read(name)
    assert written is not None
    cls: Any = DEFENSES.get(name).cls
    found, real = reading.recipe(written), cls.recipe_type
    assert repr(found.model_fields) == repr(real.model_fields)
    assert declaration.defaults(found) == declaration.defaults(real)
    assert written.get("card") == cls.card
    assert written.get("recipes") == cls.recipes
    assert written.get("base") == cls.base
    assert reading.stand_ins(written) == list(cls.stand_ins)
    assert DEFENSES.says(name, "card", "randomized", "stand_ins") == (cls.card, cls.randomized, [*cls.stand_ins])
    assert written.missing() == []


STAND_INS = """
from __future__ import annotations
import benchbox
from benchbox import Card, stand_in

class First(benchbox.Purifier):
    card = Card("first", "", "", 2026, "purifier")
    def purify(self, x, draws): return x
    def losses(self, batch): return {}

    @stand_in("mine", "none")
    def one(self, x, draws): return self(x)

    @stand_in("all", "plain autograd", exact=True)
    def exactly(self, x, draws): return self(x)

class Second(First):
    card = Card("second", "", "", 2026, "purifier")
    def identity(self, x, draws): return self(x)
    one = First.exactly

class Third(Second):
    card = Card("third", "", "", 2026, "purifier")
    one = (lambda self, x, draws: self(x))
"""


def test_stand_ins_are_read_as_they_are_inherited_left_out_and_borrowed(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text(STAND_INS)
    found = registry.defenses(tmp_path)
    for name in ("First", "Second"):
        written, cls = found.read(f"file.py:{name}"), found.get(f"file.py:{name}").cls
        assert written is not None
        assert reading.stand_ins(written) == list(cls.stand_ins)
    third = found.read("file.py:Third")
    assert third is not None
    with pytest.raises(Unreadable):
        reading.stand_ins(third)


@pytest.mark.parametrize("name", ATTACKS.names())
def test_settings_are_read_as_they_are(name: str) -> None:
    written = ATTACKS.read(name)
    assert written is not None
    cls: Any = ATTACKS.get(name).cls
    found = reading.settings(written)
    assert {name: repr(hint) for name, (hint, _) in found.items()} == {n: repr(h) for n, h in _hints(cls).items()}
    family = getattr(cls, "family_field", None)
    real = cls(**{family: "PGD"} if family else {})
    assert {name: default for name, (_, default) in found.items() if name != family} == {
        name: getattr(real, name) for name in found if name != family
    }
    assert written.get("card") == cls.card
    assert ATTACKS.says(name, "needs", "balls", "standard") == (cls.needs, cls.balls, cls.standard)
    assert written.missing() == []


SETTINGS = [
    ("none", "epochss", 3), ("none", "epochs", -3), ("none", "epochs", 10**16), ("none", "epochs", True),
    ("pssr", "condition", "maks"), ("pssr", "dropout", 1.0), ("none", "weights", "net.safetensors"),
    ("carso", "learning_rate", float("nan")), ("jpeg", "quality", "good"), ("bagt-pgd-at", "widht", 3),
    ("pgd", "stepss", 3), ("pgd", "steps", "many"), ("cw", "steps", 0), ("square", "p", 1.5), ("pgd", "keep", "x"),
    ("torchattacks:PGD", "attakc", "x"), ("pgd", "restarts", 2.5),
]  # fmt: skip


@pytest.mark.parametrize(("name", "field", "value"), SETTINGS)
def test_a_wrong_setting_is_told_in_the_words_of_configure(name: str, field: str, value: object) -> None:
    found = DEFENSES if name in DEFENSES.names() else ATTACKS
    with pytest.raises(RequestError) as late:
        found.get(name).cls.configure("digits", "digits", **{field: value})  # type: ignore[attr-defined]
    written = found.read(name)
    assert written is not None
    with pytest.raises(RequestError) as early:
        reading.fit(written, found.kind, {field: value}, ("digits", "digits"))
    assert str(early.value) == str(late.value)


def test_the_command_line_answers_without_torch(tmp_path: Path) -> None:
    """All in one process, which cannot import torch: each is one line, and status 2."""
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "bare.py").write_text(WRONG["no card"][0])
    (tmp_path / "grid.toml").write_text('defenses = ["none"]\n[axes]\n"none.epochss" = [1, 2]\n')
    words = [
        *("run -d none --set none.epochss=3", "run -d none -a pgd --set pgd.steps=many", "run -d none.py:Mine"),
        *("run -d broken.py:Mine", "run -d bare.py:Mine", "train -d pssr --set pssr.condition=maks"),
        *("audit broken.py:Mine", "verdict none --set none.epochss=3", "run --grid grid.toml"),
        *("run -d pssr,none -a pgd,attack.py:Mine", "run -d pssr --set none.epochs=-1"),
        *("run -d none -a pgd --set pgd.steps=10000000000000", "run -d none --device gpu"),
        *("run -d none --secret xyz", "run -d none --precision float8"),
    ]
    code = (
        "import sys; sys.modules['torch'] = None; from benchbox.cli import main\n"
        f"for words in {words!r}: print(main(words.split()), flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.split() == ["2"] * len(words), done.stderr
    assert done.stderr.count("benchbox: error: ") == len(done.stderr.splitlines()) == len(words)
