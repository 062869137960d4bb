"""What plug-ins are told of the data set and the norm, and what of them cells, balls and weights hang on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from test_plan import BPDA, DIGITS, GRAY, TRANSFER, WHITE, planned, told, wanted

from benchbox.domain import ImageSpec, Nature, ThreatModel
from benchbox.engine import plan as planning
from benchbox.engine.plan import Plan, ball, kind
from benchbox.engine.request import Request
from benchbox.engine.session import Session
from benchbox.errors import RequestError
from benchbox.training.lesson import LESSONS

WHERE = (DIGITS.family, DIGITS.name)


@pytest.fixture
def asked(session: Session, monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, ...]]:
    """Who is configured for what."""
    found: set[tuple[str, ...]] = set()

    def watched(cls: Any, real: Callable[..., Any]) -> Any:
        def configure(_: object, *scopes: str, **own: Any) -> Any:
            found.add((cls.card.name, *scopes))
            return real(*scopes, **own)

        return classmethod(configure)

    for names, plugins in (
        (("none", "jpeg", "pgd-at"), session.defenses),
        (("pgd", "null"), session.attacks),
    ):
        for cls in [plugins.get(name).cls for name in names]:  # type: ignore[attr-defined]
            monkeypatch.setattr(cls, "configure", watched(cls, cls.configure))
    return found


def test_every_plug_in_is_told_the_data_set_and_a_defence_the_norm(session: Session, asked: set[Any]) -> None:
    sources = ("classifier", "defense", "pgd-at", "query-labels")
    words: dict[str, Any] = {
        "norm": "l2", "epsilon": 1.0, "sources": sources,
        "overrides": {"none": {"epochs": 2}, "pgd": {"steps": 3}},
    }  # fmt: skip
    defenses = {(name, *WHERE, "l2") for name in ("none", "jpeg", "pgd-at")}
    planned(session, "jpeg", **words)
    assert asked == {*defenses, ("pgd", *WHERE), ("null", *WHERE)}
    asked.clear()
    session.planner().trainings(Request(defenses="jpeg", attacks="pgd", samples=5, **words), DIGITS)
    assert asked == {*defenses, ("pgd", *WHERE)}
    asked.clear()
    session.planner().training("none", DIGITS, 0, {})
    assert asked == {("none", *WHERE, "linf")}


def test_cells_and_trainings_name_the_code_behind_them(session: Session) -> None:
    plan = planned(session, "jpeg,pgd-at", "pgd,noise")
    for training in plan.trainings.values():
        assert training.defense.code == session.defenses.get(training.defense.name).code != ""
    for cell in plan.cells:
        assert cell.defense == plan.trainings[cell.artifact].defense
        assert cell.attack.code == session.attacks.get(cell.attack.name).code != ""


def test_a_training_has_the_ball_of_its_recipe(session: Session) -> None:
    training = session.planner().training("pgd-at", DIGITS, 0, {"pgd-at": {"training_epsilon": 0.15}})
    assert training.threat == ThreatModel("linf", 0.15)
    assert (training.dataset, training.images, training.seed) == ("digits", DIGITS.train.digest, 0)


def test_a_substitute_may_learn_from_what_the_target_answers(session: Session) -> None:
    few: dict[str, Any] = {"overrides": {"none": {"epochs": 4}}}
    plan = planned(
        session, "pgd-at", sources=("query-labels", "query-scores"), accesses=(TRANSFER,), seeds=(2,), **few
    )
    pupils = [plan.trainings[cell.view.artifact] for cell in plan.cells]
    usual = session.planner().training("none", DIGITS, 1002, few["overrides"])
    target = plan.trainings[plan.cells[0].artifact]
    assert (target.defense.name, target.seed) == ("pgd-at", 2)
    assert pupils == [replace(usual, teacher=target, lesson=LESSONS[f"query-{w}"]) for w in ("labels", "scores")]
    assert [cell.access for cell in plan.cells] == [TRANSFER, TRANSFER]
    with pytest.raises(RequestError, match="does not use none; it uses pgd, pgd-at"):
        planned(session, "pgd-at", **few)  # nobody is taught there


def test_an_attack_by_name_has_the_accesses_that_are_asked_for_else_those_that_are_usual(session: Session) -> None:
    assert told(planned(session, "jpeg", "fgsm", accesses=(GRAY,))) == [("fgsm", GRAY, "none", 0, None)]
    assert {row[1] for row in told(planned(session, "jpeg", "fgsm"))} == {GRAY, TRANSFER, WHITE}
    assert {row[4] for row in told(planned(session, "jpeg", "fgsm", accesses=(BPDA,)))} == {
        "identity",
        "cubic-rounding",
    }
    # Of one that is run by name alone nothing is usual: it is run through all of them.
    assert session.attacks.get("pgd-keep").cls.standard == ()
    assert {row[1] for row in told(planned(session, "jpeg", "pgd-keep"))} == {GRAY, TRANSFER, WHITE, BPDA}


def test_all_attacks_have_those_of_their_usual_accesses_that_are_asked_for(session: Session) -> None:
    for access in (GRAY, BPDA):
        found = told(planned(session, "jpeg", "all", accesses=(access,)))
        usual = {name for name in session.attacks.names() if access in session.attacks.get(name).cls.standard}
        assert {row[0] for row in found} == {n for n in usual if "linf" in session.attacks.get(n).cls.balls}
        assert {row[1] for row in found} == {access}


def test_who_does_not_say_what_it_is_takes_its_turn_with_most() -> None:
    turns = [planning._turn(Nature(name)) for name in ("random", "one-step", "iterative", "score-based")]  # type: ignore[arg-type]
    assert turns == [0, 1, 2, 3]
    assert planning._turn(None) == 2


def test_pixels_move_no_further_than_the_longer_side() -> None:
    tall = replace(DIGITS, spec=ImageSpec(1, 40, 10, width=28))
    assert ball(wanted(norm="flow", epsilon=40.0), tall).epsilon == 40.0
    small = replace(DIGITS, spec=ImageSpec(3, 2, 10))
    for norm, longest in (("flow", 2.0), ("l1", 12.0), ("l2", 12**0.5)):
        assert ball(wanted(norm=norm, epsilon=longest), small).epsilon == longest
        with pytest.raises(RequestError, match="longer than any change"):
            ball(wanted(norm=norm, epsilon=longest + 0.5), small)


def test_a_report_is_told_whom_to_cite(session: Session) -> None:
    plan: Plan = planned(session, "jpeg,pgd-at")
    for training in plan.trainings.values():
        cls = session.defenses.get(training.defense.name).cls
        entry = cls.card.bibtex
        assert {key: value for key, value in kind(cls, training).items() if key == "bibtex"} == (
            {"bibtex": entry} if entry else {}
        )
        cited = type("Cited", (cls,), {"card": replace(cls.card, bibtex="@misc{a}")})
        assert kind(cited, training)["bibtex"] == "@misc{a}"
        silent = type("Silent", (cls,), {"card": replace(cls.card, bibtex="")})
        assert "bibtex" not in kind(silent, training)
