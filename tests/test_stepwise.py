"""Purifiers that are a sequence of steps: one gradient, little memory; what an attack sees of them."""

from __future__ import annotations

import pytest
import torch
from benchbox.plugins.attacks.diffattack import DiffAttack, deviation
from benchbox.plugins.attacks.low_frequency import LowFrequency, _likeness, _nearly_one, smoothed
from benchbox.plugins.attacks.pgd import PGD
from torch import Tensor, nn

from benchbox import (
    Batch,
    Card,
    DefenseError,
    Draws,
    ImageSpec,
    Losses,
    Recipe,
    RequestError,
    StepwisePurifier,
    ThreatModel,
    Trail,
    View,
    sample_draws,
)
from benchbox.engine.judge import Judge
from benchbox.training.layout import Layout

SPEC = ImageSpec(1, 6, 3, (0.3,), (0.4,))


class Walker(StepwisePurifier):
    """Each step moves the image by a network and by noise of its own."""

    card = Card("walker", "walks")
    randomized = True
    length: int = 12  # type: ignore[assignment]

    def __init__(self, recipe: Recipe, images: ImageSpec, classifier: nn.Module) -> None:
        super().__init__(recipe, images, classifier)
        self.network = nn.Conv2d(1, 1, 3, padding=1)
        self.calls = 0

    def begin(self, x: Tensor, draws: Draws) -> Tensor:
        return x + 0.1 * draws.at("begin").normal(*x.shape[1:]).to(x.dtype)

    def step(self, i: int, state: Tensor, x: Tensor, draws: Draws) -> Tensor:
        self.calls += 1
        noise = draws.at("step", i).normal(*x.shape[1:]).to(x.dtype)
        return state + 0.3 * torch.tanh(self.network(state)) * (1 + noise) + 0.05 * (x - state)

    def finish(self, state: Tensor) -> Tensor:
        return state.sigmoid()

    def losses(self, batch: Batch) -> Losses:
        return {}


@pytest.fixture
def walker() -> Walker:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
        walker = Walker(Walker.configure(), SPEC, classifier)
    return walker.eval().requires_grad_(False)  # type: ignore[no-any-return]


def gradient(walker: Walker, forward: str = "autograd") -> Tensor:
    draws = sample_draws(5)
    x = draws.at("x").uniform(1, 6, 6).requires_grad_()
    logits = walker.surrogates()[forward](x, draws)
    return torch.autograd.grad(logits[:, 0].sum(), x)[0]


def test_the_checkpointed_gradient_is_the_plain_one(walker: Walker) -> None:
    checkpointed = gradient(walker)
    assert walker.calls == 2 * walker.length  # each step is made again, once
    walker.checkpointed = False
    torch.testing.assert_close(checkpointed, gradient(walker), rtol=1e-5, atol=1e-7)


def test_of_a_step_nothing_is_kept_but_what_it_was_given(walker: Walker) -> None:
    def kept(length: int, checkpointed: bool) -> int:
        walker.length, walker.checkpointed, total = length, checkpointed, 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        x = sample_draws(5).uniform(1, 6, 6).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            walker(x, sample_draws(5))
        return total

    # The state before it and the image, which is the same for all; without checkpoints whatever it computes.
    given = 2 * 5 * 36
    assert kept(24, True) - kept(3, True) == 21 * given
    assert kept(24, False) - kept(3, False) > 21 * given


def test_a_replay_with_other_noise_is_another_gradient(walker: Walker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mistake of early implementations, which the test above has to notice."""
    exact, step, calls = gradient(walker), Walker.step, 0

    def forgetful(self: Walker, i: int, state: Tensor, x: Tensor, draws: Draws) -> Tensor:
        nonlocal calls
        calls += 1
        return step(self, i, state, x, draws.at("replay") if calls > self.length else draws)

    monkeypatch.setattr(Walker, "step", forgetful)
    assert not torch.allclose(gradient(walker), exact, rtol=1e-2)


def test_a_step_may_write_into_its_state(walker: Walker, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = sample_draws(5).at("x").uniform(1, 6, 6), torch.zeros(5, dtype=torch.int64)

    def walked() -> tuple[Tensor, ...]:
        judge = Judge(walker, Layout(batch=16, channels_last=False))
        far = judge.view(y, sample_draws(5)).along(x, deviation)
        return *far, gradient(walker), gradient(walker, "skipped"), gradient(walker, "beginning")

    step, plain = Walker.step, walked()

    def inplace(self: Walker, i: int, state: Tensor, x: Tensor, draws: Draws) -> Tensor:
        return state.add_(step(self, i, state.clone(), x, draws) - state)

    monkeypatch.setattr(Walker, "step", inplace)
    for one, other in zip(walked(), plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert torch.equal(x, sample_draws(5).at("x").uniform(1, 6, 6))


def test_states_of_their_own_shape_need_faithful_ones(walker: Walker, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = sample_draws(5).at("x").uniform(1, 6, 6), torch.zeros(5, dtype=torch.int64)
    monkeypatch.setattr(Walker, "begin", lambda self, x, draws: x.flatten(1))
    monkeypatch.setattr(Walker, "step", lambda self, i, state, x, draws: 0.9 * state)
    monkeypatch.setattr(Walker, "finish", lambda self, state: state.view(-1, 1, 6, 6))
    judge = Judge(walker, Layout(batch=16, channels_last=False))
    view = judge.view(y, sample_draws(5))
    with pytest.raises(
        DefenseError, match=r"walker: faithful\(0\) is \(5, 1, 6, 6\) where the states are \(5, 36\)"
    ):
        view.along(x, deviation)
    monkeypatch.setattr(Walker, "faithful", lambda self, i, x, draws: x.flatten(1))
    _, distance, _ = view.along(x, lambda trail: deviation(trail) + trail.logits[:, 0])
    assert distance.shape == (5,)
    monkeypatch.setattr(Walker, "step", lambda self, i, state, x, draws: state[:, : 36 - i])
    with pytest.raises(DefenseError, match=r"walker: step 1 makes \(5, 35\) of a state \(5, 36\)"):
        gradient(walker)
    walker.length = 0
    with pytest.raises(DefenseError, match="walker has length 0; take 1 step or more"):
        view.along(x, deviation)


def test_stand_ins_have_backward_passes_of_their_own(walker: Walker) -> None:
    found = {name: gradient(walker, name) for name in walker.stand_ins}
    assert list(found) == ["autograd", "identity", "skipped", "beginning"]
    for name, other in found.items():
        assert name == "autograd" or not torch.allclose(other, found["autograd"], rtol=1e-2)
    # What precedes the steps is the identity here, and what follows them is not.
    assert not torch.allclose(found["beginning"], found["identity"], rtol=1e-2)


def test_an_attack_sees_the_steps_through_the_judge(walker: Walker) -> None:
    draws = sample_draws(5)
    x, y = draws.at("x").uniform(1, 6, 6), torch.zeros(5, dtype=torch.int64)
    seen: list[Trail] = []

    def away(trail: Trail) -> Tensor:
        seen.append(trail)
        return trail.logits[:, 0] + (trail.states - trail.faithful).square().flatten(1).sum(1)

    judge = Judge(walker, Layout(batch=16, channels_last=False))
    found, losses, logits = judge.view(y, draws, eot=3).along(x, away)
    assert [trail.states.shape for trail in seen] == [(5, 12, 1, 6, 6)] * 3
    # One copy after the other, and a batch that is cut, give the same.
    for batch in (5, 2):
        again = Judge(walker, Layout(batch=batch, channels_last=False)).view(y, draws, eot=3).along(x, away)
        for one, other in zip(again, (found, losses, logits), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        judge.view(y, draws, eot=3).gradient(x, lambda logits: logits[:, 0])[2], logits, rtol=1e-5, atol=1e-6
    )
    view = judge.view(y, draws, eot=3)
    view.along(x, away)
    assert view.passes() == (3, 3)
    assert view.rows(torch.arange(2)).along(x[:2], away)[0].shape == (2, 1, 6, 6)


def test_of_a_stand_in_or_another_model_there_are_no_steps(walker: Walker) -> None:
    draws = sample_draws(5)
    x, y = draws.at("x").uniform(1, 6, 6), torch.zeros(5, dtype=torch.int64)
    sizes: list[int] = []

    def count(trail: Trail) -> Tensor:
        sizes.append(trail.states.shape[1])
        return trail.logits[:, 0]

    judge = Judge(walker, Layout(batch=16, channels_last=False))
    for view in (judge.view(y, draws, stand_in="identity"), View(lambda x, _: x.flatten(1)[:, :3], y, draws)):
        view.along(x, count)
    assert sizes == [0, 0]


def test_diffattack_climbs_the_steps_and_is_pgd_where_there_are_none(walker: Walker) -> None:
    draws = sample_draws(5)
    x, y = draws.at("x").uniform(1, 6, 6), torch.zeros(5, dtype=torch.int64)
    ball = ThreatModel("linf", 0.2)
    judge = Judge(walker, Layout(batch=16, channels_last=False))

    def deviates(attack: PGD, stand_in: str | None = None) -> tuple[Tensor, float]:
        found = attack(judge.view(y, draws, stand_in=stand_in), x, y, ball, draws).x
        return found, float(deviation(walker.trail(found, draws)).mean())

    quick = {"steps": 8, "step": 0.25}
    assert deviates(DiffAttack(weight=100.0, **quick))[1] > 1.05 * deviates(PGD(**quick))[1]
    assert torch.equal(deviates(DiffAttack(**quick), "identity")[0], deviates(PGD(**quick), "identity")[0])


def test_filters_start_as_the_image_and_end_as_means() -> None:
    x = sample_draws(3).uniform(2, 6, 6)
    even = _likeness(x, 3, 1e6)
    torch.testing.assert_close(smoothed(x, _nearly_one(x, 3), even), x, rtol=0, atol=1e-3)
    mean = smoothed(x, torch.zeros(3, 4, 6, 6), even)
    assert torch.allclose(mean[:, :, 2, 3], _mean_of_nine(x, 2, 3), atol=1e-6)


def _mean_of_nine(x: Tensor, row: int, column: int) -> Tensor:
    return x[:, :, row - 1 : row + 2, column - 1 : column + 2].mean((2, 3))


def test_the_low_frequency_attack_lowers_the_margin(walker: Walker) -> None:
    draws = sample_draws(5)
    x = draws.at("x").uniform(1, 6, 6)
    judge = Judge(walker, Layout(batch=16, channels_last=False))
    y = judge.ask(x, draws).argmax(1)
    found = LowFrequency(steps=20)(judge.view(y, draws), x, y, ThreatModel("linf", 0.3), draws).x
    true = (judge.ask(x, draws) - judge.ask(found, draws)).gather(1, y[:, None])
    assert bool((true > 0).all())
    with pytest.raises(RequestError, match="no middle; use odd numbers"):
        LowFrequency(kernels=(4,))
