"""What a report keeps of each cell: ten thousand cells of a thousand images have to fit into 500 MB."""

from __future__ import annotations

import importlib.util
import tracemalloc
from pathlib import Path
from types import ModuleType

import pytest

from benchbox import api, report
from benchbox.engine.publish import publish
from benchbox.store import open_records

#: Bytes; ten thousand of them, and what Python and its packages take, are 500 MB.
MOST = 42_000
#: Cells of two stores; both fill what is kept unpacked, which does not grow.
FEW, MANY = 96, 224


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Those of the benchmark: eight attacks under four accesses on each defence, a thousand images."""
    bench = _benchmark()
    folder = tmp_path_factory.mktemp("stores")
    for count in (FEW, MANY):
        bench.fill(folder / f"{count}.sqlite", count, 1_000)
    return {count: str(folder / f"{count}.sqlite") for count in (FEW, MANY)}


def _benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench", Path(__file__).parents[1] / "benchmarks" / "store.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def peak(store: str, kinds: tuple[str, ...]) -> int:
    """Bytes at most, from opening a store to the last of these texts."""
    tracemalloc.start()
    try:
        document = api.load(store).document()
        for kind in kinds:
            report.render(document, kind)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kinds", [("csv", "markdown", "latex"), ("json",), ("html",)], ids=" ".join)
def test_a_report_keeps_little_of_each_cell(stores: dict[int, str], kinds: tuple[str, ...]) -> None:
    peak(stores[FEW], kinds)
    few, many = (peak(stores[count], kinds) for count in (FEW, MANY))
    assert (many - few) / (MANY - FEW) < MOST


def test_so_does_a_report_from_a_published_file(stores: dict[int, str], tmp_path: Path) -> None:
    files = {}
    for count, store in stores.items():
        with open_records(store) as opened:
            files[count] = tmp_path / f"{count}.json"
            files[count].write_text(publish(opened.evidence(), opened), encoding="utf-8")
    peak(str(files[FEW]), ("csv",))
    few, many = (peak(str(files[count]), ("csv",)) for count in (FEW, MANY))
    assert (many - few) / (MANY - FEW) < MOST


def test_a_comparison_reads_what_it_compares(stores: dict[int, str]) -> None:
    spent = []
    for store in (stores[FEW], *stores.values()):
        tracemalloc.start()
        try:
            api.compare("defense-0000", "defense-0001", store=store).table()
            spent.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert spent[2] < 1.1 * spent[1]
