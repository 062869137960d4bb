"""The tables of the PSSR paper as a document: its rows and columns, our numbers, the best in bold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from benchbox.analysis import paper, papers
from benchbox.analysis.paper_layout import BENIGN, WORST
from benchbox.analysis.paper_table import Figure, Group, Line, PaperTable
from benchbox.domain import Access
from benchbox.report.citations import Citations
from benchbox.report.document import Cited, Column, Document, Number, Section, Text, grid

#: What stands where nothing was run.
NOT_RUN = "–"
#: What is printed where no number counts.
_INSTEAD = {"failed": "failed", "withheld": "withheld", "not run": NOT_RUN}
#: How each access is said in a caption.
_UNDER = {
    Access.GRAY_BOX: "under gray-box attacks (a purifier's: on its bare classifier)",
    Access.WHITE_BOX: "under white-box attacks on the whole defence",
    Access.TRANSFER: "on images crafted on a substitute",
    Access.BPDA: "under BPDA through each stand-in, and through the worst for each image",
    Access.IMPORTED: "on images made elsewhere",
}
_WORST_OF_ALL = "worst per image"
_WITHDRAWN = " (withdrawn)"
FIELDS = (
    *("table", "access", "dataset", "norm", "epsilon", "n", "defense", "label", "through", "column", "status"),
    *("percent", "low", "high", "best", "paper_percent", "samples_digest"),
)


@dataclass(frozen=True)
class Shown:
    """What is shown beside the numbers.

    Attributes:
        paper: The number that the paper prints.
        intervals: The 95 % interval.
    """

    paper: bool = False
    intervals: bool = False


def document(table: PaperTable, shown: Shown = Shown(), own: Mapping[str, str] = MappingProxyType({})) -> Document:
    """One section with one table.

    Args:
        table: What to print.
        shown: What to print beside its numbers.
        own: BibTeX entries by defence, of those that bring one.
    """
    lines = [line for group in table.groups for line in group.lines]
    cited = _Cited(lines, own, once=table.layout.across)
    made = grid(
        _columns(table, cited, shown),
        lines,
        blocks=_blocks(table),
        stacks=True,
        label="-".join(["tab:benchbox", *([str(table.layout.number)] if table.layout.number else [])]),
    )
    section = Section(
        _title(table),
        [made] if lines else [],
        caption=_caption(table, shown),
        remarks=list(_remarks(table, shown)),
        brief=(),
        cited=cited.sources,
    )
    return Document(
        "benchbox report", [section] if lines else [], lambda: _record(table), FIELDS, lambda: _lines(table)
    )


class _Cited:
    """The names of some lines with their papers, in the order they are first cited in.

    Args:
        lines: In the order they are printed.
        entries: BibTeX of the defences that bring it.
        once: Whether a defence is named on the first of its lines alone, and each number says what it is.
    """

    def __init__(self, lines: Sequence[Line], entries: Mapping[str, str], *, once: bool) -> None:
        above = [None, *lines]
        self._again = {
            id(line) for before, line in zip(above, lines, strict=False) if once and _same(before, line)
        }
        self._across = once
        self._papers = Citations((line.name for line in lines), entries)
        self.sources = self._papers.sources

    def name(self, line: Line) -> Text:
        """As papers write it, with what sets its recipe apart."""
        if id(line) in self._again:
            return Text("", exact=line.name + line.remark)
        said = " ".join(filter(None, (papers.shown(line.name), line.remark)))
        key, number = self._papers.place(line.name)
        withdrawn = _WITHDRAWN if line.withdrawn and not self._across else ""
        return Cited(said + withdrawn, line.name, key=key, number=number, exact=line.name + line.remark)


def _same(one: Line | None, other: Line) -> bool:
    return one is not None and (one.name, one.remark) == (other.name, other.remark)


def _columns(table: PaperTable, cited: _Cited, shown: Shown) -> list[Column[Line]]:
    through: list[Column[Line]] = [Column("through", "through", _through, "left")]
    return [
        Column("defense", "defence", cited.name, "left", heads=True),
        *(through if table.layout.across else []),
        *(
            Column(key, papers.shown(key), partial(_figure, table, key, shown), names=True)
            for key in table.columns
        ),
    ]


def _through(line: Line) -> Text:
    return Text(line.stand_in or _WORST_OF_ALL)


def _figure(table: PaperTable, column: str, shown: Shown, line: Line) -> Text:
    figure = line.at(column)
    # A line across is of other weights on each data set: its name cannot say it of all.
    withdrawn = _WITHDRAWN if figure.withdrawn and figure.score and table.layout.across else ""
    printed = figure.printed if shown.paper else None
    score = figure.score
    return Number(
        _said(figure) + withdrawn,
        strong=figure.best,
        tone="" if score else "faint",
        exact=score.percent if score else None,
        interval=score.interval if score and shown.intervals else "",
        beside=Text(str(printed), f"Table {printed.table} of the paper") if printed else None,
    )


def _said(figure: Figure) -> str:
    """The number with its marks: … unfinished, † attacks missing, § no control, ‡ masked gradients."""
    if figure.score is None:
        return _INSTEAD.get(figure.status, "…")
    unfinished = "…" if figure.status == "partial" else ""
    return f"{figure.score}{unfinished}{'' if figure.whole else '†'}{figure.doubt}"


def _blocks(table: PaperTable) -> dict[int, str]:
    """A heading for each group, where there are several; across, a rule between defences."""
    found: dict[int, str] = {}
    if table.layout.across:
        lines = [line for group in table.groups for line in group.lines]
        return {i: "" for i in range(1, len(lines)) if not _same(lines[i - 1], lines[i])}
    if len(table.groups) < 2:
        return found
    row = 0
    for group in table.groups:
        found[row] = _heading(group, table)
        row += len(group.lines)
    return found


def _heading(group: Group, table: PaperTable) -> str:
    parts = [papers.shown(group.dataset)] if group.dataset else []
    if len(table.accesses) > 1:
        parts.append(str(group.access))
    several = [ground for ground in table.grounds if ground.samples.dataset == group.dataset]
    if len(several) > 1 and group.ground is not None:
        # Two tables of one data set differ in the ball, the images or both.
        parts += [str(group.ground.threat), group.ground.samples.said]
    return ", ".join(parts)


def _title(table: PaperTable) -> str:
    number = table.layout.number
    return f"Table {number} of the PSSR paper, measured with benchbox" if number else "Accuracy under attack"


def _caption(table: PaperTable, shown: Shown) -> str:
    """Ball, images, widest interval, what bold and the marks mean: in one line."""
    accesses = table.accesses
    mixed = f"under attackers of different access, group by group: {', '.join(accesses)}"
    said = ["; ".join([f"Accuracy (%) {_UNDER[accesses[0]] if len(accesses) == 1 else mixed}", *_grounds(table)])]
    if table.widest is not None:
        said[0] += f"; 95 % intervals at most ±{table.widest:.1f}"
    if any(figure.best for figure in table.figures):
        said.append("Bold: best, or not significantly worse (paired test, Holm, 5 %)")
    if WORST in table.columns:
        over = "the row" if set(table.columns) - {BENIGN, WORST} else "every finished attack of that access"
        said.append(f"Worst: over {over}, image by image")
    if marks := "; ".join(_marks(table)):
        said.append(marks)
    if shown.paper and any(figure.printed for figure in table.figures):
        said.append(f"In parentheses: the paper's ({paper.NAME})")
    return ". ".join(said) + "."


def _grounds(table: PaperTable) -> Iterator[str]:
    """Ball and images of each data set; once, where they are those of all."""
    found: dict[str, list[str]] = {}
    for ground in table.grounds:
        found.setdefault(f"{ground.threat}, n = {len(ground.samples)}", []).append(
            papers.shown(ground.samples.dataset)
        )
    for what, names in found.items():
        yield f"{', '.join(dict.fromkeys(names))}: {what}"


def _marks(table: PaperTable) -> Iterator[str]:
    """What the marks mean that appear."""
    said = {_said(figure) for figure in table.figures}
    for mark, meaning in (
        (NOT_RUN, "not run"),
        ("…", "unfinished"),
        ("†", "attacks missing"),
        ("§", "no control"),
        ("‡", "masked gradients, may be far too high"),
    ):
        if any(mark in text for text in said):
            yield f"{mark} {meaning}"


def _remarks(table: PaperTable, shown: Shown) -> Iterator[str]:
    if table.unmeasured:
        yield f"Not measured: {', '.join(map(papers.shown, table.unmeasured))}."
    if Access.GRAY_BOX in table.accesses and shown.paper:
        yield (
            "The paper calls Tables 1 and 4 white-box; for a purifier their numbers can only be gray-box, "
            "that is, crafted on the bare classifier."
        )


def _lines(table: PaperTable) -> Iterator[Mapping[str, Any]]:
    """One line for each number."""
    for group in table.groups:
        for line in group.lines:
            for column in table.columns:
                yield {
                    "access": "" if column == BENIGN else str(group.access),
                    **_facts(table, group, line, column),
                }


def _facts(table: PaperTable, group: Group, line: Line, column: str) -> dict[str, Any]:
    across = table.layout.across
    dataset = column if across else group.dataset
    ground = group.ground or next((g for g in table.grounds if g.samples.dataset == dataset), None)
    figure, score = line.at(column), line.at(column).score
    return {
        "table": table.layout.number or "",
        "dataset": dataset,
        "norm": ground.threat.norm if ground else "",
        "epsilon": ground.threat.epsilon if ground else "",
        "n": score.n if score else "",
        "defense": line.name,
        "label": f"{line.name} {line.remark}".strip(),
        "through": _through(line).text if across else "",
        "column": "bpda" if across else column,
        "status": _status(figure),
        **({"percent": score.percent, "low": score.low, "high": score.high} if score else {}),
        "best": "yes" if figure.best else "",
        "paper_percent": figure.printed.percent if figure.printed else "",
        "samples_digest": ground.samples.digest if ground else "",
    }


def _status(figure: Figure) -> str:
    """What a machine has to know before it takes the number."""
    if figure.withdrawn and figure.score:
        return "withdrawn"
    return figure.status if figure.whole else "attacks missing"


def _record(table: PaperTable) -> Mapping[str, Any]:
    return {"table": table.layout.number, "caption": _caption(table, Shown()), "numbers": list(_lines(table))}
