"""An audit as it is read: for a terminal, and for a README. From its stored record alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from benchbox.report.markdown import escape

_STYLE = {"FAIL": "bold red", "WARN": "yellow", "INCOMPLETE": "dim", "PASS": "green"}
#: Samples that are named; the count says how many more there are.
_NAMED = 5


def terminal(record: Mapping[str, Any], names: Mapping[str, str]) -> RichTable:
    """Something `rich` can print.

    Args:
        record: As `benchbox audit` stores it.
        names: A few words on each check, by its id.
    """
    grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, title=title(record), title_justify="left")
    for heading in ("", "check", "verdict"):
        grid.add_column(heading, no_wrap=True)
    grid.add_column("what was seen", overflow="fold")
    grid.add_column("samples", overflow="fold")
    family = ""
    for finding in record["findings"]:
        if family and finding["check"][0] != family:
            grid.add_section()
        family = finding["check"][0]
        verdict = Text(finding["verdict"], style=_STYLE[finding["verdict"]])
        name = names.get(finding["check"], "")
        grid.add_row(finding["check"], name, verdict, Text(finding["sentence"]), _samples(finding))
    return grid


def markdown(record: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """A section with its table; arguments as for `terminal`."""
    lines = [
        f"### {escape(title(record))}\n",
        "| | check | verdict | what was seen | samples |",
        "| --- " * 5 + "|",
    ]
    for finding in record["findings"]:
        cells = (
            finding["check"],
            names.get(finding["check"], ""),
            finding["verdict"],
            finding["sentence"],
            _samples(finding),
        )
        lines.append(f"| {' | '.join(escape(cell) for cell in cells)} |")
    said = [f"- {escape(sentence)}" for sentence in standing(record)]
    return "\n".join([*lines, "", *said, "", headline(record["summary"]), ""])


def standing(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What sets the number, what weaker attacks would have reported, and what the defence gains."""
    return tuple(record.get("standing", {}).get("said", ()))


def title(record: Mapping[str, Any]) -> str:
    """Which defence, on what."""
    samples, threat = record["samples"], record["threat"]
    norm = "L∞" if threat["norm"] == "linf" else "L2"
    radius = f"{norm} ε = {threat['epsilon']:.4g}"
    return f"Audit of {record['defense']} ({record['artifact'][:12]}) on {samples['dataset']}, {radius}"


def headline(summary: Mapping[str, Any]) -> str:
    """One sentence for all of it."""
    counts = ", ".join(f"{count} {verdict}" for verdict, count in summary["counts"].items())
    said = [
        (summary["integrity"], "not to be ranked: integrity"),
        ([id for id in summary["masking"] if id[0] != "A"], "gradients are masked:"),
        (summary["attack"], "the attack is too weak:"),
    ]
    parts = [f"{text} {', '.join(ids)}" for ids, text in said if ids]
    return f"{counts}; {'; '.join(parts)}" if parts else f"{counts}; no check failed"


def _samples(finding: Mapping[str, Any]) -> str:
    named: Sequence[int] = finding["samples"][:_NAMED]
    if not named:
        return ""
    more = finding["count"] - len(named)
    return ", ".join(map(str, named)) + (f" and {more} more" if more > 0 else "")
