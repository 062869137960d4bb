"""What happened to each image, as a data frame and as CSV: each cell is told from every other."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from commands import Said
from rows import evidence, first

from benchbox.analysis.background import NOTHING
from benchbox.domain import Evidence
from benchbox.engine.publish import publish
from benchbox.report.fates import COLUMNS
from benchbox.result import Result
from benchbox.store import Published, Store


def result(*items: Evidence) -> Result:
    return Result(items, NOTHING, "a.sqlite")


def test_cells_that_differ_in_anything_are_groups_of_their_own() -> None:
    cells = [
        evidence(right=50),
        evidence(right=30, attack_seed=1),
        evidence(right=20, settings={"steps": 7}),
        evidence(right=10, arguments={"epochs": 3}),
        evidence(right=40, artifact="f" * 64, arguments={"epochs": 3}),
        evidence(attack="null", right=99),
    ]
    fates = result(*cells).fates()
    assert fates.groupby("key").adversarial.mean().to_dict() == {
        item.cell.key: item.outcome.robust.mean() for item in cells
    }
    said = ["defense_label", "attack_label", "attack_seed"]
    assert [tuple(line) for line in fates.drop_duplicates("key")[said].to_numpy()] == [
        ("none", "pgd", 0),
        ("none", "pgd", 1),
        ("none", "pgd (steps=7)", 0),
        ("none (epochs=3, weights weights )", "pgd", 0),
        ("none (epochs=3, weights ffffffff)", "pgd", 0),
        ("none", "null", 0),
    ]
    assert fates.artifact.tolist() == [item.cell.artifact for item in cells for _ in range(100)]


def test_of_a_published_cell_no_image_has_a_distance_that_is_not_its_own(workspace: Path, said: Said) -> None:
    item = evidence("pssr", right=first(40))
    assert result(item).fates().linf.tolist() == item.outcome.linf.tolist()
    store = Store.open(":memory:")
    Path("mine.json").write_text(publish([item], store), "utf-8")
    with Published.open(Path("mine.json")) as opened:
        kept = result(*opened.evidence()).fates()
    assert np.isnan(kept[["linf", "l2"]].to_numpy()).all()
    assert kept.adversarial.tolist() == item.outcome.robust.tolist()
    lines = list(csv.DictReader(io.StringIO(said("report", "--per-image", "--store", "mine.json")[1])))
    assert {(line["key"], line["linf"], line["l2"]) for line in lines} == {(item.cell.key, "", "")}


def test_of_nothing_there_is_an_empty_frame() -> None:
    assert result().fates().empty
    assert tuple(result().fates().columns) == tuple(result(evidence()).fates().columns) == COLUMNS
