"""The comparison of two defences, printed: a table of differences with what is needed to trust them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from benchbox.report.markdown import escape

if TYPE_CHECKING:
    from benchbox.analysis.comparison import Comparison, Pair, Side

#: Indices printed where people read; JSON has all of them.
SHOWN = 20


def render(comparisons: Sequence[Comparison], format: str) -> str:
    """Write comparisons as `markdown`, `json` or `csv`."""
    return RENDERERS[format](comparisons)


def terminal(comparisons: Sequence[Comparison]) -> RenderableType:
    """Something `rich` can print."""
    return Group(*(part for one in comparisons for part in _parts(one)))


def title(one: Comparison) -> str:
    """Who, on which images, within which ball."""
    return f"{one.a.name} − {one.b.name} on {one.samples.dataset}, {one.threat}, {one.samples.said}"


def remarks(one: Comparison) -> Iterator[str]:
    """What the columns mean and what was left out."""
    yield (
        "Percent of all images; difference in points with its 95 % interval (paired bootstrap over images, over "
        "training seeds Welch's)."
    )
    yield (
        f"Common worst case: per image over the clean one and the attacks both have ({len(one.common)}); "
        "own: over everything each has, so the two may have been attacked unequally hard."
    )
    tests = sorted({f"{pair.test} over {pair.unit}s" for pair in one.pairs})
    yield f"p: {', '.join(tests)}; Holm over the {one.family} tests of this comparison; *: below 5 %."
    if any(pair.test == "sign-flip permutation" for pair in one.pairs):
        yield "Sign-flip: for shares of draws (a randomised defence, or several seeds) the expected correctness."
    yield "Detectable: the smallest difference this test had an 80 % chance to find, before Holm."
    yield from one.notes


def _headings(one: Comparison) -> list[str]:
    return ["", one.a.name, one.b.name, "difference", "95 % interval", "p (Holm)", "detectable", "differ on"]


def _figures(pair: Pair, digits: int) -> list[str]:
    low, high = (f"{100 * end:+.{digits}f}" for end in pair.interval)
    detectable = "–" if pair.detectable is None else f"{100 * pair.detectable:.{digits}f}"
    return [
        pair.label,
        _accuracy(pair.a, digits),
        _accuracy(pair.b, digits),
        f"{100 * pair.difference:+.{digits}f}{'*' if pair.significant else ''}",
        f"[{low}, {high}]",
        "–" if pair.p_holm is None else f"{pair.p_holm:.2g}",
        detectable,
        f"{len(pair.only_a)} : {len(pair.only_b)}",
    ]


def _accuracy(values: Sequence[float], digits: int) -> str:
    """One number, or mean ± standard deviation and minimum over the training seeds."""
    percent = [100 * value for value in values]
    if len(percent) == 1:
        return f"{percent[0]:.{digits}f}"
    return f"{fmean(percent):.{digits}f} ± {stdev(percent):.{digits}f} (min {min(percent):.{digits}f})"


def _digits(one: Comparison) -> int:
    return 1 if len(one.samples) <= 1000 else 2


def _parts(one: Comparison) -> Iterator[RenderableType]:
    yield Text(title(one), style="bold")
    grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in _headings(one):
        grid.add_column(Text(heading), justify="right" if heading else "left", overflow="fold")
    for pair in one.pairs:
        style = "bold" if pair.significant else ""
        grid.add_row(*(Text(figure, style=style) for figure in _figures(pair, _digits(one))))
    yield grid
    yield from (Padding(Text(line), (0, 1)) for line in _indices(one))
    yield from (Padding(Text(remark, style="dim"), (0, 1)) for remark in remarks(one))
    yield Text()


def _indices(one: Comparison) -> Iterator[str]:
    """Where the two differ in the worst case both were put to."""
    for pair in one.pairs:
        if pair.scope != "common worst case":
            continue
        for winner, loser, indices in (
            (one.a.name, one.b.name, pair.only_a),
            (one.b.name, one.a.name, pair.only_b),
        ):
            more = f" … and {len(indices) - SHOWN} more (--format json)" if len(indices) > SHOWN else ""
            shown = " ".join(map(str, indices[:SHOWN])) or "none"
            yield f"Right with {winner}, wrong with {loser}: {shown}{more}"


def _markdown(comparisons: Sequence[Comparison]) -> str:
    return "\n".join(line for one in comparisons for line in _section(one))


def _section(one: Comparison) -> Iterator[str]:
    yield f"### {escape(title(one))}\n"
    headings = _headings(one)
    yield f"| {' | '.join(map(escape, headings))} |"
    yield f"| :--- | {' | '.join(['---:'] * (len(headings) - 1))} |"
    for pair in one.pairs:
        yield f"| {' | '.join(map(escape, _figures(pair, _digits(one))))} |"
    yield ""
    yield from (f"- {escape(line)}" for line in (*_indices(one), *remarks(one)))
    yield ""


def _csv(comparisons: Sequence[Comparison]) -> str:
    """One line a comparison, shares as percent, unrounded."""
    lines = [_line(one, pair) for one in comparisons for pair in one.pairs]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


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


def _json(comparisons: Sequence[Comparison]) -> str:
    record = {"comparisons": [_record(one) for one in comparisons]}
    return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _record(one: Comparison) -> dict[str, Any]:
    return {
        "title": title(one),
        "samples": one.samples.as_dict(),
        "threat": asdict(one.threat),
        "a": _side(one.a),
        "b": _side(one.b),
        "common": [{"access": str(column.access), "attack": column.attack} for column in one.common],
        "tests": one.family,
        "pairs": [
            _numbers(pair) | {"only_a": list(pair.only_a), "only_b": list(pair.only_b)} for pair in one.pairs
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


#: By format.
RENDERERS: dict[str, Callable[[Sequence[Comparison]], str]] = {
    "markdown": _markdown,
    "json": _json,
    "csv": _csv,
}
