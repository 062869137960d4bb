"""The papers' tables as data: whole, each with the sentence of who attacked what."""

from __future__ import annotations

import pytest

from benchbox.analysis import papers
from benchbox.domain import ThreatModel
from benchbox.errors import RequestError

CIFAR = ThreatModel("linf", 8 / 255)


@pytest.mark.parametrize(("paper", "count"), [("pssr", 360), ("atop", 60), ("carso", 15)])
def test_every_number_has_its_place_and_its_source(paper: str, count: int) -> None:
    found = papers.numbers(paper)
    assert len(found) == count
    places = {(number.table, number.dataset, number.row, number.column) for number in found}
    assert len(places) == count
    for number in found:
        assert number.percent is None or 0 <= number.percent <= 100
        assert number.source
        assert papers.attacked(paper, number.table).endswith(".")


@pytest.mark.parametrize(
    ("defense", "dataset", "said"),
    [("atop", "cifar10", "72.85"), ("atop", "cifar100", "43.55"), ("carso", "cifar10", "76.13")],
)
def test_what_is_claimed(defense: str, dataset: str, said: str) -> None:
    assert str(papers.claim(defense, dataset, CIFAR)) == said


def test_no_claim_in_another_ball_on_other_data_or_of_another_defence() -> None:
    assert papers.claim("atop", "cifar10", ThreatModel("l2", 0.5)) is None
    assert papers.claim("atop", "mnist", CIFAR) is None
    assert papers.claim("pgd-at", "cifar10", CIFAR) is None


def test_names_that_nobody_knows() -> None:
    with pytest.raises(RequestError, match="did you mean carso"):
        papers.numbers("carsso")
    with pytest.raises(RequestError, match="table of atop"):
        papers.attacked("atop", "9")
