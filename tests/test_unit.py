"""One unit of work by hand: which images, which streams, what is crafted anew and what is taken as it was made."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from benchbox.plugins.attacks.fgsm import FGSM
from evidence import CELL
from test_judge import CPU, Dice, Oracle, Threshold
from torch import Tensor

from benchbox import Attack, AttackError, Card, DefenseError, Draws, ImageSpec, ThreatModel, View
from benchbox.contract.attack import Crafted
from benchbox.data.dataset import Dataset, Images
from benchbox.domain import SampleList, ViewSpec
from benchbox.engine import unit as working
from benchbox.engine.judge import Judge, Streams
from benchbox.engine.unit import Models, Unit, adversarials, attempt, work
from benchbox.training.layout import Layout

PIXELS = torch.arange(10, dtype=torch.uint8).mul(25).view(10, 1, 1, 1)
LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
IMAGES = Images(PIXELS, LABELS)
DIGITS = Dataset("digits", "mnist", IMAGES.rows(slice(0, 0)), IMAGES, ImageSpec(1, 1, 3), 0.3)
#: Places 1 and 3 of this list are the images 9 and 4.
LIST = SampleList("digits", "test", (2, 9, 0, 4), "d")
BALL = ThreatModel("linf", 0.5)


@dataclass(frozen=True, kw_only=True)
class Jump(Attack):
    """Leaps to a random point, in one look and one gradient."""

    card = Card("jump", "leaps")

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        model.gradient(x, lambda logits: logits[:, 0])
        return threat.random_start(x, draws)


def models(defense: Any = None, attacked: Any = None, batch: int = 8, attack: Attack | None = None) -> Models:
    judges = [Judge(d or Threshold(), Layout(batch=batch), "5ec2e7") for d in (attacked, defense)]
    return Models(judges[0], judges[1], attack or Jump(), DIGITS, CPU)


def unit(positions: list[int], **cell: Any) -> Unit:
    made = replace(CELL, samples=LIST, threat=BALL, attack_seed=4, **cell)
    return Unit(made, np.array(positions))


def test_images_and_streams_are_those_of_the_places_in_the_list() -> None:
    begun = time.perf_counter()
    done = work(unit([1, 3]), models())
    took = time.perf_counter() - begun
    outcome, streams = done.outcome, Streams((9, 4), 4, CPU)
    x = torch.tensor([225.0, 100.0]).div(255).view(2, 1, 1, 1)
    expected = BALL.random_start(x, streams.crafting("jump").at("attack"))
    assert done.images is not None
    np.testing.assert_array_equal(done.images.x, expected.numpy())
    assert done.images.craft_key == unit([1]).cell.craft_key
    assert outcome.position.tolist() == done.images.position.tolist() == [1, 3]
    assert outcome.label.tolist() == [2, 1]
    assert outcome.clean.tolist() == [[2], [0]]
    said = Judge(Threshold(), Layout()).score(expected, streams.adversarial, 1)
    assert outcome.adversarial.tolist() == said.tolist()
    assert (outcome.forwards.tolist(), outcome.backwards.tolist()) == ([1, 1], [1, 1])
    assert (done.images.forwards.tolist(), done.images.backwards.tolist()) == ([1, 1], [1, 1])
    assert outcome.first_success.tolist() == done.images.first_success.tolist() == [-1, 1]
    np.testing.assert_allclose(outcome.linf, (expected - x).abs().flatten().numpy(), atol=1e-7)
    assert (done.broken.tolist(), done.blind) == ([0, 0], False)
    assert done.crafting > 0
    assert done.scoring > 0
    assert done.crafting + done.scoring <= took


def test_what_is_stored_is_scored_and_not_made_again() -> None:
    class Never(Jump):
        def search(self, model, x, y, threat, draws):
            raise AssertionError

    first = work(unit([1, 3]), models())
    again = work(replace(unit([1, 3]), stored=first.images), models(attack=Never()))
    assert again.images is None
    assert (again.broken.tolist(), again.blind) == ([0, 0], False)
    for name in ("adversarial", "clean", "linf", "l2", "first_success", "forwards", "backwards"):
        np.testing.assert_array_equal(getattr(again.outcome, name), getattr(first.outcome, name))
    assert again.outcome.distance is None
    assert first.images is not None
    measured = replace(first.images, distance=np.array([0.25, 0.5]))
    found = work(replace(unit([1, 3]), stored=measured), models()).outcome.distance
    assert found is not None
    assert found.tolist() == [0.25, 0.5]


def test_the_attacked_and_the_deployed_are_asked_each_for_its_own() -> None:
    """A substitute is attacked; the defence is scored, on the clean images first, and as often as is said."""
    order: list[str] = []

    class Noted(Dice):
        def forward(self, x, draws=None):
            order.append("scored")
            return super().forward(x, draws)

    class Substitute(Threshold):
        def forward(self, x, draws=None):
            order.append("attacked")
            return super().forward(x, draws)

    done = work(unit([0, 1, 2, 3], scoring_draws=3), models(Noted(), Substitute(), batch=12))
    assert order == ["scored", "attacked", "scored"]
    assert done.outcome.clean.shape == done.outcome.adversarial.shape == (4, 3)


def test_an_oracle_is_shown_the_images_that_an_attack_is_made_on() -> None:
    oracle = Oracle()
    work(unit([1, 3]), models(attacked=oracle))
    shown, draws = oracle.shown[0]
    assert torch.equal(shown.flatten(), torch.tensor([225.0, 100.0]) / 255)
    assert (draws.indices.tolist(), draws.seed) == ([9, 4], 4)


def test_a_randomised_model_draws_what_is_the_attack_s_own() -> None:
    dice = Dice()
    work(unit([1, 3]), models(attacked=dice))
    names = dice.asked[0][1]
    by_hand = Judge(Dice(), Layout(batch=8), "5ec2e7")
    view = by_hand.view(torch.zeros(2, dtype=torch.int64), Streams((9, 4), 4, CPU).attacked("jump"))
    view(torch.zeros(2, 1, 1, 1))
    expected = by_hand.defense.asked[0][1]  # type: ignore[attr-defined, index]
    assert torch.equal(names.indices, expected.indices)
    assert names.seed == expected.seed


def test_lengths_are_kept_with_the_images() -> None:
    made = work(unit([1, 3]), models()).outcome
    crafted = Crafted(
        torch.zeros(2, 1, 1, 1), torch.tensor([3, -1]), torch.ones(2).double(), torch.zeros(2).double(),
        distance=torch.tensor([0.25, 0.5]).double(),
    )  # fmt: skip
    clean = torch.full((2, 1, 1, 1), 0.5)
    kept = adversarials(unit([1, 3]).cell, made.position, clean, crafted)
    assert kept.distance is not None
    assert kept.distance.tolist() == [0.25, 0.5]
    assert kept.first_success.tolist() == [3, -1]
    assert kept.clean is not None
    assert kept.clean.x.tolist() == clean.tolist()
    assert adversarials(unit([1, 3]).cell, made.position, clean, replace(crafted, distance=None)).distance is None


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_card_is_emptied_when_it_was_full(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("CUDA out of memory")

    emptied: list[bool] = []
    monkeypatch.setattr(working, "work", full)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    here: Any = SimpleNamespace(device=torch.device(device))
    assert attempt(unit([1]), here) is None
    assert emptied == [True] * (device == "cuda")


def test_a_coarse_search_of_what_multiplies_nothing_finds_the_same() -> None:
    fine, coarse = work(unit([1, 3]), models()), work(unit([1, 3], search_precision="bfloat16"), models())
    assert fine.images is not None
    assert coarse.images is not None
    np.testing.assert_array_equal(coarse.images.x, fine.images.x)
    np.testing.assert_array_equal(coarse.outcome.adversarial, fine.outcome.adversarial)


def test_gradients_that_are_not_finite_are_counted_image_by_image() -> None:
    class Rooted(Threshold):
        def forward(self, x, draws=None):
            return super().forward((x - 25 / 255 * 4).abs().sqrt(), draws)

    done = work(unit([1, 3]), models(attacked=Rooted()))
    assert done.broken.tolist() == [0, 1]
    assert not done.blind
    assert work(unit([3]), models(attacked=Rooted())).blind


def test_a_network_that_autograd_does_not_see_through_is_named() -> None:
    class Cut(Threshold):
        def forward(self, x, draws=None):
            return super().forward(x.detach(), draws)

    with pytest.raises(DefenseError, match="threshold gives no gradient: its logits do not depend on the image"):
        work(unit([1]), models(attacked=Cut(), attack=FGSM()))


def test_what_a_defence_raises_outside_of_its_forward_pass_is_its_own() -> None:
    class Odd(Threshold):
        card = Card("odd", "knows no stand-ins")

        def surrogates(self):
            raise ValueError("no such thing")

    with pytest.raises(DefenseError, match=r"defence odd, .*test_unit.py, line \d+: .*no such thing"):
        work(unit([1], view=ViewSpec("b", "soft")), models(attacked=Odd()))


@pytest.mark.parametrize("sees", [False, True])
def test_an_attack_that_differentiates_by_itself_is_blamed_for_its_own_fault_alone(sees: bool) -> None:
    class Cut(Threshold):
        def forward(self, x, draws=None):
            return super().forward(x if sees else x.detach(), draws)

    class Forgetful(Jump):
        def search(self, model, x, y, threat, draws):
            torch.autograd.grad(model(x.clone().requires_grad_(not sees)).sum(), x)

    with pytest.raises(AttackError if sees else DefenseError, match=r"does not require grad|gives no gradient"):
        work(unit([1]), models(attacked=Cut(), attack=Forgetful()))


def test_memory_that_does_not_suffice_is_no_error_and_others_are() -> None:
    class Failing(Jump):
        def search(self, model, x, y, threat, draws):
            raise self.error

    full, wrong = Failing(), Failing()
    object.__setattr__(full, "error", RuntimeError("CUDA out of memory"))
    object.__setattr__(wrong, "error", ValueError("no such thing"))
    assert attempt(unit([1]), models(attack=full)) is None
    with pytest.raises(Exception, match="no such thing"):
        attempt(unit([1]), models(attack=wrong))
    assert attempt(unit([1]), models()) is not None


def test_batches_are_halved_for_both_until_one_image_is_too_much() -> None:
    asked = models(batch=12)
    asked.deployed.layout = Layout(batch=3)
    assert asked.halve(8) == 4
    assert (asked.attacked.layout.batch, asked.deployed.layout.batch) == (4, 3)
    assert asked.halve(8) == 2
    assert (asked.attacked.layout.batch, asked.deployed.layout.batch) == (2, 2)
    assert asked.halve(1000) == 1
    with pytest.raises(DefenseError, match="jump on threshold runs out of memory on a single image"):
        asked.halve(1000)

    class Pooled(Jump):
        pooled = True

    together = models(batch=12, attack=Pooled())
    assert together.halve(1000) == 1000
    assert together.attacked.layout.batch == 6
