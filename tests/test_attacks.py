"""The attacks on models whose optimum is known, their contract, and their independence of the batch."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import digits
import pytest
import torch
from benchbox.plugins.attacks import DECLARED
from benchbox.plugins.attacks._square import square
from benchbox.plugins.attacks.aa import AA
from benchbox.plugins.attacks.bim import BIM
from benchbox.plugins.attacks.cw import CW
from benchbox.plugins.attacks.fgsm import FGSM
from benchbox.plugins.attacks.mim import MIM
from benchbox.plugins.attacks.noise import Noise, worst
from benchbox.plugins.attacks.null import Null
from benchbox.plugins.attacks.pgd import PGD
from benchbox.plugins.attacks.square import Square
from benchbox.plugins.attacks.torchattacks_bridge import Torchattacks
from torch import Tensor, nn

from benchbox import Attack, Card, Draws, ThreatModel, View
from benchbox.contract.ascent import cross_entropy, margin
from benchbox.contract.attack import Crafted
from benchbox.draws import sample_draws
from benchbox.errors import AttackError, RequestError

LINF = ThreatModel("linf", 0.1)
L2 = ThreatModel("l2", 0.4)
BALLS = [LINF, L2]
ITERATIVE = [BIM(), MIM(), PGD(), CW()]


class Linear(nn.Module):
    """Two classes, far from the box's walls: logit 1 minus logit 0 is w·x + b."""

    def __init__(self, bias: float = -0.5) -> None:
        super().__init__()
        self.w = torch.linspace(-1, 1, 16).add(0.05).view(1, 4, 4)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.w).flatten(1).sum(1) + self.bias
        return torch.stack([-score / 2, score / 2], 1)

    def optimum(self, x: Tensor, threat: ThreatModel) -> Tensor:
        """The point of the ball that is worst for class 0 (the box plays no part)."""
        step = self.w.sign() if threat.norm == "linf" else self.w / self.w.norm()
        return x + threat.epsilon * step


def linear_problem() -> tuple[Linear, View, Tensor, Tensor, Draws]:
    net, draws = Linear(), sample_draws(6, seed=3)
    x = draws.at("images").uniform(1, 4, 4, low=0.45, high=0.55)
    y = torch.zeros(6, dtype=torch.int64)
    return net, View(lambda x, _: net(x), y, draws), x, y, draws


def attack_digits(attack: Attack, n: int, threat: ThreatModel = LINF, batch: int | None = None) -> Tensor:
    """The attack on n digits, in batches of the given size."""
    x, y, rows = digits.held_out(n)
    found = []
    for part in torch.arange(n).split(batch or n):
        model, draws = digits.view(digits.classifier(), y[part], rows[part])
        found.append(attack(model, x[part], y[part], threat, draws).x)
    return torch.cat(found)


def flags(x: Tensor, n: int) -> Tensor:
    """Which of the first n held-out digits are classified correctly as x."""
    right: Tensor = digits.classifier()(x).argmax(1) == digits.held_out(n)[1]
    return right


def test_table_imports_nothing() -> None:
    assert set(DECLARED) >= {
        "fgsm",
        "bim",
        "mim",
        "pgd",
        "cw",
        "aa",
        "square",
        "noise",
        "null",
        "torchattacks",
    }
    assert all(target.count(":") == 1 for target in DECLARED.values())


@pytest.mark.parametrize("threat", BALLS)
def test_fgsm_is_the_optimum_of_a_linear_model(threat: ThreatModel) -> None:
    net, model, x, y, draws = linear_problem()
    crafted = FGSM()(model, x, y, threat, draws)
    torch.testing.assert_close(crafted.x, net.optimum(x, threat), atol=1e-6, rtol=0)
    assert (crafted.forwards == 1).all()
    assert (crafted.backwards == 1).all()


@pytest.mark.parametrize("threat", BALLS)
@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize("kind", [BIM, MIM, PGD, CW])
def test_iterative_attacks_reach_the_optimum_of_a_linear_model(kind: Any, keep: str, threat: ThreatModel) -> None:
    net, model, x, y, draws = linear_problem()
    attack = kind(keep=keep, steps=80, step=1 / 4)
    crafted = attack(model, x, y, threat, draws)
    torch.testing.assert_close(crafted.x, net.optimum(x, threat), atol=1e-3, rtol=0)
    assert (crafted.forwards == 80 + (keep == "best")).all()
    assert (crafted.backwards == 80).all()


def test_settings_are_the_published_ones() -> None:
    assert (BIM.configure("cifar").steps, BIM.configure("cifar").step) == (10, 1 / 4)
    assert (MIM.configure("cifar").steps, PGD.configure("cifar").steps) == (10, 20)
    for kind in (BIM, MIM, PGD):
        assert kind.configure("mnist").steps == 40
        assert kind.configure("mnist").step * 0.3 == pytest.approx(0.01)
        assert kind.configure("cifar").step * 8 / 255 == pytest.approx(2 / 255)
    assert (CW.configure("mnist").steps, CW.configure("cifar").steps) == (100, 100)
    with pytest.raises(RequestError, match="did you mean steps"):
        PGD.configure(stepps=3)


def test_carlini_wagner_moves_where_the_cross_entropy_underflows() -> None:
    net, _, x, y, draws = linear_problem()
    model = View(lambda x, _: 400 * (net(x) + torch.tensor([1.0, 0.0])), y, draws)
    assert not model.gradient(x, lambda logits: cross_entropy(logits, y))[0].any()
    assert torch.equal(
        PGD()(model, x, y, LINF, draws).x, LINF.random_start(x, draws.at("attack").at("restart", 0))
    )
    torch.testing.assert_close(CW()(model, x, y, LINF, draws).x, net.optimum(x, LINF), atol=1e-6, rtol=0)


def test_margin() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]])
    assert margin(logits, torch.tensor([0, 0])).tolist() == [-1.0, 5.0]


def test_best_iterate_is_kept_when_the_last_is_worse() -> None:
    """A loss with a ridge: long steps overshoot it and end where the model is right again."""
    draws = sample_draws(1)
    y = torch.zeros(1, dtype=torch.int64)
    x = torch.full((1, 1, 1, 1), 0.5)

    def ridge(x: Tensor, _: Draws) -> Tensor:
        score = 0.2 - (x.flatten(1)[:, 0] - 0.6).abs() * 4
        return torch.stack([-score, score], 1)

    threat = ThreatModel("linf", 0.3)
    ends = {}
    for keep in ("last", "best"):
        model = View(ridge, y, draws)
        attack = BIM(steps=2, step=0.34, keep=keep)
        ends[keep] = bool(ridge(attack(model, x, y, threat, draws).x, draws).argmax(1) == 0)
    assert ends == {"last": True, "best": False}


def test_null_does_nothing() -> None:
    _, model, x, y, draws = linear_problem()
    crafted = Null()(model, x, y, LINF, draws)
    assert torch.equal(crafted.x, x)
    assert model.passes() == (0, 0)


@pytest.mark.parametrize("threat", BALLS)
def test_noise_keeps_the_worst_of_its_points(threat: ThreatModel) -> None:
    net, model, x, y, draws = linear_problem()
    crafted = Noise(draws=50)(model, x, y, threat, draws)
    assert (threat.norms(crafted.x - x) <= threat.epsilon + 1e-6).all()
    assert (crafted.forwards == 50).all()
    assert (crafted.backwards == 0).all()
    inner = draws.at("attack")
    points = torch.stack([threat.random_start(x, inner.at("point", i)) for i in range(50)])
    highest = torch.stack([margin(net(p), y) for p in points]).amax(0)
    torch.testing.assert_close(margin(net(crafted.x), y), highest)


def test_worst_averages_over_fresh_draws_of_a_randomised_model() -> None:
    """One lucky draw must not decide: b is worse in the mean, a has the larger variance."""
    n = 400
    draws, y = sample_draws(n), torch.zeros(n, dtype=torch.int64)
    a, b = torch.zeros(n, 1, 1, 1), torch.ones(n, 1, 1, 1)

    def forward(x: Tensor, draws: Draws) -> Tensor:
        first = x.flatten() == 0
        score = torch.where(first, 4 * draws.normal(1)[:, 0], torch.ones(len(x)))
        return torch.stack([torch.zeros(len(x)), score], 1)

    def share(eot: int) -> float:
        model = View(forward, y, draws, randomized=True, eot=eot)
        return float((worst(model, y, [a, b]) == b).float().mean())

    assert share(1) == pytest.approx(0.6, abs=0.08)  # P(4 z < 1) = 0.599
    assert share(64) == 1  # b always errs, a in half of the draws


def test_restarts_find_at_least_what_one_run_finds() -> None:
    _, y, _ = digits.held_out(64)
    once, thrice = (attack_digits(PGD(steps=3, restarts=r), 64) for r in (1, 3))
    net = digits.classifier()
    assert (margin(net(thrice), y) >= margin(net(once), y) - 1e-5).all()
    assert (margin(net(thrice), y) > margin(net(once), y) + 1e-3).any()


@dataclass(frozen=True, kw_only=True)
class Careless(Attack):
    """Breaks its contract in the way it is told to."""

    card = Card("careless", "breaks its contract")
    fault: str

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        if self.fault == "batch":
            return x.clamp_(0.46, 0.54)
        return {
            "ball": x + 2 * threat.epsilon,
            "box": x - threat.epsilon,
            "nan": torch.where(x > x.mean(), x, torch.nan),
            "shape": x[:-1],
            "dtype": x.double(),
        }[self.fault]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("ball", "left the ball"),
        ("nan", "NaN"),
        ("shape", "one image"),
        ("dtype", "type"),
        ("batch", "changed the"),
    ],
)
def test_a_broken_contract_is_an_error(fault: str, message: str) -> None:
    _, model, x, y, draws = linear_problem()
    with pytest.raises(AttackError, match=message):
        Careless(fault=fault)(model, x, y, LINF, draws)


def test_leaving_the_box_is_an_error() -> None:
    _, model, x, y, draws = linear_problem()
    with pytest.raises(AttackError, match="pixels in"):
        Careless(fault="box")(model, x - 0.4, y, ThreatModel("linf", 0.2), draws)


FAST = [
    Null(), Noise(draws=3), FGSM(), *ITERATIVE, Square(queries=20),
    Torchattacks(attack="PGD"), Torchattacks(attack="Square", arguments={"n_queries": 20}),
    Torchattacks(attack="Pixle", arguments={"max_iterations": 2, "restarts": 1}),
]  # fmt: skip


@pytest.mark.parametrize("attack", [*FAST, AA()], ids=lambda a: getattr(a, "attack", "") + a.card.name)
def test_global_random_state_is_untouched(attack: Attack) -> None:
    import numpy as np

    torch.manual_seed(5)
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    first = attack_digits(attack, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numbers).all()  # type: ignore[index]
    torch.manual_seed(6)
    assert torch.equal(attack_digits(attack, 2), first)


@pytest.mark.parametrize("threat", BALLS)
@pytest.mark.parametrize("attack", [PGD(steps=1, step=1e-9, keep="last"), Noise(draws=1)])
def test_random_points_belong_to_the_sample(attack: Attack, threat: ThreatModel) -> None:
    # A step of 1e-9 along a gradient that is rounded in another way in another batch.
    once, slowly = (attack_digits(attack, 24, threat, batch=batch) for batch in (24, 7))
    torch.testing.assert_close(once, slowly, rtol=0, atol=1e-6)


@pytest.mark.parametrize("threat", BALLS)
def test_random_starts_of_square_belong_to_the_sample(threat: ThreatModel) -> None:
    """With no queries left Square returns its start, also for rows that come alone or in another order."""
    x, y, rows = digits.held_out(12)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))

    def starts(part: Tensor) -> Tensor:
        model, draws = digits.view(digits.classifier(), y[part], rows[part])
        # A randomised view gives up no sample, so that the start comes back even where it breaks nothing.
        model.randomized = True
        return square(model, x[part], y[part], threat, draws, queries=0)

    whole = starts(torch.arange(12))
    assert torch.equal(starts(order), whole[order])
    assert torch.equal(starts(torch.tensor([4])), whole[4:5])


@pytest.mark.parametrize(
    ("attack", "threat"),
    [
        (PGD(), LINF),
        (PGD(), L2),
        (Square(queries=300), LINF),
        (Square(queries=300), L2),
        (Noise(draws=20), LINF),
    ],
)
def test_results_do_not_depend_on_the_batch(attack: Attack, threat: ThreatModel) -> None:
    whole = attack_digits(attack, 200, threat)
    parts = attack_digits(attack, 200, threat, batch=33)
    differing = flags(whole, 200) != flags(parts, 200)
    assert 0 < (~flags(whole, 200)).sum() < 200  # otherwise equality would say nothing
    assert differing.float().mean() <= 0.005


def randomised(n: int) -> tuple[View, Tensor, Tensor, Draws]:
    """The digits' classifier with noise on its logits."""
    x, y, rows = digits.held_out(n)
    draws = Draws(rows)
    net = digits.classifier()
    return (
        View(lambda x, d: net(x) + 4 * d.normal(10)[: len(x)], y, draws, randomized=True, eot=2),
        x,
        y,
        draws,
    )


@pytest.mark.parametrize("attack", [Square(queries=30), PGD(steps=3, restarts=2), Noise(draws=3)])
def test_no_sample_of_a_randomised_view_is_given_up(attack: Attack) -> None:
    model, x, y, draws = randomised(60)
    crafted: Crafted = attack(model, x, y, LINF, draws)
    assert (LINF.norms(crafted.x - x) > 0).all()
    assert model.partial == [0, 0]


def test_square_counts_its_queries() -> None:
    x, y, rows = digits.held_out(2)
    model, draws = digits.view(digits.classifier(), y, rows)
    crafted = Square(queries=40)(model, x, y, ThreatModel("linf", 1e-4), draws)
    assert (crafted.forwards == 43).all()
    assert (crafted.backwards == 0).all()


def test_torchattacks_own_autoattack_is_refused() -> None:
    with pytest.raises(RequestError, match=r"10 iterations.*use aa"):
        Torchattacks(attack="AutoAttack")


def test_torchattacks_names_and_arguments_are_checked() -> None:
    with pytest.raises(RequestError, match=r"did you mean .*DIFGSM"):
        Torchattacks(attack="DIFGSMM")
    with pytest.raises(RequestError, match="did you mean steps"):
        Torchattacks(attack="PGD", arguments={"step": 3})
    with pytest.raises(RequestError, match="threat model"):
        Torchattacks(attack="PGD", arguments={"eps": 0.3})
    with pytest.raises(RequestError, match="torchattacks:PGD"):
        Torchattacks()
    with pytest.raises(RequestError, match="another norm"):
        attack_digits(Torchattacks(attack="PGD"), 2, L2)


def test_torchattacks_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(RequestError, match=r"pip install -e '.\[torchattacks\]'"):
        Torchattacks(attack="PGD")


def test_torchattacks_identity_says_which_library_and_its_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    asked = Torchattacks(attack="APGD", arguments={"n_restarts": 2})
    said = asked.identity()
    assert said["arguments"] == {"n_restarts": 2}
    known = {"version": "3.5.1", "steps": 10, "rho": 0.75, "loss": "ce"}
    assert said["library"].items() >= known.items()
    assert Torchattacks(**json.loads(json.dumps(said))).identity() == said
    assert Torchattacks(attack="APGD", arguments={}).identity()["library"] == said["library"]  # as stored before

    class APGD(torchattacks.APGD):  # type: ignore[misc, name-defined]
        def __init__(
            self, model: nn.Module, norm: str = "Linf", eps: float = 8 / 255, steps: int = 100
        ) -> None: ...

    APGD.__module__ = "torchattacks.attacks.apgd"
    monkeypatch.setattr(torchattacks, "APGD", APGD)
    assert Torchattacks(attack="APGD").identity()["library"]["steps"] == 100
    with pytest.raises(RequestError, match=r"'steps': 10.*'steps': 100.*install that version"):
        Torchattacks(**said | {"arguments": {}})


@pytest.mark.parametrize("name", ["DIFGSM", "VMIFGSM", "APGD", "FAB", "CW", "NIFGSM"])
def test_torchattacks_attacks_stay_in_the_ball_and_find_something(name: str) -> None:
    found = attack_digits(Torchattacks(attack=name), 24, ThreatModel("linf", 0.25))
    assert (~flags(found, 24)).float().mean() > 0.3


def test_torchattacks_l2() -> None:
    found = attack_digits(Torchattacks(attack="PGDL2", arguments={"steps": 20}), 24, ThreatModel("l2", 1.0))
    assert (~flags(found, 24)).float().mean() > 0.3
