"""Every attack on colour images of which some withstand: both norms, few and many classes, both memory layouts."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from benchbox.plugins.attacks import aa
from benchbox.plugins.attacks.aa import AA
from benchbox.plugins.attacks.apgd import APGDCE, APGDDLR, APGDT
from benchbox.plugins.attacks.bim import BIM
from benchbox.plugins.attacks.cw import CW
from benchbox.plugins.attacks.fab import FABT
from benchbox.plugins.attacks.fgsm import FGSM
from benchbox.plugins.attacks.mim import MIM
from benchbox.plugins.attacks.noise import Noise
from benchbox.plugins.attacks.null import Null
from benchbox.plugins.attacks.pgd import PGD
from benchbox.plugins.attacks.square import Square
from benchbox.plugins.attacks.torchattacks_bridge import Torchattacks
from torch import Tensor, nn

from benchbox import Attack, Draws, ThreatModel, View
from benchbox.draws import sample_draws
from benchbox.errors import AttackError, DefenseError

N = 8
BALLS = {"linf": ThreatModel("linf", 0.06), "l2": ThreatModel("l2", 0.5)}
BUILT_IN: list[Attack] = [
    Null(), Noise(draws=2), FGSM(), BIM(steps=3), MIM(steps=3), PGD(steps=3, restarts=2), CW(steps=3),
    Square(queries=60), APGDCE(steps=10, restarts=2), APGDDLR(steps=10), APGDT(steps=6, targets=3),
    FABT(steps=4, targets=3),
]  # fmt: skip
LEAST_CLASSES = {"apgd-dlr": 3, "apgd-t": 4}
FOREIGN: list[tuple[str, dict[str, Any], str]] = [
    ("PGD", {"steps": 2}, "linf"),
    ("DIFGSM", {"steps": 2}, "linf"),
    ("PGDL2", {"steps": 2}, "l2"),
    *((name, arguments, norm) for norm in BALLS for name, arguments in (
        ("FAB", {"steps": 3}), ("Square", {"n_queries": 30}), ("APGD", {"steps": 5}),
        ("JSMA", {"gamma": 0.02}), ("CW", {"steps": 3}), ("DeepFool", {"steps": 3}),
    )),
]  # fmt: skip


class Flat(nn.Module):
    """A network that flattens with `view`, as many do: it takes contiguous images only."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(192, 24), nn.ReLU(), nn.Linear(24, classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x.view(x.size(0), -1))
        return logits


class Conv(nn.Module):
    """A convolution first, for images in any layout."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(96, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


@cache
def problem(kind: type[nn.Module], classes: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A network, images, and labels: what it says, but for one image that it gets wrong."""
    with torch.random.fork_rng():
        torch.manual_seed(classes)
        net = kind(classes)
        x = torch.rand(N, 3, 8, 8) * 0.8 + 0.1
        y = torch.arange(N) % classes
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(net(x + 0.1 * torch.randn_like(x)), y).backward()
            optimizer.step()
    net.eval().requires_grad_(False)
    assert (net(x).argmax(1) == y).all()
    y[0] = (y[0] + 1) % classes
    return net, x, y


def attacked(attack: Attack, net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel) -> tuple[Tensor, Tensor]:
    """The images an attack returns (it checks ball and box itself), and which of them are classified correctly."""
    draws = sample_draws(len(y))
    crafted = attack(View(lambda x, _: net(x), y, draws, batch=5), x, y, threat, draws)
    return crafted.x, net(crafted.x.contiguous()).argmax(1) == y


def layouts(kind: type[nn.Module]) -> list[torch.memory_format]:
    return [torch.contiguous_format] if kind is Flat else [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("norm", BALLS)
@pytest.mark.parametrize("classes", [2, 4, 10, 100])
@pytest.mark.parametrize("attack", BUILT_IN, ids=lambda attack: attack.card.name)
def test_built_in_attacks(attack: Attack, classes: int, norm: str) -> None:
    for kind in (Flat, Conv):
        net, x, y = problem(kind, classes)
        for layout in layouts(kind):
            case = (attack, net, x.contiguous(memory_format=layout), y, BALLS[norm])
            if classes < LEAST_CLASSES.get(attack.card.name, 0):
                with pytest.raises(AttackError, match="classes"):
                    attacked(*case)
            else:
                assert not attacked(*case)[1][0]


CUT = {"apgd": {"steps": 4}, "fab": {"steps": 2}, "square": {"queries": 30}}


def cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoAttack's members with few steps."""
    for name, setting in CUT.items():
        original = getattr(aa, name)
        monkeypatch.setattr(aa, name, lambda *a, _f=original, _s=setting, **k: _f(*a, **k | _s))


@pytest.mark.parametrize("norm", BALLS)
@pytest.mark.parametrize("classes", [2, 3, 4, 10, 100])
def test_autoattack_with_survivors(classes: int, norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its members in turn, cut short."""
    net, x, y = problem(Conv, classes)
    small = BALLS[norm].scaled(1 / 4)
    cut_short(monkeypatch)
    stood = []
    for layout in layouts(Conv):
        found, right = attacked(AA(), net, x.contiguous(memory_format=layout), y, small)
        assert not right[0]
        assert torch.equal(found[right], x[right])
        stood.append(right)
    assert torch.equal(*stood)
    assert stood[0].any()


@pytest.mark.parametrize("classes", [2, 4, 10, 100])
@pytest.mark.parametrize(("name", "arguments", "norm"), FOREIGN)
def test_foreign_attacks(name: str, arguments: dict[str, Any], norm: str, classes: int) -> None:
    pytest.importorskip("torchattacks")
    for kind in (Flat, Conv):
        net, x, y = problem(kind, classes)
        for layout in layouts(kind):
            case = x.contiguous(memory_format=layout)
            attacked(Torchattacks(attack=name, arguments=arguments), net, case, y, BALLS[norm])


@pytest.mark.parametrize("attack", [AA(), Square(queries=30), FABT(steps=3), APGDT(steps=3), PGD(steps=3)])
def test_a_model_that_answers_in_bfloat16(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_short(monkeypatch)
    net, x, y = problem(Conv, 4)
    draws = sample_draws(3)
    low = Conv(4).to(torch.bfloat16).eval().requires_grad_(False)
    low.load_state_dict(net.state_dict())
    view = View(lambda x, _: low(x.to(torch.bfloat16)), y[:3], draws)
    assert attack(view, x[:3], y[:3], BALLS["linf"], draws).x.dtype == torch.float32


@pytest.mark.parametrize("attack", [*BUILT_IN, AA()], ids=lambda attack: attack.card.name)
def test_a_defence_is_told_whose_images_it_sees(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of the draws are those of the images, however many samples have left: an oracle depends on it."""
    cut_short(monkeypatch)
    net, x, y = problem(Conv, 10)
    threat, indices = BALLS["linf"].scaled(1 / 2), torch.tensor([40, 7, 13, 2, 99, 5, 61, 30])

    def forward(images: Tensor, draws: Draws) -> Tensor:
        distance, nearest = torch.cdist(images.flatten(1), x.flatten(1), p=torch.inf).min(1)
        near = distance < 0.1  # FAB looks for the boundary far outside the ball as well
        assert torch.equal(indices[nearest[near]], draws.indices[near])
        seen.append(int(near.sum()))
        logits: Tensor = net(images)
        return logits

    seen: list[int] = []
    draws = Draws(indices)
    view = View(forward, y, draws, batch=3)
    crafted = attack(view, x, y, threat, draws)
    assert view.partial == [0, 0]
    assert sum(seen) >= N or attack.card.name == "null"
    assert (crafted.forwards == crafted.forwards.round()).all()


def test_the_error_of_a_foreign_attack_is_one_line() -> None:
    torchattacks = pytest.importorskip("torchattacks")
    net, x, y = problem(Conv, 4)
    images = str(x.tolist())

    class Breaks(torchattacks.PGD):  # type: ignore[misc, name-defined]
        def forward(self, images: Tensor, labels: Tensor) -> Tensor:
            raise KeyError(f"\n{images.tolist()}")

    assert len(images) > 5000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchattacks, "PGD", type("PGD", (Breaks,), {"__module__": torchattacks.PGD.__module__}))
        with pytest.raises(AttackError, match=r"^torchattacks:PGD failed: KeyError.* …$") as error:
            attacked(Torchattacks(attack="PGD"), net, x, y, BALLS["linf"])
    assert len(str(error.value)) < 250


def test_what_the_network_raises_is_not_blamed_on_the_attack() -> None:
    pytest.importorskip("torchattacks")
    _, x, y = problem(Conv, 4)

    def broken(x: Tensor, _: Draws) -> Tensor:
        raise DefenseError("the network's own")  # as the border around a defence says it

    draws = sample_draws(N)
    with pytest.raises(DefenseError, match=r"^the network's own$"):
        Torchattacks(attack="PGD")(View(broken, y, draws), x, y, BALLS["linf"], draws)
