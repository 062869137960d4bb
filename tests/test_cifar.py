"""The recipes for natural images train on a CPU: a step of each always, two epochs of real images on demand."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from test_contract import DEFENSES, TRAINED
from torch import nn

from benchbox import ImageSpec, ThreatModel, nets, testing
from benchbox.data import Images, load
from benchbox.training import fit

BALL = ThreatModel("linf", 8 / 255)
CIFAR = ImageSpec(3, 32, 10)
SMOKE = 2000


def recipe_of(name: str, **wanted: Any) -> Any:
    """The recipe for CIFAR-10 with some fields shortened, where it has them."""
    cls = DEFENSES.get(name).cls
    known = cls.recipe_type.model_fields
    return cls.configure("cifar", "cifar10", **{k: v for k, v in wanted.items() if k in known})


def untrained() -> nn.Module:
    torch.manual_seed(0)
    return nets.build("resnet18", CIFAR).eval().requires_grad_(False)


@pytest.mark.parametrize("name", TRAINED)
def test_every_cifar_recipe_takes_a_step(name: str) -> None:
    cls = DEFENSES.get(name).cls
    generator = torch.Generator().manual_seed(0)
    images = Images(torch.randint(256, (3, 3, 32, 32), generator=generator, dtype=torch.uint8), torch.arange(3))
    recipe = recipe_of(name, epochs=1, batch_size=3, attack_steps=1, passes=1)
    defense = cls(recipe, CIFAR, untrained() if cls.base else None)
    history = fit(defense, recipe, images, threat=BALL, seed=0, device=torch.device("cpu"))
    # What has nothing to train, a codec for one, has no epochs.
    assert len(history) == any(map(len, defense.players().values()))
    assert all(torch.isfinite(torch.tensor(value)) for terms in history for value in terms.values())


@pytest.fixture(scope="module")
def photographs() -> Images:
    return load("cifar10").train.rows(slice(SMOKE))


@pytest.fixture(scope="module")
def base(photographs: Images) -> nn.Module:
    """What the purifiers build on, after two epochs."""
    cls = DEFENSES.get("none").cls
    recipe = recipe_of("none", epochs=2)
    return testing.check_training(cls, recipe, photographs, CIFAR, threat=BALL, precision="bfloat16").classifier


@pytest.mark.slow  # two minutes to a quarter of an hour each
@pytest.mark.timeout(3600)
@pytest.mark.skipif("BENCHBOX_DATA" not in os.environ, reason="BENCHBOX_DATA is not set")
@pytest.mark.parametrize("name", TRAINED)
def test_two_epochs_of_photographs_lower_the_loss(name: str, photographs: Images, base: nn.Module) -> None:
    # One step in place of ten or forty: the inner attacks are most of the time and are tested elsewhere.
    recipe = recipe_of(name, epochs=2, attack_steps=1)
    cls = DEFENSES.get(name).cls
    classifier = base if cls.base else None
    testing.check_training(
        cls, recipe, photographs, CIFAR, threat=BALL, classifier=classifier, precision="bfloat16"
    )
