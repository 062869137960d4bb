"""The recipes for natural images train on a CPU: a step of each always, two epochs of real images on demand."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from test_contract import DEFENSES, TRAINED
from torch import nn

from benchbox import Defense, ImageSpec, ThreatModel, nets
from benchbox.data.dataset import Images, load
from benchbox.training.loop import fit

BALL = ThreatModel("linf", 8 / 255)
CIFAR = ImageSpec(3, 32, 10)
SMOKE = 2000
#: The term that two epochs lower; cross-entropy where none is named. Others rise at first: TRADES' divergence,
#: which begins at nothing, and of PSSR's game all but what its discriminator pays: the generator loses its first
#: steps.
LEARNED_FIRST = {
    "arn": "restore",
    "atop": "l1 of stage 1",
    "carso": "reconstruction",
    "pssr": "real",
    "pssr:cae": "real",
    "pssr:ps+cae": "real",
}


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
    recipe = recipe_of(name, epochs=1, batch_size=3, attack_steps=1, passes=1, steps=2, rounds=1)
    defense = cls(recipe, CIFAR, untrained() if cls.base else None)
    history = fit(defense, recipe, images, threat=BALL, seed=0, device=torch.device("cpu"))
    # What has nothing to train, a codec for one, has no epochs.
    assert len(history) == any(map(len, defense.players().values()))
    assert all(torch.isfinite(torch.tensor(value)) for terms in history for value in terms.values())


@pytest.fixture(scope="module")
def photographs() -> Images:
    return load("cifar10").train.rows(slice(SMOKE))


def two_epochs(name: str, images: Images, classifier: nn.Module | None) -> tuple[Defense, list[dict[str, float]]]:
    """A defence trained by its recipe, but with one step in place of ten or forty: those are tested elsewhere."""
    cls = DEFENSES.get(name).cls
    recipe = recipe_of(name, epochs=2, attack_steps=1, steps=2, rounds=1)
    torch.manual_seed(0)
    defense = cls(recipe, CIFAR, classifier if cls.base else None)
    device = torch.device("cpu")
    history = fit(defense, recipe, images, threat=BALL, seed=0, device=device, precision="bfloat16")
    return defense.eval().requires_grad_(False), history


@pytest.fixture(scope="module")
def base(photographs: Images) -> nn.Module:
    """What the purifiers build on."""
    return two_epochs("none", photographs, None)[0].classifier


@pytest.mark.slow  # three or four minutes each on a busy core
@pytest.mark.timeout(3600)
@pytest.mark.skipif("BENCHBOX_DATA" not in os.environ, reason="BENCHBOX_DATA is not set")
@pytest.mark.parametrize("name", TRAINED)
def test_two_epochs_of_photographs_teach_something(name: str, photographs: Images, base: nn.Module) -> None:
    _, history = two_epochs(name, photographs, base)
    assert all(torch.isfinite(torch.tensor(value)) for terms in history for value in terms.values())
    if history:
        term = LEARNED_FIRST.get(name, "ce")
        assert history[1][term] < history[0][term]
