"""The numbers the PSSR paper prints, and where each belongs in our tables.

X. Fu, Y. Zhou, L. Ma, L. Zhang. Invariance-powered Trustworthy Defense via Remove Then Restore.
arXiv 2402.00304, 2024: Tables 1 to 4, all 360 values, in results/paper/pssr.csv.

Table 1 says "white-box". For a defence without a purifier it is. PSSR's own numbers there can only come,
as far as can be told, from perturbations of the bare classifier, so they stand beside gray-box.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from benchbox.domain import TOLERANCE, Access, ThreatModel

NAME = "arXiv 2402.00304"
#: The paper's perturbation budgets (section 4.3), all L∞.
EPSILON: Mapping[str, float] = {"mnist": 0.3, "cifar10": 8 / 255, "cifar100": 8 / 255}
#: Its target models (section 4.1), by our names.
NETWORK: Mapping[str, str] = {"mnist": "lenet5", "cifar10": "resnet18", "cifar100": "densenet121"}


@dataclass(frozen=True)
class Row:
    """Where the paper has one of our defences.

    Attributes:
        row: Its row in Tables 1 to 3, if it is one of the compared defences.
        module: Its row in Table 4, which repeats two of the compared defences beside the parts of its own.
        purifies: Whether it rewrites the image, so that Table 1 cannot be its end-to-end white-box.
        setting: What the name of its row says of the recipe, by our fields: TRADES (1/λ = 6.0), PCL_p.
    """

    row: str
    module: str
    purifies: bool
    setting: Mapping[str, str | float]


@dataclass(frozen=True)
class AttackColumn:
    """Where the paper has one of our attacks.

    Attributes:
        column: Its column in Tables 1, 2 and 4, if it has one.
        bpda: Its column in Table 3, which names no base attack; BPDA is PGD's gradient through a stand-in.
    """

    column: str
    bpda: str


@dataclass(frozen=True)
class Printed:
    """A number as the paper prints it.

    Attributes:
        table: 1 to 4.
        dataset: `mnist`, `cifar10` or `cifar100`.
        row: The paper's defence or module.
        column: The paper's attack; `benign` for clean images.
        percent: The value.
    """

    table: int
    dataset: str
    row: str
    column: str
    percent: float

    def __str__(self) -> str:
        return f"{self.percent:.2f}"


def values() -> Iterator[dict[str, str]]:
    """Every line of results/paper/pssr.csv; `value` is empty where the paper prints a dash."""
    return _lines("pssr.csv")


@cache
def attacks() -> Mapping[str, AttackColumn]:
    """The attacks that papers print, by our names, in the order of their columns (results/paper/attacks.csv)."""
    return {line["attack"]: AttackColumn(line["column"], line["bpda"]) for line in _lines("attacks.csv")}


@cache
def _rows() -> Mapping[str, Row]:
    """By our name of a defence."""
    return {
        line["defense"]: Row(line["row"], line["module"], line["purifies"] == "yes", _setting(line["setting"]))
        for line in _lines("pssr-rows.csv")
    }


def _setting(words: str) -> Mapping[str, str | float]:
    said = dict(word.split("=") for word in words.split())
    return {field: float(value) if value[0].isdigit() else value for field, value in said.items()}


def _lines(name: str) -> Iterator[dict[str, str]]:
    with files("benchbox.plugins.paper").joinpath(name).open(encoding="utf-8") as lines:
        yield from csv.DictReader(lines)


def printed(table: int, dataset: str, row: str, column: str) -> Printed | None:
    """One number, or None where the paper has none."""
    percent = _by_place().get((table, dataset, row, column))
    return None if percent is None else Printed(table, dataset, row, column, percent)


def beside(dataset: str, defense: str, threat: ThreatModel, access: Access | None, attack: str) -> Printed | None:
    """The paper's number for one of ours.

    Args:
        dataset: Our name of the data set.
        defense: Our name of the defence.
        threat: The ball; another one than the paper's has no number, except on clean images.
        access: None for clean images.
        attack: Our name of the attack.
    """
    if access is not None and not is_its_ball(dataset, threat):
        return None
    place = _rows().get(defense)
    columns = attacks().get(attack, AttackColumn("", "")) if access is not None else AttackColumn("benign", "")
    if place is None:
        return None
    if not place.row:
        return printed(4, dataset, place.module, columns.column) if access in (None, Access.GRAY_BOX) else None
    if access is Access.TRANSFER:
        return printed(2, dataset, place.row, columns.column)
    if access is Access.BPDA:
        return printed(3, dataset, place.row, columns.bpda)
    if access is Access.WHITE_BOX and place.purifies:
        return None
    return printed(1, dataset, place.row, columns.column)


def lines_of(table: int, dataset: str) -> list[str]:
    """Our names of the defences of a table, in its order; two of ours may stand for one line of it.

    Args:
        table: 1 to 4.
        dataset: Our name of the data set; one that the table lacks has none.
    """
    own: dict[str, list[str]] = {}
    for name, place in _rows().items():
        own.setdefault(place.module if table == 4 else place.row, []).append(name)
    lines = dict.fromkeys(row for number, name, row, _ in _by_place() if (number, name) == (table, dataset))
    return [name for row in lines for name in own.get(row, ())]


def row_of(defense: str, table: str) -> str:
    """What the paper calls one of our defences in a table; empty where it has none."""
    place = _rows().get(defense)
    if place is None:
        return ""
    return place.module if table == "4" else place.row


def in_table(table: int, dataset: str, defense: str, threat: ThreatModel, column: str) -> Printed | None:
    """What a table prints of one of our defences, whatever was attacked there.

    Args:
        table: 1 to 4.
        dataset: Our name of the data set.
        defense: Our name of the defence.
        threat: The ball; another one than the paper's has no number, except on clean images.
        column: Our name of the attack; `benign` for clean images, `bpda` for Table 3.
    """
    place = _rows().get(defense)
    if place is None or (column != "benign" and not is_its_ball(dataset, threat)):
        return None
    known = attacks().get(column)
    return printed(table, dataset, place.module if table == 4 else place.row, known.column if known else column)


def contradictions(number: Printed) -> list[Printed]:
    """Other values the paper prints for the same quantity.

    Table 4 repeats two rows of Table 1 per data set, and Table 2 repeats its benign column.
    """
    others: list[Printed | None] = []
    if number.table == 1:
        modules = [place.module for place in _rows().values() if place.row == number.row]
        others += [printed(4, number.dataset, module, number.column) for module in modules if module]
    if number.table == 1 and number.column == "benign":
        others.append(printed(2, number.dataset, number.row, "benign"))
    return [other for other in others if other is not None and other.percent != number.percent]


def is_its_ball(dataset: str, threat: ThreatModel) -> bool:
    """Whether a ball is the paper's on this data set."""
    epsilon = EPSILON.get(dataset)
    return epsilon is not None and threat.norm == "linf" and abs(threat.epsilon - epsilon) <= TOLERANCE


def is_its_network(dataset: str, defense: str, network: str) -> bool:
    """Whether a network is the one that the paper has of a defence; any of a defence that it does not have.

    Args:
        dataset: Our name of the data set.
        defense: Our name of the defence.
        network: Our name of its target classifier's network; "" where it is not known, and passes for the paper's.
    """
    return defense not in _rows() or network in ("", NETWORK.get(dataset, network))


def setting(defense: str) -> Mapping[str, str | float]:
    """What the paper's row of one of our defences says of its recipe, by our fields; mostly nothing."""
    place = _rows().get(defense)
    return place.setting if place is not None else {}


@cache
def _by_place() -> Mapping[tuple[int, str, str, str], float]:
    return {
        (int(line["table"]), line["dataset"], line["row"], line["column"]): float(line["value"])
        for line in values()
        if line["value"]
    }
