"""The tables of the PSSR paper as grid files: they name the paper's rows and columns, and they plan."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Said

from benchbox.analysis import paper
from benchbox.engine import request

GRIDS = Path(__file__).parent.parent / "docs" / "grids"
FILES = [
    (path.stem, *path.stem.removeprefix("table").partition("-")[::2]) for path in sorted(GRIDS.glob("table*.toml"))
]
#: What the paper calls our defences; two of ours may stand for one of its rows, which it does not tell apart.
ROWS = {
    "none": "baseline", "uat": "semi-sl", "rice": "ro", "bagt-pgd-at": "bagt", "bagt-trades": "bagt",
    "pssr:ps": "ps", "pssr:cae": "cae", "pssr:ps+cae": "ps-cae",
}  # fmt: skip


def test_all_four_tables_are_there() -> None:
    assert {table for _, table, _ in FILES} == set("1234")


@pytest.mark.parametrize(("stem", "table", "dataset"), FILES)
def test_rows_and_columns_are_those_of_the_paper(stem: str, table: str, dataset: str) -> None:
    grid = request.read(GRIDS / f"{stem}.toml")
    assert not dataset or grid.datasets == (dataset,)
    for name in grid.datasets:
        printed = [line for line in paper.values() if (line["table"], line["dataset"]) == (table, name)]
        rows = {ROWS.get(defense, defense) for defense in grid.defenses}
        rows = {"ps-cae-ard" if (table, row) == ("4", "pssr") else row for row in rows}
        assert rows == {line["row"] for line in printed}
        columns = {line["column"] for line in printed} - {"benign"}
        assert columns == ({"bpda"} if table == "3" else set(grid.attacks))
        # Clean images are scored with every attack.


@pytest.mark.parametrize("stem", [stem for stem, _, _ in FILES])
def test_the_grid_plans(said: Said, stem: str) -> None:
    status, out, err = said("run", "--grid", str(GRIDS / f"{stem}.toml"), "--dataset", "tiny", "--dry-run")
    assert status == 0, err
    for defense in request.read(GRIDS / f"{stem}.toml").defenses:
        assert defense in out
