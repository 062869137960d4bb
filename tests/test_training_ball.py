"""`--set X.training_norm`: adversarial training in another ball than the data set's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchbox import RequestError, ThreatModel, testing
from benchbox.contract import registry
from benchbox.data.dataset import load
from benchbox.engine.plan import STEP
from benchbox.engine.request import Request
from benchbox.engine.session import Session, Settings
from benchbox.training.artifacts import Training

DEFENSES = registry.defenses()
ADVERSARIAL = ("pgd-at", "trades", "uat", "rst", "rice", "bagt-pgd-at", "bagt-trades")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    settings = Settings(str(tmp_path / "r.sqlite"), tmp_path / "artifacts", device="cpu")
    return Session(DEFENSES, registry.attacks(), settings)


def trained(session: Session, **settings: Any) -> Training:
    plan = session.plan(Request(defenses="pgd-at", attacks="fgsm", samples=5, overrides={"pgd-at": settings}))
    (found,) = (t for t in plan.trainings.values() if t.seed == 0)
    return found


def test_the_ball_and_the_steps_go_together(session: Session) -> None:
    usual = trained(session)
    other = trained(session, training_norm="l2", training_epsilon=1.5)
    assert usual.threat == ThreatModel("linf", 0.3)
    assert other.threat == ThreatModel("l2", 1.5)
    share = usual.defense.arguments[STEP] / 0.3
    assert other.defense.arguments[STEP] == pytest.approx(share * 1.5)
    given = trained(session, training_norm="l2", training_epsilon=1.5, attack_step_size=0.2)
    assert given.defense.arguments[STEP] == 0.2


def test_what_is_trained_in_its_own_ball_is_what_it_was(session: Session) -> None:
    usual, same = trained(session), trained(session, training_norm="", training_epsilon=0)
    assert usual.digest == same.digest
    assert not {"training_norm", "training_epsilon"} & set(usual.defense.arguments)


def test_a_norm_without_a_customary_radius_needs_one(session: Session) -> None:
    with pytest.raises(RequestError, match="digits has no customary radius in l2; set training_epsilon as well"):
        trained(session, training_norm="l2")


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize(
    "name", [ADVERSARIAL[0], *(pytest.param(n, marks=pytest.mark.slow) for n in ADVERSARIAL[1:])]
)
def test_adversarial_training_works_in_every_norm(name: str, norm: str) -> None:
    """The loss falls, in a ball small enough for two short epochs."""
    dataset, cls = load("digits"), DEFENSES.get(name).cls
    threat = ThreatModel(norm, {"l2": 0.5, "l1": 2.0}[norm])  # type: ignore[arg-type]
    quick = {"epochs": 2, "batch_size": 40, "attack_steps": 2, STEP: threat.epsilon / 2}
    recipe = cls.configure(
        "mnist", "digits", **{k: v for k, v in quick.items() if k in cls.recipe_type.model_fields}
    )
    trained = testing.check_training(cls, recipe, dataset.train.rows(slice(200)), dataset.spec, threat=threat)
    assert all(bool(p.isfinite().all()) for p in trained.parameters())


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_prototype_conformity_learns_from_attacked_images_too(attack: str) -> None:
    dataset, cls = load("digits"), DEFENSES.get("pcl").cls
    recipe = cls.configure("mnist", "digits", epochs=2, batch_size=40, attack=attack)
    assert recipe.identity()["attack"] == attack
    assert "attack" not in cls.configure("mnist", "digits").identity()
    made = testing.check_training(
        cls, recipe, dataset.train.rows(slice(80)), dataset.spec, threat=ThreatModel("linf", 0.3)
    )
    assert torch.isfinite(made.near).all()  # type: ignore[arg-type]
