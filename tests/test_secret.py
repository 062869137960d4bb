"""The secret of a randomised row is kept with its cells, and gives the same outcomes again."""

from __future__ import annotations

import numpy as np
import pytest
from evidence import CELL, RANDOM, begin, outcome

from benchbox import evaluate
from benchbox.engine import secret
from benchbox.errors import RequestError
from benchbox.store import Store

ASKED = {
    "dataset": "digits", "attacks": ["noise"], "accesses": ["white-box"], "samples": 8, "scoring_draws": 4,
    "set": {"none": {"epochs": 1}}, "progress": False,
}  # fmt: skip


def test_a_secret_given_again_gives_the_same_outcomes(tmp_path) -> None:
    def outcomes(store: str, **given: str):
        evaluate("randomized-resize-pad", store=tmp_path / store, **ASKED, **given)
        with Store.open(tmp_path / store) as opened:
            cell = next(e for e in opened.evidence() if e.cell.attack.name == "noise")
            return cell.outcome.adversarial, opened.attached(cell.cell.key, secret.KIND)["secret"]

    first, drawn = outcomes("a.sqlite")
    (tmp_path / "a.sqlite").rename(tmp_path / "first.sqlite")
    again, kept = outcomes("a.sqlite", secret=drawn)
    assert kept == drawn
    assert len(drawn) == 32
    np.testing.assert_array_equal(again, first)


def test_a_store_has_one_secret_and_a_cell_stays_with_its_own(tmp_path) -> None:
    with Store.open(tmp_path / "s.sqlite") as store:
        own = secret.of(store)
        assert secret.of(store) == own
        begin(store, CELL, RANDOM)
        store.commit_batch(RANDOM, outcome(RANDOM, [0, 1]), seconds=0.5)
        secret.note(store, RANDOM, own)
        assert store.attached(RANDOM.key, secret.KIND) == {"secret": own, "before": 2}
        assert secret.recorded(store, [RANDOM.key]) == own
        assert secret.recorded(store, [CELL.key]) == secret.OPEN
        with pytest.raises(RequestError, match=f"give --secret {own}"):
            secret.note(store, RANDOM, "ab")
