"""Hyper-parameters have ranges: what lies outside is refused in one line that says what is allowed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchbox import Attack, Card, RequestError
from benchbox.contract import ranges, registry
from benchbox.contract.attack import _hints
from benchbox.engine.request import Request
from benchbox.engine.session import Session, Settings

NOWHERE = Path("/nonexistent")
DEFENSES, ATTACKS = registry.defenses(NOWHERE), registry.attacks(NOWHERE)


def bounded(annotation: Any, metadata: Any = ()) -> bool:
    """A count in both directions, for too many would not end; another number in one."""
    said = ranges.allowed(annotation, metadata)
    signs = "<≤" if "whole" in said else "<>≤≥"
    return not said or any(sign in said for sign in signs)


@pytest.mark.parametrize("name", ATTACKS.names())
def test_every_number_of_an_attack_has_a_range(name: str) -> None:
    hints = _hints(ATTACKS.get(name).cls)
    assert [field for field, hint in hints.items() if not bounded(hint)] == []


@pytest.mark.parametrize("name", DEFENSES.names())
def test_every_number_of_a_recipe_has_a_range(name: str) -> None:
    known = DEFENSES.get(name).cls.recipe_type.model_fields
    assert [name for name, field in known.items() if not bounded(field.annotation, field.metadata)] == []


@pytest.mark.parametrize(
    ("setting", "value", "complaint"),
    [
        ("pgd.steps", -1, "a whole number ≥ 1"),
        ("pgd.steps", 0, "a whole number ≥ 1"),
        ("pgd.steps", True, "a whole number ≥ 1"),
        ("pgd.steps", 10_000_000_000_000, "a whole number ≥ 1 and ≤ 1,000,000"),
        ("pgd.steps", 2.5, "a whole number ≥ 1"),
        ("pgd.step", float("nan"), "a finite number > 0"),
        ("pgd.step", float("inf"), "a finite number > 0"),
        ("pgd.restarts", 0, "a whole number ≥ 1"),
        ("pgd.keep", "worst", "'last' or 'best'"),
        ("square.p", 1.5, "a finite number > 0 and ≤ 1"),
        ("apgd-t.targets", 0, "a whole number ≥ 1"),
    ],
)
def test_an_attack_refuses_what_is_out_of_range(setting: str, value: Any, complaint: str) -> None:
    name, field = setting.split(".")
    cls = ATTACKS.get(name).cls
    with pytest.raises(RequestError, match=complaint):
        cls.configure(**{field: value})
    with pytest.raises(RequestError, match=complaint):  # whoever builds it
        cls(**{field: value})


@pytest.mark.parametrize(
    ("setting", "value", "complaint"),
    [
        ("pgd-at.attack_steps", 0, "a whole number ≥ 1"),
        ("pgd-at.epochs", True, "a whole number ≥ 0"),
        ("pgd-at.epochs", 10**13, "a whole number ≥ 0 and ≤ 1,000,000"),
        ("trades.beta", float("nan"), "a finite number ≥ 0"),
        ("none.learning_rate", float("inf"), "a finite number > 0"),
        ("none.learning_rate", -1e-3, "a finite number > 0"),
        ("pssr.dropout", 1.0, "a finite number ≥ 0 and < 1"),
        ("arn.width", 6, "a whole number ≥ 4 and ≤ 4,096 and a multiple of 4"),
        ("jpeg.quality", 101, "a whole number ≥ 1 and ≤ 100"),
    ],
)
def test_a_recipe_refuses_what_is_out_of_range(setting: str, value: Any, complaint: str) -> None:
    name, field = setting.split(".")
    with pytest.raises(RequestError, match=complaint):
        DEFENSES.get(name).cls.configure(**{field: value})


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"steps": -1}, "a whole number ≥ 1"),
        ({"steps": True}, "a whole number ≥ 1"),
        ({"steps": 10**13}, "a whole number ≥ 1 and ≤ 1,000,000"),
        ({"alpha": 0.0}, "a finite number > 0"),
        ({"alpha": float("nan")}, "a finite number > 0"),
    ],
)
def test_arguments_of_torchattacks_have_ranges_too(arguments: dict[str, Any], complaint: str) -> None:
    pytest.importorskip("torchattacks")
    plugin = ATTACKS.get("torchattacks:PGD")
    with pytest.raises(RequestError, match=complaint):
        plugin.cls.configure(**plugin.preset, arguments=arguments)


@dataclass(frozen=True, kw_only=True)
class Plain(Attack):
    """A plug-in that gives no ranges."""

    card = Card("plain", "no ranges")
    often: int = 3
    far: float = 0.5

    def search(self, model: Any, x: Any, y: Any, threat: Any, draws: Any) -> Any:
        return x.clone()


@pytest.mark.parametrize("wrong", [{"often": True}, {"often": 0.5}, {"far": float("nan")}, {"far": True}], ids=str)
def test_a_plug_in_without_ranges_still_refuses_what_is_no_number(wrong: dict[str, Any]) -> None:
    assert Plain(often=-2).often == -2
    with pytest.raises(RequestError, match="does not fit"):
        Plain(**wrong)


@pytest.mark.parametrize(
    "settings",
    [
        {"pgd": {"steps": 1_000_000, "restarts": 1_000_000}},
        {"pgd-at": {"epochs": 1_000_000, "attack_steps": 1_000_000}},
    ],
    ids=str,
)
def test_what_cannot_end_is_refused_though_each_number_is_in_its_range(settings: dict[str, Any]) -> None:
    session = Session(DEFENSES, ATTACKS, Settings(device="cpu"))
    request = Request(defenses="pgd-at", dataset="digits", attacks="pgd", overrides=settings)
    with pytest.raises(RequestError, match=r"would take \de\+\d\d passes of a network, which no machine finishes"):
        session.plan(request)
