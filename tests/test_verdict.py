"""`benchbox verdict`: what it says, when it stops, what it leaves in the store, and that its interval holds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from commands import Said, refusal
from evidence import CELL, outcome

from benchbox.analysis.anytime import confidence_sequence
from benchbox.analysis.intervals import clopper_pearson
from benchbox.analysis.score import measure
from benchbox.domain import Evidence
from benchbox.engine.budget import Budget
from benchbox.engine.ladder import Ladder
from benchbox.errors import DataError, RequestError
from benchbox.store import Store

ROUND = """
from benchbox import Card, Purifier

class Round(Purifier):
    card = Card("round", "black and white")
    def purify(self, x, draws):
        return x.round()
    def losses(self, batch):
        return {}

class Nothing(Round):
    card = Card("nothing", "changes nothing")
    def purify(self, x, draws):
        return x
"""


@pytest.mark.parametrize("share", [0.03, 0.1, 0.5])
def test_the_interval_holds_at_every_image_at_once(share: float) -> None:
    sequence, fixed = cache(confidence_sequence), cache(clopper_pearson)
    draws = np.random.default_rng(0).random((300, 250)) < share
    missed = {"sequence": 0, "fixed": 0}
    for row in draws:
        counts = [(int(k), n) for n, k in enumerate(row.cumsum(), 1)]
        for name, interval in (("sequence", sequence), ("fixed", fixed)):
            held = all(interval(k, n).low <= share <= interval(k, n).high for k, n in counts)
            missed[name] += not held
    assert missed["sequence"] <= 0.05 * 300
    assert missed["fixed"] > 0.1 * 300, "an interval for a fixed number of images may not be looked at twice"


def test_the_interval_is_what_the_mixture_says() -> None:
    low, high = confidence_sequence(0, 64, 0.975)
    assert low == 0
    # Γ(64.5) / (Γ(0.5) 64!) / (1 - p)^64 = 40, solved by hand in logarithms.
    assert high == pytest.approx(1 - np.exp((-np.log(40) - 0.5 * np.log(np.pi * 64.25)) / 64), abs=1e-4)
    assert confidence_sequence(0, 0) == (0, 1)
    assert confidence_sequence(64, 64).high == 1
    with pytest.raises(DataError, match="65 of 64"):
        confidence_sequence(65, 64)


def test_budgets() -> None:
    assert Budget.parse("60s") == Budget(seconds=60)
    assert Budget.parse("2min, 200 images,5e3passes".replace("5e3", "5000")) == Budget(120, 200, 5000)
    for text in ("60", "0s", "ten", "60 parsecs", ""):
        with pytest.raises(RequestError, match="60s"):
            Budget.parse(text)


def test_an_attack_counts_once_and_what_was_wrong_before_is_nobodys() -> None:
    cells = (CELL, replace(CELL, attack_seed=1))
    n = len(CELL.samples)
    ladder = Ladder.of(cells)
    made = outcome(CELL, range(n))
    right = replace(made, clean=np.repeat(made.label[:, None], made.clean.shape[1], 1))
    wrong = right.clean + 1
    first = replace(right, adversarial=np.where(np.arange(n)[:, None] == 0, wrong, right.clean))
    second = replace(right, adversarial=np.where(np.arange(n)[:, None] <= 1, wrong, right.clean))
    ladder.learn(0, first)
    assert (ladder.standing(n).sum(), ladder.proven(n).sum()) == (n - 1, 0)
    assert ladder.open(1, n).tolist() == list(range(1, n))
    ladder.learn(1, second)
    assert ladder.by[:3].tolist() == [0, 1, -1]
    assert ladder.proven(n).sum() == n - 2
    unlucky = Ladder.of(cells)
    unlucky.learn(0, replace(right, clean=wrong, adversarial=wrong))
    assert unlucky.breakers(n) == []
    assert not unlucky.standing(n).any()


def test_a_share_of_chosen_images_is_no_number() -> None:
    def partial(positions: range | list[int]) -> Evidence:
        return Evidence(CELL, outcome(CELL, positions), "partial")

    assert measure(partial(range(3))).score is not None
    assert measure(partial([0, 2, 3])).score is None


@pytest.fixture
def rounding(workspace: Path) -> tuple[str, ...]:
    """A purifier without a gradient, for images that a classifier learns in a second."""
    rng = np.random.default_rng(0)
    y = np.arange(264) % 10
    x = rng.integers(0, 60, (264, 28, 28)).astype(np.uint8)
    for image, label in zip(x, y, strict=True):
        image[2 * label : 2 * label + 3] += 150
    np.savez(workspace / "data" / "rows.npz", x_train=x[:64], y_train=y[:64], x_test=x[64:], y_test=y[64:])
    (workspace / "round.py").write_text(ROUND)
    return ("round.py:Round", "--dataset", "rows", "--set", "none.epochs=8")


def test_a_purifier_that_falls_is_called_broken_and_run_takes_what_was_found(
    said: Said, rounding: tuple[str, ...]
) -> None:
    status, out, err = said("verdict", *rounding, "--epsilon", "0.5")
    assert status == 0, err
    found, missing = out.splitlines()
    assert found.startswith("round.py:Round is broken: ")
    assert "64 random images of rows stand, L∞ ε = 0.5" in found
    assert "pgd bpda through identity broke" in found
    assert "aa" in missing.partition("The full evaluation")[0]
    assert "robust" not in out.lower()
    assert "64 stand" in err

    with Store.open("results/benchbox.sqlite") as store:
        own = store.cells(defenses=["round.py:Round"])
        cells = {(r.cell.attack.name, str(r.cell.access), r.cell.view.stand_in): r for r in own}
        first = store.positions(cells["pgd", "white-box", None].cell)
        through = store.positions(cells["pgd", "bpda", "identity"].cell)
    assert first.tolist() == list(range(64))
    assert 0 < len(through) < 64, "only what withstood"

    status, again, err = said("verdict", *rounding, "--epsilon", "0.5")
    assert (again, "stand" in err) == (out, False), "it is in the store"

    command = missing.partition("The full evaluation: benchbox ")[2].split()
    assert command[0] == "run"
    status, table, _ = said(*command, "--attacks", "pgd", "--access", "white-box", "--samples", "64", "--quiet")
    assert status == 0
    assert "0 cells done, 1 reused" in table


def test_what_adds_nothing_to_its_classifier_is_called_that(said: Said, rounding: tuple[str, ...]) -> None:
    status, out, _ = said("verdict", "round.py:Nothing", *rounding[1:], "--epsilon", "1/255", "--attacks", "fgsm")
    assert status == 0
    assert out.startswith("round.py:Nothing is no better than its bare classifier: "), out
    assert ", not significantly better than the bare classifier (" in out
    assert "robust" not in out.lower()


def test_it_stops_when_the_budget_is_spent(said: Said, rounding: tuple[str, ...]) -> None:
    fewer = (*rounding, "--attacks", "fgsm", "--epsilon", "1/255", "--quiet")
    status, out, _ = said("verdict", *fewer, "--budget", "20passes")
    assert status == 0
    assert "is not settled within 20 passes: " in out
    assert " of 10 random images" in out
    with Store.open("results/benchbox.sqlite") as store:
        begun = [(record.cell.defense.name, record.committed) for record in store.cells()]
    assert begun == [("round.py:Round", 10)], "only what was attacked"
    assert "is not settled within 15 images" in said("verdict", *fewer, "--budget", "15images")[1]


def test_what_another_list_knows_takes_nothing_of_the_budget(said: Said, rounding: tuple[str, ...]) -> None:
    fewer = (*rounding, "--attacks", "fgsm", "--epsilon", "1/255", "--quiet")
    # The first 100 images: half of the ten random ones. What that saves goes into the next access.
    assert said("run", "--defense", *fewer, "--access", "white-box", "--samples", "100")[0] == 0
    _, out, _ = said("verdict", *fewer, "--budget", "20passes")
    assert "gray-box (not on 5 that stand)" in out, out


def test_mistakes_are_one_line(said: Said, rounding: tuple[str, ...]) -> None:
    assert "60s" in refusal(said("verdict", *rounding, "--budget", "lots"))
    assert "one at a time" in refusal(said("verdict", *rounding, "--seeds", "0,1"))
    assert "pgd" in refusal(said("verdict", *rounding, "--attacks", "pgdd"))
