"""The report as one HTML file that needs nothing else: no script, no font, no network."""

from __future__ import annotations

import json
from collections.abc import Sequence

from benchbox.analysis.entry import Entry
from benchbox.analysis.records import Row, Table


def render(tables: Sequence[Table]) -> str:
    """A whole page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("benchbox.report"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["provenance"] = provenance
    environment.filters["recipe"] = recipe
    return environment.get_template("report.html.j2").render(tables=tables)


def provenance(entry: Entry) -> str:
    """What a number stands on, for its tooltip: a line or two for each cell."""
    lines = []
    for measurement in entry.measurements:
        evidence = measurement.evidence
        through = f"{measurement.stand_in}: " if measurement.stand_in else ""
        number = f"{measurement.score} {measurement.score.interval}" if measurement.score else "no number"
        lines.append(f"{through}{number}, {measurement.status}, n = {len(evidence.outcome)}")
        lines.append(f"cell {evidence.cell.key[:16]}, commit {measurement.commit[:12]}, {evidence.seconds:.1f} s")
        if measurement.passes:
            lines.append("{:.0f} forward, {:.0f} backward passes a sample".format(*measurement.passes))
        if evidence.error:
            lines.append(evidence.error)
    return "\n".join(lines)


def recipe(row: Row) -> str:
    """How a defence was made, for the tooltip of its name."""
    settings = json.dumps(dict(row.defense.arguments), ensure_ascii=False)
    return f"{settings}\ncode {row.defense.code}, weights {row.artifact[:16]}, training seed {row.training_seed}"
