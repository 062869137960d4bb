"""A network from a file is nobody's to train, and has to answer as it did when its results were stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from evidence import outcome
from test_plan import DIGITS, WHITE, planned, told
from torch import nn

from benchbox.contract import registry
from benchbox.contract.pretrained import Shelf
from benchbox.domain import Card, ImageSpec, ThreatModel
from benchbox.draws import sample_draws
from benchbox.engine import answers
from benchbox.engine.answers import IMAGES, _moved, _said
from benchbox.engine.lent import IN_MEMORY, lent
from benchbox.engine.plan import Plan, kind
from benchbox.engine.session import Session, Settings
from benchbox.errors import DefenseError, RequestError
from benchbox.store import Store


def test_answers_that_moved_are_told_from_rounding() -> None:
    before = torch.zeros(4, 3)
    before[0, 0] = -10.0  # the scale: a thousandth of it is rounding
    now = before.clone()
    now[1] += 0.009
    assert _moved(before, now) == 0
    now[2, 1] -= 0.011
    now[3, 0] += 5
    assert _moved(before, now) == 2
    assert _moved(before, torch.zeros(4, 2)) == IMAGES == 8
    assert _moved(torch.zeros(2, 2), torch.tensor([[0.0, 0.0], [0.0, 2e-9]])) == 1
    edge = torch.tensor([[1000.0, 0.0]]).double()
    assert [_moved(edge, edge + torch.tensor([[0.0, by]])) for by in (1.0, 1.01)] == [0, 1]
    said = _said(lambda x, draws: x.flatten(1)[:, :2], ImageSpec(1, 4, 2), torch.device("cpu"))  # type: ignore[arg-type]
    assert (said.shape, said.dtype) == ((8, 2), torch.float64)
    assert len(said.unique()) == 16
    rolled = _said(lambda x, draws: draws.at("a").normal(2), ImageSpec(1, 4, 2), torch.device("cpu"))  # type: ignore[arg-type]
    assert torch.equal(rolled, sample_draws(8).at("a").normal(2).double())


def test_a_network_is_asked_on_its_device() -> None:
    seen: list[bool] = []

    def network(x: torch.Tensor, draws: Any) -> torch.Tensor:
        seen.append(x.is_meta and draws.indices.is_meta)
        return torch.zeros(8, 2)

    _said(network, ImageSpec(1, 4, 2), torch.device("meta"))  # type: ignore[arg-type]
    assert seen == [True]


def test_a_network_that_cannot_say_is_named_with_the_line_of_its_code() -> None:
    class Failing:
        card = Card("failing", "cannot say")

        def __call__(self, x, draws):
            raise ValueError("no such thing")

    with pytest.raises(DefenseError, match=r"defence failing, .*test_answers.py, line \d+: .*no such thing"):
        _said(Failing(), ImageSpec(1, 4, 2), torch.device("cpu"))  # type: ignore[arg-type]


NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    def forward(self, x):
        return self.body(x)
"""


@pytest.fixture
def from_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Session, Plan]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(NET)
    torch.save({"body.1.weight": torch.zeros(10, 784), "body.1.bias": torch.zeros(10)}, "net.pt")
    settings = Settings(str(tmp_path / "r.sqlite"), tmp_path / "artifacts", device="cpu")
    own = Session(registry.defenses(tmp_path), registry.attacks(tmp_path), settings)
    return own, planned(own, "none,model.py:Net", "pgd,noise", overrides={"model.py:Net": {"weights": "net.pt"}})


def test_a_network_from_a_file_is_trained_by_nobody(from_file: tuple[Session, Plan]) -> None:
    own, _ = from_file
    plan = planned(own, "model.py:Net", overrides={"model.py:Net": {"weights": "net.pt"}}, seeds=(0, 3))
    (training,) = plan.trainings.values()
    assert training.threat == ThreatModel("linf", 0.3)
    assert training.defense.code == own.defenses.get("model.py:Net").code
    assert (training.seed, training.images, training.dataset) == (0, "", "digits")
    assert training.source is not None
    assert training.source.name == "net.pt"
    assert told(plan) == [("pgd", WHITE, "model.py:Net", 0, None)]  # and nobody can train its like
    assert kind(own.defenses.get("model.py:Net").cls, training)["substitute"] is False


def test_a_network_that_answers_otherwise_than_its_results_is_refused(from_file: tuple[Session, Plan]) -> None:
    own, plan = from_file
    ordered = sorted(plan.trainings.items(), key=lambda item: item[1].source is not None)  # none comes first
    plan = replace(plan, trainings=dict(ordered))
    (mine,) = [key for key, training in plan.trainings.items() if training.source is not None]
    asked: list[str] = []

    def check(store: Store, slope: float | None) -> None:
        def obtain(training: Any) -> Any:
            asked.append(training.digest)
            if slope is None:
                raise DefenseError("no such file")
            return lambda x, draws: slope * x.flatten(1)[:, :10]

        shop: Any = SimpleNamespace(
            defenses=own.defenses, obtain=obtain, dataset=DIGITS, device=torch.device("cpu")
        )
        answers.check(shop, store, plan)

    with Store.open(":memory:") as store:
        check(store, 1.0)
        check(store, 2.0)  # nothing is stored yet that hangs on it
        cells = [cell for cell in plan.cells if cell.artifact == mine]
        run = store.begin_run({}, {})
        for cell in plan.cells:
            store.add_cell(cell, run)
        others = next(cell for cell in plan.cells if cell.artifact != mine)
        store.commit_batch(others, outcome(others, [0]), seconds=1.0)
        check(store, 3.0)
        store.commit_batch(cells[0], outcome(cells[0], [0]), seconds=1.0)
        check(store, 3.0)
        with pytest.raises(
            RequestError, match=r"model.py:Net answers otherwise .* on 8 of 8 images.* `benchbox remove"
        ):
            check(store, 3.1)
        check(store, None)  # its cells will say so
        check(store, 3.0)  # and what it said once is what counts
    assert set(asked) == {mine}


@pytest.mark.parametrize("role", ["deployed", "view"])
def test_a_request_for_other_attacks_forgets_no_answers(from_file: tuple[Session, Plan], role: str) -> None:
    own, plan = from_file
    (mine,) = [key for key, training in plan.trainings.items() if training.source is not None]
    slope = 1.0
    shop: Any = SimpleNamespace(
        defenses=own.defenses,
        obtain=lambda training: lambda x, draws: slope * x.flatten(1)[:, :10],
        dataset=DIGITS,
        device=torch.device("cpu"),
    )
    other = planned(own, "model.py:Net", "fgsm", overrides={"model.py:Net": {"weights": "net.pt"}})
    assert mine in other.trainings
    (cell,) = [cell for cell in plan.cells if cell.artifact == mine and cell.attack.name == "pgd"]
    if role == "view":
        cell = replace(cell, artifact="another defence")
    with Store.open(":memory:") as store:
        answers.check(shop, store, plan)
        store.add_cell(cell, store.begin_run({}, {}))
        store.commit_batch(cell, outcome(cell, [0]), seconds=1.0)
        slope = 2.0
        for asked in (other, plan):
            with pytest.raises(RequestError, match="answers otherwise"):
                answers.check(shop, store, asked)
        slope = 1.0
        answers.check(shop, store, plan)


def test_one_that_cannot_be_had_hides_no_other(from_file: tuple[Session, Plan]) -> None:
    own, _ = from_file
    torch.save({"body.1.weight": torch.ones(10, 784), "body.1.bias": torch.zeros(10)}, "other.pt")
    plan = planned(own, "model.py:Net", axes={"model.py:Net.weights": ("net.pt", "other.pt")})
    gone, there = plan.trainings.values()
    slopes = {there.digest: 1.0}

    def obtain(training: Any) -> Any:
        if training.digest == gone.digest:
            raise DefenseError("no such file")
        return lambda x, draws: slopes[training.digest] * x.flatten(1)[:, :10]

    shop: Any = SimpleNamespace(defenses=own.defenses, obtain=obtain, dataset=DIGITS, device=torch.device("cpu"))
    with Store.open(":memory:") as store:
        answers.check(shop, store, plan)
        (cell,) = [cell for cell in plan.cells if cell.artifact == there.digest]
        store.add_cell(cell, store.begin_run({}, {}))
        store.commit_batch(cell, outcome(cell, [0]), seconds=1.0)
        slopes[there.digest] = 2.0
        with pytest.raises(RequestError, match="answers otherwise"):
            answers.check(shop, store, plan)


def test_whether_a_network_draws_is_a_setting(from_file: tuple[Session, Plan]) -> None:
    own, _ = from_file
    for draws in (True, False):
        given = {"weights": "net.pt", **({"randomized": True} if draws else {})}
        plan = planned(own, "model.py:Net", overrides={"model.py:Net": given}, scoring_draws=3)
        (training,) = plan.trainings.values()
        assert kind(own.defenses.get("model.py:Net").cls, training)["randomized"] is draws
        assert {cell.scoring_draws for cell in plan.cells} == {3 if draws else 1}


def test_a_file_is_looked_for_once_however_many_rows_it_has(
    from_file: tuple[Session, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, _ = from_file
    plugin = own.defenses.get("model.py:Net")
    looked: list[str] = []
    real = plugin.cls.file.__func__  # type: ignore[attr-defined]

    def file(cls: Any, recipe: Any, shelf: Any) -> Path:
        assert isinstance(shelf, Shelf)
        looked.append(recipe.weights)
        return real(cls, recipe, shelf)  # type: ignore[no-any-return]

    monkeypatch.setattr(plugin.cls, "file", classmethod(file))
    planned(own, "model.py:Net", overrides={"model.py:Net": {"weights": "net.pt"}}, seeds=(0, 3))
    assert looked == ["net.pt"]


def test_a_network_that_is_handed_over_is_trained_by_nobody(tmp_path: Path) -> None:
    settings = Settings(str(tmp_path / "r.sqlite"), tmp_path / "artifacts", device="cpu")
    own = Session(registry.defenses(tmp_path), registry.attacks(tmp_path), settings)
    own.lend(lent(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), DIGITS.spec, "mine"))
    plan = planned(own, "mine", seeds=(0, 3), overrides={"pgd": {"steps": 3}})
    (training,) = plan.trainings.values()
    assert (training.source, training.seed, training.dataset) == (IN_MEMORY, 0, "digits")
    assert training.threat == ThreatModel("linf", 0.3)
    assert told(plan) == [("pgd", WHITE, "mine", 0, None)]

    def obtain(training: Any) -> Any:
        raise AssertionError  # it is here, and stands for itself

    shop: Any = SimpleNamespace(defenses=own.defenses, obtain=obtain, dataset=DIGITS, device=torch.device("cpu"))
    with Store.open(":memory:") as store:
        answers.check(shop, store, plan)
