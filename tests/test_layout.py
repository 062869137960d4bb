"""Memory layout is measured and never imposed: code of others sees contiguous images, colour ones too."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchbox import Batch, Card, Defense, Losses, Recipe, ThreatModel
from benchbox.contract import registry
from benchbox.data.dataset import Images
from benchbox.domain import ImageSpec
from benchbox.draws import Draws, sample_draws
from benchbox.engine.judge import Judge, Streams
from benchbox.engine.plan import Plan, Request
from benchbox.engine.session import Session, Settings
from benchbox.store import Store
from benchbox.training import layout, loop
from benchbox.training.layout import Layout, hand_over, lay, measure

ATTACKS = registry.attacks()
QUICK = {
    "pgd": {"steps": 3},
    "bim": {"steps": 3},
    "mim": {"steps": 3},
    "noise": {"draws": 3},
    "square": {"queries": 20},
}
CHANNELS_LAST = Layout(channels_last=True, batch=4)


class Viewing(nn.Module):
    """The classic forward pass that flattens by `view`, which raises on channels-last features."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.fc = nn.Linear(6 * 8 * 8, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().view(x.size(0), -1))


class Flattening(Viewing):
    """The same network, indifferent to layout; it insists that its images come channels-last."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.is_contiguous(memory_format=torch.channels_last)
        return self.fc(self.conv(x).relu().flatten(1))


class Plain(Defense):
    card = Card("plain", "a network")

    def losses(self, batch: Batch) -> Losses:
        assert batch.x.is_contiguous()
        return {"classifier": {"ce": nn.functional.cross_entropy(self.classifier(batch.x), batch.y)}}


def plain(net: type[Viewing], classes: int = 4) -> Plain:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        defense = Plain(Recipe(), ImageSpec(3, 8, classes))
        defense.classifier = net(classes)
    return defense.eval().requires_grad_(False)


def colour(n: int) -> Tensor:
    return sample_draws(n, 5).uniform(3, 8, 8)


def test_images_are_handed_over_as_copies_and_their_gradient_comes_back_contiguous():
    x = colour(3)
    for last in (False, True):
        leaf = x.clone().requires_grad_()
        given = hand_over(leaf, last)
        assert given.is_contiguous(memory_format=torch.channels_last) == last
        given.mul_(2).sub_(1)  # in place, as some networks normalise
        given.to(memory_format=torch.channels_last).square().sum().backward()
        assert torch.equal(leaf, x)
        assert leaf.grad is not None
        assert leaf.grad.is_contiguous()
        assert torch.allclose(leaf.grad, 4 * (2 * x - 1))


def test_a_layout_in_which_a_network_raises_is_not_used():
    defense = plain(Viewing)
    assert not measure(defense, defense, colour(8), sample_draws(8), images=10**4).channels_last
    assert defense(colour(4)).shape == (4, 4)


def test_a_layout_that_says_something_else_is_not_used():
    def fickle(x: Tensor, draws: Draws) -> Tensor:
        return x.mean((2, 3)) * (-1 if x.is_contiguous(memory_format=torch.channels_last) else 1)

    assert not measure(nn.Conv2d(3, 3, 1), fickle, colour(8), sample_draws(8), images=10**6).channels_last


@pytest.mark.parametrize(("slow", "expected"), [(False, True), (True, False)])
def test_the_faster_layout_and_batch_size_are_found(monkeypatch, slow, expected):
    def timed(forward, x, draws, last):
        return len(x) * (2.0 if last is slow else 1.0) * (0.5 if len(x) == 60 else 1.0)

    monkeypatch.setattr(layout, "_seconds", timed)
    defense = plain(Viewing)
    defense.classifier.forward = lambda x: defense.classifier.fc(defense.classifier.conv(x).flatten(1))
    assert measure(defense, defense, colour(8), sample_draws(8), images=10**4) == Layout(expected, 60)
    assert defense.classifier.conv.weight.is_contiguous() != expected
    # Little to attack leaves no time to look for a better batch; one that was asked for is not looked for at all.
    assert measure(defense, defense, colour(8), sample_draws(8), images=50).batch == 125
    assert measure(defense, defense, colour(8), sample_draws(8), images=10**4, batch=7).batch == 7


def test_a_layout_survives_its_json_form():
    assert Layout.from_dict(CHANNELS_LAST.as_dict()) == CHANNELS_LAST
    assert Layout.from_dict(None) is None
    assert Layout.from_dict({"batch": 3}) is None
    assert Layout.from_dict({"channels_last": True, "batch": 3}) == Layout(
        True, 3
    )  # before threads were looked for
    assert Layout.from_dict(Layout(False, 3, 2).as_dict()) == Layout(False, 3, 2)
    timed = Layout.from_dict(Layout(False, 3, 2, 0.5).as_dict())
    assert timed is not None
    assert timed.seconds == 0.5


@pytest.fixture
def eight_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("fastest", [8, 4, 2, 1])
@pytest.mark.usefixtures("eight_threads")
def test_as_many_threads_as_are_fastest(monkeypatch, fastest):
    monkeypatch.setattr(layout, "_seconds", lambda *_: 1.0 + abs(torch.get_num_threads() - fastest))
    found = measure(plain(Viewing), lambda x, _: x.mean((2, 3)), colour(8), sample_draws(8), images=10**4)
    assert found.threads == (None if fastest == 8 else fastest)
    assert torch.get_num_threads() == 8
    with found.on_threads():
        assert torch.get_num_threads() == fastest
    assert torch.get_num_threads() == 8
    with Layout(threads=64).on_threads():
        assert torch.get_num_threads() == 8, "a process keeps to its share"


@pytest.mark.usefixtures("eight_threads")
def test_fewer_threads_have_to_be_clearly_faster(monkeypatch):
    monkeypatch.setattr(layout, "_seconds", lambda *_: 1.0 + 0.01 * torch.get_num_threads())
    found = measure(plain(Viewing), lambda x, _: x.mean((2, 3)), colour(8), sample_draws(8), images=10**4)
    assert found.threads is None


@pytest.mark.parametrize(("norm", "classes"), list(itertools.product(("linf", "l2"), (2, 4, 10, 100))))
@pytest.mark.parametrize("name", ["pgd", "cw", "square"])
def test_a_judge_lets_attacks_run_on_colour_images_that_withstand_them(name, norm, classes):
    threat, x = ThreatModel(norm, 1e-4), colour(6)
    attack = ATTACKS.get(name).cls(**QUICK.get(name, {}))
    for net, how in ((Viewing, Layout(batch=4)), (Flattening, CHANNELS_LAST)):
        defense = plain(net, classes)
        lay(defense, how.channels_last)
        judge, streams = Judge(defense, how), Streams(range(6), 0, torch.device("cpu"))
        y = judge.score(x, streams.clean, 1)[:, 0]
        crafted = attack(judge.view(y, streams.attacked(name)), x, y, threat, streams.crafting(name))
        assert crafted.x.is_contiguous()
        survived = judge.score(crafted.x, streams.adversarial, 1)[:, 0] == y
        assert survived.float().mean() >= 0.5, "nobody withstood, so nothing was shown"


@pytest.mark.parametrize("net", [Viewing, Flattening])
def test_a_network_is_trained_in_a_layout_it_stands(net):
    defense = plain(Viewing).requires_grad_(True)
    if net is Flattening:
        defense.classifier.forward = lambda x: defense.classifier.fc(defense.classifier.conv(x).flatten(1))
    images = Images((colour(16) * 255).to(torch.uint8), torch.arange(16) % 4)
    history = loop.fit(
        defense, Recipe(epochs=2, batch_size=8), images,
        threat=ThreatModel("linf", 0.1), seed=0, device=torch.device("cpu"),
    )  # fmt: skip
    assert len(history) == 2
    assert defense.classifier.conv.weight.is_contiguous() == (net is Viewing)


NETWORK = """
import torch
from torch import nn
class network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.fc = nn.Linear(384, 4)
    def forward(self, x):
        assert x.is_contiguous()
        return self.fc(self.conv(x).relu().view(x.size(0), -1))
"""


class Quiet:
    def __getattr__(self, name):
        return lambda *_: None


def colour_run(folder: Path) -> tuple[Session, Plan]:
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 12), ("test", 6)):
        arrays[f"x_{part}"] = rng.integers(0, 256, (n, 8, 8, 3)).astype("uint8")
        arrays[f"y_{part}"] = np.arange(n) % 4
    np.savez(folder / "rgb.npz", **arrays)
    (folder / "model.py").write_text(NETWORK)
    torch.save(Viewing(4).state_dict(), folder / "w.pt")
    settings = Settings(artifacts=folder / "artifacts", data_dir=folder, device="cpu")
    session = Session(registry.defenses(folder), ATTACKS, settings)
    request = Request(
        defenses=("model.py:network",), datasets=("rgb",), attacks=("pgd", "square", "cw"), epsilon=1 / 255,
        overrides={"model.py:network": {"weights": str(folder / "w.pt")}, "square": {"queries": 20}},
    )  # fmt: skip
    return session, session.plan(request)


def key(plan: Plan) -> str:
    return f"layout {plan.cells[0].artifact}, cpu, {torch.get_num_threads()} threads, torch {torch.__version__}"


def test_a_run_on_colour_images_finishes_whatever_the_network_does_with_its_layout(tmp_path: Path):
    session, plan = colour_run(tmp_path)
    with Store.open(tmp_path / "s.sqlite") as store:
        report = session.run(plan, store, Quiet())
        assert not report.failed
        assert report.done == 3
        assert Layout.from_dict(store.recall(key(plan))) == Layout(False, 125)


@pytest.mark.usefixtures("eight_threads")
def test_a_run_crafts_and_scores_on_the_threads_that_are_fastest(tmp_path: Path, monkeypatch):
    session, plan = colour_run(tmp_path)
    seen: dict[str, set[int]] = {"search": set(), "outcome": set()}

    def noting(cls: type[Any], name: str) -> None:
        call = getattr(cls, name)
        monkeypatch.setattr(cls, name, lambda *words: (seen[name].add(torch.get_num_threads()), call(*words))[1])

    noting(ATTACKS.get("pgd").cls, "search")
    noting(Judge, "outcome")
    with Store.open(tmp_path / "s.sqlite") as store:
        store.remember(key(plan), Layout(threads=2).as_dict())
        assert session.run(plan, store, Quiet()).done == 3
    assert seen == {"search": {2}, "outcome": {2}}
    assert torch.get_num_threads() == 8
