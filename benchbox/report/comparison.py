"""The comparison of two defences as a document: differences with what is needed to trust them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from statistics import fmean, stdev
from typing import Any

from benchbox.analysis import welch
from benchbox.analysis.comparison import Comparison, Pair, Side
from benchbox.report.document import Column, Document, Number, Section, Text, added, grid, listed, unrecorded
from benchbox.report.remarks import of_control

#: Columns of the long form: shares as percent, unrounded.
FIELDS = (
    *("dataset", "samples_digest", "norm", "epsilon", "n", "defense_a", "defense_b", "scope", "access", "attack"),
    *("a", "b", "a_sd", "b_sd", "a_min", "b_min", "difference", "low", "high", "unit", "test", "p", "p_holm"),
    *("significant", "discordance", "detectable", "a_by_seed", "b_by_seed", "only_a", "only_b"),
)


def columns(one: Comparison) -> list[Column[Pair]]:
    """The columns of a comparison. One more is one entry here, for every format."""
    digits = 1 if len(one.samples) <= 1000 else 2
    return [
        Column(
            "scope", "", lambda pair: Text(pair.label, strong=pair.significant), "left", heads=True, recorded=True
        ),
        Column("a", one.a.name, lambda pair: _accuracy(pair.a, digits), recorded=True, names=True),
        Column("b", one.b.name, lambda pair: _accuracy(pair.b, digits), recorded=True, names=True),
        Column("difference", "difference", partial(_difference, digits), recorded=True),
        Column("interval", "95 % interval", partial(_interval, digits), recorded=True),
        Column(
            "p_holm", "p (Holm)", lambda p: Text("–" if p.p_holm is None else f"{p.p_holm:.2g}"), recorded=True
        ),
        Column("detectable", "detectable", partial(_detectable, digits), drops=2, recorded=True),
        Column(
            "differ", "differ on", lambda p: Text(f"{len(p.only_a)} : {len(p.only_b)}"), drops=1, recorded=True
        ),
    ]


def document(comparisons: Sequence[Comparison]) -> Document:
    """A section for each sample list and ball."""
    made = [(one, columns(one)) for one in comparisons]
    new = dict.fromkeys(column.key for _, own in made for column in unrecorded(own))
    return Document(
        "benchbox comparison",
        [
            Section(title(one), [grid(own, one.pairs)], sentences=list(_indices(one)), remarks=list(remarks(one)))
            for one, own in made
        ],
        lambda: {"comparisons": [_record(one, own) for one, own in made]},
        [*FIELDS, *new],
        lambda: (_line(one, pair) | added(own, pair) for one, own in made for pair in one.pairs),
    )


def title(one: Comparison) -> str:
    """Who, on which images, within which ball."""
    return f"{one.a.name} − {one.b.name} on {one.samples.dataset}, {one.threat}, {one.samples.said}"


def remarks(one: Comparison) -> Iterator[str]:
    """What the columns mean and what was left out."""
    yield (
        "Percent of all images; difference in points with its 95 % interval (paired bootstrap over images, over "
        "training seeds Welch's)."
    )
    if one.lists:
        a, b = (samples.said for samples in one.lists)
        yield f"Over the {len(one.samples)} images both have: {one.a.name} was scored on {a}, {one.b.name} on {b}."
    yield (
        f"Common worst case: per image over the clean one and the attacks both have ({len(one.common)}); "
        "own: over everything each has, so the two may have been attacked unequally hard."
    )
    tests = sorted({f"{pair.test} over {pair.unit}s" for pair in one.pairs})
    yield f"p: {', '.join(tests)}; Holm over the {one.family} tests of this comparison; *: below 5 %."
    if any(pair.test == "sign-flip permutation" for pair in one.pairs):
        yield "Sign-flip: for shares of draws (a randomised defence, or several seeds) the expected correctness."
    yield "Detectable: the smallest difference this test had an 80 % chance to find, before Holm."
    for side in (one.a, one.b):
        yield from _left_out(side)
    yield from _trainings([len(side.trained) for side in (one.a, one.b)])


def _left_out(side: Side) -> Iterator[str]:
    yield from (f"{side.name}: {of_control(found)}" for found in side.controls if found.verdict != "agrees")
    if side.unfinished:
        yield f"{side.name}: {side.unfinished} unfinished or failed cells are left out."
    if side.alone:
        yield f"{side.name} alone was attacked with {', '.join(map(str, side.alone))}: in its own worst case only."
    if side.fallen:
        yield f"{side.name}: audit broke {side.fallen} more images: in its own worst case only."


def _trainings(counts: Sequence[int]) -> Iterator[str]:
    if min(counts) >= welch.ENOUGH:
        yield (
            f"{counts[0]} and {counts[1]} training seeds: the seed is the unit, and the test Welch's t, "
            "except where all trainings of each side came out alike."
        )
    elif any(count != 1 for count in counts):
        yield (
            f"{counts[0]} and {counts[1]} training seeds, fewer than {welch.ENOUGH} on a side: tested over "
            "images, on the mean over the seeds; this says nothing of the spread between trainings."
        )


def _accuracy(values: Sequence[float], digits: int) -> Text:
    """One number, or mean ± standard deviation and minimum over the training seeds."""
    percent = [100 * value for value in values]
    if len(percent) == 1:
        return Text(f"{percent[0]:.{digits}f}")
    return Text(f"{fmean(percent):.{digits}f} ± {stdev(percent):.{digits}f} (min {min(percent):.{digits}f})")


def _difference(digits: int, pair: Pair) -> Number:
    mark = "*" if pair.significant else ""
    return Number(f"{100 * pair.difference:+.{digits}f}{mark}", strong=pair.significant)


def _interval(digits: int, pair: Pair) -> Text:
    low, high = (f"{100 * end:+.{digits}f}" for end in pair.interval)
    return Text(f"[{low}, {high}]")


def _detectable(digits: int, pair: Pair) -> Text:
    return Text("–" if pair.detectable is None else f"{100 * pair.detectable:.{digits}f}")


def _indices(one: Comparison) -> Iterator[str]:
    """Where the two differ in the worst case both were put to."""
    for pair in one.pairs:
        if pair.scope == "common worst case":
            yield f"Right with {one.a.name}, wrong with {one.b.name}: {listed(pair.only_a)}"
            yield f"Right with {one.b.name}, wrong with {one.a.name}: {listed(pair.only_b)}"


def _line(one: Comparison, pair: Pair) -> dict[str, Any]:
    numbers = _numbers(pair)
    seeds = {key: " ".join(map(str, numbers.pop(key))) for key in ("a_by_seed", "b_by_seed")}
    where = {
        "dataset": one.samples.dataset,
        "samples_digest": one.samples.digest,
        "norm": one.threat.norm,
        "epsilon": one.threat.epsilon,
        "n": len(one.samples),
        "defense_a": one.a.name,
        "defense_b": one.b.name,
    }
    counts = {"only_a": len(pair.only_a), "only_b": len(pair.only_b)}
    return where | {key: "" if value is None else value for key, value in (numbers | seeds | counts).items()}


def _record(one: Comparison, own: Sequence[Column[Pair]]) -> dict[str, Any]:
    return {
        "title": title(one),
        "samples": one.samples.as_dict(),
        "threat": asdict(one.threat),
        "a": _side(one.a),
        "b": _side(one.b),
        "common": [{"access": str(column.access), "attack": column.attack} for column in one.common],
        "tests": one.family,
        "pairs": [
            _numbers(pair) | {"only_a": list(pair.only_a), "only_b": list(pair.only_b)} | added(own, pair)
            for pair in one.pairs
        ],
        "remarks": list(remarks(one)),
    }


def _side(side: Side) -> dict[str, Any]:
    return {
        "name": side.name,
        "defense": asdict(side.defense),
        "weights_by_training_seed": {str(seed): digest for seed, digest in side.trained.items()},
        "purifier": side.purifier,
    }


def _numbers(pair: Pair) -> dict[str, Any]:
    """Shares as percent, unrounded."""
    a, b = ([100 * value for value in values] for values in (pair.a, pair.b))
    return {
        "scope": pair.scope,
        "access": None if pair.column is None else str(pair.column.access),
        "attack": None if pair.column is None else pair.column.attack,
        "a": fmean(a),
        "b": fmean(b),
        "a_sd": stdev(a) if len(a) > 1 else None,
        "b_sd": stdev(b) if len(b) > 1 else None,
        "a_min": min(a),
        "b_min": min(b),
        "difference": 100 * pair.difference,
        "low": 100 * pair.interval.low,
        "high": 100 * pair.interval.high,
        "unit": pair.unit,
        "test": pair.test,
        "p": pair.p,
        "p_holm": pair.p_holm,
        "significant": pair.significant,
        "discordance": 100 * pair.discordance,
        "detectable": None if pair.detectable is None else 100 * pair.detectable,
        "a_by_seed": a,
        "b_by_seed": b,
    }
