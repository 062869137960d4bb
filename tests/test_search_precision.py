"""A search in bfloat16 whose finds are decided in float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import digits
import pytest
import torch
from torch import Tensor, nn

from benchbox import Attack, Card, Defense, Draws, ImageSpec, Recipe, ThreatModel, View
from benchbox.analysis.pairs import mcnemar
from benchbox.contract import registry
from benchbox.contract.pretrained import Pretrained
from benchbox.domain import Access, Cell, SampleList, Spec, ViewSpec
from benchbox.engine.judge import Judge, Streams
from benchbox.engine.plan import Request
from benchbox.engine.session import Session, Settings
from benchbox.nets.lenet import LeNet5
from benchbox.training.layout import Layout

CPU = torch.device("cpu")
DEFENSES = registry.defenses()


class Lent(Defense):
    """A network of a test as a defence."""

    card = Card("lent", "a network")

    def __init__(self, net: nn.Module, spec: ImageSpec) -> None:
        super().__init__(Recipe(), spec, net)
        self.asked: list[tuple[int, bool]] = []
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        self.asked.append((len(x), torch.is_autocast_enabled("cpu")))
        return self.classifier(x)

    def losses(self, batch):
        return {}


class LentRandom(Lent):
    randomized = True


class Scaled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 100 * x.float() + torch.tensor([0.0, 0.3])


def hairline(kind: type[Lent] = Lent) -> Lent:
    """Class 0 leads by 0.38 x - 0.3: below 0.789 it is wrong. In bfloat16, which drops the 0.0038, always."""
    first = nn.Linear(1, 2, bias=False)
    first.weight.data = torch.tensor([[1.0038], [1.0]])
    return kind(nn.Sequential(nn.Flatten(), first, Scaled()), ImageSpec(1, 1, 2))


class Descending(Attack):
    """Darkens an image step by step, and stops at the first that is wrong."""

    card = Card("descending", "stops where it thinks it is done")

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        here, stands = x.clone(), torch.ones_like(y, dtype=torch.bool)
        for step in range(16):
            tried = x - 0.02 * step * stands.view(-1, 1, 1, 1)
            here = torch.where(stands.view(-1, 1, 1, 1), tried, here)
            logits = self.ask(model, here, y)
            stands = stands & (logits.argmax(1) == y)
        return threat.project(here, x)

    def ask(self, model: View, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            return model(x)


class DescendingByGradient(Descending):
    def ask(self, model, x, y):
        return model.gradient(x, lambda logits: logits[:, 0])[2]


class DescendingInRows(Descending):
    def ask(self, model, x, y):
        halves = torch.arange(len(y)).split(2)
        return torch.cat([Descending.ask(self, model.rows(rows), x[rows], y[rows]) for rows in halves])


class DescendingUnnamed(Descending):
    """Drops rows without a word, as libraries do."""

    def ask(self, model, x, y):
        return torch.cat([Descending.ask(self, model, one, y[:1]) for one in x.split(1)])


def cell(attack: str, threat: ThreatModel, n: int, precision: str = "bfloat16") -> Cell:
    samples = SampleList("digits", "test", tuple(range(n)), "")
    spec = Spec(attack, {}, "")
    return Cell(
        spec, "", spec, Access.WHITE_BOX, ViewSpec(""), threat, samples, search_precision=precision
    )  # fmt: skip


def crafted(judge: Judge, attack: Attack, asked: Cell, x: Tensor, y: Tensor) -> Tensor:
    streams = Streams(asked.samples.indices, 0, CPU)
    view = judge.searched(asked, x, y, streams.attacked("any"))
    return attack(view, x, y, asked.threat, streams.crafting("any")).x


@pytest.mark.parametrize("attack", [Descending, DescendingByGradient, DescendingInRows, DescendingUnnamed])
def test_what_only_bfloat16_calls_broken_is_attacked_further(attack) -> None:
    defense, y = hairline(), torch.zeros(3, dtype=torch.int64)
    x = torch.tensor([1.0, 0.9, 0.85]).view(3, 1, 1, 1)
    judge = Judge(defense, Layout(batch=2))
    said = [judge.ask(x, Draws(torch.arange(3)), how).argmax(1).tolist() for how in ("bfloat16", "float32")]
    assert said == [[1, 1, 1], [0, 0, 0]], "bfloat16 calls every one of them broken"
    defense.asked.clear()
    found = crafted(judge, attack(), cell("descending", ThreatModel("linf", 0.3), 3), x, y)
    streams = Streams(range(3), 0, CPU)
    assert (judge.score(found, streams.adversarial, 1)[:, 0] == 1).all(), "broken in float32"
    if attack is not DescendingUnnamed:
        assert any(coarse for _, coarse in defense.asked)
    # What broke is confirmed once; from then on nothing is asked twice.
    exact = sum(rows for rows, coarse in defense.asked if not coarse)
    assert exact < 3 * 16 or attack is DescendingUnnamed


def test_an_image_that_only_bfloat16_still_calls_broken_gives_way_to_the_confirmed_one() -> None:
    class Wandering(Descending):
        """Breaks the image, then wanders back to where bfloat16 alone sees it broken."""

        heard: ClassVar[list[list[int]]] = []

        def search(self, model, x, y, threat, draws):
            super().search(model, x, y, threat, draws)
            self.heard.append(self.ask(model, x, y).argmax(1).tolist())
            return x

    x, y = torch.ones(2, 1, 1, 1), torch.zeros(2, dtype=torch.int64)
    judge = Judge(hairline(), Layout())
    found = crafted(judge, Wandering(), cell("wandering", ThreatModel("linf", 0.3), 2), x, y)
    assert (judge.score(found, Streams(range(2), 0, CPU).adversarial, 1)[:, 0] == 1).all()
    # In float32 the attack hears that it is lost, and nothing is exchanged.
    plain = crafted(judge, Wandering(), cell("wandering", ThreatModel("linf", 0.3), 2, "float32"), x, y)
    assert Wandering.heard == [[1, 1], [0, 0]]
    assert torch.equal(plain, x)


def test_what_is_wrong_outside_the_ball_confirms_nothing() -> None:
    x, y = torch.ones(1, 1, 1, 1), torch.zeros(1, dtype=torch.int64)
    judge = Judge(hairline(), Layout())
    view = judge.searched(cell("any", ThreatModel("linf", 0.1), 1), x, y, Draws(torch.arange(1)))
    with torch.no_grad():
        assert int(view(x - 0.5).argmax(1)) == 1, "far outside, and so nobody's business"
        assert int(view(x).argmax(1)) == 0
    assert view.settle(x - 0.05).item() == pytest.approx(0.95)


def test_a_randomised_defence_is_searched_coarsely_and_decided_when_it_is_scored() -> None:
    x, y = torch.ones(2, 1, 1, 1), torch.zeros(2, dtype=torch.int64)
    defense = hairline(LentRandom)
    view = Judge(defense, Layout()).searched(
        cell("any", ThreatModel("linf", 0.3), 2), x, y, Draws(torch.arange(2))
    )
    view(x)
    assert view.confirmation is None
    assert defense.asked == [(2, True)]


def test_the_passes_of_an_attack_are_its_own() -> None:
    x, y = torch.ones(2, 1, 1, 1), torch.zeros(2, dtype=torch.int64)
    asked = cell("any", ThreatModel("linf", 0.3), 2)
    view = Judge(hairline(), Layout()).searched(asked, x, y, Draws(torch.arange(2)))
    view.gradient(x, lambda logits: logits[:, 0])
    assert view.passes() == (1.0, 1.0)
    assert (view.first_success == -1).all(), "what bfloat16 alone calls broken has stood"


@pytest.mark.parametrize("name", [n for n in DEFENSES.names() if not issubclass(DEFENSES.get(n).cls, Pretrained)])
def test_every_defence_can_be_searched_in_bfloat16(name: str) -> None:
    cls = DEFENSES.get(name).cls
    quick = {"width": 8} if "width" in cls.recipe_type.model_fields else {}
    x, y, rows = digits.held_out(3)
    spec, base = ImageSpec(1, 8, 10, (0.3,), (0.4,)), digits.classifier()
    if name == "arn":  # which halves images five times
        x, spec = nn.functional.interpolate(x, (28, 28)), replace(spec, size=28)
        base = LeNet5(spec).eval()
    defense = cls(cls.configure("mnist", "digits", **quick), spec, base if cls.base else None)
    defense.eval().requires_grad_(False)
    judge, threat = Judge(defense, Layout()), ThreatModel("linf", 0.1)
    judge.reveal(x, Streams(rows.tolist(), 0, CPU))
    for stand_in in [None, *defense.surrogates()]:
        asked = replace(cell("any", threat, 3), view=ViewSpec("", stand_in))
        view = judge.searched(asked, x, y, Draws(rows))
        gradient, _, logits = view.gradient(x, lambda z: nn.functional.cross_entropy(z, y, reduction="none"))
        assert (gradient.dtype, logits.dtype) == (torch.float32, torch.float32)
        with torch.no_grad():
            assert view(x).dtype == torch.float32


def _networks() -> dict[str, nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))
        robust = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10)
        )
        x, y = (t[:1400] for t in digits.images())
        for net, epsilon in ((wide, 0.0), (robust, 0.1)):
            optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
            for _ in range(8):
                for rows in torch.randperm(len(x)).split(64):
                    leaf = x[rows].clone().requires_grad_()
                    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(net(leaf), y[rows]), leaf)
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(net(x[rows] + epsilon * gradient.sign()), y[rows]).backward()
                    optimizer.step()
    return {"convolutions": digits.classifier(), "wide": wide, "trained against attacks": robust}


@pytest.mark.parametrize("name", ["pgd", "apgd-ce", "square"])
def test_robust_sets_differ_by_no_more_than_chance_on_three_models(name: str) -> None:
    attack = registry.attacks().get(name).cls.configure(**{"square": {"queries": 150}}.get(name, {}))
    x, y, rows = digits.held_out(120)
    for said, net in _networks().items():
        judge = Judge(Lent(net, ImageSpec(1, 8, 10)), Layout(batch=60))
        stands = []
        for precision in ("float32", "bfloat16"):
            asked = cell(name, ThreatModel("linf", 0.08), 120, precision)
            found = crafted(judge, attack, asked, x, y)
            stands.append(judge.score(found, Streams(rows.tolist(), 0, CPU).adversarial, 1)[:, 0] == y)
        exact, coarse = stands
        only = int((exact & ~coarse).sum()), int((coarse & ~exact).sum())
        assert 10 < int(exact.sum()) < 110, f"{said}: nothing is shown where all stand or all fall"
        assert mcnemar(*only) > 0.01, f"{said}: {only} images apart"


def test_a_search_in_bfloat16_is_a_cell_of_its_own(tmp_path: Path) -> None:
    from benchbox.progress import Silent
    from benchbox.store import Store

    settings = Settings(str(tmp_path / "r.sqlite"), tmp_path / "artifacts", device="cpu")
    session = Session(registry.defenses(), registry.attacks(), settings)
    words = {"defenses": "none", "attacks": "pgd,null", "samples": 12, "overrides": {"none": {"epochs": 1}}}
    plans = [session.plan(Request(**words, search_precision=how)) for how in ("float32", "bfloat16")]
    keys = [{c.attack.name: c.key for c in plan.cells} for plan in plans]
    assert keys[0]["pgd"] != keys[1]["pgd"]
    assert keys[0]["null"] == keys[1]["null"], "where nothing is searched there is one cell"
    with Store.open(settings.store) as store:
        for plan in plans:
            session.run(plan, store, Silent())
        again = session.run(plans[1], store, Silent())
    assert not again.failed
    assert again.crafting == 0


@pytest.mark.parametrize("able", [True, False])
def test_who_asks_for_bfloat16_where_it_is_emulated_is_told_once(
    able: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchbox.progress import Silent
    from benchbox.store import Store

    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: able, raising=False)
    settings = Settings(str(tmp_path / "r.sqlite"), tmp_path / "artifacts", device="cpu")
    told: list[str] = []
    session = Session(registry.defenses(), registry.attacks(), settings, told.append)
    words = {"defenses": "none", "attacks": "fgsm", "samples": 4, "overrides": {"none": {"epochs": 1}}}
    with Store.open(settings.store) as store:
        for epsilon in (0.1, 0.2):
            session.run(session.plan(Request(**words, epsilon=epsilon)), store, Silent())
        assert not told
        for epsilon in (0.1, 0.2):
            session.run(
                session.plan(Request(**words, epsilon=epsilon, search_precision="bfloat16")), store, Silent()
            )
    assert [("emulates bfloat16" in sentence) for sentence in told] == ([] if able else [True])
