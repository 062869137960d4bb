"""What rows and columns are called, and the order columns stand in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from benchbox.analysis import paper
from benchbox.canonical import canonical
from benchbox.data.catalogue import KNOWN
from benchbox.domain import Cell, Spec

_DIGEST = re.compile("[0-9a-f]{64}")


def attack_place(label: str) -> tuple[int, str]:
    """Sort key of an attack's column: as papers order them, then by name; variants of one stand together."""
    known = list(paper.attacks())
    name = label.partition(" (")[0]
    return (known.index(name) if name in known else len(known), label)


def dataset_place(name: str) -> tuple[int, str]:
    """Sort key of a data set's tables: as the catalogue has them, easy ones first, then by name."""
    known = list(KNOWN)
    return (known.index(name) if name in known else len(known), name)


def departures(specs: Sequence[Spec], preferred: Collection[str] = ()) -> Mapping[str, str]:
    """How each recipe differs from the most common one of its name.

    Args:
        specs: One per result, repeated as often as it was used. Of equally common ones the one that says the least
            wins, for what has its default may go without saying; then the first seen.
        preferred: Identities of recipes that are taken for the most common ones before any other.

    Returns:
        By `Spec.identity`: "" for the most common recipe of a name, else such as "alpha=2, epochs=5".
    """
    uses = Counter(spec.identity for spec in specs)
    recipes = _recipes(specs)
    usual = {
        name: max(own, key=lambda key: (key in preferred, uses[key], -len(own[key].arguments)))
        for name, own in recipes.items()
    }
    return {key: _difference(spec, own[usual[name]]) for name, own in recipes.items() for key, spec in own.items()}


def distinctions(specs: Sequence[Spec], preferred: Collection[str] = ()) -> Mapping[str, str]:
    """What to call each recipe beside the others of its name.

    As `departures`; but where no recipe is more common than the others, as on a curve, none goes without saying:
    each states every argument that they do not agree on.

    Args:
        specs: One per result, repeated as often as it was used.
        preferred: As of `departures`.
    """
    said = dict(departures(specs, preferred))
    uses = Counter(spec.identity for spec in specs)
    for own in _recipes(specs).values():
        recipes = list(own.values())
        if len(recipes) > 1 and len({(key in preferred, uses[key]) for key in own}) == 1:
            fields = list(dict.fromkeys(field for spec in recipes for field in spec.arguments))
            differing = [f for f in fields if len({canonical(spec.arguments.get(f)) for spec in recipes}) > 1]
            for spec in recipes:
                # What is unsaid has its default.
                parts = [f"{f}={short(spec.arguments[f])}" for f in differing if f in spec.arguments]
                said[spec.identity] = ", ".join(parts) or said[spec.identity]
    return said


def _recipes(specs: Sequence[Spec]) -> Mapping[str, Mapping[str, Spec]]:
    """By name and identity, in the order they are first seen."""
    found: dict[str, dict[str, Spec]] = {}
    for spec in specs:
        found.setdefault(spec.name, {}).setdefault(spec.identity, spec)
    return found


def labelled(name: str, *remarks: str) -> str:
    """`pssr` and "alpha=2" as "pssr (alpha=2)"."""
    said = ", ".join(remark for remark in remarks if remark)
    return f"{name} ({said})" if said else name


def attacked(cell: Cell) -> str:
    """How a defence was attacked: "pgd (EOT 5), bpda through identity"."""
    through = f" through {cell.view.stand_in}" if cell.view.stand_in else ""
    eot = f"EOT {cell.eot}" if cell.eot > 1 else ""
    return f"{labelled(cell.attack.name, eot)}, {cell.access}{through}"


def _difference(spec: Spec, usual: Spec) -> str:
    fields = [f for f in {**usual.arguments, **spec.arguments} if spec.arguments.get(f) != usual.arguments.get(f)]
    # What is unsaid has its default.
    said = [f"{field}={short(spec.arguments.get(field, 'default'))}" for field in fields]
    if spec.code != usual.code:
        said.append(f"code {spec.code.removeprefix('sha256:')[:16]}")
    return ", ".join(said)


def short(value: Any) -> str:
    """A setting's value as labels write it."""
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return value[:8]
    return f"{value:g}" if isinstance(value, float) else str(value)
