"""What was noted of defences beside their cells: their kind, their audits, how their weights were trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchbox.analysis.probed import Probed, probed
from benchbox.analysis.weights import Cards
from benchbox.domain import Cell, ThreatModel


@dataclass(frozen=True)
class Background:
    """What was noted of defences when they were run, and of their weights since.

    Attributes:
        purifiers: Names of defences known to purify. A defence with a gray-box or BPDA cell is taken for one
            anyway; name those that may have been run under white-box access alone.
        oracles: Names of defences that are never ranked.
        randomized: Names of defences known to be randomised. A defence that was scored or attacked in several
            draws is taken for one anyway.
        kinds: What else was noted of a defence, by its name: the stand-ins it has and whether a substitute can be
            trained. The minimum panel of a rank asks for these.
        audits: Records of `benchbox audit` by digest of the weights; one inside another ball says nothing here.
        gradients: By key of a crafting, how many of its gradients were NaN or infinite, and of how many images.
        contract: By digest of the weights, what was remarked when the defence was tried before its attacks.
        papers: BibTeX entries by name of the defence, of those whose card has one.
        cards: How weights were trained, by their digest; each table keeps those of its cells and their bases.
    """

    purifiers: Collection[str] = ()
    oracles: Collection[str] = ()
    randomized: Collection[str] = ()
    kinds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    audits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gradients: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    contract: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    papers: Mapping[str, str] = field(default_factory=dict)
    cards: Cards = field(default_factory=dict)

    def audit(self, cell: Cell) -> Mapping[str, Any] | None:
        """The record of the audit of a cell's weights inside its ball."""
        record = self.audits.get(cell.artifact)
        return record if record and ThreatModel(**record["threat"]) == cell.threat else None

    def probed(self, cell: Cell) -> Probed | None:
        """What that audit's probes left of the cell's images."""
        return probed(self.audit(cell), cell.samples)


NOTHING = Background()
