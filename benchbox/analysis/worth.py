"""What sets a defence's number, what a weaker evaluation would have reported, and what the defence gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchbox.analysis import access, pairs
from benchbox.analysis.probed import Probed
from benchbox.analysis.score import union
from benchbox.analysis.worst_case import correctness, fallen, surviving
from benchbox.domain import Access, Evidence

#: What the sentences are made of.
NUMBERS = {"n", "robust", "set_by", "alone", "ties", "weaker", "gain", "fallen"}


def worth(
    cells: Sequence[Evidence], bare: Sequence[Evidence] = (), probed: Probed | None = None
) -> dict[str, Any]:
    """Numbers and sentences about the worst case over finished cells; one sentence if nothing is finished.

    Args:
        cells: Finished cells of the defence on one sample list.
        bare: Finished cells of the bare classifier it builds on, on the same samples.
        probed: What an audit of the defence broke of these samples.

    Returns:
        `robust` with its interval; `set_by`, the attack that leaves least; `weaker`, for each access and stand-in
        what it alone would have reported, and how much more that is (paired bootstrap); `gain` over the bare
        classifier; `said`, the same as sentences. All shares in percent.
    """
    if not cells:
        return {"said": ["nothing finished is stored, so there is no number yet; `benchbox run` fills it"]}
    worst = surviving(cells, probed)
    lowest = min(_distinct(cells), key=_strength)
    ties = [c for c in _distinct(cells) if c is not lowest and _left(c) == _left(lowest)]
    robust = union(correctness(cells, with_clean=True, probed=probed)).as_dict()
    found: dict[str, Any] = {
        "n": len(worst),
        "robust": {key: robust[key] for key in ("percent", "low", "high")},
        "set_by": {"access": str(lowest.cell.access), "attack": lowest.cell.attack.name, "through": route(lowest)},
        "alone": 100 * _left(lowest),
        "ties": [f"{route(c)} {c.cell.attack.name}" for c in ties],
        "weaker": [_weaker(name, [c for c in cells if route(c) == name], worst) for name in _routes(cells)],
        "gain": _gain(bare, worst),
        "fallen": fallen(cells, probed),
    }
    return {**found, "said": sentences(found)}


def route(evidence: Evidence) -> str:
    """How the attacker got there: its access, and for BPDA the stand-in; autograd as it is counts as white-box."""
    cell = evidence.cell
    if cell.access is not Access.BPDA:
        return str(cell.access)
    return f"bpda through {cell.view.stand_in}" if cell.view.stand_in else str(Access.WHITE_BOX)


def _routes(cells: Sequence[Evidence]) -> list[str]:
    first = {route(c): access.KNOWLEDGE.index(c.cell.access) for c in cells}
    return sorted(first, key=lambda name: (first[name], name))


def _distinct(cells: Sequence[Evidence]) -> list[Evidence]:
    """One cell for each set of crafted images: the exact stand-in shares those of the white-box attack."""
    ordered = sorted(cells, key=lambda c: access.KNOWLEDGE.index(c.cell.access))
    return list({c.cell.craft_key: c for c in reversed(ordered)}.values())


def _strength(evidence: Evidence) -> tuple[float, int, float, str]:
    """Sorts what leaves least first; among equals what knows most, then the cheapest attack."""
    cell = evidence.cell
    return access.strength(_left(evidence), cell.access, sum(evidence.outcome.mean_passes), cell.attack.name)


def _left(evidence: Evidence) -> float:
    return float(evidence.outcome.robust.mean())


def _weaker(name: str, cells: Sequence[Evidence], worst: NDArray[np.float64]) -> dict[str, Any]:
    """What the cells of one route would have reported, and its paired distance to the worst case."""
    shares = surviving(cells)
    attacks = sorted({c.cell.attack.name for c in cells})
    return {"route": name, "attacks": attacks, "percent": 100 * float(shares.mean()), **_paired(shares, worst)}


def _gain(bare: Sequence[Evidence], worst: NDArray[np.float64]) -> dict[str, Any] | None:
    """The worst case minus that of the bare classifier; None where there is none."""
    if not bare:
        return None
    shares = surviving(bare)
    verdict = pairs.significance(worst, shares)
    found = _paired(worst, shares)
    return {
        **found,
        "over": bare[0].cell.defense.name,
        "p": verdict.p,
        "test": verdict.test,
        "significant": found["low"] > 0 and verdict.p < pairs.ALPHA,
    }


def _paired(a: NDArray[np.float64], b: NDArray[np.float64]) -> dict[str, float]:
    low, high = pairs.bootstrap(a, b)
    return {"difference": 100 * float((a - b).mean()), "low": 100 * low, "high": 100 * high}


def sentences(found: Mapping[str, Any]) -> list[str]:
    """What is said of a defence's number, made of the numbers, so what was recorded once is told in today's words.

    Args:
        found: As `worth` gives it; where the numbers are not all there, what was said then.
    """
    if not found.keys() >= NUMBERS:
        return list(found.get("said", ()))
    robust, by, n = found["robust"], found["set_by"], found["n"]
    names = ", ".join([f"{by['through']} {by['attack']}", *found["ties"]])
    sets = "each set the number: each alone" if found["ties"] else "sets the number: it alone"
    said = [
        f"{robust['percent']:.1f} % [{robust['low']:.1f}, {robust['high']:.1f}] of {n} images are robust; "
        f"{names} {sets} leaves {found['alone']:.1f} %"
    ]
    if found["fallen"]:
        said[0] += f"; the audit broke {found['fallen']} more images than all of them"
    for other in found["weaker"]:
        if other["route"] != by["through"]:
            said.append(
                f"{other['route']} alone ({', '.join(other['attacks'])}) would report {other['percent']:.1f} %: "
                f"{other['difference']:+.1f} points [{other['low']:+.1f}, {other['high']:+.1f}]"
            )
    if (gain := found["gain"]) is not None:
        better = gain["difference"] > 0
        worth = ("" if gain["significant"] else "not ") + "significant" if better else "no gain"
        said.append(
            f"gain over the bare classifier ({gain['over']}): {gain['difference']:+.1f} points "
            f"[{gain['low']:+.1f}, {gain['high']:+.1f}], {worth} "
            f"({gain['test']}, p = {gain['p']:.2g})"
        )
    return said
