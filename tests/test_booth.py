"""A defence cannot tell for what it is asked: each way in which it once could is tried here."""

from __future__ import annotations

import sys
import weakref

import pytest
import torch
from digits import classifier, held_out
from torch import Tensor

from benchbox import Card, Defense, Draws, ImageSpec, Recipe
from benchbox.contract.ascent import margin
from benchbox.draws import stack
from benchbox.engine import secret
from benchbox.engine.judge import Judge, Streams
from benchbox.errors import RequestError
from benchbox.training.layout import Layout

SECRET = "5ec2e7"


class Watching(Defense):
    """Writes down everything it can see of how it is asked."""

    card = Card("watching", "notes how it is asked")

    def __init__(self) -> None:
        super().__init__(Recipe(), ImageSpec(1, 8, 10, (0.3,), (0.4,)), classifier())
        self.eval().requires_grad_(False)
        self.seen: list[tuple[object, ...]] = []
        self.indices: list[list[int]] = []

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        frame, names = sys._getframe(1), []
        while frame is not None:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
        how = (tuple(names), torch.is_grad_enabled(), x.requires_grad, x.is_leaf, type(x.grad_fn).__name__)
        self.seen.append((*how, len(x), type(draws).__name__, draws.seed))
        self.indices.append(draws.indices.tolist())
        return self.classifier(x)

    def losses(self, batch):
        return {}


class WatchingRandom(Watching):
    randomized = True


def _asked_in_every_way(defense: Watching) -> None:
    x, y, indices = held_out(6)
    judge, streams = Judge(defense, Layout(batch=6), SECRET), Streams(indices.tolist(), 0, x.device)
    view = judge.view(y, streams.attacked("any"))
    judge.score(x, streams.clean, 2 if defense.randomized else 1)
    view.gradient(x, lambda logits: margin(logits, y))
    with torch.no_grad():
        view(x)  # an attack without gradients
    view(x.requires_grad_())
    judge.score(x.detach(), streams.adversarial, 1)


@pytest.mark.parametrize("cls", [Watching, WatchingRandom])
def test_attack_and_scoring_look_alike_from_inside(cls) -> None:
    defense = cls()
    _asked_in_every_way(defense)
    assert len(defense.seen) >= 5
    assert len(set(defense.seen)) == 1
    names, grad, asks, leaf, _, _, _, _ = defense.seen[0]
    assert (grad, asks, leaf) == (True, True, False)
    assert not {"score", "gradient", "_ask", "test_attack_and_scoring_look_alike_from_inside"} & set(names)


def test_no_sample_is_known_again_by_its_index() -> None:
    defense = Watching()
    _asked_in_every_way(defense)
    assert {index for indices in defense.indices for index in indices} == {0}
    random = WatchingRandom()
    _asked_in_every_way(random)
    every = [index for indices in random.indices for index in indices]
    assert len(set(every)) == len(every) >= 30
    assert not set(every) & set(range(1400, 1406))


def test_hidden_draws_belong_to_the_sample_and_to_the_secret() -> None:
    key, rows = b"key", torch.tensor([3, 5, 9])
    draws = Draws(rows, 7).at("score", 1)
    whole = draws.hidden(key).at("noise").normal(4)
    assert torch.equal(draws.rows(slice(1, 3)).hidden(key).at("noise").normal(4), whole[1:])
    both = stack([Draws(rows, 7).at("score", 0), draws]).hidden(key).at("noise").normal(4)
    assert torch.equal(both[3:], whole)
    assert not torch.equal(both[:3], whole)
    assert not torch.equal(draws.hidden(b"other").at("noise").normal(4), whole)


def test_the_gradient_through_the_booth_is_that_of_the_defence() -> None:
    x, y, indices = held_out(8)
    defense = Watching()
    judge, draws = Judge(defense, Layout(), SECRET), Draws(indices)
    view = judge.view(y, draws)
    gradient, _, logits = view.gradient(x, lambda z: margin(z, y))
    leaf = x.clone().requires_grad_()
    plain = defense.classifier(leaf)
    (expected,) = torch.autograd.grad(margin(plain, y).sum(), leaf)
    assert torch.equal(gradient, expected)
    assert torch.equal(logits, plain)
    # Whoever goes through the classes one by one comes back to the same logits.
    leaf = x.clone().requires_grad_()
    asked = judge.ask(leaf, draws)
    for k in range(2):
        (one,) = torch.autograd.grad(asked[:, k].sum(), leaf, retain_graph=True)
        (same,) = torch.autograd.grad(defense.classifier(leaf)[:, k].sum(), leaf)
        assert torch.equal(one, same)


def test_what_is_written_into_an_image_stays_with_the_defence() -> None:
    class Writing(Watching):
        def forward(self, x, draws=None):
            with torch.no_grad():
                x.grad_fn.next_functions[0][0].variable.add_(0.1)  # back along the graph
            return self.classifier(x.sub_(0.1).mul_(1.1))

    x, y, indices = held_out(4)
    kept = x.clone()
    judge = Judge(Writing(), Layout(), SECRET)
    judge.score(x, Draws(indices), 1)
    with torch.no_grad():
        judge.view(y, Draws(indices))(x)
    judge.view(y, Draws(indices)).gradient(x, lambda z: margin(z, y))
    assert torch.equal(x, kept)


@pytest.mark.parametrize("differentiated", [True, False])
def test_who_is_dropped_with_an_answer_sees_nobody_either(differentiated: bool) -> None:
    """A defence may hang a finaliser on what it answers: it runs when the answer goes, wherever that is."""
    seen: list[str] = []

    def note() -> None:
        frame = sys._getframe(1)
        while frame is not None:
            seen.append(frame.f_code.co_name)
            frame = frame.f_back

    class Lingering(Watching):
        def forward(self, x, draws=None):
            logits = self.classifier(x)
            weakref.finalize(logits, note)
            return logits

    x, _, indices = held_out(4)
    asked = Judge(Lingering(), Layout(), SECRET).ask(x.requires_grad_(differentiated), Draws(indices))
    if differentiated:
        asked.sum().backward()
    del asked
    assert seen
    assert not {"ask", "ask_all", "forward", "test_who_is_dropped_with_an_answer_sees_nobody_either"} & set(seen)


def test_an_error_inside_names_the_line_of_the_defence() -> None:
    from benchbox.errors import DefenseError

    class Failing(Watching):
        def forward(self, x, draws=None):
            raise ValueError("no such thing")

    x, _, indices = held_out(2)
    with pytest.raises(DefenseError, match=r"watching.*test_booth.py.*no such thing"):
        Judge(Failing(), Layout()).ask(x, Draws(indices))


def test_a_secret_is_hexadecimal() -> None:
    assert secret.check(secret.new())
    with pytest.raises(RequestError, match="hexadecimal"):
        secret.check("xyz")
