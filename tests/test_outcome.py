"""What is counted of an outcome, by hand; sample lists and what attacks say they are, there and back."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_domain import CELL

from benchbox.domain import (
    NULL_ATTACK,
    Access,
    Card,
    Cell,
    Evidence,
    ImageSpec,
    Nature,
    Outcome,
    SampleList,
    ThreatModel,
    ViewSpec,
    known_precision,
)
from benchbox.errors import RequestError

OUTCOME = Outcome(
    position=np.array([2, 0, 1]),
    label=np.array([5, 6, 7]),
    clean=np.array([[5, 5, 5, 0], [6, 0, 0, 0], [7, 7, 7, 7]]),
    adversarial=np.array([[5, 0, 0, 0], [0, 0, 0, 0], [7, 7, 0, 7]]),
    first_success=np.array([3, 1, -1]),
    linf=np.array([0.1, 0.2, 0.3]),
    l2=np.array([1.0, 2.0, 3.0]),
    forwards=np.array([3.0, 4.0, 8.0]),
    backwards=np.array([1.0, 2.0, 6.0]),
    distance=np.array([7.0, 8.0, 9.0]),
)


def test_shares_of_draws_are_counted_sample_by_sample() -> None:
    assert OUTCOME.clean_correct.tolist() == [0.75, 0.25, 1.0]
    assert OUTCOME.robust.tolist() == [0.25, 0.0, 0.75]
    assert OUTCOME.mean_passes == (5.0, 3.0)
    assert len(OUTCOME) == 3
    assert OUTCOME.rows(slice(0, 0)).mean_passes == (0.0, 0.0)
    assert OUTCOME.measured is True


def test_right_and_wrong_stand_in_the_order_of_the_list() -> None:
    assert OUTCOME.correct("clean").tolist() == [[True, False, False, False], [True] * 4, [True] * 3 + [False]]
    assert OUTCOME.correct("adversarial").tolist() == [
        [False] * 4,
        [True, True, False, True],
        [True] + 3 * [False],
    ]


def test_some_rows_have_every_column_of_theirs() -> None:
    some = OUTCOME.rows(np.array([2, 0]), linf=np.array([0.0, 0.5]))
    assert some.position.tolist() == [1, 2]
    assert some.adversarial.tolist() == [[7, 7, 0, 7], [5, 0, 0, 0]]
    assert some.linf.tolist() == [0.0, 0.5]
    assert some.distance is not None
    assert some.distance.tolist() == [9.0, 7.0]
    assert replace(OUTCOME, distance=None).rows(slice(None)).distance is None


def test_lengths_are_those_of_the_ball() -> None:
    for norm, expected in (("linf", OUTCOME.linf), ("l2", OUTCOME.l2), ("l1", OUTCOME.distance)):
        assert OUTCOME.lengths(ThreatModel(norm, 1.0)) is expected  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        replace(OUTCOME, distance=None).lengths(ThreatModel("l1", 1.0))


@given(st.sets(st.integers(0, 5)))
def test_a_beginning_is_the_first_so_many_and_some(positions: set[int]) -> None:
    some = Outcome(np.array(sorted(positions, reverse=True), dtype=np.int64), *[np.empty(0)] * 8)
    assert some.is_beginning == (positions == set(range(len(positions))) and len(positions) > 0)


LISTS = st.builds(
    SampleList,
    st.just("digits"),
    st.sampled_from(["test", "validation"]),
    st.one_of(st.integers(0, 6).map(lambda n: tuple(range(n))), st.lists(st.integers(0, 9)).map(tuple)),
    st.just("digest"),
    st.one_of(st.none(), st.integers(0, 3)),
)


@given(LISTS)
def test_a_sample_list_comes_back_from_json_and_from_another_process(samples: SampleList) -> None:
    assert SampleList.from_dict(json.loads(json.dumps(samples.as_dict()))) == samples
    assert pickle.loads(pickle.dumps(samples)) == samples
    is_first = samples.indices == tuple(range(len(samples)))
    assert samples.as_dict()["indices"] == ({"first": len(samples)} if is_first else list(samples.indices))
    assert ("seed" in samples.as_dict()) == (samples.seed is not None)
    n, split = len(samples.indices), samples.split
    if samples.seed is not None:
        assert samples.said == f"{n} random {split} images (seed {samples.seed})"
    else:
        assert samples.said == f"{'the first' if is_first else 'a choice of'} {n} {split} images"


def test_a_nature_comes_back_from_json() -> None:
    nature = Nature("ensemble", ("margin", "dlr"), ("targeted",), 100, 0.5, 2, 9, 5000, "AutoAttack")
    assert Nature.from_dict(json.loads(json.dumps(asdict(nature)))) == nature
    least = Nature("iterative")
    assert asdict(least) == {
        "kind": "iterative", "climbs": (), "families": (), "steps": 0, "step": None, "restarts": 1, "targets": 0,
        "queries": 0, "stands_for": "",
    }  # fmt: skip
    told = replace(CELL, nature=nature)
    assert Cell.from_dict(json.loads(json.dumps(told.as_dict()))) == told


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"kind": "single"}, "unknown kind of attack 'single'"),
        ({"climbs": "margin"}, "Nature.climbs is 'margin'; write a tuple of words"),
        ({"climbs": ["margin"]}, "Nature.climbs is ['margin']; write a tuple of words"),
        ({"families": ("targeted", 3)}, "Nature.families"),
        *(({name: -1}, f"Nature.{name} is -1; write a whole") for name in ("steps", "restarts", "targets")),
        ({"queries": 2.5}, "Nature.queries is 2.5"),
        *(({"step": step}, f"Nature.step is {step!r}; write a share") for step in (0.0, -0.5, "long")),
    ],
)
def test_what_no_check_could_read_is_refused(said: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RequestError, match=re.escape(complaint)):
        Nature(**{"kind": "iterative", **said})


def test_a_precision_has_a_name() -> None:
    assert [known_precision(name) for name in ("float32", "bfloat16")] == ["float32", "bfloat16"]
    with pytest.raises(RequestError, match="unknown precision 'float16'"):
        known_precision("float16")


def test_a_cell_at_hand_lends_its_list() -> None:
    samples = replace(CELL.samples)
    assert Cell.from_dict(CELL.as_dict(), samples).samples is samples
    record = CELL.as_dict()
    assert record["access"] == "gray-box"
    assert type(record["access"]) is str
    assert record["threat"] == {"norm": "linf", "epsilon": 0.3}
    assert record["nature"] is None


def test_defaults_are_those_of_what_was_stored_before_there_was_a_choice() -> None:
    fresh = (CELL.training_seed, CELL.attack_seed, CELL.scoring_draws, CELL.eot, CELL.averaging, CELL.nature)
    assert fresh == (0, 0, 1, 1, "", None)
    assert CELL.search_precision == "float32"
    assert ViewSpec("a").stand_in is None
    said = Evidence(CELL, OUTCOME, "done")
    assert (said.error, said.seconds, said.run, said.created, said.provenance) == ("", 0.0, 0, "", {})
    card = Card("a", "b")
    assert (card.paper, card.year, card.kind, card.bibtex) == ("", None, "", "")
    assert NULL_ATTACK == "null"
    assert [str(access) for access in Access] == ["gray-box", "white-box", "bpda", "transfer", "imported"]


def test_images_are_square_unless_they_have_a_width() -> None:
    assert ImageSpec(3, 32, 10).shape == (3, 32, 32)
    assert ImageSpec(1, 20, 10, width=30).shape == (1, 20, 30)
    assert (ImageSpec(1, 2, 3).mean, ImageSpec(1, 2, 3).std) == ((), ())
