"""Which of the stored cells a user means by the name of a defence or the first characters of a digest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from benchbox.analysis import labels
from benchbox.domain import Evidence, SampleList, ThreatModel
from benchbox.errors import RequestError, unknown

#: Fewer characters of a digest are more likely a slip than a choice.
PREFIX = 4


class Ground(NamedTuple):
    """What two results have to share to be comparable: the images and the ball."""

    samples: SampleList
    threat: ThreatModel

    def __str__(self) -> str:
        samples = self.samples
        what = f"{len(samples)} {samples.split} images of {samples.dataset}"
        return f"{what} ({samples.digest[:8]}, {self.threat})"


def named(evidence: Sequence[Evidence], name: str) -> Mapping[Ground, Sequence[Evidence]]:
    """The cells of a defence, by what they were scored on.

    Args:
        evidence: Of all defences.
        name: Of a defence, or the first characters of the digest of its weights.

    Raises:
        RequestError: Nothing is called that.
    """
    found = [e for e in evidence if e.cell.defense.name == name]
    found = found or [e for e in evidence if len(name) >= PREFIX and e.cell.artifact.startswith(name)]
    if not found:
        raise unknown("defence or digest of weights", name, {e.cell.defense.name for e in evidence})
    grounds: dict[Ground, list[Evidence]] = defaultdict(list)
    for item in found:
        grounds[Ground(item.cell.samples, item.cell.threat)].append(item)
    return grounds


def with_weights(evidence: Sequence[Evidence], name: str, weights: str) -> str:
    """The digest of the defence of a name that was scored with weights from a file.

    Args:
        evidence: Of all defences.
        name: As in `file.py:factory`.
        weights: SHA-256 of the file.

    Raises:
        RequestError: None was, or several: the code has changed in between.
    """
    cells = [e.cell for e in evidence if e.cell.defense.name == name]
    found = sorted({cell.artifact for cell in cells if cell.defense.arguments.get("weights") == weights})
    if len(found) != 1:
        known = (
            ", ".join(artifact[:12] for artifact in found or sorted({cell.artifact for cell in cells})) or "none"
        )
        said = f"{len(found)} defences" if found else "nothing"
        raise RequestError(f"{said} called {name} was scored with these weights; name one by its digest: {known}")
    return found[0]


def trainings(name: str, evidence: Sequence[Evidence]) -> dict[int, str]:
    """Digest of the weights by training seed, lowest first.

    Args:
        name: What the user called them.
        evidence: On one ground.

    Raises:
        RequestError: They are more than one recipe, or one recipe on several bases.
    """
    departs = labels.departures([e.cell.defense for e in evidence])
    rows = {(e.cell.artifact, e.cell.training_seed, e.cell.defense.identity) for e in evidence}
    if len({recipe for *_, recipe in rows}) > 1 or len({seed for _, seed, _ in rows}) < len(rows):
        said = ", ".join(
            f"{artifact[:12]} ({departs[recipe] or 'usual recipe'}, seed {seed})"
            for artifact, seed, recipe in sorted(rows, key=lambda row: (departs[row[2]], row[1], row[0]))
        )
        raise RequestError(f"{name!r} is {len(rows)} trained defences; name one by its weights: {said}")
    return {seed: artifact for artifact, seed, _ in sorted(rows, key=lambda row: row[1])}


def listed(grounds: Collection[Ground]) -> str:
    """Grounds for an error message."""
    return ", ".join(map(str, grounds))
