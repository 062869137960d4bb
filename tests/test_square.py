"""The squares of Square Attack: how large, how many, where, and what they change."""

from __future__ import annotations

import pytest
import torch
from benchbox.plugins.attacks._square import _blocks, _Pyramids, _Stripes, square
from pyautoattack.square import SquareAttack

from benchbox import ThreatModel, View
from benchbox.draws import sample_draws


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 32), (20, 12)])
def test_sides_follow_the_authors_schedule(norm: str, size: tuple[int, int]) -> None:
    theirs = SquareAttack(lambda x: x, p_init=0.8, n_queries=9000, eps=0.1, norm=norm, resc_schedule=False)
    mine = {}
    for first, last, side in _blocks(9000, 0.8, torch.Size(size), 1 if norm == "Linf" else 3):
        mine |= dict.fromkeys(range(first, last), side)
    assert list(mine) == list(range(9000))
    for query in (0, 10, 11, 50, 51, 200, 201, 500, 501, 1000, 1001, 2001, 4001, 6001, 8001, 8999):
        side = round((theirs.p_selection(query) * size[0] * size[1]) ** 0.5)
        side = max(side, 1) if norm == "Linf" else max(side, 3) + (max(side, 3) % 2 == 0)
        assert mine[query] == min(side, *size), query


@pytest.mark.parametrize("shape", [(4, 9), (5, 9), (1, 3), (2, 3), (12, 25)])
def test_pyramids_are_the_authors(shape: tuple[int, int]) -> None:
    theirs = SquareAttack(lambda x: x, norm="L2", eps=1.0, device="cpu").eta_rectangles(*shape)
    mine = _Pyramids(1.0, torch.zeros(1, 1, 1, 1))._pyramid(*shape)
    torch.testing.assert_close(mine, theirs)


def test_a_square_is_painted_in_one_colour_a_channel() -> None:
    n, side, draws = 30, 3, sample_draws(30)
    x = torch.full((n, 3, 8, 8), 0.5)
    painter = _Stripes(0.1, x)
    best = painter.start(draws)
    assert ((best - 0.5).abs() - 0.1).abs().max() < 1e-6
    assert (best == best[:, :, :1]).all()  # stripes from top to bottom
    painter.load(draws, 5, side)
    tops = set()
    for query in range(5):
        tried = painter.paint(best, query)
        assert ((tried - 0.5).abs() - 0.1).abs().max() < 1e-6
        for image, before in zip(tried, best, strict=True):
            window = (image != before).any(0).nonzero()
            if len(window):
                assert (window.amax(0) - window.amin(0) < side).all()
                tops.add(int(window[:, 0].min()))
                top, left = window.amin(0)
                for channel in image[:, top : top + 1, left : left + 1]:
                    assert channel.numel() == 1
    assert tops >= {0, 1, 2, 3, 4}  # and never the last place, as in the authors' program


def test_l2_candidates_use_the_whole_radius() -> None:
    n, draws = 20, sample_draws(20)
    x = torch.full((n, 3, 9, 9), 0.5)
    painter = _Pyramids(0.4, x)
    best = painter.start(draws)
    torch.testing.assert_close((best - x).flatten(1).norm(dim=1), torch.full((n,), 0.4))
    painter.load(draws, 3, 3)
    for query in range(3):
        tried = painter.paint(best, query)
        torch.testing.assert_close((tried - x).flatten(1).norm(dim=1), torch.full((n,), 0.4))
        changed = ((tried - best).abs() > 1e-3).any(1).flatten(1).sum(1)
        assert (changed >= 9).all()


@pytest.mark.parametrize("size", [1, 3, 4, 14])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_images_of_any_size(size: int, norm: str) -> None:
    draws, y = sample_draws(4), torch.zeros(4, dtype=torch.int64)
    x = draws.uniform(3, size, size + 1)
    threat = ThreatModel(norm, 0.1)  # type: ignore[arg-type]

    def forward(x: torch.Tensor, _: object) -> torch.Tensor:
        return torch.stack([x.flatten(1).mean(1), torch.full((len(x),), 0.45)], 1)

    found = square(View(forward, y, draws), x, y, threat, draws, queries=30)
    assert found.isfinite().all()
    assert (threat.norms(found - x) <= 0.1 + 1e-6).all()
