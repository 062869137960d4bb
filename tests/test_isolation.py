"""A defence in a process of its own: the same outcomes, another place, and one line when that process ends."""

from __future__ import annotations

import os
from multiprocessing import Pipe
from pathlib import Path

import pytest
import torch
from checkpoints import settle
from commands import Said
from test_workers import decided
from torch import Tensor, nn

import benchbox
from benchbox import DefenseError, RequestError, Trail
from benchbox.audit.probes import binarisation
from benchbox.audit.probes.behaviour import _state
from benchbox.audit.probes.measurements import Effort
from benchbox.audit.probes.search import Target
from benchbox.contract import registry
from benchbox.contract.ascent import margin
from benchbox.domain import ImageSpec, Spec, ThreatModel
from benchbox.draws import sample_draws, stack
from benchbox.engine.isolation import apart, wire
from benchbox.engine.judge import Judge
from benchbox.store import Store
from benchbox.training.artifacts import Artifacts, Training
from benchbox.training.layout import Layout

PLUGIN = '''
import os, sys
import torch
from benchbox import Card, DecidingPurifier, Defense, Purifier, Recipe, StepwisePurifier, stand_in

class Noisy(Purifier):
    """Adds noise as its draws say, and rounds it."""
    card = Card("noisy", "noise and rounding")
    randomized = True

    def __init__(self, recipe, images, classifier=None):
        super().__init__(recipe, images, classifier)
        self.scale = torch.nn.Parameter(torch.tensor(0.2))

    def purify(self, x, draws):
        return (x + self.scale * draws.normal(*x.shape[1:])).clamp(0, 1)

    def losses(self, batch):
        return {"purifier": {"none": self.scale * 0}}

class Spy(Defense):
    """Says in its logits what it can see."""
    card = Card("spy", "tells where it is")

    def __init__(self, recipe, images, classifier=None):
        super().__init__(recipe, images, torch.nn.Flatten())
        self.asked = 0

    def forward(self, x, draws=None):
        self.asked += 1
        here = [float(os.getpid()), float(len(os.listdir("."))), float("BENCHBOX_DATA" in os.environ),
                float("conftest" in sys.modules), float(self.asked),
                float(torch.is_grad_enabled()), float(x.requires_grad)]
        return x.flatten(1)[:, :10] + torch.tensor([*here, 0.0, 0.0, 0.0])

    def losses(self, batch):
        return {}

class Stepping(StepwisePurifier):
    """Works in three steps."""
    card = Card("stepping", "three steps")
    base = None
    length = 3

    def __init__(self, recipe, images, classifier=None):
        super().__init__(recipe, images, torch.nn.Flatten())

    def step(self, i, state, x, draws):
        return state + 0.1 * torch.tanh((i + 1) * state)

    def forward(self, x, draws=None):
        return super().forward(x, draws)[:, :10]

    def trail(self, x, draws):
        found = super().trail(x, draws)
        return type(found)(found.logits[:, :10], found.states, found.faithful)

    def losses(self, batch):
        return {}

class Deciding(DecidingPurifier):
    """Blackens what is bright, and classifies by a small network."""
    card = Card("deciding", "a threshold")
    base = None

    def __init__(self, recipe, images, classifier=None):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 24), torch.nn.Tanh(),
                                      torch.nn.Linear(24, 10))
        super().__init__(recipe, images, net)

    def purify(self, x, draws):
        return x * (x < 0.8)

    def margins(self, x, draws):
        return (x - 0.8).flatten(1)

    def losses(self, batch):
        return {}

MET = []

class Remembering(Spy):
    """Says how often anybody was asked in its process, and in which."""
    def forward(self, x, draws=None):
        MET.append(x)
        return x.flatten(1)[:, :10] + torch.tensor([float(os.getpid()), float(len(MET))] + [0.0] * 8)

class Noting(Spy):
    """Writes a file whenever it is asked."""
    def forward(self, x, draws=None):
        with open("note", "a") as file:
            file.write("asked")
        return x.flatten(1)[:, :10]

class Mortal(Spy):
    """Ends its process when it is asked for the third time."""
    def forward(self, x, draws=None):
        self.asked += 1
        if self.asked == 3:
            os.kill(os.getpid(), 9)
        return x.flatten(1)[:, :10]

class Leaving(Spy):
    """Is terminated at once."""
    def forward(self, x, draws=None):
        os.kill(os.getpid(), 15)
        return x.flatten(1)[:, :10]

class Wrong(Spy):
    """Fails, or has no gradient."""
    def forward(self, x, draws=None):
        if len(x) == 5:
            return [][0]
        return x.detach().flatten(1)[:, :10] if len(x) == 4 else x.flatten(1)[:, :10]
'''
TINY = ImageSpec(1, 4, 10, (0.5,), (0.2,))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    settle(tmp_path, monkeypatch)
    (tmp_path / "strange.py").write_text(PLUGIN)
    return tmp_path


def judged(folder: Path, cls: str, *, isolate: bool = True) -> Judge:
    """A defence that needs no training, behind a judge."""
    defenses, name = registry.defenses(folder, local=False), f"strange.py:{cls}"
    wanted = Training(Spec(name, {}, "file"), "tiny", "", 0, ThreatModel("linf", 0.1))
    kept = Artifacts(folder / "weights")
    here = defenses.get(name).cls(benchbox.Recipe(), TINY).eval().requires_grad_(False)
    kept.save(wanted, here, {})
    defense = apart.Apart(TINY, kept, defenses, torch.device("cpu")).load(wanted) if isolate else here
    return Judge(defense, Layout())


def asked(folder: Path, **more) -> dict:
    store = folder / f"{len(list(folder.glob('*.sqlite')))}.sqlite"
    words = {"dataset": "tiny", "samples": 6, "access": ["white-box", "bpda"], "attacks": ["pgd", "noise"]}
    settings = {
        "none": {"epochs": 1},
        "strange.py:Noisy": {"epochs": 1},
        "pgd": {"steps": 4},
        "noise": {"draws": 3},
    }
    drawn = {"eot": 2, "scoring_draws": 3, "secret": "5ec2e7", "batch_size": 4, "device": "cpu", "progress": False}
    benchbox.evaluate("strange.py:Noisy", store=store, set=settings, **words, **drawn, **more)
    with Store.open(store) as opened:
        return decided(opened), {bool(e.provenance.get("isolated")) for e in opened.evidence()}


def test_outcomes_are_those_without_isolation_sample_by_sample(workspace: Path) -> None:
    (apart_, said), (here, silent) = asked(workspace, isolate=True), asked(workspace)
    assert (said, silent) == ({True}, {False})
    assert apart_.keys() == here.keys()
    assert len(here) >= 3
    for key, outcome in here.items():
        for name, values in outcome.items():
            assert (apart_[key][name] == values).all(), (key, name)


def test_it_sees_neither_process_nor_folder_nor_environment_nor_who_asks(workspace: Path) -> None:
    judge, x = judged(workspace, "Spy"), torch.zeros(2, 1, 4, 4)
    said = judge.ask(x, sample_draws(2))[0].tolist()
    assert said[0] != os.getpid()
    assert said[1:4] == [0, 0, 0]  # an empty folder, no path to the data, none of our modules
    assert said[5:7] == [1, 1]  # whoever asks, in the mode that every question has
    assert judge.without_gradient(x, sample_draws(2))[0].tolist()[5:7] == [0, 0]


def test_the_steps_of_a_purifier_go_through_with_their_gradient(workspace: Path) -> None:
    x, y = sample_draws(3).uniform(1, 4, 4), torch.tensor([1, 2, 3])

    def loss(trail: Trail) -> Tensor:
        return margin(trail.logits, y) + (trail.states - trail.faithful).square().flatten(1).sum(1)

    found = []
    for isolate in (True, False):
        judge = judged(workspace, "Stepping", isolate=isolate)
        trail = judge.walk()(x, sample_draws(3))
        assert trail.states.shape == (3, 3, 1, 4, 4)
        found.append((*judge.view(y, sample_draws(3)).along(x, loss), trail.states))
    for there, here in zip(*found, strict=True):
        torch.testing.assert_close(there, here)
    assert float(found[0][0].abs().sum()) > 0


def test_margins_and_features_go_through_with_their_gradient(workspace: Path) -> None:
    x, y = sample_draws(6).uniform(1, 4, 4), torch.tensor([1, 2, 3, 4, 5, 6])
    margins, planted = [], []
    for isolate in (True, False):
        judge = judged(workspace, "Deciding", isolate=isolate)
        view = judge.view(y, sample_draws(6))
        margins.append(view.along(x, lambda trail: margin(trail.logits, y) + trail.margins.square().sum(1)))
        effort = Effort(steps=10, restarts=1, binarisation=6)
        target = Target(judge, x, y, sample_draws(6), ThreatModel("linf", 0.1), effort)
        planted.append([binarisation.test(target, through) for through in ("deployed", "identity")])
    for there, here in zip(*margins, strict=True):
        torch.testing.assert_close(there, here)
    assert planted[0] == planted[1]
    assert planted[0][0].samples > 0


def test_a_fork_of_its_process_remembers_what_was_and_shares_nothing_that_comes(workspace: Path) -> None:
    defense, x = judged(workspace, "Remembering").defense, torch.zeros(1, 1, 4, 4)
    defense(x, sample_draws(1))
    branch = defense.branched()
    said = [one(x, sample_draws(1))[0, :2].tolist() for one in (branch, branch, defense)]
    assert [count for _, count in said] == [2, 3, 2]
    assert said[0][0] == said[1][0] != said[2][0] == defense.process.pid
    defense.set_threads(1)
    assert defense.set_threads(1) == 1


def test_what_it_asks_its_process_for_is_heard(workspace: Path) -> None:
    judge = judged(workspace, "Noting")
    assert judge.defense.heard() == frozenset()
    judge.ask(torch.zeros(2, 1, 4, 4), sample_draws(2))
    assert judge.defense.heard() == {"writes a file"}


def test_gradients_stand_ins_layouts_and_copies_go_through(workspace: Path) -> None:
    there, here = judged(workspace, "Wrong"), judged(workspace, "Wrong", isolate=False)
    x, draws = sample_draws(3).uniform(1, 4, 4), stack([sample_draws(3, 1), sample_draws(3, 2)])
    for judge in (there, here):
        judge.layout = Layout(channels_last=True)
    y = torch.tensor([1, 2, 3])
    found = [
        judge.view(y, sample_draws(3)).gradient(x, lambda logits: margin(logits, y)) for judge in (there, here)
    ]
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(there.ask(x.repeat(2, 1, 1, 1), draws), here.ask(x.repeat(2, 1, 1, 1), draws))
    assert torch.equal(there.defense.classifier(x), x.flatten(1))
    assert _state(there.defense) == _state(here.defense)
    assert there.defense.is_dynamic(x, sample_draws(3)) is False


def test_a_copy_has_a_life_of_its_own(workspace: Path) -> None:
    import copy

    judge, x = judged(workspace, "Spy"), torch.zeros(1, 1, 4, 4)
    judge.ask(x, sample_draws(1))
    twin = copy.deepcopy(judge.defense)
    said = [float(defense(x, sample_draws(1))[0, 4]) for defense in (twin, twin, judge.defense)]
    assert said == [2, 3, 2]


def test_what_it_does_wrong_is_told_as_it_is_here(workspace: Path) -> None:
    for judge in (judged(workspace, "Wrong"), judged(workspace, "Wrong", isolate=False)):
        with pytest.raises(
            DefenseError, match=r"defence spy, .*strange.py, line \d+: IndexError: .*; mend its code"
        ):
            judge.score(torch.zeros(5, 1, 4, 4), sample_draws(5), 1)
        x = torch.zeros(4, 1, 4, 4, requires_grad=True)
        with pytest.raises(RuntimeError, match="does not require grad"):
            judge.ask(x, sample_draws(4)).sum().backward()


@pytest.mark.parametrize(
    ("cls", "calls", "why"), [("Mortal", 3, "was killed by SIGKILL"), ("Leaving", 1, "was killed by SIGTERM")]
)
def test_a_process_that_ends_is_one_line(workspace: Path, cls: str, calls: int, why: str) -> None:
    judge, x = judged(workspace, cls), torch.zeros(1, 1, 4, 4)
    for _ in range(calls - 1):
        judge.ask(x, sample_draws(1))
    for _ in range(2):  # whoever asks again is told the same
        with pytest.raises(
            DefenseError, match=f"^defence strange.py:{cls}: its process .*{why}.*; mend its code$"
        ):
            judge.ask(x, sample_draws(1))


def test_two_names_of_one_tensor_are_said_like_any_other() -> None:
    ours, theirs = Pipe()
    both = torch.arange(6.0).view(2, 3)
    wire.send(ours, {}, {"logits": both, "states": both, "margins": both[1:]})
    heard = wire.receive(theirs).tensors
    assert {name: one.tolist() for name, one in heard.items()} == {
        "logits": both.tolist(), "states": both.tolist(), "margins": [[3, 4, 5]],
    }  # fmt: skip


def test_nothing_is_left_behind(workspace: Path) -> None:
    judge = judged(workspace, "Spy")
    process = judge.defense.process
    child, folder = process._child, Path(process._end.peek()[2][2])
    assert folder.exists()
    del judge, process
    import gc

    gc.collect()
    assert child.poll() is not None
    assert not folder.exists()


def test_graphs_are_dropped_with_whoever_may_differentiate_them(workspace: Path) -> None:
    judge, x = judged(workspace, "Spy"), torch.zeros(1, 1, 4, 4, requires_grad=True)
    for _ in range(3):
        judge.ask(x, sample_draws(1)).sum().backward()
    assert len(judge.defense.process._forgotten) == 1  # the others were told with the questions that followed


def test_an_object_cannot_be_isolated(workspace: Path) -> None:
    with pytest.raises(RequestError, match="exists in this process alone and cannot be isolated"):
        benchbox.evaluate(
            nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), dataset="tiny", attacks="noise", isolate=True
        )


def test_the_command_line_says_in_one_line_that_a_process_ended(said: Said, workspace: Path) -> None:
    asked = ["-d", "strange.py:Mortal", "--dataset", "tiny", "-a", "noise", "--samples", "4", "--isolate", "-q"]
    _, _, err = said("run", *asked, "--set", "strange.py:Mortal.epochs=0")
    assert "strange.py:Mortal: its process was killed by SIGKILL" in err
    assert "Traceback" not in err


def test_the_order_in_which_parameters_come_back_is_no_change_of_them() -> None:
    class Shuffled(nn.Linear):
        turn = False

        def state_dict(self, *rest, **words):
            found = super().state_dict(*rest, **words)
            self.turn = not self.turn
            return dict(sorted(found.items(), reverse=self.turn))

    network = Shuffled(2, 2)
    assert [*network.state_dict()] != [*network.state_dict()]
    assert len({_state(network) for _ in range(3)}) == 1
