"""What an access means for a number: which are one model to the attacker, and which knows most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchbox.domain import Access, Evidence

#: From the weakest knowledge to the strongest, as papers order them; what nobody knows comes last.
ACCESSES: tuple[Access, ...] = (
    Access.GRAY_BOX,
    Access.TRANSFER,
    Access.WHITE_BOX,
    Access.BPDA,
    Access.IMPORTED,
)
#: Of attacks that leave equally much, the one that knows most is named.
KNOWLEDGE = (Access.WHITE_BOX, Access.BPDA, Access.GRAY_BOX, Access.TRANSFER, Access.IMPORTED)
#: Under these, the attacker of a defence without purifier is given the model that white-box attacks too.
ONE_MODEL = (Access.GRAY_BOX, Access.BPDA)


def purifiers(cells: Iterable[Evidence], noted: Iterable[str] = ()) -> frozenset[str]:
    """Names of the defences whose accesses are different models: those noted, and those that were run as such."""
    return frozenset(noted).union(e.cell.defense.name for e in cells if e.cell.access in ONE_MODEL)


def randomized(cells: Iterable[Evidence], noted: Iterable[str] = ()) -> frozenset[str]:
    """Names of the randomised defences: those noted, and those that were scored or attacked in several draws."""
    return frozenset(noted).union(e.cell.defense.name for e in cells if e.cell.scoring_draws > 1 or e.cell.eot > 1)


def is_same_model(access: Access, white_box: Sequence[Evidence]) -> bool:
    """Whether white-box cells of a defence without purifier say what the attack does under another access too."""
    deployed = all(item.cell.view.artifact == item.cell.artifact for item in white_box)
    return access in ONE_MODEL and bool(white_box) and deployed


def strength(left: float, access: Access, passes: float, attack: str) -> tuple[float, int, float, str]:
    """Sort key: what leaves least first; among equals what knows most, then the cheapest attack.

    Args:
        left: Accuracy under the attack.
        access: What its attacker knows.
        passes: Forward and backward passes a sample.
        attack: Its name.
    """
    return left, KNOWLEDGE.index(access), passes, attack
