"""The file of a stranger under `--isolate`: executed in processes of its own, from its first line to its last."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from checkpoints import settle
from commands import Said

import benchbox
from benchbox import DefenseError, RequestError
from benchbox.contract import home, registry
from benchbox.contract.registry import Registry
from benchbox.domain import ImageSpec
from benchbox.engine.isolation import strangers
from benchbox.engine.isolation.declaration import Declaration
from benchbox.engine.plan import Plan, Request
from benchbox.engine.session import Session, Settings

#: Whatever is executed of it leaves the number of its process, and whether that is benchbox's own.
TELLTALE = '''
import os, sys
from benchbox import Card, Defense, Purifier, Recipe, stand_in
import torch
import beside

def told(what):
    with open(os.path.join(os.path.dirname(__file__), "trace"), "a") as file:
        file.write(f"{what} {os.getpid()} {'benchbox.store' in sys.modules}\\n")
    return True

class Meta(type(Defense)):
    def __init__(cls, *rest):
        told("metaclass")
        super().__init__(*rest)

class Mine(Recipe):
    forward_only = ("blur",)
    attack_step_size: float = 0.05 * told("default")
    blur: float = 0.5
    sizes: tuple[int, ...] = (1, 2)

    def identity(self):
        told("identity")
        return super().identity()

class Sub(Purifier[Mine], metaclass=Meta):
    """Of a stranger."""
    card = Card("sub", "a stranger's", bibtex="@misc{s}")
    randomized = told("class")
    recipes = {"mnist": {"blur": 0.25}}

    def __init__(self, *rest):
        told("build")
        super().__init__(*rest)
        self.scale = torch.nn.Parameter(torch.tensor(0.2))

    @classmethod
    def is_randomized(cls, arguments):
        told("is_randomized")
        return arguments["blur"] > 0

    def purify(self, x, draws):
        told("purify")
        return (x + self.scale * draws.normal(*x.shape[1:])).clamp(0, 1)

    @stand_in("soft", "another one")
    def soft(self, x, draws):
        return self(x, draws)

    def losses(self, batch):
        told("losses")
        return {"purifier": {"none": self.scale * 0}}

class Own(Defense):
    """Trained where nobody is."""
    card = Card("own", "a stranger's network")

    def __init__(self, recipe, images, classifier=None):
        told("build")
        super().__init__(recipe, images, net())

    def losses(self, batch):
        told("losses")
        return {"classifier": {"loss": self(batch.x).square().mean()}}

def net():
    told("factory")
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))

def open_net():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
'''


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    settle(tmp_path, monkeypatch)
    (tmp_path / "defenses").mkdir()
    (tmp_path / "defenses" / "sub.py").write_text(TELLTALE)
    (tmp_path / "defenses" / "beside.py").write_text("from benchbox import Card\n")
    return tmp_path


def plans(folder: Path, defenses: Registry[benchbox.Defense]) -> list[Plan]:
    session = Session(defenses, registry.attacks(folder), Settings(str(folder / "r.sqlite"), folder / "artifacts"))
    given = {"defenses/sub.py:open_net": {"weights": "net.safetensors"}}
    trained = {"sub": {"epochs": 1, "training_epsilon": 0.1, "blur": 0.125, "sizes": (3, 4)}}
    return [
        session.plan(Request(dataset="tiny", samples=4, defenses=(name,), attacks=("pgd",), overrides=own))
        for name, own in (
            ("sub", trained),
            ("defenses/sub.py:Sub", {}),
            ("defenses/sub.py:net", {}),
            ("defenses/sub.py:open_net", given),
        )
    ]


def traced(folder: Path) -> dict[str, set[int]]:
    """Which processes executed what."""
    found: dict[str, set[int]] = {}
    for line in (folder / "defenses" / "trace").read_text().splitlines():
        what, pid, _ = line.split()
        found.setdefault(what, set()).add(int(pid))
    return found


def test_it_is_planned_as_it_is_here_without_a_line_of_it_in_this_process(workspace: Path) -> None:
    there = plans(workspace, strangers.defenses(workspace, isolate=True))
    seen = traced(workspace)
    assert {"class", "metaclass", "default", "identity", "is_randomized", "factory"} <= seen.keys()
    assert os.getpid() not in set().union(*seen.values())
    here = plans(workspace, strangers.defenses(workspace))
    assert os.getpid() in traced(workspace)["class"]
    for one, other in zip(there, here, strict=True):
        assert [cell.key for cell in one.cells] == [cell.key for cell in other.cells]
        assert one.trainings.keys() == other.trainings.keys()
        assert [t.weights for t in one.trainings.values()] == [t.weights for t in other.trainings.values()]
    assert any(cell.view.stand_in == "soft" for cell in there[0].cells)


def test_a_run_that_is_foretold_builds_it_elsewhere(workspace: Path, said: Said) -> None:
    asked = ["--defense", "own", "--attacks", "fgsm", "--access", "white-box", "--samples", "4"]
    status, out, err = said("run", *asked, "--dataset", "tiny", "--isolate", "--dry-run")
    assert status == 0, err
    assert "by their passes and one timed pass" in out
    seen = traced(workspace)
    assert {"build", "factory"} <= seen.keys()
    assert os.getpid() not in set().union(*seen.values())
    assert " True" not in (workspace / "defenses" / "trace").read_text()


def test_what_it_does_wrong_is_one_line(workspace: Path) -> None:
    (workspace / "bad.py").write_text("import os\nos._exit(3)\n")
    (workspace / "worse.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    (workspace / "odd.py").write_text(
        "from benchbox import Card, Defense\nclass Odd(Defense):\n"
        "    card, version = Card('odd', 'odd'), [1]\n    def losses(self, batch): return {}\n"
    )
    found = strangers.defenses(workspace, isolate=True)
    with pytest.raises(RequestError, match=r"bad\.py, line 2: it ends the program"):
        found.get("bad.py:X")
    with pytest.raises(DefenseError, match=r"worse\.py: its process ended while it was asked"):
        found.get("worse.py:X")
    with pytest.raises(RequestError, match=r"odd\.py:Odd declares version"):
        found.get("odd.py:Odd")
    with pytest.raises(RequestError, match="did you mean blur"):
        found.get("sub").cls.configure(blurr=1)
    with pytest.raises(RequestError, match="gone"):
        found.get("gone.py:X")
    cls = found.get("sub").cls
    with pytest.raises(DefenseError, match=r"defence sub.*KeyError"):
        cls.is_randomized({})
    with pytest.raises(AssertionError, match="not built in this process"):
        cls(cls.configure(), ImageSpec(1, 28, 10, (0.5,), (0.2,)))


def test_it_cannot_say_that_its_code_is_anothers(workspace: Path) -> None:
    own, other = workspace / "own.py", workspace / "model.py"
    own.write_text("import model\n")
    said = Declaration.model_construct(files=[str(other), "relative.py", "/nowhere"])
    both = home.digest(own, [own, other])
    assert strangers._code(own, said) == strangers._code(own, Declaration.model_construct(files=[])) == both
    assert both != home.digest(other, [other])


def test_what_benchbox_says_of_its_own_is_read_and_nothing_of_a_strangers(workspace: Path) -> None:
    found = strangers.defenses(workspace, isolate=True)
    found.read_files()
    assert found.read("defenses/sub.py:Sub") is None
    assert found.read("pssr") is not None
