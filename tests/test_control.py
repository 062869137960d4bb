"""The control of randomised defences: who is withheld and why; and what is recorded of their draws."""

from __future__ import annotations

import csv
import io
import json

import digits
import numpy as np
import pytest
import torch
from rich.console import Console
from rows import GRAY, WHITE, evidence, failed, only, rendered, row, small_print, unfinished

from benchbox import Attack, ThreatModel, View, report
from benchbox.analysis import worst_case
from benchbox.analysis.background import Background
from benchbox.analysis.compare import compare
from benchbox.analysis.control import LEVEL
from benchbox.analysis.table import Column
from benchbox.contract import registry
from benchbox.contract.view import MEAN_GRADIENT
from benchbox.domain import Evidence
from benchbox.draws import Draws
from benchbox.report import comparison

ATTACKS = registry.attacks()


def rolled(q: float, seed: int, n: int = 100) -> np.ndarray:
    """(n, 10): right with probability q."""
    return np.random.default_rng(seed).random((n, 10)) < q


CLEAN = rolled(0.9, 0)


def dice(attack: str = "pgd", right: np.ndarray | None = None, name: str = "dice", **cell) -> Evidence:
    right = rolled(0.4, 1) if right is None else right
    return evidence(name, WHITE, attack, right, clean=CLEAN, eot=20, **cell)


HONEST = [dice(), dice("null", rolled(0.9, 2))]
BROKEN = [dice(), dice("null", rolled(0.8, 2))]
NONE = evidence("none", WHITE, "pgd", 10)


# --- the verdict ---------------------------------------------------------------------------------------------


def test_a_defence_whose_null_row_agrees_is_ranked_and_says_so() -> None:
    found = only([*HONEST, NONE])
    honest = row(found, "dice")
    assert honest.control is not None
    assert honest.control.verdict == "agrees"
    assert honest.rank == 1
    assert honest.control.difference == pytest.approx(100 * (rolled(0.9, 2).mean() - CLEAN.mean()))
    assert any(text.startswith("dice: null attack agrees") for text in small_print(found))


def test_a_defence_whose_null_row_differs_is_withheld() -> None:
    found = only([*BROKEN, NONE])
    broken = row(found, "dice")
    assert (broken.withheld, broken.rank, broken.robust, broken.shares) == (True, None, None, None)
    assert broken.headline == "withheld"
    assert [entry.figure for entry in broken.entries.values()] == ["withheld"]
    assert row(found, "none").rank == 1


def test_more_than_the_clean_accuracy_is_no_better_than_less() -> None:
    assert only([dice(), dice("null", rolled(0.99, 2))]).rows[0].withheld


@pytest.mark.parametrize(
    ("items", "verdict", "said"),
    [
        ([dice()], "not run", "the null attack was not run"),
        ([dice(), unfinished(HONEST[1], 40)], "unfinished", "the null attack is not finished, so nothing"),
        ([dice(), failed(HONEST[1], "out of\nmemory")], "unfinished", "not finished (out of memory), so"),
    ],
)
def test_a_missing_control_is_not_a_pass(items: list[Evidence], verdict: str, said: str) -> None:
    found = only([*items, NONE])
    one = row(found, "dice")
    assert one.control is not None
    assert (one.control.verdict, one.rank) == (verdict, None)
    assert one.robust is not None
    assert one.headline == f"{one.robust}§"
    assert any(said in text for text in small_print(found))
    assert row(found, "none").rank == 1


def test_one_draw_of_a_defence_that_is_known_to_be_randomised_needs_a_control_too() -> None:
    item = evidence("dice", GRAY, "pgd", 40)
    assert only([item]).rows[0].control is None
    control = only([item], Background(randomized={"dice"})).rows[0].control
    assert control is not None
    assert control.verdict == "not run"


def test_a_deterministic_defence_must_repeat_itself_on_every_image() -> None:
    same, other = evidence("none", WHITE, "null", 99), evidence("none", WHITE, "null", 98)
    assert only([NONE, same]).rows[0].rank == 1
    assert only([NONE, other]).rows[0].withheld


def test_chance_alone_withholds_almost_no_honest_defence() -> None:
    """One in a thousand; at the usual 5 % some two of these 40 would be."""
    controls = []
    for seed in range(40):
        q = np.random.default_rng(seed).beta(8, 1, 100)[:, None]
        clean, null = (np.random.default_rng((seed, i)).random((100, 10)) < q for i in (1, 2))
        controls += [r.control for r in only([evidence("dice", WHITE, "null", null, clean=clean)]).rows]
    assert all(control is not None and control.verdict == "agrees" for control in controls)
    assert sum(control is not None and control.p is not None and control.p < 0.05 for control in controls) > 0


def test_the_control_is_no_attack() -> None:
    found = only([*HONEST, NONE])
    assert [str(column) for column in found.columns] == ["white-box pgd"]
    assert all(r.over == 1 and not r.missing for r in found.rows)


# --- what every format says ----------------------------------------------------------------------------------


def printed(items: list[Evidence], format_: str) -> str:
    if format_ != "terminal":
        return rendered(items, format_, **({"groups": True} if format_ == "latex" else {}))
    console = Console(width=400, file=io.StringIO(), highlight=False)
    console.print(report.renderable(report.tabulate(items)))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("format_", ["terminal", *report.FORMATS])
def test_every_format_says_withheld_and_why(format_: str) -> None:
    text = printed([*BROKEN, NONE], format_)
    assert "withheld" in text
    assert "What is scored is not what is deployed" in text
    honest = printed([*HONEST, NONE], format_)
    assert "withheld: " not in honest
    score = only(HONEST).rows[0].entries[Column(WHITE, "pgd")].score
    assert score is not None
    number = repr(score.percent) if format_ in ("csv", "json") else str(score)
    assert number in honest
    assert number not in text, "a withheld number was printed"


def test_csv_and_json_hold_the_control() -> None:
    lines = list(csv.DictReader(io.StringIO(rendered(BROKEN, "csv"))))
    (null,) = [line for line in lines if line["measure"] == "null"]
    assert (null["status"], null["attack"], null["key"]) == ("differs", "null", BROKEN[1].cell.key)
    assert float(null["difference"]) == pytest.approx(100 * (rolled(0.8, 2).mean() - CLEAN.mean()))
    assert float(null["difference_low"]) < float(null["difference"]) < float(null["difference_high"]) < 0
    assert float(null["p"]) < 1 - LEVEL
    (robust,) = [line for line in lines if line["measure"] == "robust"]
    assert (robust["status"], robust["percent"]) == ("withheld", "")
    assert "withheld" in robust["error"]

    (one,) = json.loads(rendered(BROKEN, "json"))["tables"][0]["rows"]
    assert one["robust"]["score"] is None
    assert one["withheld"].startswith("withheld: ")
    assert (one["null"]["verdict"], one["null"]["cells"][0]["key"]) == ("differs", BROKEN[1].cell.key)
    (one,) = json.loads(rendered(HONEST, "json"))["tables"][0]["rows"]
    assert (one["withheld"], one["null"]["verdict"]) == (None, "agrees")


def test_a_comparison_says_what_the_control_says() -> None:
    for items, said in ((BROKEN, "dice: withheld: "), ([dice()], "dice: the null attack was not run")):
        (found,) = compare([*items, NONE], "dice", "none")
        assert any(text.startswith(said) for text in comparison.remarks(found))
        assert not any("null" in str(pair.column) for pair in found.pairs)
    (found,) = compare([*HONEST, NONE], "dice", "none")
    assert not any("null" in note for note in comparison.remarks(found))


# --- one fixed seed ------------------------------------------------------------------------------------------


def test_the_statistics_of_three_draws() -> None:
    right = np.array([[1, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 0]], bool)
    predictions = np.where(right, 0, 1)
    assert worst_case.fixed_seed(right).tolist() == [True, True, False, False, True]
    assert worst_case.worst_of_r(right).tolist() == [True, False, False, False, False]
    vote = worst_case.majority_vote(predictions, np.zeros(5, np.int64))
    assert vote.tolist() == [True, False, True, False, True]


def test_the_fixed_seed_stands_beside_vote_and_worst_of_r() -> None:
    right = rolled(0.4, 1)
    expected = {
        "fixed_seed": 100 * right[:, 0].mean(),
        "worst_of_r": 100 * right.all(1).mean(),
        "majority_vote": 100 * (right.sum(1) >= 6).mean(),
    }
    lines = csv.DictReader(io.StringIO(rendered(HONEST, "csv")))
    (line,) = [line for line in lines if line["measure"] == "cell"]
    (one,) = json.loads(rendered(HONEST, "json"))["tables"][0]["rows"]
    (cell,) = one["entries"][0]["cells"]
    for name in ("fixed_seed", "worst_of_r"):
        assert float(line[name]) == cell[name] == pytest.approx(expected[name])
    # Five of ten is a tie, which the first draw decides.
    assert cell["majority_vote"] >= expected["majority_vote"]


# --- what is averaged over the draws -------------------------------------------------------------------------


def test_the_averaging_is_exported() -> None:
    item = dice(averaging=MEAN_GRADIENT)
    lines = csv.DictReader(io.StringIO(rendered([item], "csv")))
    assert [(x["eot"], x["averaging"]) for x in lines if x["measure"] == "cell"] == [("20", MEAN_GRADIENT)]
    (one,) = json.loads(rendered([item], "json"))["tables"][0]["rows"]
    assert one["entries"][0]["cells"][0]["cell"]["averaging"] == MEAN_GRADIENT


@pytest.mark.parametrize("name", [name for name in ATTACKS.names() if name not in ("aa", "torchattacks")])
def test_an_attack_declares_an_averaging_exactly_where_it_asks_for_more_draws(name: str) -> None:
    """APGD is left out here because it takes a minute; its library accumulates gradients over `eot_iter`."""
    quick = {"steps": 3, "iterations": 3, "queries": 5, "draws": 2}
    plugin = ATTACKS.get(name)
    attack: Attack = plugin.cls.configure(
        **{k: v for k, v in quick.items() if k in plugin.cls.__dataclass_fields__}
    )
    x, y, _ = digits.held_out(8)
    model = digits.classifier()
    passes = []
    for eot in (1, 4):
        draws = Draws(torch.arange(8))
        view = View(lambda x, draws: model(x), y, draws, randomized=True, eot=eot)
        norm = "linf" if "linf" in attack.balls else attack.balls[0]
        attack(view, x, y, ThreatModel(norm, 0.1), draws)
        passes.append(view.passes())
    assert (passes[1][0] > passes[0][0]) == bool(attack.averaging)
    # What averages gradients makes as many backward passes as there are draws.
    assert (passes[1][1] == 4 * passes[0][1] > 0) == (attack.averaging == MEAN_GRADIENT)


def test_show_has_every_statistic_and_the_averaging() -> None:
    from benchbox.cli.show import _outcome

    facts = _outcome(dice(averaging=MEAN_GRADIENT))
    right = rolled(0.4, 1)
    assert facts["accuracy under the attack"] == f"{right.mean():.2%}"
    assert facts["  one fixed seed (the first draw)"] == f"{right[:, 0].mean():.2%}"
    assert facts["  right in all 10"] == f"{right.all(1).mean():.2%}"
    assert facts["  majority vote of 10"]
    assert facts["EOT draws"] == f"20, {MEAN_GRADIENT}"
    assert _outcome(dice())["EOT draws"] == "20, averaging not recorded"
    assert "EOT draws" not in _outcome(NONE)
