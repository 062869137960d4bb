"""The secret of a randomised row is kept with its cells, and gives the same outcomes again."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from evidence import CELL, RANDOM, begin, outcome

from benchbox import evaluate
from benchbox.engine import secret
from benchbox.errors import RequestError
from benchbox.store import Store

ASKED = {
    "dataset": "digits", "attacks": ["noise"], "accesses": ["white-box"], "samples": 8, "scoring_draws": 4,
    "eot": 2, "set": {"none": {"epochs": 1}, "noise": {"draws": 2}}, "progress": False,
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
        secret.note(store, RANDOM, own)  # once more, later: what was noted first stays
        assert store.attached(RANDOM.key, secret.KIND) == {"secret": own, "before": 2}
        begin(store, CELL)
        secret.note(store, CELL, secret.OPEN)
        with pytest.raises(RequestError, match='give --secret "" to go on'):
            secret.note(store, CELL, "ab")


@pytest.mark.parametrize(
    ("known", "own", "given", "may", "then"),
    [
        (None, None, None, True, None),  # what is deterministic hangs on none
        (None, "cd", "ab", True, "cd"),
        ("ab", None, "ab", True, "ab"),
        ("ab", None, "cd", False, None),
        ("ab", None, None, False, None),
        ("ab", "ab", "ab", True, "ab"),
        ("ab", "ab", "cd", False, "ab"),
        ("ab", "cd", "ab", False, "cd"),
        ("ab", "cd", "cd", False, "cd"),
    ],
)
def test_a_cell_may_have_what_was_scored_under_the_secret_of_the_run(
    known: str | None, own: str | None, given: str | None, may: bool, then: str | None
) -> None:
    with Store.open(":memory:") as store:
        begin(store, CELL, RANDOM)
        for cell, kept in ((RANDOM, known), (CELL, own)):
            if kept is not None:
                store.attach(cell.key, secret.KIND, {"secret": kept, "before": 3})
        assert secret.join(store, CELL, RANDOM, given) is may
        found = store.attached(CELL.key, secret.KIND)
        assert found == (None if then is None else {"secret": then, "before": 3})


def test_what_is_settled_is_what_was_given_or_what_the_store_has() -> None:
    with Store.open(":memory:") as store:
        assert secret.settled(store, None) is None
        assert secret.settled(store, "ab") == "ab"
        own = secret.of(store)
        assert secret.settled(store, None) == own == store.recall(secret.KIND)
        assert secret.settled(store, "ab") == "ab"
        assert secret.settled(store, secret.OPEN) == secret.OPEN


def test_cells_of_several_secrets_have_none_in_common() -> None:
    with Store.open(":memory:") as store:
        begin(store, CELL, RANDOM)
        assert secret.recorded(store, []) == secret.OPEN
        store.attach(RANDOM.key, secret.KIND, {"secret": "ab", "before": 0})
        assert secret.recorded(store, [RANDOM.key, RANDOM.key]) == "ab"
        with pytest.raises(RequestError, match="several secrets; name rows of one store"):
            secret.recorded(store, [CELL.key, RANDOM.key])


def test_who_comes_second_waits_for_the_secret_that_the_first_is_drawing(tmp_path: Path) -> None:
    found: list[str] = []

    def second() -> None:
        with Store.open(tmp_path / "s.sqlite") as store:
            found.append(secret.of(store))

    with Store.open(tmp_path / "s.sqlite") as first:
        thread = threading.Thread(target=second)
        with first.claim(secret.KIND):
            thread.start()
            thread.join(0.5)
            assert thread.is_alive()
            first.remember(secret.KIND, "ab")
        thread.join()
    assert found == ["ab"]


def test_a_secret_is_an_even_number_of_hexadecimal_digits() -> None:
    assert len(secret.new()) == 32
    assert secret.new() != secret.new()
    for good in ("ab", "0" * 128):
        assert secret.check(good) == good
    for bad in ("", "abc", "AB", "0" * 130, "zz"):
        with pytest.raises(RequestError, match="give 2 to 128 hexadecimal digits"):
            secret.check(bad)
    assert secret.OPEN == ""
