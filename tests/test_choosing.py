"""Of a result, the cells that the words of a request mean, and the one number of one row, if it counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rows import SAMPLES, evidence, first

from benchbox.analysis.background import NOTHING, Background
from benchbox.domain import Evidence
from benchbox.engine.request import ALIASES, Grid
from benchbox.errors import RequestError
from benchbox.result import Result

VALUES: dict[str, Any] = {
    **{
        "defenses": "none",
        "datasets": "mnist",
        "attacks": "pgd",
        "accesses": "white-box",
        "sources": "classifier",
    },
    **{"samples": 100, "sample_seed": 3, "seeds": [0], "attack_seed": 0, "epsilon": 0.3, "norm": "linf"},
    **{"scoring_draws": 1, "eot": 1, "search_precision": "float32", "overrides": {"pgd": {"steps": 3}}},
    **{"axes": {"pgd.steps": [1, 2]}, "protocol": "robustbench", "weights": "net.safetensors"},
}
CHOOSE_NOTHING = ("overrides", "axes", "protocol", "weights")


def result(*items: Evidence, **known: Any) -> Result:
    return Result(items, Background(**known) if known else NOTHING, "a.sqlite")


DRAWN = evidence(samples=replace(SAMPLES, seed=3, digest="drawn"))


@pytest.mark.parametrize("word", Grid.model_fields)
def test_every_word_of_a_request_chooses_or_is_refused_in_one_line(word: str) -> None:
    held = result(DRAWN)
    for spelling in (word, *(short for short, long in {**ALIASES, "set": "overrides"}.items() if long == word)):
        if word not in CHOOSE_NOTHING:
            assert held.only(**{spelling: VALUES[word]}).evidence == (DRAWN,)
            continue
        with pytest.raises(
            RequestError, match=f"{spelling}=.* chooses no stored cells; these words do: .*seeds"
        ) as e:
            held.only(**{spelling: VALUES[word]})
        assert "\n" not in str(e.value)


def test_images_drawn_at_random_are_told_by_their_seed() -> None:
    plain = evidence()
    held = result(plain, DRAWN)
    assert held.only(sample_seed=3).evidence == (DRAWN,)
    assert held.only(sample_seed=None).evidence == (plain,)
    with pytest.raises(RequestError, match="holds nothing of sample_seed 4"):
        held.only(sample_seed=4)


def test_what_an_audit_withdrew_and_what_is_withheld_is_no_number() -> None:
    item = evidence()
    proving = replace(item, outcome=replace(item.outcome, certified=first(40)[:, 0]))
    assert (result(proving).robust, result(proving).certified) == (0.5, 0.4)
    record = {
        "threat": {"norm": "linf", "epsilon": 0.3},
        "summary": {"integrity": ["A1"], "masking": [], "attack": [], "counts": {"FAIL": 1}},
        "findings": [{"check": "A1", "verdict": "FAIL", "sentence": "outside"}],
    }
    withdrawn = result(proving, audits={item.cell.artifact: record})
    wrong = evidence(attack="null", right=np.repeat(first(9), 3, 1))
    for held, why in ((withdrawn, "its audit says withdrawn A1"), (result(proving, wrong), "withheld")):
        for number in ("robust", "certified"):
            with pytest.raises(RequestError, match=f"none has no number that counts: {why}; print the result"):
                getattr(held, number)
