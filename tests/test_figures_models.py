"""Figures of trained models: the arrays behind them have known answers, and the pictures show all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import SHORT, Said, refusal
from torch import Tensor, nn

from benchbox.figures import scatter, specimens, style


class Corner(nn.Module):
    """Class 1 if the upper left quarter of an 8 × 8 image is bright, by one convolution and one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Conv2d(1, 1, 1, bias=False)
        self.decide = nn.Linear(64, 2, bias=False)
        weight = torch.zeros(2, 8, 8)
        weight[1, :4, :4] = 1
        weight[0] = 0.01
        with torch.no_grad():
            self.see.weight.fill_(1.0)
            self.decide.weight.copy_(weight.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.decide(self.see(x).flatten(1))


def bright() -> Tensor:
    x = torch.full((1, 1, 8, 8), 0.1)
    x[..., :4, :4] = 1
    return x


def test_grad_cam_finds_what_decides() -> None:
    heat = specimens.grad_cam(Corner(), bright())
    assert heat.shape == (1, 8, 8)
    assert heat.max() == 1
    assert heat[0, :4, :4].min() > 5 * heat[0, 4:, 4:].max()


def test_penultimate_features_are_what_the_last_layer_is_given() -> None:
    np.testing.assert_array_equal(specimens.penultimate(Corner(), bright()), bright().flatten(1).numpy())


def test_the_parts_of_an_attack_add_up() -> None:
    x = torch.rand(3, 1, 8, 8)
    x_adv = (x + 0.1).clamp(0, 1)
    mask = (torch.rand(3, 1, 8, 8) > 0.5).float()
    parts = specimens.decomposed(x, x_adv, mask)
    torch.testing.assert_close(parts["salient"] + parts["trivial"] - x, x_adv)
    assert torch.equal(parts["salient"][mask.bool()], x[mask.bool()])
    assert torch.equal(parts["trivial"][~mask.bool()], x[~mask.bool()])


def test_what_the_classifier_sees() -> None:
    stage = specimens.seen(Corner(), "clean", bright())
    assert stage.predicted is not None
    assert stage.predicted.tolist() == [1]
    assert specimens.right(Corner(), bright(), torch.tensor([0])).tolist() == [[False]]


def test_t_sne_is_the_same_twice() -> None:
    features = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    one, two = specimens.t_sne([features, features])
    np.testing.assert_array_equal(one, two)
    with style.style():
        drawing = scatter.draw("name", "title", [("none", [one])], ["clean"], np.arange(12) % 3, ())
    assert len(drawing.figure.axes) == 1


@pytest.mark.parametrize(
    ("defense", "name", "panels"),
    [("pssr:ps", "surgery", 10), ("pssr:ps", "decomposition", 1), ("jpeg", "attention", 12)],
)
def test_the_commands_draw(
    workspace: Path, said: Said, defense: str, name: str, panels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["--set", "pssr:ps.attack_steps=1"] if defense == "pssr:ps" else []
    assert (
        said(
            "run", "-d", defense, "--attacks", "fgsm", "--access", "gray-box", "--samples", "4", *SHORT, *settings
        )[0]
        == 0
    )
    drawn = []
    monkeypatch.setattr(style, "save", lambda drawing, *rest: drawn.append(drawing) or [])
    words = ["figures", name, "--defense", defense, "--attacks", "fgsm", "--samples", "2", "-o", "out"]
    assert said(*words)[0] == 0
    (drawing,) = drawn
    assert len(drawing.figure.axes) == panels
    assert "attack seed 0" in " ".join(drawing.caption)
    if defense == "jpeg":
        assert "has no trivial mask" in refusal(
            said("figures", "decomposition", "--defense", "jpeg", "--attacks", "fgsm")
        )
        assert "name it with --defense" in refusal(said("figures", "surgery"))
