"""Evaluations as papers' authors ran them: data that fills in what a request does not say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchbox import Draws, ThreatModel
from benchbox.analysis import papers
from benchbox.contract import registry
from benchbox.domain import Access
from benchbox.engine import protocols
from benchbox.engine.request import Grid, read
from benchbox.errors import RequestError


@pytest.mark.parametrize("name", list(protocols.every()))
def test_every_protocol_is_a_request(name: str) -> None:
    protocol = protocols.of(name)
    (asked,) = Grid().with_options({"protocol": name, "defense": "none"}).requests()
    assert set(asked.attacks) <= set(registry.attacks().names())
    assert protocol.said.endswith(".")
    assert not protocol.paper or papers.numbers(protocol.paper)


def test_what_is_said_goes_first_whatever_it_is_called() -> None:
    words = {
        "protocol": "carso",
        "access": "bpda",
        "samples": 100,
        "set": {"pgd-200": {"steps": 7}, "none": {"epochs": 2}},
    }
    asked = Grid().with_options(words)
    assert asked.accesses == (Access.BPDA,)
    assert (asked.attacks, asked.eot, asked.samples) == (("aa", "pgd-200"), 20, 100)
    assert asked.epsilon == (8 / 255,)
    assert asked.overrides == {"pgd-200": {"steps": 7}, "none": {"epochs": 2}}
    # Once filled in, it stays: the request of each data set is the same.
    (request,) = asked.with_options({"defense": "none"}).requests()
    assert (request.samples, request.overrides) == (100, asked.overrides)
    assert request.as_dict()["protocol"] == "carso"


def test_a_grid_file_may_name_one_and_an_option_may_change_it(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text('protocol = "atop"\ndefenses = ["atop"]\nsamples = 64\n', encoding="utf-8")
    assert (read(path).samples, read(path).eot, read(path).sample_seed) == (64, 1, 0)
    assert read(path).with_options({"eot": 20}).eot == 20


def test_purifiers_are_attacked_as_lee_and_kim_did() -> None:
    """200 steps of 0.007 from the image itself."""
    for name in ("carso", "atop-pgd", "lee-kim"):
        asked = Grid().with_options({"protocol": name})
        attack = registry.attacks().get("pgd-200").cls.configure("cifar10")
        assert "pgd-200" in asked.attacks
        assert (attack.steps, attack.step * asked.epsilon[0]) == (200, pytest.approx(0.007))
        x = torch.rand(2, 3, 4, 4)
        assert torch.equal(attack.start(x, ThreatModel("linf", 8 / 255), Draws(0, torch.arange(2))), x)


def test_an_unknown_one_is_named() -> None:
    with pytest.raises(RequestError, match="did you mean carso"):
        Grid().with_options({"protocol": "carsso"})
