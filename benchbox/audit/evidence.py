"""What the checks read: what the store holds of a defence, and what the probes measured. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchbox.analysis.worst_case import finished, is_finished
from benchbox.audit.probes.measurements import (
    Behaviour,
    Binarisation,
    Effort,
    Elsewhere,
    Flags,
    Gradients,
    Randomness,
)
from benchbox.audit.verdict import Judgement, incomplete
from benchbox.domain import NULL_ATTACK, Access, AttackKind, Cell, Evidence, ThreatModel

#: How a run looks for its images: as its attack declares, but for images made on another model (`transfer`), PGD
#: with many more starts on samples that only other attacks broke (`pursuit`), and attacks of which nobody recorded
#: what they are (`unknown`). An ensemble mixes gradients and scores, so it proves nothing about either.
Kind = AttackKind | Literal["transfer", "pursuit", "unknown"]
WHITE_BOX: tuple[Kind, ...] = ("one-step", "iterative")
BLACK_BOX: tuple[Kind, ...] = ("score-based", "decision-based")


@dataclass(frozen=True)
class Subject:
    """The defence that is audited.

    Attributes:
        name: As it is registered.
        artifact: Digest of the trained defence.
        randomized: Whether it says that two calls may differ.
        purifies: Whether the bare classifier is another model than the defence.
        stand_ins: Names of its stand-ins.
        exact: The one that is plain autograd, if it names one.
        recipe: Its hyper-parameters.
        ablations: Names of the defences that are this one with parts left out.
    """

    name: str
    artifact: str
    randomized: bool = False
    purifies: bool = False
    stand_ins: tuple[str, ...] = ()
    exact: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    ablations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One attack on the samples of a panel; row i is one sample.

    Attributes:
        kind: How it looks for images.
        name: Attack, loss and model it was given.
        broken: (N,) whether the deployed defence gets the image it found wrong.
        moved: (N,) L-infinity distance from the clean image.
        seen: (N,) whether the attacked view ever erred on the sample.
        through: The model that was attacked: "deployed", a stand-in, or which other.
        reaches: Whether its steps together are as long as epsilon, as far as it is known.
        right: (N, R) whether each fresh draw of a randomised defence gets that image right; None for a
            deterministic one, and where nobody counted.
        twice: (N,) whether a deterministic defence, asked again about that very image, gave another answer; None
            where nobody asked again.
    """

    kind: Kind
    name: str
    broken: Flags
    moved: NDArray[np.float64]
    seen: Flags
    through: str = "deployed"
    reaches: bool = True
    right: Flags | None = None
    twice: Flags | None = None


@dataclass(frozen=True)
class Panel:
    """Attacks inside one ball on the same samples.

    Attributes:
        origin: "probes" or "store".
        indices: (N,) positions in the data set.
        correct: (N,) whether the clean image is classified correctly.
        runs: The attacks.
        lacking: By kind, what is missing for a verdict of PASS.
        pursued: (N,) the samples that PGD with many more starts was tried on; None if on none.
    """

    origin: str
    indices: NDArray[np.int64]
    correct: Flags
    runs: tuple[Run, ...]
    lacking: Mapping[str, str] = field(default_factory=dict)
    pursued: Flags | None = None

    @property
    def suspects(self) -> Flags:
        """(N,) broken by a black-box search, a random or a transferred image, and by no gradient attack."""
        return self.broken(*BLACK_BOX, "random", "transfer") & ~self.broken(*WHITE_BOX)

    def supposing(self, kind: Kind) -> Panel:
        """The panel if every attack of which nothing is known were of this kind."""
        return replace(self, runs=tuple(replace(r, kind=kind) if r.kind == "unknown" else r for r in self.runs))

    def with_pursuit(self, broken: Flags) -> Panel:
        """With what PGD with many more starts broke of the pursued samples."""
        run = Run("pursuit", "PGD with many more starts", broken, np.zeros(len(broken)), broken.copy())
        return replace(self, runs=(*self.runs, run))

    def of(self, *kinds: Kind) -> tuple[Run, ...]:
        """The runs of some kinds."""
        return tuple(run for run in self.runs if run.kind in kinds)

    def broken(self, *kinds: Kind) -> Flags:
        """(N,) correct on the clean image and broken by any run of these kinds."""
        return union(self.of(*kinds), len(self.indices)) & self.correct

    def only(self, these: Sequence[Kind], those: Sequence[Kind]) -> NDArray[np.int64]:
        """Positions of samples that a run of `these` kinds breaks and none of `those`."""
        return self.indices[self.broken(*these) & ~self.broken(*those)]


def supposed(panel: Panel, kinds: Sequence[Kind], judge: Callable[[Panel], Judgement | None]) -> Judgement | None:
    """A judgement on a panel, provided it does not hang on attacks of which nobody recorded what they are.

    Args:
        panel: The attacks.
        kinds: What an unknown attack may be at the extremes; the first speaks most for the defence.
        judge: None where the panel lacks what is judged.
    """
    found = [judge(panel.supposing(kind)) for kind in kinds] if panel.of("unknown") else [judge(panel)]
    if all(one is None for one in found) or len({one and one.verdict for one in found}) == 1:
        return found[0]
    names = ", ".join(sorted({run.name for run in panel.of("unknown")}))
    return incomplete(f"it hangs on what {names} is, which was not recorded ({panel.origin})")


def union(runs: Sequence[Run], n: int) -> Flags:
    """(N,) whether any of the runs broke the sample."""
    flags: Flags = np.zeros(n, bool)
    for run in runs:
        flags = flags | run.broken
    return flags


@dataclass(frozen=True)
class Rescored:
    """Stored adversarial images, classified again by the defence as it is loaded now.

    Attributes:
        cell: Key of the cell.
        attack: Its attack.
        asked: How many images.
        differ: Positions in the data set whose class is another one now.
        clean_differ: Likewise of the clean images.
        outside: Positions of images outside the ball or the box, or not finite.
        shape: Of one image.
    """

    cell: str
    attack: str
    asked: int
    differ: tuple[int, ...]
    clean_differ: tuple[int, ...]
    outside: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Stored:
    """What the store holds.

    Attributes:
        subject: The defence.
        threat: The ball the audit is about.
        shape: (C, H, W) of the data set's images.
        cells: Its cells inside that ball, finished and others.
        static: Cells of the bare classifier it builds on.
        rescored: What became of stored images when they were classified again.
        others: Cells of every other defence on the same data set inside the same ball.
        purifiers: Names of defences known to purify.
        pursued: By position in the data set, of samples that only attacks without gradients broke in the store:
            whether PGD with many more starts breaks them too.
    """

    subject: Subject
    threat: ThreatModel
    shape: tuple[int, ...]
    cells: tuple[Evidence, ...] = ()
    static: tuple[Evidence, ...] = ()
    rescored: tuple[Rescored, ...] = ()
    others: tuple[Evidence, ...] = ()
    purifiers: tuple[str, ...] = ()
    pursued: Mapping[int, bool] = field(default_factory=dict)

    @cached_property
    def finished(self) -> tuple[Evidence, ...]:
        """Complete cells on the longest sample list that any complete cell is about."""
        return finished(self.cells)

    @cached_property
    def bare(self) -> tuple[Evidence, ...]:
        """Complete cells of the bare classifier on those samples; none where the defence is its own."""
        return self.comparable(self.static) if self.subject.purifies else ()

    def comparable(self, cells: Sequence[Evidence]) -> tuple[Evidence, ...]:
        """Those that are complete and on the very samples of `finished`."""
        if not self.finished:
            return ()
        samples = self.finished[0].cell.samples
        return tuple(c for c in cells if is_finished(c) and c.cell.samples == samples)


@dataclass(frozen=True)
class Case:
    """Everything a check may look at."""

    stored: Stored
    probes: Probes | None

    @property
    def subject(self) -> Subject:
        """The defence."""
        return self.stored.subject

    @property
    def probed(self) -> Probes:
        """What the probes measured, of a check that presupposes them."""
        assert self.probes is not None
        return self.probes

    @cached_property
    def panels(self) -> tuple[Panel, ...]:
        """The bodies of evidence that per-sample checks judge one by one."""
        own = (self.probes.panel,) if self.probes else ()
        return (*own, *([self._from_store()] if self.stored.finished else ()))

    def _from_store(self) -> Panel:
        """What is stored; its suspects are pursued by whoever probes, or not."""
        pursuit = self.probes.panel.lacking.get("pursuit") if self.probes else None
        return replace(from_store(self.stored), lacking={"pursuit": pursuit} if pursuit else {})


def from_store(stored: Stored) -> Panel:
    """The finished cells as a panel. Of a randomised defence a sample counts as what most draws say."""
    cells = stored.finished
    order = np.argsort(cells[0].outcome.position)
    indices = np.array(cells[0].cell.samples.indices, np.int64)
    correct = cells[0].outcome.clean_correct[order] > 0.5
    runs = tuple(_run(cell) for cell in cells)
    return Panel("store", indices, correct, runs, pursued=np.isin(indices, list(stored.pursued))).with_pursuit(
        np.isin(indices, [i for i, fell in stored.pursued.items() if fell])
    )


def _run(evidence: Evidence) -> Run:
    cell, outcome = evidence.cell, evidence.outcome
    order = np.argsort(outcome.position)
    kind = _kind(cell)
    through = "another model" if kind == "transfer" else cell.view.stand_in or "deployed"
    broken = outcome.robust[order] <= 0.5
    # Who looks for the nearest error asks outside the ball, too, where erring says nothing.
    outside = cell.nature is not None and "minimum norm" in cell.nature.families
    return Run(
        kind,
        f"{cell.attack.name} ({cell.access})",
        broken,
        outcome.linf[order],
        broken if outside else outcome.first_success[order] >= 0,
        through,
        _reaches(cell.attack.arguments),
    )


def _reaches(settings: Mapping[str, Any]) -> bool:
    """Whether an attack's steps, each a share of epsilon, lead from the middle of the ball to its border."""
    steps, step = settings.get("steps"), settings.get("step")
    if not (isinstance(steps, int) and isinstance(step, int | float)):
        return True  # it does not say so
    return steps * step >= 1 - 1e-9


def _kind(cell: Cell) -> Kind:
    if cell.access is Access.TRANSFER or cell.view.artifact != cell.artifact:
        return "transfer"
    if cell.attack.name == NULL_ATTACK:
        return "control"
    return cell.nature.kind if cell.nature else "unknown"


def families(cells: Sequence[Evidence]) -> frozenset[str]:
    """The families of attacks (Carlini et al. 2019) that some cells belong to, as far as it is recorded."""
    return frozenset(family for cell in cells for family in _families(cell.cell))


def _families(cell: Cell) -> Iterator[str]:
    if cell.access is Access.IMPORTED:
        yield "made elsewhere"
    elif cell.access in (Access.TRANSFER, Access.GRAY_BOX):
        yield "transfer"
    elif cell.nature is not None:
        yield from cell.nature.families
        if cell.nature.kind in WHITE_BOX:
            yield from (f"gradient of the {objective}" for objective in cell.nature.climbs)
        elif cell.nature.kind in BLACK_BOX:
            yield cell.nature.kind


def undeclared(cells: Sequence[Evidence]) -> str:
    """Which attacks on the defence itself are of a kind that nobody recorded, in words; empty if none is."""
    names = {c.cell.attack.name for c in cells if _kind(c.cell) == "unknown"}
    return f"what {', '.join(sorted(names))} is was not recorded" if names else ""


@dataclass(frozen=True)
class Probes:
    """What the probes measured.

    Attributes:
        effort: How hard they tried.
        panel: Attacks inside the ball.
        strongest: The model through which gradients broke most samples.
        ladder: Radius -> (N,) broken, by the same attack; the whole box last.
        unbounded: Radius in L-infinity -> (N,) broken, many starts.
        subset: (N,) whether the sample was used for doubling.
        doubled: What was doubled -> (N,) broken; the usual attack under "once".
        trace: (T, N) objective of the PGD on the strongest model.
        behaviour: Its answers.
        gradients: Its gradients.
        randomness: None for a deterministic defence.
        binarisation: None when it could not be run; `no_binarisation` says why.
        no_binarisation: Why it was not run.
        labels: (N,) true classes.
        unseen: By where they come from, images that no test set has.
        heard: What the defence asked its process for while it was asked about images, in words.
        left_out: By the field of the effort, why a probe was left out, in words.
        seconds: What all of it took.
    """

    effort: Effort
    panel: Panel
    strongest: str
    ladder: Mapping[float, Flags]
    unbounded: Mapping[float, Flags]
    subset: Flags
    doubled: Mapping[str, Flags]
    trace: NDArray[np.float64]
    behaviour: Behaviour
    gradients: Gradients
    randomness: Randomness | None
    binarisation: Binarisation | None
    no_binarisation: str
    labels: NDArray[np.int64]
    seconds: float
    unseen: Mapping[str, Elsewhere] = field(default_factory=dict)
    heard: frozenset[str] = frozenset()
    left_out: Mapping[str, str] = field(default_factory=dict)
