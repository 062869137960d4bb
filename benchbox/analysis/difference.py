"""Two runs, cell by cell: which images changed, and what of code, machine, seeds and settings differs.

Evidence in, records out; no database and no tensors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchbox.canonical import canonical
from benchbox.domain import DECLARED, Cell, Evidence

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Changes:
    """The images whose verdict changed; indices in the split.

    Attributes:
        lost: Right in the first run, in a smaller share of the draws in the second.
        won: The other way round.
        otherwise: Right as often as before, but predicted as other classes.
    """

    lost: tuple[int, ...]
    won: tuple[int, ...]
    otherwise: tuple[int, ...]


@dataclass(frozen=True)
class CellDifference:
    """One cell of the first run beside its counterpart of the second.

    Attributes:
        a: The first run's cell.
        b: The second run's.
        compared: Images scored in both.
        clean: What changed on clean images.
        adversarial: What changed on adversarial ones.
        certified: Which images are certified in one of them alone; None where the first says nothing of that.
        settings: What of the two cells differs, by its place in their record: the two values.
    """

    a: Cell
    b: Cell
    compared: int
    clean: Changes
    adversarial: Changes
    certified: Changes | None
    settings: Mapping[str, tuple[Any, Any]]

    @property
    def changes(self) -> Mapping[str, Changes]:
        """What changed, by what it is about."""
        found = {"clean": self.clean, "adversarial": self.adversarial, "certified": self.certified}
        return {kind: changes for kind, changes in found.items() if changes is not None}


@dataclass(frozen=True)
class RunDifference:
    """Two runs.

    Attributes:
        environment: What of their provenance differs: the two values by place.
        cells: The cells with a counterpart.
        only_a: Cells of the first run without one.
        only_b: Cells of the second.
    """

    environment: Mapping[str, tuple[Any, Any]]
    cells: tuple[CellDifference, ...]
    only_a: tuple[Cell, ...]
    only_b: tuple[Cell, ...]


def compare_runs(a: Sequence[Evidence], b: Sequence[Evidence]) -> RunDifference:
    """Set the cells of one run beside those of another.

    Counterparts are looked for from the most alike to the least: cells of the same key; then those that differ
    in code versions alone; then in seeds and numbers of draws too; then in recipes and settings too, so that
    the names of defence and attack, access, stand-in, ball and images are the same. Where several cells would
    do, none is taken.

    Args:
        a: Of the first run.
        b: Of the second.
    """
    left, right = ({item.cell.key: item for item in items} for items in (a, b))
    pairs: list[tuple[Evidence, Evidence]] = []
    for identity in (_same, _but_code, _but_seeds, _names):
        pairs += _matched(left, right, identity)
    return RunDifference(
        environment=_differing(_provenance(a), _provenance(b)),
        cells=tuple(_cell(*pair) for pair in pairs),
        only_a=tuple(item.cell for item in left.values()),
        only_b=tuple(item.cell for item in right.values()),
    )


def _matched(
    left: dict[str, Evidence], right: dict[str, Evidence], identity: Callable[[Cell], str]
) -> list[tuple[Evidence, Evidence]]:
    """Pairs that are alone with their identity on both sides; they are taken out of both."""
    sides: tuple[dict[str, list[Evidence]], dict[str, list[Evidence]]] = defaultdict(list), defaultdict(list)
    for groups, items in zip(sides, (left, right), strict=True):
        for item in items.values():
            groups[identity(item.cell)].append(item)
    found = [(own[0], sides[1][name][0]) for name, own in sides[0].items() if len(own) == len(sides[1][name]) == 1]
    for one, other in found:
        del left[one.cell.key], right[other.cell.key]
    return found


def _same(cell: Cell) -> str:
    return cell.key


def _but_code(cell: Cell) -> str:
    return canonical([_recipes(cell), _seeds(cell), _names(cell)])


def _but_seeds(cell: Cell) -> str:
    return canonical([_recipes(cell), _names(cell)])


def _names(cell: Cell) -> str:
    record = cell.as_dict()
    names = [cell.defense.name, cell.attack.name, str(cell.access), cell.view.stand_in]
    return canonical([*names, record["threat"], record["samples"]])


def _recipes(cell: Cell) -> list[Any]:
    return [dict(cell.defense.arguments), dict(cell.attack.arguments)]


def _seeds(cell: Cell) -> list[int | str]:
    return [cell.training_seed, cell.attack_seed, cell.scoring_draws, cell.eot, cell.search_precision]


def _cell(a: Evidence, b: Evidence) -> CellDifference:
    positions, rows_a, rows_b = np.intersect1d(a.outcome.position, b.outcome.position, return_indices=True)
    indices = np.array(a.cell.samples.indices, np.int64)[positions]
    label = a.outcome.label[rows_a]
    return CellDifference(
        a=a.cell,
        b=b.cell,
        compared=len(positions),
        clean=_flags(a.outcome.clean[rows_a], b.outcome.clean[rows_b], label, indices),
        adversarial=_flags(a.outcome.adversarial[rows_a], b.outcome.adversarial[rows_b], label, indices),
        certified=_certified(a.outcome.certified, b.outcome.certified, rows_a, rows_b, indices),
        settings=_differing(_settings(a.cell), _settings(b.cell)),
    )


def _certified(
    a: NDArray[np.bool_] | None,
    b: NDArray[np.bool_] | None,
    rows_a: NDArray[np.int64],
    rows_b: NDArray[np.int64],
    indices: NDArray[np.int64],
) -> Changes | None:
    if a is None:
        return None
    # What was proven and is not even asked for is not proven any more.
    before, after = a[rows_a], np.zeros(len(indices), bool) if b is None else b[rows_b]
    lost, won = (tuple(indices[rows].tolist()) for rows in (before & ~after, after & ~before))
    return Changes(lost, won, ())


def _settings(cell: Cell) -> dict[str, Any]:
    """What was asked for; what an attack says of itself was not recorded at all times."""
    return {k: v for k, v in cell.as_dict().items() if k not in DECLARED}


def _flags(
    a: NDArray[np.int64], b: NDArray[np.int64], label: NDArray[np.int64], indices: NDArray[np.int64]
) -> Changes:
    """What changed between predictions (N, R) and (N, R'); R may differ."""
    before, after = ((side == label[:, None]).mean(axis=1) for side in (a, b))
    other = (a != b).any(axis=1) if a.shape == b.shape else np.zeros(len(a), bool)
    lost, won = after < before, after > before
    found = (lost, won, other & ~lost & ~won)
    return Changes(*(tuple(indices[rows].tolist()) for rows in found))


def _provenance(evidence: Sequence[Evidence]) -> Mapping[str, Any]:
    return evidence[0].provenance if evidence else {}


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The leaves of two records that differ, by their path; None where one has no such leaf."""
    left, right = _leaves(a), _leaves(b)
    return {
        path: (left.get(path), right.get(path))
        for path in dict.fromkeys([*left, *right])
        if left.get(path) != right.get(path)
    }


def _leaves(record: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in record.items():
        found |= _leaves(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}": value}
    return found
