"""What a plug-in author writes: each thing once, from what `benchbox` exports."""

from __future__ import annotations

import digits
import pytest
import torch
from torch import Tensor

import benchbox
from benchbox import (
    Batch,
    Card,
    Classifier,
    ClassifierRecipe,
    Defense,
    Draws,
    ImageSpec,
    Losses,
    Pretrained,
    PretrainedRecipe,
    Purifier,
    Recipe,
    ThreatModel,
    View,
    ascend,
    stand_in,
)

SPEC = ImageSpec(1, 8, 10, (0.3,), (0.4,))
BALL = ThreatModel("linf", 0.1)


class WideRecipe(Recipe):
    width: int = 7


class Plain(Purifier):
    card = Card("plain", "changes nothing")

    def purify(self, x: Tensor, draws: Draws) -> Tensor:
        return x

    def losses(self, batch: Batch) -> Losses:
        return {}


class Wide(Purifier[WideRecipe]):
    """Its recipe stands in brackets; it has two stand-ins beside the one of every purifier."""

    card = Card("wide", "changes nothing")

    def purify(self, x: Tensor, draws: Draws) -> Tensor:
        return x

    def losses(self, batch: Batch) -> Losses:
        return {}

    @stand_in("soft", "another derivative")
    def soft(self, x: Tensor, draws: Draws) -> Tensor:
        return self.forward(2 * x - x.detach(), draws)

    @stand_in("autograd", "plain autograd", exact=True)
    def autograd(self, x: Tensor, draws: Draws) -> Tensor:
        return self.forward(x, draws)


class Narrow(Wide):
    """Declares one anew and does without another."""

    @stand_in("softer", "a third derivative")
    def soft(self, x: Tensor, draws: Draws) -> Tensor:
        return self.forward(3 * x - 2 * x.detach(), draws)

    def identity(self, x: Tensor, draws: Draws) -> Tensor:
        return self.forward(x, draws)


def test_the_class_in_brackets_is_the_recipe() -> None:
    assert Defense.recipe_type is Plain.recipe_type is Recipe
    assert Wide.recipe_type is Narrow.recipe_type is WideRecipe
    built = Wide(WideRecipe(width=3), SPEC, digits.classifier())
    assert built.recipe.width == 3


def test_a_base_without_brackets_has_the_least_recipe_it_can() -> None:
    assert Classifier.recipe_type is ClassifierRecipe
    assert Pretrained.recipe_type is PretrainedRecipe


def test_stand_ins_are_listed_without_an_instance_the_exact_one_first() -> None:
    assert list(Plain.stand_ins) == ["identity"]
    assert Plain.exact is None
    assert list(Wide.stand_ins) == ["autograd", "identity", "soft"]
    assert Wide.stand_ins["soft"] == "another derivative"
    assert Wide.exact == "autograd"


def test_a_subclass_declares_a_stand_in_anew_or_does_without() -> None:
    assert list(Narrow.stand_ins) == ["autograd", "softer"]


def test_what_is_listed_is_what_is_called() -> None:
    built = Narrow(WideRecipe(), SPEC, digits.classifier())
    x, _, rows = digits.held_out(3)
    leaf = x.clone().requires_grad_()
    slopes = {}
    for name, forward in built.surrogates().items():
        (slopes[name],) = torch.autograd.grad(forward(leaf, Draws(rows)).square().sum(), leaf)
    assert list(slopes) == list(Narrow.stand_ins)
    torch.testing.assert_close(slopes["softer"], 3 * slopes["autograd"])


def test_a_mapping_beside_the_methods_is_refused() -> None:
    with pytest.raises(benchbox.DefenseError, match="mark the methods"):
        type("Twice", (Plain,), {"stand_ins": {"identity": "said twice"}})


def test_a_batch_crafts_training_images_as_the_published_loop_does() -> None:
    x, y, rows = digits.held_out(12)
    batch, net = Batch(x, y, Draws(rows), 0.0, BALL), digits.classifier()
    view = View(lambda x, _: net(x), y, Draws(rows))
    start = BALL.random_start(x, batch.draws)
    made = batch.attack(net, start=start, steps=3, step_size=0.05)
    assert torch.equal(made, ascend(view, x, y, BALL, start=start, steps=3, step_size=0.05))


def test_training_images_may_lead_away_from_other_classes_in_another_ball() -> None:
    x, y, rows = digits.held_out(12)
    batch, net = Batch(x, y, Draws(rows), 0.0, BALL), digits.classifier()
    away, half = net(x).argsort(1)[:, -2], BALL.scaled(0.5)
    made = batch.attack(net, y=away, threat=half, steps=1, step_size=0.05, loss=benchbox.margin)
    view = View(lambda x, _: net(x), away, Draws(rows))
    assert torch.equal(made, ascend(view, x, away, half, start=x, steps=1, step_size=0.05, loss=benchbox.margin))


def test_everything_exported_is_there_and_dir_shows_it() -> None:
    assert set(benchbox.__all__) <= set(dir(benchbox))
    for name in benchbox.__all__:
        assert getattr(benchbox, name) is not None
