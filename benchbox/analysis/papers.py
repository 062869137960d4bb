"""What the papers print, as data: results/paper/*.csv. `benchbox.analysis.paper` sets PSSR's numbers beside ours.

pssr.csv     all 360 values of the PSSR paper's Tables 1 to 4
atop.csv     AToP: what its authors state in the OpenReview thread; its main tables were not at hand
carso.csv    CARSO (fourth version): as quoted alike by several reviews, and RobustBench for the classifiers
tables.csv   who attacked what in each table, one sentence
claims.csv   the number that stands for what a paper claims for one of our defences
figures.csv  the attacks whose images a figure of the PSSR paper shows
names.csv    how papers write the names of our defences, attacks and data sets
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from benchbox.domain import TOLERANCE
from benchbox.errors import unknown

if TYPE_CHECKING:
    from benchbox.domain import ThreatModel


@dataclass(frozen=True)
class Number:
    """One number of a paper.

    Attributes:
        paper: `pssr`, `atop` or `carso`.
        table: As the paper numbers it, or a name where its number is not known.
        dataset: Our name of the data set.
        row: The paper's defence.
        column: The paper's attack; `benign` for clean images.
        percent: None where the paper prints a dash.
        source: Where the number was read.
    """

    paper: str
    table: str
    dataset: str
    row: str
    column: str
    percent: float | None
    source: str

    def __str__(self) -> str:
        return "–" if self.percent is None else f"{self.percent:.2f}"


@cache
def numbers(paper: str) -> tuple[Number, ...]:
    """Every number of a paper, in the order of its tables.

    Raises:
        RequestError: There is no such paper.
    """
    known = {line["paper"] for line in _lines("tables.csv")}
    if paper not in known:
        raise unknown("paper", paper, known)
    return tuple(
        Number(
            paper,
            line["table"],
            line["dataset"],
            line["row"],
            line["column"],
            float(line["value"]) if line["value"] else None,
            line.get("source") or "the paper",
        )
        for line in _lines(f"{paper}.csv")
    )


@cache
def attacked(paper: str, table: str) -> str:
    """Who attacked what in a table, one sentence.

    Raises:
        RequestError: The paper has no such table.
    """
    known = {line["table"]: line["attacked"] for line in _lines("tables.csv") if line["paper"] == paper}
    if table not in known:
        raise unknown(f"table of {paper}", table, known)
    return known[table]


def claim(defense: str, dataset: str, threat: ThreatModel) -> Number | None:
    """The number that a paper claims for one of our defences under its strongest attack on the whole defence.

    Args:
        defense: Our name of it.
        dataset: Our name of the data set.
        threat: The ball; another one than the paper's has no number.
    """
    for line in _lines("claims.csv"):
        same = line["norm"] == threat.norm and abs(float(Fraction(line["epsilon"])) - threat.epsilon) <= TOLERANCE
        if line["defense"] == defense and same:
            wanted = (line["table"], dataset, line["row"], line["column"])
            for number in numbers(line["paper"]):
                if (number.table, number.dataset, number.row, number.column) == wanted:
                    return number
    return None


def drawn(figure: str) -> tuple[str, ...]:
    """Our names of the attacks whose images a figure of the PSSR paper shows."""
    (line,) = (line for line in _lines("figures.csv") if line["figure"] == figure)
    return tuple(line["attacks"].split())


def shown(name: str) -> str:
    """How papers write one of our names, of a defence, an attack or a data set; as it is where nobody has said."""
    return _names().get(name, name)


@cache
def _names() -> Mapping[str, str]:
    return {line["name"]: line["shown"] for line in _lines("names.csv")}


@cache
def _lines(name: str) -> tuple[dict[str, str], ...]:
    text = files("benchbox.plugins.paper").joinpath(name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))
