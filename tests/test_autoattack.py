"""AutoAttack: its price, its agreement with the authors' program, and both on randomised defences."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import digits
import pytest
import torch
from benchbox.plugins.attacks._apgd import apgd, looks
from benchbox.plugins.attacks._losses import ce
from benchbox.plugins.attacks._survivors import Survivors
from benchbox.plugins.attacks.aa import AA, members, run
from benchbox.plugins.attacks.null import Null
from benchbox.plugins.attacks.pgd import PGD
from pyautoattack import AutoAttack
from torch import Tensor, nn

from benchbox import Draws, ThreatModel, View
from benchbox.draws import sample_draws

LINF = ThreatModel("linf", 0.1)
L2 = ThreatModel("l2", 0.4)


class Unbreakable(nn.Module):
    """Class 0 leads by so much that no image changes it; every gradient is small but not zero."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.w = 0.01 * sample_draws(classes, seed=1).normal(25)
        self.lead = 5.0 * (torch.arange(classes) == 0)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w.T + self.lead


def unbreakable(n: int, classes: int = 10) -> tuple[View, Tensor, Tensor, Draws]:
    net, draws = Unbreakable(classes), sample_draws(n)
    y = torch.zeros(n, dtype=torch.int64)
    return View(lambda x, _: net(x), y, draws), draws.uniform(1, 5, 5), y, draws


def test_price_of_a_sample_that_never_breaks() -> None:
    spent = {}
    for name in members(10):
        model, x, y, draws = unbreakable(2)
        with torch.no_grad():
            run(name, Survivors(model, x, y, LINF, draws), 10)
        spent[name] = model.passes()
    assert spent == {"apgd-ce": (102, 101), "apgd-t": (919, 909), "fab-t": (1828, 900), "square": (5003, 0)}
    assert [sum(column) for column in zip(*spent.values(), strict=True)] == [7852, 1910]


@pytest.mark.parametrize("threat", [LINF, L2])
def test_price_of_the_whole(threat: ThreatModel) -> None:
    model, x, y, draws = unbreakable(2)
    crafted = AA()(model, x, y, threat, draws)
    assert (crafted.forwards == 7852 + 5).all()
    assert (crafted.backwards == 1910).all()
    assert torch.equal(crafted.x, x)


@pytest.mark.parametrize(
    ("classes", "forwards", "backwards"),
    [
        (4, 5 + 102 + (1 + 3 * 102) + (1 + 3 * 203) + 5003, 101 + 3 * 101 + 3 * 100),
        (3, 5 + 102 + 102 + (1 + 2 * 203) + 5003, 101 + 101 + 2 * 100),
        (2, 4 + 102 + (1 + 203) + 5003, 101 + 100),
    ],
)
def test_few_classes(classes: int, forwards: int, backwards: int) -> None:
    model, x, y, draws = unbreakable(1, classes)
    AA()(model, x, y, LINF, draws)
    assert model.passes() == (forwards, backwards)


def test_misclassified_samples_cost_one_pass() -> None:
    model, x, y, draws = unbreakable(3)
    model = View(model.forward, y + 1, draws)
    crafted = AA()(model, x, y + 1, LINF, draws)
    assert torch.equal(crafted.x, x)
    assert model.passes() == (1, 0)


def test_counts_do_not_depend_on_the_batches_a_pool_is_split_into() -> None:
    """What each sample cost, and when it fell, is its own."""
    (x, y, rows), net = digits.held_out(8), digits.classifier()

    def crafted(batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        draws = Draws(rows)
        view = View(lambda x, _: net(x), y, draws, batch=batch)
        made = AA()(view, x, y, LINF, draws)
        return made.forwards, made.backwards, made.first_success, net(made.x).argmax(1) == y

    whole, parts = crafted(8), crafted(5)
    for a, b in zip(whole, parts, strict=True):
        assert torch.equal(a, b)
    forwards, backwards, fell, stands = whole
    assert 0 < stands.sum() < 8
    assert (forwards[stands] == 7857).all()
    assert (backwards[stands] == 1910).all()
    # FAB also asks outside the ball: a sample that stands may have erred there.
    assert (forwards[fell > 0] >= fell[fell > 0]).all()


def attack_digits(n: int, threat: ThreatModel, some: Tensor | None = None) -> Tensor:
    """AA on n digits, or on some of them in the given order: whether each withstood."""
    x, y, rows = digits.held_out(n)
    part = torch.arange(n) if some is None else some
    model, draws = digits.view(digits.classifier(), y[part], rows[part])
    x_adv = AA()(model, x[part], y[part], threat, draws).x
    return digits.classifier()(x_adv).argmax(1) == y[part]


@pytest.mark.parametrize("threat", [LINF, pytest.param(L2, marks=pytest.mark.slow)], ids=["linf", "l2"])
@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square"])
def test_each_member_breaks_what_the_authors_does(name: str, threat: ThreatModel) -> None:
    """Up to the samples that one random start breaks and another does not."""
    n = 40
    x, y, _ = digits.held_out(n)
    with torch.random.fork_rng():
        norm = {"linf": "Linf", "l2": "L2"}[threat.norm]
        program = AutoAttack(
            digits.classifier(), eps=threat.epsilon, norm=norm, seed=0, version="custom", attacks=[name]
        )
        program.apgd.n_restarts = program.fab.n_restarts = 1
        x_adv, _ = program.run_standard_evaluation(x, y, batch_size=n)
    survivors = digits.as_robust(name, threat, n, x_adv)
    assert torch.equal(digits.stands(survivors.x_adv, y).nonzero().flatten(), survivors.standing)


@pytest.mark.parametrize("threat", [LINF, pytest.param(L2, marks=pytest.mark.slow)], ids=["linf", "l2"])
def test_agrees_with_the_authors_program_and_with_itself(threat: ThreatModel) -> None:
    """The two programs differ in their random numbers only, which decide samples at the edge of the ball."""
    n = 24
    x, y, _ = digits.held_out(n)
    norm = {"linf": "Linf", "l2": "L2"}[threat.norm]
    with torch.random.fork_rng():
        program = AutoAttack(digits.classifier(), eps=threat.epsilon, norm=norm, seed=0)
        x_adv, _ = program.run_standard_evaluation(x, y, batch_size=n)
    theirs = digits.classifier()(x_adv).argmax(1) == y
    mine = attack_digits(n, threat)
    assert 0.1 < theirs.float().mean() < 0.9
    assert (mine != theirs).sum() <= 1
    some = torch.randperm(n, generator=torch.Generator().manual_seed(2))[: n // 2]
    assert 0 < mine[some].sum() < len(some)
    assert torch.equal(attack_digits(n, threat, some), mine[some])


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_random_starts_of_apgd_belong_to_the_sample(threat: ThreatModel) -> None:
    """With no steps left APGD returns its start."""
    x, y, rows = digits.held_out(12)

    def starts(part: Tensor) -> Tensor:
        model, draws = digits.view(digits.classifier(), y[part], rows[part])
        return apgd(model, x[part], y[part], threat, draws, loss=ce, steps=0).x

    whole = starts(torch.arange(12))
    some = torch.tensor([9, 2, 7])
    assert torch.equal(starts(some), whole[some])
    distances = threat.norms(whole - x)
    assert (distances <= threat.epsilon + 1e-6).all()
    assert (distances > 0.5 * threat.epsilon).all()


Q = 0.9


class CoinFlip(nn.Module):
    """Right with probability 0.9, whatever the image: nobody can attack it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.flip(x, torch.rand(len(x)))

    @staticmethod
    def flip(x: Tensor, coin: Tensor) -> Tensor:
        right = torch.tensor([1.0, 0.0, -0.5, -1.0])
        wrong = torch.tensor([0.0, 1.0, -0.5, -1.0])
        return torch.where((coin < Q)[:, None], right, wrong) + 1e-6 * x.flatten(1).sum(1, keepdim=True) * right


def coin_flip(n: int, eot: int) -> tuple[View, Tensor, Tensor, Draws]:
    draws, y = sample_draws(n, seed=4), torch.zeros(n, dtype=torch.int64)
    model = View(lambda x, d: CoinFlip.flip(x, d.uniform(1)[:, 0]), y, draws, randomized=True, eot=eot)
    return model, draws.uniform(1, 2, 2), y, draws


def rescored(x: Tensor) -> Tensor:
    """(N, 10) whether each image is classified correctly, in ten draws no attack has seen."""
    scoring = sample_draws(len(x), seed=99)
    return torch.stack([CoinFlip.flip(x, scoring.at(r).uniform(1)[:, 0]).argmax(1) == 0 for r in range(10)], 1)


def test_what_counting_while_attacking_does_to_a_randomised_defence() -> None:
    """The authors' counter lets each of its single looks break a sample: 0.9³, where the truth is 0.9."""
    n = 1000
    model, x, y, draws = coin_flip(n, eot=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        program = AutoAttack(CoinFlip(), eps=1e-12, norm="Linf", version="rand", seed=0)
        program.apgd.n_iter = 2  # the attack has nothing to find; its counter is what is tested
        _, predicted = program.run_standard_evaluation(x, y, batch_size=n)
    counted = float((predicted == y).float().mean())

    clean = rescored(x)
    null = rescored(Null()(model, x, y, LINF, draws).x)
    assert torch.equal(null, clean)
    assert float(null.float().mean()) == pytest.approx(Q, abs=0.012)
    assert counted == pytest.approx(Q**3, abs=0.05)


def test_ours_does_not_deflate_a_randomised_defence() -> None:
    model, x, y, draws = coin_flip(500, eot=2)
    crafted = AA()(model, x, y, LINF, draws)
    assert float(rescored(crafted.x).float().mean()) == pytest.approx(Q, abs=0.02)


def test_ours_does_not_inflate_a_randomised_defence_either() -> None:
    """Noise on the image of a breakable model: a sample that errs by chance is attacked all the same."""
    x, y, rows = digits.held_out(60)
    draws, net, threat = Draws(rows), digits.classifier(), ThreatModel("linf", 0.3)

    def noisy(x: Tensor, d: Draws) -> Tensor:
        logits: Tensor = net(x + 0.3 * d.normal(1, 8, 8))
        return logits

    def accuracy(x: Tensor) -> float:
        scoring = Draws(rows, seed=99)
        right = torch.stack([noisy(x, scoring.at(r)).argmax(1) == y for r in range(10)])
        return float(right.float().mean())

    model = View(noisy, y, draws, randomized=True, eot=5)
    crafted = AA()(model, x, y, threat, draws)
    assert 0.5 < accuracy(x) < 0.9
    assert model.partial == [0, 0]
    assert (threat.norms(crafted.x - x) > 0.2).all()
    assert accuracy(crafted.x) < 0.05


def test_errors_outweigh_loss_on_a_randomised_view() -> None:
    """Where rare flips punish confidence, the cross-entropy prefers images that are mostly classified right."""
    x, y, rows = digits.held_out(60)
    draws, net = Draws(rows), digits.classifier()

    def flipping(x: Tensor, d: Draws) -> Tensor:
        logits = net(x)
        return torch.where(d.uniform(1) < 0.3, logits.roll(1, 1), logits)

    model = View(flipping, y, draws, randomized=True, eot=10)
    x_adv = AA()(model, x, y, ThreatModel("linf", 0.25), draws).x
    assert (net(x_adv).argmax(1) == y).float().mean() < 0.15


def noisy_digits(n: int, eot: int) -> tuple[View, Tensor, Draws, Draws]:
    """The digits' classifier behind noise that changes some of its answers."""
    x, y, rows = digits.held_out(n)
    draws, net = Draws(rows), digits.classifier()
    return View(lambda x, d: net(x + 0.1 * d.normal(1, 8, 8)), y, draws, randomized=True, eot=eot), x, draws, rows


def expected(model: View, x: Tensor, rows: Any) -> Tensor:
    """(N,) share of ten fresh draws in which each image is classified correctly."""
    scoring = Draws(rows, seed=99)
    return torch.stack([model.forward(x, scoring.at(r)).argmax(1) == model.y for r in range(10)]).float().mean(0)


def test_who_errs_in_every_one_of_many_draws_leaves_and_the_number_is_that_of_the_whole_search() -> None:
    threat = ThreatModel("linf", 0.15)
    whole, x, draws, rows = noisy_digits(60, eot=4)
    found = AA()(whole, x, whole.y, threat, draws)
    sure, *_ = noisy_digits(60, eot=4)
    left = AA(sure=100)(sure, x, sure.y, threat, draws)
    right, still = expected(whole, found.x, rows), expected(sure, left.x, rows)
    assert 0.05 < float(right.mean()) < 0.9  # of both kinds
    assert abs(float((right - still).mean())) < 0.03
    early = left.backwards < found.backwards
    assert float(early.float().mean()) > 0.1
    assert float(still[early].mean()) < 0.03
    assert float(left.backwards[early].mean()) < 0.5 * float(found.backwards.mean())
    assert (left.backwards[~early] == found.backwards[0]).all()


def test_what_being_sure_may_cost_is_what_its_docstring_says() -> None:
    count = 2 * len(looks(100)) - 1  # after the last step of the second run nothing is saved
    assert looks(100) == (4, 8, 16, 32, 64, 100)
    lost = max(p * (1 - (1 - (1 - p) ** 100) ** count) for p in (i / 10_000 for i in range(1, 10_000)))
    assert f"at most {lost:.1%} is lost with 100 draws" in str(AA.__doc__).replace(" %", "%").replace(
        "\n    ", " "
    )


def test_nobody_is_sure_of_a_coin() -> None:
    model, x, y, draws = coin_flip(200, eot=2)
    crafted = AA(sure=100)(model, x, y, LINF, draws)
    assert float(rescored(crafted.x).float().mean()) == pytest.approx(Q, abs=0.03)
    assert (crafted.backwards == crafted.backwards[0]).all()


def test_what_a_sample_finds_does_not_hang_on_who_else_is_sure() -> None:
    """Twenty samples by themselves, and the same among sixty of which others leave."""
    threat = ThreatModel("linf", 0.15)
    model, x, draws, _ = noisy_digits(60, eot=2)
    together = AA(sure=50)(model, x, model.y, threat, draws)
    keep = torch.arange(20)
    few = View(model.forward, model.y[keep], draws.rows(keep), randomized=True, eot=2)
    alone = AA(sure=50)(few, x[keep], few.y, threat, draws.rows(keep))
    assert float(((together.x[keep] - alone.x).abs().amax((1, 2, 3)) < 1e-5).float().mean()) >= 0.9
    torch.testing.assert_close(together.backwards[keep][:5], alone.backwards[:5])


def test_being_sure_is_no_part_of_an_attack_that_is_not() -> None:
    """Cells of old, which knew no such setting, are the cells of today."""
    assert AA().identity() == {}
    assert AA(sure=100).identity() == {"sure": 100}
    assert PGD().identity() == {f.name: getattr(PGD(), f.name) for f in fields(PGD)}
