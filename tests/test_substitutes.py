"""What a table says of substitutes that are no second training of what they were to fool."""

from __future__ import annotations

from typing import Any

from rows import TRANSFER, evidence, only

from benchbox.analysis.background import Background
from benchbox.report.remarks import remarks


def test_a_substitute_of_another_recipe_is_named() -> None:
    item = evidence("a", TRANSFER, arguments={"epochs": 2})

    def said(**substitute: Any) -> list[str]:
        training = {"defense": {"name": "a", "arguments": {"epochs": 2}}, "seed": 1000} | substitute
        below = {"defense": {"name": "net", "arguments": {}}, "seed": 0}
        own = {"defense": {"name": "a", "arguments": {"epochs": 2}}, "seed": 0, "base": below}
        cards = {"substitute": {"training": training}, item.cell.artifact: {"training": own}}
        return [line for line in remarks(only([item], Background(cards=cards))) if "transfer from" in line]

    other = {"name": "b", "arguments": {}}
    assert said(defense=other) == [
        "a: transfer from b (seed 1000), which is no second training of its own classifier."
    ]
    assert said() == said(defense={"name": "net", "arguments": {}}) == []
    assert said(defense={"name": "a", "arguments": {"epochs": 9}}) != []
    assert "b (seed 1000, taught by the target's answers)" in said(defense=other, teacher=other)[0]
