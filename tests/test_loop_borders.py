"""What the training loop keeps from the code of a defence, and that code from the loop: devices, types, graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_loop import BALL, CPU, IMAGES, Watching
from torch import Tensor, nn

from benchbox import Draws, Recipe
from benchbox.training.loop import fit

RECIPE = Recipe(epochs=1, batch_size=20)


def train(defense: Watching, **words: Any) -> list[dict[str, float]]:
    return fit(defense, RECIPE, IMAGES, threat=BALL, seed=5, device=CPU, **words)


def test_a_defence_is_trained_on_its_device() -> None:
    moved: list[object] = []

    class Moving(Watching):
        def to(self, *where: Any, **how: Any) -> Any:
            moved.extend(where)
            return super().to(*where, **how)

    train(Moving(RECIPE))
    assert moved == [CPU]


def test_what_a_defence_sets_for_itself_is_put_back() -> None:
    seen: list[tuple[str, torch.dtype]] = []

    class Setting(Watching):
        def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
            assert draws is not None
            seen.append(("forward", torch.get_default_dtype()))
            names.append(draws.seed)
            torch.set_default_dtype(torch.float64)
            return super().forward(x, draws)

        def losses(self, batch):
            seen.append(("losses", torch.get_default_dtype()))
            torch.set_default_dtype(torch.float64)
            return super().losses(batch)

    names: list[int] = []
    try:
        train(Setting(RECIPE))
        assert torch.get_default_dtype() == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    assert seen == [("forward", torch.float32), ("losses", torch.float32), ("losses", torch.float32)]
    assert names == [Draws(torch.arange(8), 5).at("layout").seed]


def test_two_players_may_share_what_is_computed_once() -> None:
    class Sharing(Watching):
        def losses(self, batch):
            product = self.a * self.b
            squared = product.square()
            return {"first": {"square": squared.sum()}, "second": {"root": squared.sqrt().sum()}}

    defense = Sharing(RECIPE)
    train(defense)
    assert defense.a.item() != 3.0
    assert defense.b.item() != -2.0


class Product(nn.Module):
    """A factor that bfloat16 takes for 1."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([[1.001]]), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.factor


@pytest.mark.parametrize(("precision", "factor"), [("float32", 1.001), ("bfloat16", 1.0)])
def test_what_is_prepared_is_as_coarse_as_the_training(precision: str, factor: float) -> None:
    class Producing(Watching):
        def __init__(self) -> None:
            super().__init__(RECIPE)
            self.net = Product()

        def prepare(self, batch):
            return {"made": self.net(torch.ones(len(batch.x), 1))}

        def losses(self, batch):
            made.append(self.net(torch.ones(1, 1)))
            return super().losses(batch)

    made: list[Tensor] = []
    defense = Producing()
    train(defense, precision=precision)
    prepared = defense.calibrated["made"]  # type: ignore[index]
    for found in (prepared, *made):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, torch.full_like(found, factor), rtol=1e-6, atol=0)
