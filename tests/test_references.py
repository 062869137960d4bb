"""The bibliography: every built-in has its paper, and every entry is whole."""

from __future__ import annotations

import re

import pytest

from benchbox.analysis import references
from benchbox.contract import registry
from benchbox.errors import RequestError


@pytest.mark.parametrize("name", [*registry.defenses().names(), *registry.attacks().names()])
def test_every_built_in_has_its_paper(name: str) -> None:
    reference = references.of(name)
    assert reference is not None
    assert reference.title
    assert reference.url.startswith("http")


def test_every_entry_is_whole_and_none_is_twice() -> None:
    keys = [reference.key for reference in references.every()]
    assert len(keys) == len(set(keys)) >= 25
    named = [name for reference in references.every() for name in reference.plugins]
    assert len(named) == len(set(named))
    for reference in references.every():
        for field in ("author", "title", "year", "url"):
            assert re.search(rf"^  {field} = \{{.+\}}?", reference.bibtex, re.MULTILINE), (reference.key, field)
        assert reference.bibtex.count("{") == reference.bibtex.count("}")
        assert "benchbox" not in reference.bibtex
        year = re.search(r"year = \{(\d{4})\}", reference.bibtex)
        assert year is not None
        assert year[1] in reference.key


def test_years_are_those_of_the_cards() -> None:
    for plugins in (registry.defenses(), registry.attacks()):
        for name in plugins.names():
            card, reference = plugins.get(name).cls.card, references.of(name)
            assert reference is not None
            same = str(card.year) in reference.key or name in ("carso", "cw", "none")
            assert same or card.year is None, (name, card.year, reference.key)


def test_a_family_and_a_card_of_ones_own() -> None:
    family = references.of("torchattacks:PGD")
    assert family is not None
    assert family.key == "kim2020torchattacks"
    assert references.of("mine.py:Mine") is None
    own = references.of("mine", "@misc{me2026,\n  title = {Mine {IS} best},\n  url = {https://example.org}\n}")
    assert own is not None
    assert (own.key, own.title, own.url) == ("me2026", "Mine IS best", "https://example.org")
    with pytest.raises(RequestError, match="no BibTeX entry"):
        references.of("mine", "Me 2026")
