"""Which cells a request becomes, written out: who is attacked, through what, how often, on whose weights."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import rows

from benchbox.data.dataset import load, sample_list
from benchbox.domain import Access, ImageSpec, ThreatModel
from benchbox.engine import plan as planning
from benchbox.engine import reproduce
from benchbox.engine.plan import Plan, ball, customary, kind, substitute_of, training_ball
from benchbox.engine.request import Request
from benchbox.engine.session import Session
from benchbox.errors import RequestError

DIGITS = load("digits")
WHITE, GRAY, TRANSFER, BPDA = Access.WHITE_BOX, Access.GRAY_BOX, Access.TRANSFER, Access.BPDA


def planned(session: Session, defenses: str, attacks: str = "pgd", **rest: Any) -> Plan:
    return session.plan(Request(defenses=defenses, attacks=attacks, samples=5, **rest))


def told(plan: Plan) -> list[tuple[Any, ...]]:
    """Attack, access, the name and seed of what is attacked, and the stand-in, of each cell."""
    found = []
    for cell in plan.cells:
        view = plan.trainings[cell.view.artifact]
        found.append((cell.attack.name, cell.access, view.defense.name, view.seed, cell.view.stand_in))
    return found


def test_a_bare_classifier_is_attacked_itself_and_by_transfer_from_another_seed(session: Session) -> None:
    plan = planned(session, "none", "square,null,pgd,fgsm,noise", seeds=(3,))
    assert told(plan) == [
        ("noise", WHITE, "none", 3, None),
        ("fgsm", WHITE, "none", 3, None),
        ("fgsm", TRANSFER, "none", 1003, None),
        ("pgd", WHITE, "none", 3, None),
        ("pgd", TRANSFER, "none", 1003, None),
        ("square", WHITE, "none", 3, None),
        ("null", WHITE, "none", 3, None),
    ]
    assert {(c.training_seed, c.attack_seed, c.scoring_draws, c.eot, c.averaging) for c in plan.cells} == {
        (3, 0, 1, 1, "")
    }
    own, other = plan.trainings.values()
    assert own.seed != other.seed
    assert replace(own, seed=other.seed) == other


def test_a_purifier_is_attacked_through_its_classifier_itself_and_each_stand_in(session: Session) -> None:
    plan = planned(session, "jpeg")
    assert told(plan) == [
        ("pgd", GRAY, "none", 0, None),
        ("pgd", TRANSFER, "none", 1000, None),
        ("pgd", WHITE, "jpeg", 0, None),
        ("pgd", BPDA, "jpeg", 0, "identity"),
        ("pgd", BPDA, "jpeg", 0, "cubic-rounding"),
    ]
    assert [t.defense.name for t in plan.trainings.values()].count("jpeg") == 1
    assert {plan.trainings[cell.artifact].defense.name for cell in plan.cells} == {"jpeg"}


def test_a_randomised_defence_is_averaged_over_scored_often_and_controlled_last(session: Session) -> None:
    plan = planned(session, "randomized-resize-pad", "pgd,noise", eot=2, scoring_draws=4, attack_seed=5)
    assert [(c.attack.name, c.access, c.eot, bool(c.averaging)) for c in plan.cells] == [
        ("noise", WHITE, 2, True),
        ("pgd", GRAY, 1, False),
        ("pgd", TRANSFER, 1, False),
        ("pgd", WHITE, 2, True),
        ("pgd", BPDA, 2, True),
        ("pgd", BPDA, 2, True),
        ("null", WHITE, 2, False),
    ]
    assert {(c.scoring_draws, c.attack_seed) for c in plan.cells} == {(4, 5)}
    stand_ins = [cell.view.stand_in for cell in plan.cells if cell.access is BPDA]
    assert stand_ins == [None, "identity"]  # the exact one is plain autograd


def test_accesses_that_are_asked_for_are_those_and_no_others(session: Session) -> None:
    assert {row[1] for row in told(planned(session, "jpeg", accesses=(TRANSFER,)))} == {TRANSFER}
    # Without a purifier, gray-box and bpda are the same as white-box, and that is run once.
    assert told(planned(session, "none", accesses=(GRAY, BPDA))) == [("pgd", WHITE, "none", 0, None)]
    assert {row[1] for row in told(planned(session, "jpeg", "square", accesses=(GRAY, WHITE)))} == {WHITE}


def test_transfer_from_what_one_likes_is_from_another_seed_of_it(session: Session) -> None:
    found = told(
        planned(session, "jpeg", sources=("classifier", "defense", "pgd-at"), accesses=(TRANSFER,), seeds=(2,))
    )
    assert found == [("pgd", TRANSFER, name, 1002, None) for name in ("none", "jpeg", "pgd-at")]
    for source in ("classifier", "defense"):  # of a bare classifier they are the same
        plan = planned(session, "none", sources=(source,), accesses=(TRANSFER,))
        assert told(plan) == [("pgd", TRANSFER, "none", 1000, None)]


def test_of_the_usual_substitute_one_draw_is_taken_and_of_another_source_as_many_as_of_the_defence(
    session,
) -> None:
    plan = planned(
        session, "randomized-resize-pad", sources=("classifier", "defense"), accesses=(TRANSFER,), eot=6
    )
    assert [(plan.trainings[c.view.artifact].defense.name, c.eot) for c in plan.cells] == [
        ("none", 1), ("randomized-resize-pad", 6), ("randomized-resize-pad", 6),
    ]  # fmt: skip


def test_a_grid_has_a_point_for_each_value_and_its_settings(session: Session) -> None:
    axes = {"pgd.steps": (3, 5), "none.epochs": (1, 2)}
    plan = planned(session, "none", accesses=(WHITE,), axes=axes, overrides={"pgd": {"restarts": 2}})
    points = [
        (c.attack.arguments["steps"], c.attack.arguments["restarts"], c.defense.arguments["epochs"])
        for c in plan.cells
    ]
    assert points == [(3, 2, 1), (3, 2, 2), (5, 2, 1), (5, 2, 2)]
    assert [c.nature.steps for c in plan.cells if c.nature] == [3, 3, 5, 5]
    assert len({cell.key for cell in plan.cells}) == 4
    assert len(plan.trainings) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"overrides": {"pgdd": {"steps": 3}}}, "pgdd"),
        ({"overrides": {"mim": {"steps": 3}}}, "does not use mim; it uses none, pgd"),
        ({"axes": {"steps": (3,)}}, "axis 'steps' names no plug-in"),
        ({"overrides": {"none": {"base": "pgd-at"}}}, "none trains a classifier of its own"),
        ({"overrides": {"none": {"weights": "a.pt"}}}, "weights belong to a factory"),
        ({"norm": "l2", "epsilon": 28.5}, r"longer than any change of an image of digits \(28\)"),
        ({"norm": "recolor", "epsilon": 0.1, "search_precision": "bfloat16"}, "searched in float32 alone"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(session: Session, words: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        planned(session, "none", **words)
    assert "\n" not in str(caught.value)


def test_a_coarse_search_is_for_attacks_that_search(session: Session) -> None:
    plan = planned(session, "none", "pgd,null", accesses=(WHITE,), search_precision="bfloat16")
    assert [(c.attack.name, c.search_precision) for c in plan.cells] == [("pgd", "bfloat16"), ("null", "float32")]


def test_the_order_of_attacks_is_from_cheap_to_dear(session: Session) -> None:
    plan = planned(session, "none", "aa,rays,square,pgd,fgsm,noise,null", accesses=(WHITE,))
    assert [c.attack.name for c in plan.cells] == ["noise", "fgsm", "pgd", "square", "rays", "aa", "null"]
    assert planning.SUBSTITUTE_SEED == 1000


def wanted(**words: Any) -> Request:
    return Request(defenses="none", attacks="pgd", samples=5, **words)


def test_the_ball_is_what_was_asked_for_or_what_is_customary() -> None:
    assert ball(wanted(), DIGITS) == ThreatModel("linf", 0.3)
    assert ball(wanted(epsilon=0.0), DIGITS) == ThreatModel("linf", 0.0)
    with pytest.raises(RequestError, match="digits has no customary radius in l1; name one with --epsilon"):
        ball(wanted(norm="l1"), DIGITS)
    # The longest change of an image of 28 by 28 pixels in each norm.
    for norm, longest in {"linf": 1.0, "l2": 28.0, "l1": 784.0, "flow": 28.0, "recolor": 1.0}.items():
        assert ball(wanted(norm=norm, epsilon=longest), DIGITS).epsilon == longest
        with pytest.raises(RequestError, match=r"is (longer|more) than any"):
            ball(wanted(norm=norm, epsilon=longest + 0.01), DIGITS)
    wide = replace(DIGITS, spec=ImageSpec(1, 28, 10, width=40))
    assert ball(wanted(norm="flow", epsilon=40.0), wide).epsilon == 40.0


def test_customary_radii() -> None:
    assert customary("linf", DIGITS) == 0.3
    assert customary("l2", DIGITS) is None
    other = replace(DIGITS, name="cifar10", epsilon=8 / 255)
    assert customary("linf", other) == 8 / 255
    assert customary("l2", other) == 0.5


def test_training_keeps_to_its_own_ball(session: Session) -> None:
    cls = session.defenses.get("pgd-at").cls
    configured = lambda **words: cls.configure("mnist", "digits", **words)  # noqa: E731
    assert training_ball(configured(), DIGITS) == ThreatModel("linf", 0.3)
    assert training_ball(configured(training_epsilon=0.1), DIGITS) == ThreatModel("linf", 0.1)
    found = training_ball(configured(training_norm="l2", training_epsilon=2.0), DIGITS)
    assert found == ThreatModel("l2", 2.0)
    with pytest.raises(RequestError, match="no customary radius in l2; set training_epsilon"):
        training_ball(configured(training_norm="l2"), DIGITS)


def test_steps_of_a_training_attack_keep_their_share_of_its_radius(session: Session) -> None:
    planner = session.planner()

    def length(**own: Any) -> float:
        training = planner.training("pgd-at", DIGITS, 0, {"pgd-at": own})
        return float(training.defense.arguments["attack_step_size"])

    usual = length()
    assert length(training_epsilon=0.15) == pytest.approx(usual / 2)
    assert length(training_norm="l2", training_epsilon=1.5) == pytest.approx(5 * usual)
    assert length(training_epsilon=0.15, attack_step_size=0.07) == 0.07
    assert length(training_epsilon=0.3) == usual


def test_who_is_trained_needs_images_to_train_on(session: Session) -> None:
    few = replace(DIGITS, train=DIGITS.train.rows(slice(0, 0)))
    with pytest.raises(RequestError, match="none is trained here, and digits has no training images"):
        session.planner().training("none", few, 0, {})
    one = replace(DIGITS, train=DIGITS.train.rows(slice(0, 1)))
    assert session.planner().training("none", one, 0, {}).images == one.train.digest


def test_what_no_machine_finishes_is_refused_before_it_begins(session: Session) -> None:
    with pytest.raises(RequestError, match=r"pgd on randomized-resize-pad would take .* passes"):
        planned(session, "randomized-resize-pad", overrides={"pgd": {"steps": 10**6, "restarts": 10**6}}, eot=1000)
    planner = session.planner()
    steps = {"epochs": 10**6, "attack_steps": 10**6}
    endless = Request(defenses="pgd-at", attacks="pgd", samples=5, overrides={"pgd-at": steps})
    for plan in (lambda: session.plan(endless), lambda: planner.trainings(endless, DIGITS)):
        with pytest.raises(RequestError, match="the training of pgd-at would take"):
            plan()


def test_trainings_are_those_of_every_seed_and_of_every_point_and_what_is_wrong_is_said(session: Session) -> None:
    planner = session.planner()
    asked = wanted(seeds=(0, 2), axes={"none.epochs": (1, 3)})
    found = planner.trainings(asked, DIGITS)
    assert sorted((t.seed, t.defense.arguments["epochs"]) for t in found.values()) == [
        (0, 1),
        (0, 3),
        (2, 1),
        (2, 3),
    ]
    assert all(key == training.digest for key, training in found.items())
    for overrides, said in (
        ({"pgd": {"step": "much"}}, "pgd.step"),
        ({"pgd": {"stepz": 1}}, "stepz"),
        ({"mim": {}}, "does not use mim"),
    ):
        with pytest.raises(RequestError, match=said):
            planner.trainings(wanted(overrides=overrides), DIGITS)


def test_all_attacks_are_those_that_are_usual_and_search_such_a_ball(session: Session) -> None:
    for norm, epsilon in (("linf", 0.3), ("l1", 8.0), ("flow", 1.0)):
        plan = session.plan(Request(defenses="none", attacks="all", samples=5, norm=norm, epsilon=epsilon))
        searched = "linf" if norm == "flow" else norm
        usual = {
            name
            for name in session.attacks.names()
            if session.attacks.get(name).cls.standard and searched in session.attacks.get(name).cls.balls
        }
        assert {cell.attack.name for cell in plan.cells} == usual
        assert {cell.threat for cell in plan.cells} == {ThreatModel(norm, epsilon)}
        # An attack is given the accesses that are usual for it, and one that is asked for by name all it has.
        for cell in plan.cells:
            standard = session.attacks.get(cell.attack.name).cls.standard
            assert cell.access in standard or cell.access is WHITE


def test_what_changed_in_l2_alone_has_another_code_there_and_its_old_name_elsewhere(session: Session) -> None:
    codes = {}
    for norm, epsilon in (("linf", 0.3), ("l2", 2.0), ("l1", 8.0), ("flow", 1.0)):
        cells = planned(session, "randomized-resize-pad", norm=norm, epsilon=epsilon).cells
        codes[norm] = {(cell.attack.name, cell.attack.code) for cell in cells}
        made = [replace(rows.evidence("none", "pgd"), cell=cell) for cell in cells]
        assert reproduce._code(session, made) == []
        before = [replace(e, cell=replace(e.cell, attack=replace(e.cell.attack, code="benchbox/1"))) for e in made]
        said = "was benchbox/1 when it was published and is benchbox/1+l2.1 here"
        assert set(reproduce._code(session, before)) == (
            {f"pgd {said}", f"null {said}"} if norm == "l2" else set()
        )
    plain = {("pgd", "benchbox/1"), ("null", "benchbox/1")}
    revised = {("pgd", "benchbox/1+l2.1"), ("null", "benchbox/1+l2.1")}
    assert codes == {"linf": plain, "l2": revised, "l1": plain, "flow": plain}


def test_what_searches_no_such_ball_is_refused_when_it_is_asked_for_by_name(session: Session) -> None:
    name = next(n for n in session.attacks.names() if "l1" not in session.attacks.get(n).cls.balls)
    with pytest.raises(RequestError, match=f"attack {name} searches .* balls, not l1"):
        planned(session, "none", f"pgd,{name}", norm="l1", epsilon=8.0)


class Named:
    """A registry whose names set fields."""

    def __init__(self, inner: Any, **preset: dict[str, Any]) -> None:
        self.inner, self.preset = inner, preset

    def names(self) -> list[str]:
        return list(self.inner.names())

    def get(self, name: str) -> Any:
        return replace(self.inner.get(name), preset=self.preset.get(name, {}))


def test_what_belongs_to_a_name_is_set_and_the_user_has_the_last_word(session: Session) -> None:
    defenses: Any = Named(session.defenses, none={"epochs": 7})
    attacks: Any = Named(session.attacks, pgd={"steps": 9, "restarts": 2})
    planner = planning.Planner(defenses, attacks, session.planner().shelf)
    asked = wanted(accesses=(WHITE,), overrides={"pgd": {"restarts": 4}})
    (cell,) = planner.plan(asked, DIGITS, sample_list(DIGITS, 5)).cells
    assert cell.defense.arguments["epochs"] == 7
    assert (cell.attack.arguments["steps"], cell.attack.arguments["restarts"]) == (9, 4)


def test_settings_may_be_of_what_a_source_or_a_base_needs(session: Session) -> None:
    plan = planned(
        session, "jpeg", sources=("pgd-at",), overrides={"pgd-at": {"epochs": 2}, "none": {"epochs": 3}}
    )
    epochs = {t.defense.name: t.defense.arguments.get("epochs") for t in plan.trainings.values()}
    assert (epochs["pgd-at"], epochs["none"]) == (2, 3)
    with pytest.raises(RequestError, match="does not use pgd-at; it uses jpeg, none, pgd"):
        planned(session, "jpeg", overrides={"pgd-at": {"epochs": 2}})


def test_a_substitute_is_like_the_classifier_at_the_bottom(session: Session) -> None:
    plan = planned(session, "jpeg", seeds=(4,))
    training = next(t for t in plan.trainings.values() if t.defense.name == "jpeg")
    like = substitute_of(training)
    assert like is not None
    assert training.base is not None
    assert like == replace(training.base, seed=1004)
    assert (training.dataset, training.images) == ("digits", DIGITS.train.digest)
    assert substitute_of(replace(training.root, source=Path("net.pt"))) is None
    # What is below is trained first.
    request = Request(defenses="jpeg", attacks="pgd", samples=5)
    assert [t.defense.name for t in session.planner().trainings(request, DIGITS).values()] == ["none", "jpeg"]


def test_what_a_report_has_to_know(session: Session) -> None:
    plan = planned(session, "randomized-resize-pad,none")
    found = {
        t.defense.name: kind(session.defenses.get(t.defense.name).cls, t)
        for t in plan.trainings.values()
        if t.seed == 0
    }
    padded, bare = found["randomized-resize-pad"], found["none"]
    assert {k: v for k, v in bare.items() if k != "bibtex"} == {
        "purifies": False, "deployable": True, "randomized": False, "stand_ins": [], "exact": None,
        "substitute": True,
    }  # fmt: skip
    assert (padded["purifies"], padded["randomized"], padded["exact"]) == (True, True, padded["stand_ins"][0])
    assert asdict(plan.cells[0].threat) == {"norm": "linf", "epsilon": 0.3}
