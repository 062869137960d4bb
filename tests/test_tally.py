"""What a view notes of its passes, over more of them than are added up at once."""

from __future__ import annotations

import pytest
import torch

from benchbox import Draws, View
from benchbox.contract.tally import FOLD


@pytest.mark.parametrize("before", [0, 3, FOLD - 1, FOLD, 2 * FOLD + 1])
def test_a_sample_falls_at_the_pass_that_first_misclassifies_it(before: int) -> None:
    said = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    view = View(lambda x, _: said, torch.zeros(3, dtype=torch.int64), Draws(torch.arange(3)))
    x = torch.zeros(3, 1, 2, 2)
    for _ in range(before):
        view(x)
    said = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    view(x)
    said = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    view(x)
    assert view.first_success.tolist() == [-1, before + 1, 1 if before else -1]
    assert view.first_success.tolist() == [-1, before + 1, 1 if before else -1], "asking changes nothing"


@pytest.mark.parametrize("passes", [1, FOLD, FOLD + 2])
def test_gradients_that_are_no_numbers_are_counted_and_mended(passes: int) -> None:
    steep = torch.tensor([1.0, torch.nan, torch.inf, 0.0]).view(4, 1, 1, 1).repeat(1, 1, 2, 2)
    steep[2, 0, 0, 0] = 3.0
    view = View(
        lambda x, _: (x * steep).flatten(1).sum(1, keepdim=True).repeat(1, 2),
        torch.zeros(4).long(),
        Draws(torch.arange(4)),
    )
    for _ in range(passes):
        gradient = view.gradient(torch.zeros(4, 1, 2, 2), lambda logits: logits[:, 0])[0]
    assert gradient[:, 0, 1, 1].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert gradient[2, 0, 0, 0] == 3.0
    assert view.broken().tolist() == [[0, passes, passes, 0], [0, passes, 0, 0]]


def test_however_steep_a_gradient_is_one() -> None:
    steep = torch.tensor([1e30, -torch.inf, -1e38]).view(3, 1, 1, 1)
    view = View(
        lambda x, _: (x * steep).flatten(1)[:, :2], torch.zeros(3, dtype=torch.int64), Draws(torch.arange(3))
    )
    gradient = view.gradient(torch.zeros(3, 1, 2, 2), lambda logits: logits.sum(1))[0]
    assert gradient[:, 0, 0].tolist() == [[s, s] for s in steep.flatten().nan_to_num(0, 0, 0).tolist()]
    assert view.broken().tolist() == [[0, 1, 0], [0, 1, 0]]


def test_no_samples_are_no_trouble() -> None:
    view = View(lambda x, _: x.flatten(1), torch.zeros(0, dtype=torch.int64), Draws(torch.arange(0)))
    gradient, _, _ = view.gradient(torch.zeros(0, 1, 2, 2), lambda logits: logits.sum(1))
    assert gradient.shape == (0, 1, 2, 2)
    assert view.first_success.tolist() == view.broken()[0].tolist() == []
