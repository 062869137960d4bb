"""Cells, their identity, and the geometry of the ball."""

from dataclasses import replace

import pytest
import torch

from benchbox.domain import Access, Cell, SampleList, Spec, ThreatModel, ViewSpec, format_epsilon
from benchbox.draws import sample_draws
from benchbox.errors import RequestError

CELL = Cell(
    defense=Spec("pssr", {"alpha": 1.5}, "benchbox/1"),
    artifact="a",
    attack=Spec("pgd", {"steps": 40}, "benchbox/1"),
    access=Access.GRAY_BOX,
    view=ViewSpec("b"),
    threat=ThreatModel("linf", 0.3),
    samples=SampleList("digits", "test", (0, 1, 2), "c"),
)


def test_a_cell_survives_its_json_and_keeps_its_identity():
    again = Cell.from_dict(CELL.as_dict())
    assert again == CELL
    assert again.key == CELL.key
    odd = replace(CELL, samples=SampleList("digits", "test", (2, 0, 5), "c"))
    assert Cell.from_dict(odd.as_dict()) == odd


@pytest.mark.parametrize(
    "change",
    [
        {"defense": Spec("pssr", {"alpha": 2.0}, "benchbox/1")},
        {"attack": Spec("pgd", {"steps": 40}, "benchbox/2")},
        {"access": Access.TRANSFER},
        {"view": ViewSpec("b", "identity")},
        {"threat": ThreatModel("linf", 0.2)},
        {"samples": SampleList("digits", "test", (0, 1), "c")},
        {"attack_seed": 1},
        {"scoring_draws": 10},
        {"search_precision": "bfloat16"},
    ],
)
def test_whatever_changes_the_number_changes_the_key(change):
    assert replace(CELL, **change).key != CELL.key


def test_what_follows_from_the_code_is_recorded_and_changes_no_key():
    said = replace(CELL, averaging="mean of the logits")
    assert (said.key, said.craft_key) == (CELL.key, CELL.craft_key)
    assert Cell.from_dict(said.as_dict()) == said
    before = {k: v for k, v in CELL.as_dict().items() if k != "averaging"}
    assert Cell.from_dict(before) == CELL


def test_a_search_in_float32_is_named_as_before_there_was_a_choice():
    assert "search_precision" not in CELL.as_dict()
    assert (CELL.key[:12], CELL.craft_key[:12]) == ("eabd08b350dd", "f44d5e3154c1")
    coarse = replace(CELL, search_precision="bfloat16")
    assert Cell.from_dict(coarse.as_dict()) == coarse
    assert coarse.craft_key != CELL.craft_key


def test_crafting_is_shared_by_cells_that_differ_in_the_scored_defense_alone():
    other = replace(CELL, artifact="z", defense=Spec("atop", {}, "benchbox/1"), scoring_draws=10)
    assert other.craft_key == CELL.craft_key
    assert replace(CELL, view=ViewSpec("z")).craft_key != CELL.craft_key


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_projection_lands_in_ball_and_box_and_leaves_inner_points_alone(norm):
    threat = ThreatModel(norm, 0.3)
    x = sample_draws(50).at("x").uniform(1, 6, 6)
    far = x + 3 * sample_draws(50).at("d").normal(1, 6, 6)
    projected = threat.project(far, x)
    assert (threat.norms(projected - x) <= 0.3 + 1e-6).all()
    assert projected.min() >= 0
    assert projected.max() <= 1
    assert torch.allclose(threat.project(projected, x), projected, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_fill_the_ball(norm):
    threat, x = ThreatModel(norm, 0.2), torch.full((500, 1, 4, 4), 0.5)
    norms = threat.norms(threat.random_start(x, sample_draws(500)) - x)
    assert norms.max() <= 0.2 + 1e-6
    assert norms.max() > 0.19
    # In 16 dimensions the L2 radius is eps * u^(1/16): its median is eps * 0.5^(1/16).
    expected = 0.2 * 0.5 ** (1 / 16)
    assert abs(norms.median() - expected) < 0.004


def test_epsilon_is_printed_as_papers_do():
    assert [format_epsilon(e) for e in (0.3, 8 / 255, 4 / 255, 0.5, 0.031, 0.0)] == [
        "0.3",
        "8/255",
        "4/255",
        "0.5",
        "0.031",
        "0",
    ]


def test_a_threat_model_refuses_nonsense():
    with pytest.raises(RequestError, match="use linf, l2, l1, flow or recolor"):
        ThreatModel("l7", 0.3)
    with pytest.raises(RequestError, match="-1"):
        ThreatModel("linf", -1)
    with pytest.raises(RequestError, match="nan"):
        ThreatModel("linf", float("nan"))
