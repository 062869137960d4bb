"""A document: tables of typed values, and what is said about them. Every format prints it, none computes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from benchbox.text import printable

if TYPE_CHECKING:
    from benchbox.analysis.table import Table

Item = TypeVar("Item")
#: How a value strikes the eye, for formats that have colours.
Tone = Literal["", "good", "doubt", "bad", "faint"]
Align = Literal["left", "right"]
#: Draws for each table, by `Spec.identity` of a recipe, SVG text of what its claim survives.
Draw = Callable[[Sequence["Table"]], Sequence[Mapping[str, str]]]


@dataclass(frozen=True)
class Text:
    """Words.

    Attributes:
        text: What is printed.
        detail: What stands behind it, one fact a line: for a tooltip.
        tone: How it strikes the eye.
        strong: Whether it is printed bold.
        exact: What machine formats carry instead of the text, where that is more.
    """

    text: str
    detail: str = ""
    tone: Tone = ""
    strong: bool = False
    exact: float | int | str | None = None

    @property
    def plain(self) -> float | int | str:
        """For machines."""
        return self.text if self.exact is None else self.exact


@dataclass(frozen=True)
class Number(Text):
    """A number, rounded and marked as it is printed.

    Attributes:
        interval: As in "[95.1, 97.2]".
        ends: Of the interval, for who draws it.
        beside: The number that somebody else published for the same thing.
        notes: Numbers of the section's notes about it, from 1.
    """

    interval: str = ""
    ends: tuple[float, float] | None = None
    beside: Text | None = None
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Place(Text):
    """A rank."""


@dataclass(frozen=True)
class Badge(Text):
    """A verdict in a few words."""


@dataclass(frozen=True)
class Cited(Text):
    """A name with its paper.

    Attributes:
        key: BibTeX key, of characters that `\\cite` takes as they are; "" where nobody has named a paper.
        number: Of the paper in the section's list, from 1; 0 where it is cited by its key alone.
    """

    key: str = ""
    number: int = 0


Value = Text | Number | Place | Badge | Cited


@dataclass(frozen=True)
class Column(Generic[Item]):
    """One column of a grid.

    Attributes:
        key: Its name for machines.
        title: Its heading.
        value: What stands in it for an item.
        align: Numbers right, words left.
        group: The heading it shares with its neighbours; such columns are a table of their own where there is no
            room for all.
        heads: Whether it says whose row it is, and is repeated beside every group.
        paragraph: Width in print, in millimetres, of words that take several lines; 0 for one line.
        drops: Its turn to be left out where even folded columns do not fit, from 1; 0: it stays.
        recorded: Whether the document's record and lines carry it already, in full; what they do not is added.
        names: Whether its heading is somebody's name, which is written as it is.
    """

    key: str
    title: str
    value: Callable[[Item], Value]
    align: Align = "right"
    group: str = ""
    heads: bool = False
    paragraph: int = 0
    drops: int = 0
    recorded: bool = False
    names: bool = False


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        columns: From left to right; those of a group stand together.
        rows: A value for each column.
        caption: What the columns without group show.
        grouping: What the groups are, for a heading, and what one of them shows, with {} for its name.
        across: Titles of grouped columns, in the order they stand in where the groups are stacked.
        absent: What stands there where a group has no such column, by number of the row, group and title.
        blocks: Headings of groups of rows, by the number of their first row; "" for a rule alone.
        stacks: Whether print has intervals and published numbers under their numbers, not behind them.
        label: What print refers to it by.
    """

    columns: Sequence[Column[Any]]
    rows: Sequence[Sequence[Value]]
    caption: str = ""
    grouping: tuple[str, str] = ("", "{}")
    across: Sequence[str] = ()
    absent: Callable[[int, str, str], Value] = lambda row, group, title: Text("–")
    blocks: Mapping[int, str] = field(default_factory=dict)
    stacks: bool = False
    label: str = ""

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of its columns, in their order."""
        return tuple(dict.fromkeys(column.group for column in self.columns if column.group))

    def under(self, group: str) -> list[int]:
        """Numbers of the columns of a group; of those without one for ""."""
        return [i for i, column in enumerate(self.columns) if column.group == group]

    @property
    def head(self) -> int:
        """Number of the column that says whose row it is."""
        return next((i for i, column in enumerate(self.columns) if column.heads), 0)


@dataclass(frozen=True)
class Source:
    """A paper that a section cites.

    Attributes:
        key: BibTeX key.
        text: Authors, year, title, address: for formats without BibTeX.
        bibtex: The entry.
    """

    key: str
    text: str
    bibtex: str


@dataclass(frozen=True)
class Section:
    """Some grids about one thing, and what is said of it.

    Attributes:
        title: What it is about.
        caption: What a reader has to know of its tables, in one line.
        grids: The tables.
        notes: What numbers refer to, from 1.
        sentences: What was found, in words.
        remarks: The small print.
        brief: As much of it as a printed page has room for; None for all.
        cited: The papers that names refer to, from 1.
        keyed: The papers that names refer to by their key alone: for print, which has a bibliography.
        sources: What the numbers stand on, for formats with room for it.
        verdict: What it comes to: printed last and largest.
    """

    title: str
    grids: Sequence[Grid] = ()
    notes: Sequence[str] = ()
    sentences: Sequence[str] = ()
    remarks: Sequence[str] = ()
    brief: Sequence[str] | None = None
    caption: str = ""
    cited: Sequence[Source] = ()
    keyed: Sequence[Source] = ()
    sources: Sequence[str] = ()
    verdict: Badge | None = None

    @property
    def bibliography(self) -> Sequence[Source]:
        """Every paper that a printed page of it cites."""
        return (*self.cited, *self.keyed)


@dataclass(frozen=True)
class Document:
    """What a command has to say.

    Attributes:
        title: Of a page.
        sections: In the order they are read.
        record: Makes everything, as JSON.
        fields: Names of the columns of the long form.
        lines: Makes the long form: a line for each number with what is needed to trust it.
        page: Makes the page to click through, of this document and pictures; None for one that is read from top
            to bottom.
    """

    title: str
    sections: Sequence[Section]
    record: Callable[[], Mapping[str, Any]]
    fields: Sequence[str]
    lines: Callable[[], Iterable[Mapping[str, Any]]] = field(default=tuple)
    page: Callable[[Document, Draw], str] | None = None

    @property
    def bibtex(self) -> str:
        """The .bib file of what its sections cite, sorted by key; empty if they cite nothing."""
        found = {source.key: source.bibtex for section in self.sections for source in section.bibliography}
        return "\n".join(printable(found[key]) for key in sorted(found))


def grid(columns: Sequence[Column[Item]], items: Iterable[Item], **options: Any) -> Grid:
    """The items as rows; options as the attributes of `Grid`."""
    return Grid(columns, [[column.value(item) for column in columns] for item in items], **options)


def unrecorded(columns: Iterable[Column[Any]]) -> Iterator[Column[Any]]:
    """The columns that records and lines do not carry by themselves."""
    return (column for column in columns if not column.recorded)


def added(columns: Iterable[Column[Item]], item: Item) -> dict[str, float | int | str]:
    """What these columns add to the record and the lines of an item."""
    return {column.key: column.value(item).plain for column in unrecorded(columns)}


def listed(indices: Sequence[int], shown: int = 20) -> str:
    """The first of some numbers of images, and how many more there are."""
    more = f" … and {len(indices) - shown} more (--format json)" if len(indices) > shown else ""
    return (" ".join(map(str, indices[:shown])) or "none") + more
