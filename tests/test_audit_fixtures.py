"""docs/audit-fixtures.md has every fixture, and says of each what its test says."""

from __future__ import annotations

import re

import pytest
from audit_fixtures import DOCS, EXPECTED, GROUPS, HONEST, NOT_AUDITED, exported

PAGE = (DOCS / "audit-fixtures.md").read_text("utf-8")
AGAIN = "run `python tests/audit_fixtures.py`"
AUDITED = [cls for group in GROUPS for cls in group.classes]


def said(name: str) -> dict[str, str]:
    """By check, what the page says against a fixture, with the verdict before it."""
    told = re.search(
        rf"^- \*\*{name}\*\*:.*\n((?:  - .*\n)*)", PAGE.partition("## The mechanisms")[2], re.MULTILINE
    )
    assert told is not None, f"{name} is not on the page; {AGAIN}"
    lines = (line.removeprefix("  - ").replace("**", "") for line in told[1].splitlines())
    return {check: text for check, _, text in (line.partition(" ") for line in lines)}


def test_every_fixture_is_in_one_list_and_on_the_page() -> None:
    listed = [*AUDITED, *(cls for _, classes in NOT_AUDITED.values() for cls in classes)]
    assert {cls.card.name for cls in exported()} <= {cls.card.name for cls in listed}
    assert len({cls.card.name for cls in listed}) == len(listed)
    for cls in listed:
        assert f"- **{cls.card.name}**: " in PAGE, AGAIN
    for cls in AUDITED:
        assert f"\n| {cls.card.name} | " in PAGE, AGAIN


@pytest.mark.parametrize("cls", EXPECTED, ids=lambda cls: cls.card.name)
def test_the_page_names_the_mechanism(cls) -> None:
    for check, words in EXPECTED[cls].items():
        found = said(cls.card.name)[check]
        assert found.startswith("FAIL: "), AGAIN
        assert words in found, AGAIN


@pytest.mark.parametrize("cls", HONEST.classes, ids=lambda cls: cls.card.name)
def test_nothing_honest_fails_on_the_page(cls) -> None:
    assert [found for found in said(cls.card.name).values() if found.startswith("FAIL: ")] == []
