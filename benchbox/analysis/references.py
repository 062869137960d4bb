"""The papers behind defences and attacks, from results/paper/references.bib: titles, links, BibTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from benchbox.errors import RequestError

_ENTRY = re.compile(r"^@(\w+)\{([^,\s]+),\n(.*?)^\}$", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^\s*(\w+)\s*=\s*\{(.*?)\},?$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Reference:
    """One paper.

    Attributes:
        key: To cite it by.
        title: Without BibTeX's braces.
        url: Where it can be read.
        bibtex: The entry.
        plugins: Names of the defences and attacks that it describes.
        author: The first one's family name, with "et al." if there are others.
        year: As the entry has it.
    """

    key: str
    title: str
    url: str
    bibtex: str
    plugins: tuple[str, ...] = ()
    author: str = ""
    year: str = ""

    @property
    def said(self) -> str:
        """In one line, for where there is no BibTeX."""
        who = " ".join(filter(None, (self.author, f"({self.year})" if self.year else "")))
        return ". ".join(filter(None, (who, self.title, self.url)))


def of(name: str, card: str = "") -> Reference | None:
    """The paper of a plug-in; that of its family where it is a member of one (`torchattacks:PGD`).

    Args:
        name: The registered name.
        card: The BibTeX entry of its card, if it has one; it goes first.

    Returns:
        None where nobody has said.

    Raises:
        RequestError: The card's entry is none.
    """
    if card:
        return parse(card)[0]
    known = _by_plugin()
    return known.get(name) or known.get(name.partition(":")[0])


def parse(text: str) -> list[Reference]:
    """The entries of BibTeX text, one field a line or more, each in braces.

    Raises:
        RequestError: There is none, or one without title.
    """
    found = []
    for match in _ENTRY.finditer(text.strip() + "\n"):
        fields = {name.lower(): " ".join(value.split()) for name, value in _FIELD.findall(match[3])}
        if "title" not in fields:
            raise RequestError(f"the BibTeX entry {match[2]} has no title; give it one")
        own = tuple(name.strip() for name in fields.get("benchbox", "").split(",") if name.strip())
        shown = re.sub(r",?\n\s*benchbox = \{[^}]*\}", "", match[0])
        title = fields["title"].replace("{", "").replace("}", "")
        author, year = _first(fields.get("author", "")), fields.get("year", "")
        found.append(Reference(match[2], title, fields.get("url", ""), shown + "\n", own, author, year))
    if not found:
        raise RequestError("no BibTeX entry: write @article{key, with a field a line, each in braces")
    return found


def _first(authors: str) -> str:
    """`Fu, Xiaowei and Zhou, Yuhang` as "Fu et al."; a name without comma ends with the family's."""
    first, *others = authors.split(" and ")
    family = first.partition(",")[0] if "," in first else first.rpartition(" ")[2]
    # Accents are TeX's: what is left of {\'e} is its letter.
    return re.sub(r"\\.|[{}]", "", family).strip() + (" et al." if others else "")


@cache
def every() -> tuple[Reference, ...]:
    """Everything in references.bib."""
    return tuple(parse(files("benchbox.plugins.paper").joinpath("references.bib").read_text(encoding="utf-8")))


@cache
def _by_plugin() -> Mapping[str, Reference]:
    return {name: reference for reference in every() for name in reference.plugins}
