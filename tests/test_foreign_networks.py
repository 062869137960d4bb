"""Networks as people bring them: of other types, compiled, scripted, with parts that write into their input."""

from __future__ import annotations

import sys
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from digits import held_out
from torch import Tensor, nn

import benchbox
from benchbox import Card, Defense, Draws, ImageSpec, Losses, Recipe
from benchbox.audit.probes.behaviour import _state
from benchbox.contract import declaration
from benchbox.engine.judge import Judge
from benchbox.engine.lent import borrowed
from benchbox.errors import RequestError
from benchbox.training.layout import Layout

IMAGES = ImageSpec(1, 8, 10)


class Brought(Defense):
    card = Card("brought", "a network of somebody")

    def __init__(self, net: nn.Module | None) -> None:
        super().__init__(Recipe(), IMAGES, net)

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        classifier: Any = self.classifier
        return classifier(x.to(next(classifier.parameters()).dtype))  # type: ignore[no-any-return]

    def losses(self, batch: Any) -> Losses:
        return {}


def network(classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, classes)).requires_grad_(False)


def judge(net: nn.Module | None) -> Judge:
    return Judge(Brought(net).eval(), Layout())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_whatever_type_a_network_has_whoever_asks_gets_float32(dtype: torch.dtype) -> None:
    x, _, rows = held_out(3)
    asked, net = judge(network().to(dtype)), network().to(dtype)
    leaf = x.clone().requires_grad_()
    logits = asked.ask(leaf, Draws(rows))
    (slope,) = torch.autograd.grad(logits.sum(), leaf)
    told = asked.without_gradient(x, Draws(rows)), asked.bare(x, Draws(rows))
    assert {one.dtype for one in (logits, slope, *told)} == {torch.float32}
    assert float(slope.abs().sum()) > 0
    before = _state(net)
    net[1].bias += 1  # type: ignore[index]
    assert _state(net) != before


def test_a_classifier_that_writes_into_its_images_writes_into_copies() -> None:
    x, _, rows = held_out(3)
    net = nn.Sequential(nn.Threshold(0.5, 0.0, inplace=True), network())
    kept, leaf = x.clone(), x.clone().requires_grad_()
    torch.autograd.grad(judge(net).bare(leaf, Draws(rows)).sum(), leaf)
    assert torch.equal(leaf.detach(), kept)


def test_what_is_compiled_is_to_be_differentiated_more_than_once(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SimpleNamespace(donated_buffer=True)  # torch keeps it by context, and asks in that of the call
    monkeypatch.setitem(sys.modules, "torch._functorch.config", config)
    x, _, rows = held_out(3)
    leaf = x.clone().requires_grad_()
    logits = judge(network()).ask(leaf, Draws(rows))
    assert not config.donated_buffer
    config.donated_buffer = True  # a backward pass is compiled when it is asked for
    torch.autograd.grad(logits.sum(), leaf)
    assert not config.donated_buffer


def test_a_script_is_borrowed_and_comes_back() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(network().requires_grad_(True))
    with borrowed(script):
        assert not any(parameter.requires_grad for parameter in script.parameters())
    assert all(parameter.requires_grad for parameter in script.parameters())


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (lambda x: x, "a function is no defence; wrap it in a torch.nn.Module"),
        (None, "a NoneType is no defence"),
        (nn.LazyLinear(10), "LazyLinear has no numbers in weight yet"),
        (nn.Linear(2, 2, device="meta"), "Linear has no numbers in weight yet"),
    ],
)
def test_what_cannot_be_attacked_is_one_line(item: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        benchbox.evaluate(item, dataset="digits")


class Text(str):
    """Equal to every text."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


class Flipping(type(Defense)):  # type: ignore[misc]
    randomized = property(lambda cls: True)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (
            {"randomized": property(lambda self: True)},
            "randomized is a property; write randomized =",
        ),
        ({"randomized": None}, "randomized is a NoneType"),
        ({"deployable": 1}, "deployable is a int"),
        ({"card": Card(Text("x"), "y")}, r"card\.name is a Text; give plain text"),
        ({"card": Card("x", Text("y"))}, r"card\.summary is 'y'; give one line of text"),
    ],
)
def test_a_declaration_says_the_same_to_everybody(part: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        declaration.check(type("Mine", (Brought,), part), "defence", "mine.py")


def test_no_metaclass_answers_for_a_class() -> None:
    cls = Flipping("Mine", (Brought,), {"randomized": False})
    with pytest.raises(RequestError, match="randomized is a question to its metaclass"):
        declaration.check(cls, "defence", "mine.py")
