"""Every registered plug-in keeps its contract, and the kit that says so notices when one does not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import digits
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbox import (
    Attack,
    Batch,
    Card,
    Classifier,
    Defense,
    Draws,
    ImageSpec,
    Losses,
    Pretrained,
    Purifier,
    ThreatModel,
    View,
    stand_in,
    straight_through,
    testing,
)
from benchbox.contract import registry
from benchbox.data.catalogue import KNOWN
from benchbox.data.dataset import Dataset, Images, load
from benchbox.errors import AttackError, DefenseError, RequestError

BALL = ThreatModel("linf", 0.1)
NOWHERE = Path("/nonexistent")  # the built-ins, whatever lies in the current folder
DEFENSES, ATTACKS = registry.defenses(NOWHERE), registry.attacks(NOWHERE)
TRAINED = [name for name in DEFENSES.names() if not issubclass(DEFENSES.get(name).cls, Pretrained)]
# What shortens a plug-in, wherever it has such a field.
QUICK_DEFENSE = {"epochs": 2, "batch_size": 40, "attack_steps": 2, "width": 8, "steps": 4}
# Which library a plug-in needs beside benchbox's own.
NEEDS = dict.fromkeys(("diffpure", "diffpure:ode", "gdmp"), "diffusers")
QUICK_ATTACK = {"steps": 4, "iterations": 2, "queries": 15, "draws": 3, "restarts": 1}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def images(dataset: Dataset) -> Images:
    return dataset.train.rows(slice(200))


@pytest.fixture(scope="module")
def base(dataset: Dataset) -> nn.Module:
    """The undefended classifier after a few epochs: what the purifiers build on."""
    cls = DEFENSES.get("none").cls
    recipe = cls.configure("mnist", "digits", epochs=6)
    some = dataset.train.rows(slice(400))
    return testing.check_training(cls, recipe, some, dataset.spec, threat=BALL).classifier


@pytest.mark.parametrize("name", TRAINED)
def test_every_defense_keeps_its_contract(name: str, dataset: Dataset, images: Images, base: nn.Module) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    cls = DEFENSES.get(name).cls
    quick = {k: v for k, v in QUICK_DEFENSE.items() if k in cls.recipe_type.model_fields}
    recipe = cls.configure("mnist", "digits", **quick)
    classifier = base if cls.base else None
    testing.check_defense(cls, recipe, images, dataset.spec, threat=BALL, classifier=classifier)


@pytest.mark.parametrize("name", DEFENSES.names())
@pytest.mark.parametrize("data", ["mnist", "digits", "cifar10", "cifar100"])
def test_every_recipe_fits(name: str, data: str) -> None:
    cls = DEFENSES.get(name).cls
    assert isinstance(cls.configure(KNOWN[data].family, data), cls.recipe_type)


BALLS = {"linf": BALL, "l2": ThreatModel("l2", 0.5), "l1": ThreatModel("l1", 4.0)}
CASES = [
    # AutoAttack cannot be shortened: most of a minute each.
    pytest.param(name, norm, marks=pytest.mark.slow if name == "aa" else ())
    for name in ATTACKS.names()
    for norm in BALLS
    if norm in ATTACKS.get("torchattacks:PGD" if name == "torchattacks" else name).cls.balls
    # The library's L2 attacks divide by zero where epsilon is 0; benchbox turns that into an error.
    if (name, norm) != ("torchattacks", "l2")
]


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_every_attack_keeps_its_contract(name: str, norm: str) -> None:
    plugin = ATTACKS.get("torchattacks:PGD" if name == "torchattacks" else name)
    known = plugin.cls.__dataclass_fields__
    attack = plugin.cls.configure(**plugin.preset, **{k: v for k, v in QUICK_ATTACK.items() if k in known})
    x, y, _ = digits.held_out(4 if name == "aa" else 20)
    # That library draws for the batch as a whole.
    testing.check_attack(attack, digits.classifier(), x, y, BALLS[norm], per_sample=name != "torchattacks")


class Plain(Classifier):
    """A linear classifier that keeps its contract; the broken ones below break one promise each."""

    card = Card("plain", "a linear classifier")

    def __init__(self, recipe: Any, images: ImageSpec, classifier: nn.Module | None = None) -> None:
        Defense.__init__(self, recipe, images)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(images.size**2, images.classes))

    def losses(self, batch: Batch) -> Losses:
        return {"classifier": {"ce": F.cross_entropy(self.classifier(batch.x), batch.y)}}


class SeesTheBatch(Plain):
    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        logits: Tensor = self.classifier(x - x.mean(0))
        return logits


class HiddenDice(Plain):
    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        logits: Tensor = self.classifier(x)
        return logits + torch.randn_like(logits)


class UndeclaredDice(Plain):
    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        assert draws is not None
        logits: Tensor = self.classifier(x)
        return logits + draws.normal(logits.shape[1])


class NoDice(Plain):
    randomized = True


class Probabilities(Plain):
    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return super().forward(x).softmax(1)


class HiddenGradient(Plain):
    """Its gradient is that of another image: what gradient masking looks like."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return super().forward(straight_through(x, x.detach().square()))


class Extravagant(Plain):
    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return (super().forward(x) + super().forward(x.flip(0)).flip(0)) / 2


class Peeks(Plain):
    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.classifier(leaf).sum(), leaf)
        return super().forward(x + 0 * gradient)


class Forgets(Plain):
    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        if not hasattr(self, "offset"):
            self.offset = next(self.classifier.parameters()).mean()
        return super().forward(x) + self.offset.to(x.dtype) * torch.arange(self.images.classes)

    def calibrate(self, prepared: Any) -> None:
        self.offset = torch.tensor(1.0)

    def prepare(self, batch: Batch) -> dict[str, Tensor]:
        return {"x": batch.x}


class Dims(Purifier):
    """A purifier that keeps its contract."""

    card = Card("dims", "halves the contrast")

    def purify(self, x: Tensor, draws: Draws) -> Tensor:
        return 0.25 + x / 2

    @stand_in("autograd", "plain autograd", exact=True)
    def autograd(self, x: Tensor, draws: Draws) -> Tensor:
        return self.forward(x, draws)

    def losses(self, batch: Batch) -> Losses:
        return {}


class NotExact(Dims):
    @stand_in("autograd", "not what it says", exact=True)
    def autograd(self, x: Tensor, draws: Draws) -> Tensor:
        return self.identity(x, draws)


class Undeclared(Dims):
    def surrogates(self) -> dict[str, Any]:
        return {**super().surrogates(), "another": self.forward}


class OtherForward(Dims):
    @stand_in("identity", "of another forward pass")
    def identity(self, x: Tensor, draws: Draws) -> Tensor:
        logits: Tensor = self.classifier(x)
        return logits


class OutOfRange(Dims):
    def purify(self, x: Tensor, draws: Draws) -> Tensor:
        return 2 * x


class Thaws(Dims):
    def players(self) -> dict[str, list[nn.Parameter]]:
        return {"thawed": list(self.classifier.requires_grad_().parameters())}

    def losses(self, batch: Batch) -> Losses:
        return {"thawed": {"ce": F.cross_entropy(self.classifier(batch.x), batch.y)}}


def check(cls: type[Defense], dataset: Dataset, images: Images) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        frozen = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).requires_grad_(False)
    recipe = cls.configure(epochs=1, batch_size=40)
    classifier = frozen if cls.base else None
    testing.check_defense(cls, recipe, images, dataset.spec, threat=BALL, classifier=classifier)


@pytest.mark.parametrize("cls", [Plain, Dims])
def test_the_kit_passes_what_keeps_its_contract(cls: type[Defense], dataset: Dataset, images: Images) -> None:
    check(cls, dataset, images)


@pytest.mark.parametrize(
    ("cls", "complaint"),
    [
        (SeesTheBatch, "change with the batch"),
        (HiddenDice, "global random generator"),
        (UndeclaredDice, "says randomized = False"),
        (NoDice, "says randomized = True"),
        (Probabilities, "returned probabilities"),
        (HiddenGradient, "disagrees with finite differences"),
        (Extravagant, "takes 2 forward and 0 backward passes"),
        (Peeks, "takes 2 forward and 1 backward passes"),
        (NotExact, "exact stand-in autograd of defence dims disagrees"),
        (Undeclared, "declares stand-ins"),
        (OtherForward, "differs from the defence"),
        (OutOfRange, "keep the shape"),
        (Thaws, "of its frozen classifier"),
        (Forgets, "other logits after loading"),
    ],
)
def test_the_kit_notices(cls: type[Defense], complaint: str, dataset: Dataset, images: Images) -> None:
    with pytest.raises(DefenseError, match=complaint):
        check(cls, dataset, images)


def test_the_kit_notices_a_loss_that_rises(dataset: Dataset, images: Images) -> None:
    class Rises(Plain):
        def losses(self, batch: Batch) -> Losses:
            ce = F.cross_entropy(self.classifier(batch.x), batch.y)
            # Its value is the loss, its gradient that of the opposite.
            return {"classifier": {"ce": 2 * ce.detach() - ce}}

    with pytest.raises(DefenseError, match="it should fall"):
        check(Rises, dataset, images)


@dataclass(frozen=True, kw_only=True)
class Walk(Attack):
    """Random noise, drawn in the way it is told to."""

    card = Card("walk", "random noise")
    way: str

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        if self.way == "global":
            return threat.random_start(x, draws) + 0 * torch.rand(1)
        if self.way == "batch":
            noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
            return threat.project(x + 0.1 * noise, x)
        if self.way == "box":
            return ThreatModel("linf", 0.05).random_start(x, draws)
        return threat.random_start(x, draws)


@pytest.mark.parametrize(
    ("way", "complaint"),
    [
        ("global", "global random generator"),
        ("batch", "change with the order"),
        ("box", "left the ball"),
    ],
)
def test_the_kit_notices_what_an_attack_does_wrong(way: str, complaint: str) -> None:
    x, y, _ = digits.held_out(20)
    testing.check_attack(Walk(way="draws"), digits.classifier(), x, y, BALL)
    with pytest.raises(AttackError, match=complaint):
        testing.check_attack(Walk(way=way), digits.classifier(), x, y, BALL)


def test_arn_refuses_images_that_are_too_small() -> None:
    cls = DEFENSES.get("arn").cls
    with pytest.raises(RequestError, match="use at least"):
        cls(cls.configure(), ImageSpec(1, 8, 10), nn.Identity())
