"""How accuracy changes along something: the radius of the ball, or a setting of a recipe."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from benchbox.analysis import labels, weights
from benchbox.analysis.score import union, united
from benchbox.analysis.worst_case import clean_correct, is_null
from benchbox.canonical import canonical
from benchbox.domain import SIGNS, Evidence, SampleList, Spec, ThreatModel, format_epsilon
from benchbox.errors import RequestError

if TYPE_CHECKING:
    from benchbox.analysis.score import Score


class Point(NamedTuple):
    """A place on a curve."""

    x: float
    score: Score


@dataclass(frozen=True)
class Curve:
    """One line.

    Attributes:
        label: Of the legend.
        points: From left to right.
    """

    label: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Curves:
    """Lines that may be compared: the same images, the same attacks.

    Attributes:
        axis: What x is.
        title: What the lines are of.
        samples: The images.
        balls: The balls.
        seeds: Training seeds.
        attack_seeds: Of what attacked.
        lines: Sorted by label.
    """

    axis: str
    title: str
    samples: SampleList
    balls: tuple[ThreatModel, ...]
    seeds: tuple[int, ...]
    attack_seeds: tuple[int, ...]
    lines: tuple[Curve, ...]


def over_epsilon(
    evidence: Sequence[Evidence], attacks: Sequence[str] = (), accesses: Sequence[str] = ()
) -> list[Curves]:
    """Accuracy against the radius: per-image worst case over the attacks that a defence has finished in each ball.

    A point stands only where all the attacks of the line are finished, so that no ball is attacked less than
    another. It begins with the clean images at radius 0.

    Args:
        evidence: Cells in several balls.
        attacks: Names; empty for all.
        accesses: Likewise.

    Raises:
        RequestError: No defence has finished the same attack in two balls.
    """
    found = []
    for (samples, norm), group in _grouped(
        evidence, attacks, accesses, lambda e: (e.cell.samples, e.cell.threat.norm)
    ).items():
        lines = []
        for label, row in _rows(group).items():
            by_radius = _by(row, lambda e: e.cell.threat.epsilon)
            line = _line(label, {radius: cells for radius, cells in by_radius.items() if radius > 0})
            if len(line.points) > 1:
                clean = Point(0.0, union([clean_correct(row[0])]))
                lines.append(replace(line, points=(clean, *line.points)))
        if lines:
            axis = f"radius of the ball ({SIGNS[norm]} ε)"
            found.append(_curves(axis, _what(attacks, accesses), group, samples, lines))
    if not found:
        raise RequestError(
            "no defence has the same finished attack in two balls; run it with another radius too: "
            "`benchbox run --epsilon 0.1 …`"
        )
    return found


def over_field(
    evidence: Sequence[Evidence],
    field: str,
    attacks: Sequence[str] = (),
    accesses: Sequence[str] = (),
    cards: weights.Cards | None = None,
) -> list[Curves]:
    """Accuracy against a number of a defence's recipe, one line for each attack under each access.

    Trainings with another seed or on another base have lines of their own. Where there still are several of one
    value, none of them is a point: which line it would be on, nobody knows.

    Args:
        evidence: Cells of recipes that differ in that field alone.
        field: Its name, such as `alpha`.
        attacks: Names; empty for all.
        accesses: Likewise.
        cards: What is known of trained weights, by digest: without it, no base is.

    Raises:
        RequestError: No defence was run with two values of it.
    """

    def value(e: Evidence) -> float:
        return float(e.cell.defense.arguments[field])

    def rest(e: Evidence) -> Any:
        others = {k: v for k, v in e.cell.defense.arguments.items() if k != field}
        return e.cell.samples, e.cell.threat, e.cell.defense.name, canonical([others, e.cell.defense.code])

    found = []
    usable = [e for e in evidence if isinstance(e.cell.defense.arguments.get(field), int | float)]
    for (samples, threat, name, _), group in _grouped(usable, attacks, accesses, rest).items():
        lines = [_line(label, _by(cells, value)) for label, cells in _attacked(group, value, cards or {}).items()]
        lines = [line for line in lines if len(line.points) > 1]
        if lines:
            found.append(_curves(field, f"{name}, {threat}", group, samples, lines))
    if not found:
        raise RequestError(
            f"no defence was run with two values of {field!r}; name them as an axis of a grid file, as in "
            "docs/grids/pssr-alpha.toml"
        )
    return found


def _grouped(
    evidence: Sequence[Evidence], attacks: Sequence[str], accesses: Sequence[str], key: Any
) -> Mapping[Any, list[Evidence]]:
    groups: dict[Any, list[Evidence]] = defaultdict(list)
    for item in evidence:
        wanted = not attacks or item.cell.attack.name in attacks
        if (
            wanted
            and (not accesses or item.cell.access in accesses)
            and item.status == "done"
            and not is_null(item)
        ):
            groups[key(item)].append(item)
    return groups


def _by(evidence: Sequence[Evidence], key: Any) -> dict[Any, list[Evidence]]:
    groups: dict[Any, list[Evidence]] = defaultdict(list)
    for item in evidence:
        groups[key(item)].append(item)
    return dict(groups)


def _rows(evidence: Sequence[Evidence]) -> Mapping[str, list[Evidence]]:
    """The cells of each trained defence, by what it is called beside the others."""
    said = labels.distinctions([item.cell.defense for item in evidence])
    seeds = {item.cell.training_seed for item in evidence}

    def name(item: Evidence) -> tuple[str, ...]:
        spec: Spec = item.cell.defense
        return spec.name, said[spec.identity], _among(seeds, f"seed {item.cell.training_seed}")

    return _told_apart(evidence, name)


def _attacked(
    evidence: Sequence[Evidence], value: Callable[[Evidence], float], cards: weights.Cards
) -> Mapping[str, list[Evidence]]:
    """The cells of each attack on what was trained alike but for a value, by what they are called."""
    trained = {item.cell.artifact: item.cell.training_seed for item in evidence}
    bases = {artifact: weights.base(artifact, cards) for artifact in trained}
    seeds = {*trained.values()}
    below = {seed: {bases[artifact] for artifact in trained if trained[artifact] == seed} for seed in seeds}

    def name(item: Evidence) -> tuple[str, ...]:
        cell = item.cell
        base = f"base {bases[cell.artifact][:8] or 'unknown'}"
        said = _among(seeds, f"seed {cell.training_seed}"), _among(below[cell.training_seed], base)
        return f"{cell.attack.name}, {cell.access}", *said

    return _told_apart(evidence, name, value)


def _among(several: Collection[object], remark: str) -> str:
    """What is said of one of several, and of one alone is not."""
    return remark if len(several) > 1 else ""


def _told_apart(
    evidence: Sequence[Evidence],
    name: Callable[[Evidence], tuple[str, ...]],
    value: Callable[[Evidence], float] | None = None,
) -> Mapping[str, list[Evidence]]:
    """Cells by their name with its remarks, and by their weights where several trainings would be one point.

    Args:
        evidence: The cells.
        name: Of a cell, with its remarks.
        value: Of a cell, where each value is another training.
    """

    def place(item: Evidence) -> tuple[tuple[str, ...], float | None]:
        return name(item), value(item) if value else None

    uses = Counter(at for at, _ in {(place(item), item.cell.artifact) for item in evidence})

    def label(item: Evidence) -> str:
        return labels.labelled(*name(item), f"weights {item.cell.artifact[:8]}" if uses[place(item)] > 1 else "")

    return _by(sorted(evidence, key=label), label)


def _line(label: str, cells: Mapping[float, Sequence[Evidence]]) -> Curve:
    """The worst case at each x over the attacks that are finished at every x at which the most of them are."""
    kinds = {x: {_kind(item) for item in items} for x, items in cells.items()}
    wanted = max(kinds.values(), key=len, default=set())
    points = [
        Point(x, score)
        for x, items in sorted(cells.items())
        if kinds[x] >= wanted and (score := united(list(items), with_clean=True)) is not None
    ]
    return Curve(label, tuple(points))


def _kind(item: Evidence) -> str:
    cell = item.cell
    # Settings may follow the radius (a step of ε/10 is the same attack in every ball): the name decides.
    return canonical([cell.attack.name, str(cell.access), cell.view.stand_in])


def _curves(
    axis: str, title: str, group: Sequence[Evidence], samples: SampleList, lines: Sequence[Curve]
) -> Curves:
    balls = {item.cell.threat: None for item in group}
    return Curves(
        axis=axis,
        title=title,
        samples=samples,
        balls=tuple(sorted(balls, key=lambda ball: (ball.norm, ball.epsilon))),
        seeds=tuple(sorted({item.cell.training_seed for item in group})),
        attack_seeds=tuple(sorted({item.cell.attack_seed for item in group})),
        lines=tuple(lines),
    )


def _what(attacks: Sequence[str], accesses: Sequence[str]) -> str:
    under = f" under {', '.join(accesses)}" if accesses else ""
    return f"worst of {', '.join(attacks)}{under}" if attacks else f"worst of all finished attacks{under}"


def balls_said(balls: Sequence[ThreatModel]) -> str:
    """`L∞ ε = 0.15, 0.3`."""
    norms = dict.fromkeys(ball.norm for ball in balls)
    return "; ".join(
        f"{SIGNS[norm]} ε = " + ", ".join(format_epsilon(ball.epsilon) for ball in balls if ball.norm == norm)
        for norm in norms
    )
