"""Gradients that are NaN or infinite are counted, taken as zero, said, and never pass for robustness."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import digits
import numpy as np
import pytest
import torch
from broken_defenses import Wrapped
from commands import Said
from evidence import CELL
from torch import Tensor, nn

import benchbox
from benchbox import Card, DefenseError, Draws, ThreatModel, View
from benchbox.audit import Case, Effort, Stored, Subject, check
from benchbox.audit.evidence import Panel, Run
from benchbox.audit.probes.gradients import examine
from benchbox.audit.probes.search import Target
from benchbox.contract import registry
from benchbox.engine.gradients import require_some
from benchbox.engine.judge import Judge
from benchbox.engine.unit import Done
from benchbox.training.layout import Layout

ATTACKS = registry.attacks(Path("/nonexistent"))
BALLS = [ThreatModel("linf", 0.2), ThreatModel("l2", 1.0)]


class Root(nn.Module):
    """As it is in the forward pass; the root of a square has the derivative NaN wherever a pixel is 0."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = digits.classifier()(x.pow(2).sqrt())
        return logits


class Nowhere(nn.Module):
    """Every gradient is NaN."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = digits.classifier()(x + (0 * x).sqrt())
        return logits


def attacked(net: nn.Module, name: str, threat: ThreatModel, n: int = 30) -> tuple[Any, View, Tensor]:
    x, y, rows = digits.held_out(n)
    draws = Draws(rows)
    view = View(lambda x, _: net(x), y, draws)
    plugin = ATTACKS.get(name)
    quick = {"steps": 5} if "steps" in plugin.cls.__dataclass_fields__ else {}
    attack = plugin.cls.configure(**plugin.preset, **quick)
    return attack(view, x, y, threat, draws), view, y


@pytest.mark.parametrize("threat", BALLS, ids=str)
@pytest.mark.parametrize("name", ["fgsm", "bim", "mim", "pgd", "cw", "apgd-ce", "fab-t"])
def test_where_every_gradient_is_nan_the_attack_was_blind(name: str, threat: ThreatModel) -> None:
    crafted, view, _ = attacked(Nowhere(), name, threat)
    assert crafted.blind
    assert torch.equal(crafted.broken[1], view.spent()[1])
    honest, view, _ = attacked(digits.classifier(), name, threat)
    assert not honest.blind
    assert not honest.broken.any()


@pytest.mark.parametrize("name", ["torchattacks:PGD", "torchattacks:FGSM", "torchattacks:MIFGSM"])
def test_libraries_that_call_autograd_themselves_are_covered(name: str) -> None:
    pytest.importorskip("torchattacks")
    assert attacked(Nowhere(), name, BALLS[0])[0].blind
    crafted, _, y = attacked(Root(), name, BALLS[0])
    assert not crafted.blind
    # What is finite is climbed.
    assert (digits.classifier()(crafted.x).argmax(1) != y).float().mean() > 0.3


@pytest.mark.parametrize("threat", BALLS, ids=str)
def test_what_is_finite_is_climbed_and_the_rest_is_counted(threat: ThreatModel) -> None:
    broken, _, y = attacked(Root(), "fgsm", threat)
    assert bool((broken.broken[0] == 1).all())  # each digit has a black pixel
    assert not broken.broken[1].any()
    sound, _, _ = attacked(digits.classifier(), "fgsm", threat)
    fell, best = ((digits.classifier()(c.x).argmax(1) != y).float().mean() for c in (broken, sound))
    assert 0 < fell <= best


def test_counts_of_parts_and_of_draws_are_those_of_the_samples() -> None:
    x, y, rows = digits.held_out(6)
    view = View(lambda x, _: Nowhere()(x), y, Draws(rows), randomized=True, eot=3)
    view.gradient(x, lambda logits: logits.sum(1))
    part = view.rows(torch.tensor([1, 4]))
    part.gradient(x[[1, 4]], lambda logits: logits.sum(1))
    assert view.broken().tolist() == 2 * [[3, 6, 3, 3, 6, 3]]
    assert part.broken().tolist() == 2 * [[3, 3]]


def test_finite_gradients_stay_as_they_are_to_the_bit() -> None:
    x, y, rows = digits.held_out(6)
    view = View(lambda x, _: digits.classifier()(x), y, Draws(rows))
    leaf = x.clone().requires_grad_()
    (plain,) = torch.autograd.grad(digits.classifier()(leaf).square().sum(), leaf)
    (seen,) = torch.autograd.grad(view(leaf).square().sum(), leaf)
    assert torch.equal(plain, seen)


def test_the_front_door_says_so_and_names_the_network() -> None:
    x, y, _ = digits.held_out(4)
    with pytest.raises(DefenseError, match="every gradient of Nowhere is NaN or infinite; mend"):
        benchbox.attack("pgd", Nowhere(), x, y, epsilon=0.1, steps=3)


MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    def forward(self, x):
        return self.body({body})
"""


def run(said: Said, workspace: Path, body: str) -> tuple[int, str]:
    (workspace / "model.py").write_text(MODEL.format(body=body))
    torch.manual_seed(0)
    torch.save({"body.1.weight": torch.randn(10, 784), "body.1.bias": torch.zeros(10)}, workspace / "net.pt")
    words = ["run", "--defense", "model.py:Net", "--weights", "net.pt", "--dataset", "tiny", "--attacks", "pgd"]
    status, out, err = said(*words, "--access", "white-box", "--set", "pgd.steps=3", "--quiet")
    return status, " ".join((out + err).split())


def test_a_run_says_what_was_not_finite_also_when_it_is_asked_again(said: Said, workspace: Path) -> None:
    for _ in range(2):
        status, told = run(said, workspace, "(x - x.min()).sqrt()")
        assert status == 0, told
        assert "had NaN or infinite pixels, taken as zero" in told
        assert "model.py:Net, tried on training images before any attack: gradient: not finite at" in told
    for format in ("terminal", "markdown", "latex", "json"):
        words = " ".join(said("report", "--format", format)[1].replace("\\_", "_").split())
        assert "tried on training images before any attack: gradient: not finite at" in words, format
        assert "NaN or infinite pixels, taken as zero" in words, format


def test_a_run_without_a_finite_gradient_fails(said: Said, workspace: Path) -> None:
    status, told = run(said, workspace, "x + (0 * x).sqrt()")
    assert status != 0
    assert "model.py:Net" in told
    assert "gradient" in told


def test_the_engine_blames_the_network_and_not_the_attack() -> None:
    done = Done(outcome=None, images=None, crafting=0.0, scoring=0.0, broken=np.ones(3), blind=True)  # type: ignore[arg-type]
    judge: Any = SimpleNamespace(defense=SimpleNamespace(card=Card("mine", "any")))
    with pytest.raises(DefenseError, match="every gradient of mine is NaN or infinite; mend"):
        require_some(done, judge, CELL)
    require_some(replace(done, blind=False), judge, CELL)


def test_the_audit_fails_what_is_not_finite() -> None:
    x, y, rows = digits.held_out(5)
    target = Target(Judge(Wrapped(Root()), Layout()), x, y, Draws(rows), BALLS[0], Effort(directions=2))
    found = examine(target)
    assert found.broken["deployed"].all()
    assert not examine(replace(target, judge=Judge(Wrapped(), Layout()))).broken["deployed"].any()
    probes: Any = SimpleNamespace(gradients=found, panel=SimpleNamespace(indices=np.arange(5)))
    case = Case(Stored(Subject("x", "a"), BALLS[0], (1, 8, 8)), probes)
    assert [str(check(id)(case).verdict) for id in ("B9", "B11")] == ["FAIL", "FAIL"]


class Stepped(Wrapped):
    """Four fifths of each pixel are rounded to a fine grid: the gradient is that of the other fifth, exactly."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        logits: Tensor = self.classifier(0.2 * x + 0.8 * (200 * x).round() / 200)
        return logits


class Doubled(Wrapped):
    """As it is; its gradient is twice what it should be."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        logits: Tensor = self.classifier(2 * x - x.detach())
        return logits


class Brain(Wrapped):
    """As it is, computed with the eight bits of bfloat16: the shortest differences see its rounding alone."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits: Tensor = self.classifier(x)
        return logits


@pytest.mark.parametrize(
    ("cls", "verdict", "words"),
    [
        (Wrapped, "PASS", ""),
        (Brain, "WARN", "the gradient does not match finite differences: relative error 0.1"),
        (Stepped, "WARN", "the gradient does not match finite differences: it is right between jumps (relative"),
        (Doubled, "FAIL", "the gradient does not match finite differences: relative error"),
    ],
)
def test_a_gradient_that_is_right_between_jumps_is_no_wrong_one(cls: Any, verdict: str, words: str) -> None:
    x, y, rows = digits.held_out(20)
    found = examine(Target(Judge(cls(), Layout()), x, y, Draws(rows), BALLS[0], Effort()))
    every = np.ones(20, bool)
    probes: Any = SimpleNamespace(gradients=found, panel=Panel("probes", np.arange(20), every, ()))
    said = check("B11")(Case(Stored(Subject("x", "a"), BALLS[0], (1, 8, 8)), probes))
    assert said is not None
    assert str(said.verdict) == verdict, said.sentence
    assert said.sentence.startswith(words)
    if verdict == "FAIL":
        # Where a search along it breaks them all it masks nothing, as the gradient of spikes.
        run = Run("iterative", "PGD", every, np.ones(20), every, "deployed")
        probes.panel = Panel("probes", np.arange(20), every, (run,))
        said = check("B11")(Case(Stored(Subject("x", "a"), BALLS[0], (1, 8, 8)), probes))
        assert said is not None
        assert str(said.verdict) == "WARN", said.sentence


def test_a_network_without_a_gradient_is_named_in_one_line(said: Said, workspace: Path) -> None:
    status, told = run(said, workspace, "x.detach()")
    assert status == 2
    assert "model.py:Net gives no gradient: its logits do not depend on the image" in told
