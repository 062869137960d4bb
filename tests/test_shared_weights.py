"""Defences that learn the same from the same images are trained once, and stay defences of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_runner import Heard

from benchbox import DefenseError, Purifier, Recipe
from benchbox.contract import registry
from benchbox.domain import ThreatModel
from benchbox.engine.plan import Plan, Request, substitute_of
from benchbox.engine.reproduce import part, training_of
from benchbox.engine.session import Session, Settings
from benchbox.store import Store

DEFENSES = """
import torch
from torch import nn
from benchbox import Card, Purifier, Recipe

class Knobs(Recipe):
    forward_only = ("strength",)
    strength: float = 0.0
    width: int = 1

class Plain(Purifier[Knobs]):
    card = Card("plain", "a learnt shift, of its own")
    def __init__(self, recipe, images, classifier):
        super().__init__(recipe, images, classifier)
        self.shift = nn.Parameter(torch.rand(images.shape) * 0.1)
    def purify(self, x, draws):
        return (x + self.recipe.strength * self.shift).clamp(0, 1)
    def players(self):
        return {"shift": [self.shift]}
    def losses(self, batch):
        return {"shift": {"distance": (batch.x - self.shift).square().mean()}}

class One(Plain):
    card = Card("one", "a learnt shift")
    learns = "mean image"

class Other(One):
    card = Card("other", "the same, turned")
    def purify(self, x, draws):
        return (x - self.recipe.strength * self.shift).clamp(0, 1)
"""
FEW = {"one": {"epochs": 1}, "other": {"epochs": 1}, "plain": {"epochs": 1}, "none": {"epochs": 1}}


@pytest.fixture
def session(tmp_path: Path) -> Session:
    (tmp_path / "defenses").mkdir()
    (tmp_path / "defenses" / "mine.py").write_text(DEFENSES)
    settings = Settings(str(tmp_path / "r.sqlite"), tmp_path / "artifacts", device="cpu")
    return Session(registry.defenses(tmp_path), registry.attacks(tmp_path), settings)


@pytest.fixture
def store(session: Session) -> Iterator[Store]:
    with Store.open(session.settings.store) as opened:
        yield opened


def planned(session: Session, *names: str, **own: dict[str, Any]) -> Plan:
    based = any("base" in fields for fields in own.values())
    overrides = {
        name: {**FEW[name], **own.get(name, {})} for name in {*names, *own, *(() if based else ("none",))}
    }
    return session.plan(Request(defenses=names, attacks=("noise",), samples=4, overrides=overrides))


def weights(plan: Plan, name: str) -> str:
    (found,) = {t.weights for t in plan.trainings.values() if t.defense.name == name}
    return found


def test_two_defences_and_two_strengths_are_trained_once(session: Session, store: Store, tmp_path: Path) -> None:
    heard = Heard()
    plans = [planned(session, "one", "other", one={"strength": s}) for s in (0.5, 5.0)]
    for plan in plans:
        report = session.run(plan, store, heard)
        assert not report.failed, heard.errors
    assert len(heard.trained) == 2  # the base and the shift
    assert len(list((tmp_path / "artifacts").glob("*.safetensors"))) == 2
    # What they say is their own: three defences, three cells, three identities.
    cells = {e.cell.artifact: e for e in store.evidence()}
    assert len(cells) == 3
    assert {e.status for e in cells.values()} == {"done"}
    assert all(training_of(store.artifacts()[key]["training"]).digest == key for key in cells)


def test_what_the_training_reads_parts_them(session: Session) -> None:
    plain = planned(session, "one")
    assert weights(plain, "one") == weights(planned(session, "other"), "other")
    assert weights(plain, "one") == weights(planned(session, "one", one={"base": "pgd-at"}), "one")
    for ball in ({"training_epsilon": 0.1}, {"training_norm": "l2", "training_epsilon": 2.0}):
        assert weights(plain, "one") == weights(planned(session, "one", one=ball), "one")
    for field, value in (("width", 2), ("epochs", 2), ("learning_rate", 0.1)):
        assert weights(plain, "one") != weights(planned(session, "one", one={field: value}), "one")
    seeds = session.plan(
        Request(defenses=("one",), attacks=("noise",), samples=4, seeds=(0, 1), overrides={"one": {}})
    )
    assert len({t.weights for t in seeds.trainings.values() if t.defense.name == "one"}) == 2


def test_a_defence_of_its_own_asks_its_base(session: Session) -> None:
    """Without `learns`, only the fields that no training reads are left out."""
    plain = planned(session, "plain")
    assert weights(plain, "plain") == weights(planned(session, "plain", plain={"strength": 9.0}), "plain")
    assert weights(plain, "plain") != weights(planned(session, "plain", plain={"base": "rice"}), "plain")
    assert weights(plain, "plain") != weights(planned(session, "one"), "one")
    (whole,) = (t for t in plain.trainings.values() if t.defense.name == "plain")
    assert whole.trained_as is not None
    assert whole.trained_as.base == whole.base
    for ball in ({"training_epsilon": 0.1}, {"training_norm": "l2", "training_epsilon": 2.0}):
        assert weights(plain, "plain") != weights(planned(session, "plain", plain=ball), "plain")


def test_what_is_learnt_is_named_with_the_data_set_s_own_ball(session: Session) -> None:
    """Stored weights are found under it, whatever the ball of a defence is."""
    plan = planned(session, "one", one={"training_norm": "l2", "training_epsilon": 2.0})
    (whole,) = (t for t in plan.trainings.values() if t.defense.name == "one")
    assert whole.threat == ThreatModel("l2", 2.0)
    assert whole.trained_as is not None
    assert (whole.trained_as.threat, whole.trained_as.base) == (ThreatModel("linf", 0.3), None)
    assert whole.trained_as.defense.name == "mean image"
    assert whole.trained_as.defense.code == whole.defense.code
    left = set(whole.defense.arguments) - set(whole.trained_as.defense.arguments)
    assert left == {"strength", "base", "training_norm", "training_epsilon"} & set(whole.defense.arguments)


@pytest.mark.parametrize(("field", "why"), [("strenght", "no such field"), ("epochs", "every training reads it")])
def test_a_field_that_cannot_be_forward_only_is_refused(field: str, why: str) -> None:
    recipe = type("Knobs", (Recipe,), {"forward_only": (field,)})
    with pytest.raises(DefenseError, match=why):
        type("Mine", (Purifier,), {"recipe_type": recipe})


def test_a_record_keeps_what_was_trained(session: Session) -> None:
    (whole,) = (t for t in planned(session, "one").trainings.values() if t.defense.name == "one")
    again = training_of(whole.as_dict())
    assert (again.digest, again.weights) == (whole.digest, whole.weights)
    assert replace(whole, trained_as=None).digest == whole.digest  # no identity hangs on it
    (base,) = (t for t in planned(session, "one").trainings.values() if t.defense.name == "none")
    assert base.weights == base.digest
    assert "trained_as" not in base.as_dict()
    other = substitute_of(whole)
    assert other is not None
    assert other.weights == other.digest != base.digest


def test_they_are_computed_again_from_what_is_published(session: Session, store: Store) -> None:
    session.run(planned(session, "one", "other"), store, Heard())
    for name in ("one", "other"):
        chosen = part(session, store, name, 2)
        assert not chosen.left_out
        (whole,) = (t for t in chosen.plans[0].trainings.values() if t.defense.name == name)
        assert whole.weights == weights(planned(session, "one"), "one")


def test_the_shared_weights_are_those_of_each_alone(session: Session, store: Store) -> None:
    found = []
    for name in ("one", "other"):
        plan = planned(session, name)
        (whole,) = (t for t in plan.trainings.values() if t.defense.name == name)
        found.append(session.workshop("digits", lambda *_: None).obtain(whole))
    assert torch.equal(found[0].shift, found[1].shift)
    assert type(found[0]) is not type(found[1])
