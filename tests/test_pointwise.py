"""Pointwise: the few pixels that matter, labels alone, its queries, and every sample by itself."""

from __future__ import annotations

import torch
from benchbox.plugins.attacks.pgd import PGD
from benchbox.plugins.attacks.pointwise import Pointwise
from digits import classifier, held_out, view
from torch import Tensor

from benchbox import ThreatModel, View
from benchbox.contract.attack import Crafted
from benchbox.draws import Draws, sample_draws

PIXELS = (5, 40)


def lit(x: Tensor, _: Draws) -> Tensor:
    """Wrong where two pixels are bright: a label, no scores, no gradient."""
    wrong = (x.flatten(1)[:, PIXELS] > 0.9).all(1)
    return torch.nn.functional.one_hot(wrong.long(), 2).float().detach()


def attacked(forward: object, x: Tensor, epsilon: float, queries: int = 200, **given: object) -> Crafted:
    y, draws, threat = torch.zeros(len(x), dtype=torch.int64), sample_draws(len(x)), ThreatModel("l1", epsilon)
    return Pointwise(queries=queries)(View(forward, y, draws, **given), x, y, threat, draws)  # type: ignore[arg-type]


def test_the_two_pixels_that_matter_are_found_and_nothing_else_is_changed() -> None:
    x = torch.full((3, 1, 8, 8), 0.25)
    found = attacked(lit, x, 1.5).x
    changed = (found != x).flatten(1)
    assert changed[:, PIXELS].all()
    assert (changed.sum(1) == 2).all()
    assert (lit(found, sample_draws(3)).argmax(1) == 1).all()
    # One pixel alone has room in the smaller ball.
    assert (lit(attacked(lit, x, 1.2).x, sample_draws(3)).argmax(1) == 0).all()


def test_it_keeps_to_its_queries_and_asks_for_no_gradient() -> None:
    x = sample_draws(2).uniform(3, 4, 4)
    found = attacked(lambda x, _: torch.stack([x.sum((1, 2, 3)) + 1, torch.zeros(len(x))], 1), x, 1.0)
    assert (found.forwards == 201).all()
    assert (found.backwards == 0).all()


def test_a_sample_is_attacked_alike_whatever_its_batch() -> None:
    x, y, rows = held_out(12)
    attack, threat = Pointwise(queries=150), ThreatModel("l1", 2.0)
    model, draws = view(classifier(), y, rows)
    whole = attack(model, x, y, threat, draws).x
    some = torch.tensor([7, 2, 9])
    model, draws = view(classifier(), y[some], rows[some])
    assert torch.equal(attack(model, x[some], y[some], threat, draws).x, whole[some])


def test_told_labels_alone_it_breaks_nearly_what_gradients_break() -> None:
    x, y, rows = held_out(60)
    threat, left = ThreatModel("l1", 2.0), {}
    for attack in (Pointwise(queries=1000), PGD()):
        model, draws = view(classifier(), y, rows)
        found = attack(model, x, y, threat, draws).x
        left[attack.card.name] = int((classifier()(found).argmax(1) == y).sum())
    assert 0 < left["pointwise"] <= left["pgd"] + 4
