"""What the probes will ask for, counted before they ask: calls, and how many images each is about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from benchbox.audit.checks import thresholds
from benchbox.audit.probes import behaviour, binarisation, gradients, random_search
from benchbox.audit.probes.measurements import Effort
from benchbox.audit.probes.search import LOSSES
from benchbox.contract.defense import Defense

#: Rungs of the ladder of radii, in epsilon.
RUNGS = (0.25, 0.5, 1.0, 2.0, 4.0)
#: L-infinity radii at which nothing of an image is left.
UNBOUNDED = (0.5, 1.0)
#: The calls of each probe, in the order they are made.
ORDER = (
    "asking",
    "asking one by one",
    "gradients",
    "FGSM",
    "PGD",
    "transfer",
    "random search",
    "random points",
    "more starts",
    "images that nobody has seen",
    "other radii",
    "twice the steps and starts",
    "draws",
    "planted examples",
    "stored images",
)
#: Those that every sample is met by, whether it fell or not.
REGARDLESS = ("asking", "asking one by one", "gradients", "FGSM", "transfer")
#: By field of the effort, the first calls that hang on it: until then it can still be changed.
READ_BY = {
    "samples": "asking",
    "directions": "gradients",
    "noise": "gradients",
    "steps": "FGSM",
    "restarts": "FGSM",
    "eot": "FGSM",
    "queries": "random search",
    "random_points": "random points",
    "pursued": "more starts",
    "elsewhere": "images that nobody has seen",
    "radii": "other radii",
    "doubled": "twice the steps and starts",
    "binarisation": "planted examples",
}
#: Steps until a sample has fallen to an attack that should break it at once.
SOON = 4
#: One in so many of the samples that more starts are tried on at most.
MASKED = 5


@dataclass(frozen=True)
class Calls:
    """Some calls of a model.

    Attributes:
        what: The probe that makes them.
        gradients: How many with a backward pass.
        forwards: How many without.
        images: That each is about.
        regardless: Whether samples that fell are among them until the end.
    """

    what: str
    gradients: float
    forwards: float
    images: int
    regardless: bool = False


@dataclass(frozen=True)
class Passes:
    """What an audit asks for at most, and at least.

    Attributes:
        most: Calls if every sample withstands everything inside the ball, and a fifth of those that more starts
            are tried on at most look masked. Where all do, it is about twice as much.
        least: Gradients of each sample that falls at once to every attack that should break it.
    """

    most: tuple[Calls, ...]
    least: int

    def a_sample(self, effort: Effort) -> tuple[int, int]:
        """Gradients and forward passes of each of the samples, at most."""
        totals = [sum(getattr(c, kind) * c.images for c in self.most) for kind in ("gradients", "forwards")]
        gradients, forwards = (round(total / max(effort.samples, 1)) for total in totals)
        return gradients, forwards


def passes(defense: Defense, effort: Effort) -> Passes:
    """What the probes of a defence will ask for: a sample that falls is let go, but where it is randomised."""
    models, eot, losses = _models(defense), effort.eot if defense.randomized else 1, len(LOSSES)
    radii = len(RUNGS) + len(UNBOUNDED) if effort.radii else 0
    least: float = SOON * (models * losses + radii + 3)
    if defense.randomized:
        # Nothing is let go within a run.
        doubled = min(effort.doubled / max(effort.samples, 1), 1)
        least = losses * effort.steps * (models + radii + doubled * 8)
    most = (
        replace(calls, regardless=defense.randomized or calls.what in REGARDLESS)
        for calls in _most(defense, effort)
    )
    return Passes(tuple(most), round(eot * least))


def _models(defense: Defense) -> int:
    return 1 + len([name for name in defense.stand_ins if name != defense.exact])


def _most(defense: Defense, effort: Effort) -> Iterator[Calls]:
    n, half, losses, models = effort.samples, min(effort.doubled, effort.samples), len(LOSSES), _models(defense)
    eot, draws = (effort.eot, effort.scoring_draws) if defense.randomized else (1, 1)
    # Each run scores what it found, and asks once more about the last point.
    pgd = losses * effort.steps * eot
    found = losses * (draws + 1)

    def climbs(what: str, times: float, images: int) -> Calls:
        return Calls(what, times * pgd, times * found, images)

    company = behaviour.ALIKE + (eot if defense.randomized else behaviour.ALIKE)
    asked = thresholds.REPEATS + 2 * len(behaviour.WHISPERS) + len(behaviour.FAINT) + behaviour.POINTS + 15
    yield Calls("asking", 0, asked + company, n)
    yield Calls("asking one by one", 0, n, 1)
    differences = 2 * (len(gradients.STEPS) + 1) * effort.directions
    yield Calls("gradients", 2 * losses * models + 8, differences + effort.noise, n)
    yield Calls("FGSM", losses * models * eot, found * models, n)
    yield climbs("PGD", models * effort.restarts, n)
    if defense.base is not None:
        # Of the bare classifier, which draws nothing.
        yield Calls("transfer", losses * effort.steps, found, n)
    # Random points end early where they come nowhere near an error.
    yield Calls("random points", 0, min(effort.random_points, random_search.SETTLING), n)
    yield Calls("random search", 0, effort.queries, n)
    targets = min(defense.images.classes - 1, int(thresholds.TARGETS)) / losses
    suspects = -(-min(effort.pursued, n) // MASKED)
    yield climbs("more starts", models * (thresholds.RESTARTS + targets), suspects)
    unseen = 2 * min((effort.elsewhere + 1) // 2, n) + effort.elsewhere
    yield climbs("images that nobody has seen", models, unseen)
    yield Calls("images that nobody has seen", losses * effort.steps, 2 * found + behaviour.POINTS, unseen)
    if effort.radii:
        # Where nothing of an image is left, one start is enough unless gradients are masked.
        yield climbs("other radii", len(RUNGS) + len(UNBOUNDED), n)
    yield climbs("twice the steps and starts", 4 * effort.restarts, half)
    if defense.randomized:
        yield climbs("draws", 4 + effort.restarts, half)
    planted = min(effort.binarisation, n)
    if planted:
        hunt = effort.steps * effort.restarts * eot
        yield Calls("planted examples", hunt, binarisation.INNER + binarisation.RANDOM + draws, planted)
    # More starts on the suspects of the store.
    yield climbs("stored images", models * (thresholds.RESTARTS + targets), suspects)
