"""The worst case within each access, and a row's own numbers that the table has no column for."""

from __future__ import annotations

import csv
import io

from rows import BPDA, GRAY, WHITE, evidence, only, rendered, row, unfinished

from benchbox.analysis.background import Background
from benchbox.analysis.by_access import by_access
from benchbox.domain import Evidence
from benchbox.report import attacks, trackers
from benchbox.report.page.drill import drill

KNOWN = Background(purifiers=["pssr"])
TRADES = [evidence("trades", right=50), evidence("trades", attack="aa", right=10)]
#: Beside it, white-box AutoAttack has no column: no purifier was measured in it.
PSSR = [evidence("pssr", GRAY, right=80), evidence("pssr", GRAY, "aa", 70), evidence("pssr", WHITE, right=30)]


def worst(items: list[Evidence], label: str) -> dict[str, tuple[str, int, int]]:
    """By access: the number, how many attacks are finished, of how many."""
    table = only(items, KNOWN)
    under = by_access(table, row(table, label))
    return {str(one.access): (one.entry.figure, one.finished, one.attacks) for one in under}


def test_the_worst_case_is_over_all_that_a_row_has_finished() -> None:
    cells = [*TRADES, *PSSR]
    assert [str(column) for column in only(cells, KNOWN).columns] == [
        "gray-box pgd",
        "gray-box aa",
        "white-box pgd",
    ]
    assert worst(cells, "trades") == {"white-box": ("10.0", 2, 2), "gray-box": ("= 10.0", 2, 2)}
    assert worst(cells, "pssr") == {"white-box": ("30.0", 1, 1), "gray-box": ("70.0", 2, 2)}


def test_what_is_missing_of_an_access_is_counted() -> None:
    assert worst([TRADES[0], *PSSR], "trades")["gray-box"] == ("= 50.0", 1, 2)
    begun = [TRADES[0], unfinished(TRADES[1], 20), *PSSR]
    assert worst(begun, "trades") == {"white-box": ("50.0", 1, 2), "gray-box": ("= 50.0", 1, 2)}
    through = [*TRADES, *PSSR, evidence("pssr", BPDA, right=20)]
    assert worst(through, "trades")["bpda"] == ("= 10.0", 2, 2)


def test_it_is_told_of_the_row_wherever_its_attacks_are() -> None:
    table = only([*TRADES, *PSSR], KNOWN)
    (section,) = attacks.document([table]).sections
    lines = [[value.text for value in line] for line in section.grids[0].rows]
    assert ["aa", "n/r", "10.0", "41", "40"] in lines
    logged = {run.params["defense"]: run.metrics for run in trackers.runs([table])}["trades"]
    assert {name: logged[name] for name in ("white-box/pgd", "white-box/aa")} == {
        "white-box/pgd": 50.0,
        "white-box/aa": 10.0,
    }
    said = drill(table, row(table, "trades"), None, "").sentences
    assert "The single attack that gets furthest is aa, white-box: it leaves 10.0 %." in said


def test_machines_have_a_line_for_each_cell_once() -> None:
    begun = [*TRADES, *PSSR, unfinished(evidence("trades", right=40, attack_seed=1), 30)]
    lines = [one for one in csv.DictReader(io.StringIO(rendered(begun, "csv", KNOWN))) if one["measure"] == "cell"]
    assert sorted(one["key"] for one in lines) == sorted(item.cell.key for item in begun)
    assert {one["access"] for one in lines if one["defense"] == "trades"} == {"white-box"}
