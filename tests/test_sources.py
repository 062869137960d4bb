"""What transfer attacks are crafted on: `--source`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import benchbox
from benchbox import RequestError
from benchbox.contract import registry
from benchbox.domain import Access, Cell
from benchbox.engine.plan import SUBSTITUTE_SEED, Plan
from benchbox.engine.request import Request
from benchbox.engine.session import Session, Settings

WORDS: dict[str, Any] = {"attacks": "pgd", "accesses": "transfer", "samples": 12}


@pytest.fixture
def session(tmp_path: Path) -> Session:
    settings = Settings(str(tmp_path / "r.sqlite"), tmp_path / "artifacts", device="cpu")
    return Session(registry.defenses(), registry.attacks(), settings)


def crafted_on(plan: Plan) -> list[tuple[str, int, int]]:
    """Of each transfer: the defence it is crafted on, its seed, and the draws of a gradient."""
    transfers: list[Cell] = [cell for cell in plan.cells if cell.access is Access.TRANSFER]
    steps = [plan.trainings[cell.view.artifact] for cell in transfers]
    return [(step.defense.name, step.seed, cell.eot) for step, cell in zip(steps, transfers, strict=True)]


def test_each_source_is_a_cell_of_its_own_with_a_seed_of_its_own(session: Session) -> None:
    plan = session.plan(Request(defenses="pssr", sources="classifier,defense,pgd-at", seeds=(3,), **WORDS))
    seed = 3 + SUBSTITUTE_SEED
    assert crafted_on(plan) == [("none", seed, 1), ("pssr", seed, 1), ("pgd-at", seed, 1)]
    assert len({cell.key for cell in plan.cells}) == 3
    # The other purifier stands on a classifier of its own too.
    (other,) = (t for t in plan.trainings.values() if t.defense.name == "pssr" and t.seed == seed)
    assert other.base is not None
    assert other.base.seed == seed


def test_what_was_asked_before_keeps_its_key(session: Session) -> None:
    asked = [Request(defenses="pssr", **words, **WORDS) for words in ({}, {"sources": "classifier"})]
    keys = [[cell.key for cell in session.plan(request).cells] for request in asked]
    assert keys[0] == keys[1]


def test_gradients_of_a_randomised_source_are_averaged(session: Session) -> None:
    plan = session.plan(Request(defenses="none", sources="randomized-resize-pad", eot=7, **WORDS))
    assert crafted_on(plan) == [("randomized-resize-pad", SUBSTITUTE_SEED, 7)]


def test_a_source_has_settings_and_a_wrong_name_is_refused(session: Session) -> None:
    words = {**WORDS, "overrides": {"pgd-at": {"epochs": 1}}}
    plan = session.plan(Request(defenses="none", sources="pgd-at", **words))
    (step,) = (t for t in plan.trainings.values() if t.defense.name == "pgd-at")
    assert step.defense.arguments["epochs"] == 1
    with pytest.raises(RequestError, match="pgd-at"):
        session.plan(Request(defenses="none", sources="pgd-att", **WORDS))


def test_a_run_crafts_on_what_was_named(tmp_path: Path) -> None:
    result = benchbox.evaluate(
        "none",
        dataset="digits",
        source=["classifier", "grad-reg"],
        attacks=["fgsm"],
        access=["transfer"],
        samples=20,
        set={"none": {"epochs": 1}, "grad-reg": {"epochs": 1}},
        store=str(tmp_path / "r.sqlite"),
        progress=False,
    )
    assert len({e.cell.view.artifact for e in result.evidence if e.cell.access is Access.TRANSFER}) == 2
    assert all(e.status == "done" for e in result.evidence)
