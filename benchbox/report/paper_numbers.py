"""The 360 numbers of the PSSR paper and what came of each, as a document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from benchbox.analysis import paper, papers
from benchbox.analysis.reproduction import NEAR, PAPER, Answer, Verdict
from benchbox.report.document import Column, Document, Grid, Number, Section, Text, Tone, grid

FIELDS = (
    *(
        "table",
        "dataset",
        "row",
        "column",
        "paper_percent",
        "verdict",
        "defense",
        "where",
        "percent",
        "low",
        "high",
    ),
    *("difference", "whole_percent", "whole_high", "why"),
)
#: What a verdict looks like beside the paper's number, where nothing else is printed.
_SHORT = {Verdict.NOT_RUN: "n/r", Verdict.NOT_PRINTED: "–"}
_TONE: Mapping[Verdict, Tone] = {
    Verdict.REPRODUCED: "good",
    Verdict.DIFFERS: "doubt",
    Verdict.CONTRADICTED: "bad",
    Verdict.NOT_RUN: "faint",
    Verdict.NOT_PRINTED: "faint",
}
_HOW = (
    "First the paper's number, then what came of it.",
    "“= 99.0” reproduced: the paper's number lies in the 95 % interval of ours, which is printed.",
    "“-2.5” not reproduced: ours is so many points below (or above) the paper's, which lies outside its interval.",
    "“✗ 0.0” contradicted: the table says white-box, and the same attack on the whole defence, which is what"
    " white-box means (in Table 3, and where it is not run: through all of its stand-ins together), leaves "
    "so much, its interval below the paper's number; in parentheses what it leaves under gray-box, on the "
    f"bare classifier. A row that lacks more than {NEAR:g} points of the paper's benign accuracy contradicts "
    "nothing: there the training differs, whatever the attack.",
    "“n/r” not run, for the reason below the table; “–” the paper prints a dash.",
    "Intervals are about the choice of images; another training of the same recipe moves a number further. "
    "Of several trainings of one recipe the one of the lowest seed is compared. Where two of our defences "
    "stand for one row of the paper, one that reproduces the number is heard first, and of equals the "
    "nearer.",
)


def document(answers: Sequence[Answer]) -> Document:
    """How many of each, then a section for each table and data set.

    Args:
        answers: In the paper's order.
    """
    places = dict.fromkeys((one.number.table, one.number.dataset) for one in answers)
    return Document(
        "benchbox report",
        [_counts(answers), *(_section(place, answers) for place in places)],
        lambda: {"numbers": [dict(line) for line in _lines(answers)]},
        FIELDS,
        lambda: _lines(answers),
    )


def _counts(answers: Sequence[Answer]) -> Section:
    tables = sorted({one.number.table for one in answers})
    found = Counter((one.verdict, one.number.table) for one in answers)

    def count(table: str, verdict: Verdict) -> Text:
        return Text(str(sum(n for (v, t), n in found.items() if v is verdict and table in ("", t))))

    columns: list[Column[Verdict]] = [
        Column("verdict", "verdict", lambda verdict: Text(str(verdict)), "left", heads=True),
        *(Column(table, f"Table {table}", partial(count, table)) for table in tables),
        Column("all", "all", partial(count, "")),
    ]
    return Section(f"What came of {len(answers)} numbers", [grid(columns, list(Verdict))], remarks=_HOW)


def _section(place: tuple[str, str], answers: Sequence[Answer]) -> Section:
    table, dataset = place
    own = [one for one in answers if (one.number.table, one.number.dataset) == place]
    columns = list(dict.fromkeys(one.number.column for one in own))
    rows: dict[str, dict[str, Answer]] = {}
    for one in own:
        rows.setdefault(one.number.row, {})[one.number.column] = one
    why = Counter(one.why for one in own if one.why)
    said = [f"n/r: {reason} ({count} number{'s' if count > 1 else ''})." for reason, count in why.items()]
    title = f"Table {table}, {papers.shown(dataset)}"
    return Section(title, [_grid(rows, columns)], remarks=[*said, papers.attacked(PAPER, table)])


def _grid(rows: Mapping[str, Mapping[str, Answer]], columns: Sequence[str]) -> Grid:
    def at(column: str, row: Mapping[str, Answer]) -> Text:
        return _value(row[column]) if column in row else Text("")

    shown: list[Column[Mapping[str, Answer]]] = [
        Column("row", "row of the paper", _name, "left", heads=True),
        *(Column(name, papers.shown(_ours(name)), partial(at, name), names=True) for name in columns),
    ]
    return grid(shown, list(rows.values()))


def _name(row: Mapping[str, Answer]) -> Text:
    """The paper's row, with our defence where that is called otherwise."""
    row_name = next(iter(row.values())).number.row
    own = ", ".join(dict.fromkeys(one.defense for one in row.values() if one.defense))
    return Text(row_name if own in ("", row_name) else f"{row_name} ({own})")


def _ours(column: str) -> str:
    return next((name for name, place in paper.attacks().items() if place.column == column), column)


def _value(one: Answer) -> Text:
    text = _SHORT.get(one.verdict) or _came(one)
    shown = text if one.verdict is Verdict.NOT_PRINTED else f"{one.number} {text}"
    return Number(shown, tone=_TONE[one.verdict], exact=one.number.percent)


def _came(one: Answer) -> str:
    if one.stronger is not None:
        return f"✗ {one.stronger} ({one.measured})"
    return f"= {one.measured}" if one.verdict is Verdict.REPRODUCED else f"{one.difference:+.1f}"


def _lines(answers: Sequence[Answer]) -> Iterator[Mapping[str, Any]]:
    for one in answers:
        number, score = one.number, one.measured
        yield {
            "table": number.table,
            "dataset": number.dataset,
            "row": number.row,
            "column": number.column,
            "paper_percent": "" if number.percent is None else number.percent,
            "verdict": str(one.verdict),
            "defense": one.defense,
            "where": one.where,
            **({"percent": score.percent, "low": score.low, "high": score.high} if score else {}),
            **({} if one.difference is None else {"difference": round(one.difference, 4)}),
            **({"whole_percent": one.stronger.percent, "whole_high": one.stronger.high} if one.stronger else {}),
            "why": one.why,
        }
