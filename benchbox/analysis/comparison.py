"""What a comparison of two defences found, as records: made by `compare`, printed by reports.

All numbers are shares in [0, 1] or differences of two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchbox.analysis.control import Control
from benchbox.analysis.intervals import Interval
from benchbox.analysis.pairs import ALPHA
from benchbox.analysis.table import Column
from benchbox.domain import SampleList, Spec, ThreatModel

Scope = Literal["clean", "attack", "common worst case", "own worst case"]
Unit = Literal["sample", "training seed"]


@dataclass(frozen=True)
class Side:
    """One of the two defences.

    Attributes:
        name: As the user named it.
        defense: Its recipe.
        trained: Digest of its weights by training seed.
        purifier: Whether the attacker's accesses are different models.
        controls: What the null attack says of each training, where it says anything.
        unfinished: How many cells are left out because they are unfinished or failed.
        alone: Columns that the other side has nothing to set against; in this one's own worst case only.
        fallen: Images that only the probes of its audits broke, over its trainings; likewise.
    """

    name: str
    defense: Spec
    trained: Mapping[int, str]
    purifier: bool
    controls: tuple[Control, ...] = ()
    unfinished: int = 0
    alone: tuple[Column, ...] = ()
    fallen: int = 0


@dataclass(frozen=True)
class Pair:
    """One comparison.

    Attributes:
        scope: What the numbers are over. The common worst case is over the clean image and the attacks both
            have; the own one over the clean image and everything each has.
        column: The attack, where it is one.
        a: Accuracy of the first defence after each of its trainings, by increasing seed.
        b: Likewise of the second.
        difference: Mean of the first minus mean of the second.
        interval: 95 % interval of the difference.
        p: Two-sided.
        test: What p comes from.
        unit: What the test counts: samples, or training seeds.
        discordance: Mean squared difference per sample: for right and wrong, the share on which they differ.
        detectable: The smallest difference the test had an 80 % chance to find; None where it had none.
        only_a: Indices in the split of the images that the first gets right (in most draws) and the second
            does not.
        only_b: The other way round.
        p_holm: p adjusted for every comparison made at once; None before that.
    """

    scope: Scope
    column: Column | None
    a: tuple[float, ...]
    b: tuple[float, ...]
    difference: float
    interval: Interval
    p: float
    test: str
    unit: Unit
    discordance: float
    detectable: float | None
    only_a: tuple[int, ...]
    only_b: tuple[int, ...]
    p_holm: float | None = None

    @property
    def label(self) -> str:
        """What it is over."""
        return self.scope if self.column is None else str(self.column)

    @property
    def significant(self) -> bool:
        """Whether the difference is, after Holm's correction."""
        return self.p_holm is not None and self.p_holm < ALPHA


@dataclass(frozen=True)
class Comparison:
    """Two defences on one sample list within one ball.

    Attributes:
        samples: The images.
        threat: The ball.
        a: The first defence.
        b: The second.
        pairs: Clean accuracy, the worst cases, then attack by attack.
        common: The attacks both have.
        family: Number of tests that Holm's correction is over, those of other tables included.
        lists: The sample lists of the two that these images are common to; empty where it was one list.
    """

    samples: SampleList
    threat: ThreatModel
    a: Side
    b: Side
    pairs: tuple[Pair, ...]
    common: tuple[Column, ...]
    family: int
    lists: tuple[SampleList, ...] = ()
