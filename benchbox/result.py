"""What came of an evaluation: numbers, tables, data frames and images, all read from evidence."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchbox.errors import RequestError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from rich.console import RenderableType

    from benchbox.analysis.comparison import Comparison
    from benchbox.analysis.known import Known
    from benchbox.analysis.records import Row, Table
    from benchbox.domain import Evidence
    from benchbox.store import Records

#: A text has no edge to wrap a table at.
WIDTH = 200


def known_of(evidence: Sequence[Evidence], store: Records) -> Known:
    """What was noted of the defences when they were run, their audits, and how all weights were trained."""
    from benchbox.analysis.known import Known

    names = {item.cell.defense.name for item in evidence}
    artifacts = {item.cell.artifact for item in evidence}
    noted = {name: store.recall(f"defense {name}") or {} for name in sorted(names)}
    return Known(
        purifiers=[name for name, kind in noted.items() if kind.get("purifies")],
        oracles=[name for name, kind in noted.items() if not kind.get("deployable", True)],
        randomized=[name for name, kind in noted.items() if kind.get("randomized")],
        audits={artifact: found for artifact in artifacts if (found := store.attached(artifact, "audit"))},
        cards=store.artifacts(),
    )


class _Shown:
    """Shows itself: as text in Python, as a table in a notebook."""

    def table(self, format: str = "terminal") -> str:
        raise NotImplementedError

    def renderable(self) -> RenderableType:
        raise NotImplementedError

    def _text(self) -> str:
        from rich.console import Console

        console = Console(width=WIDTH, file=io.StringIO(), highlight=False, markup=False, emoji=False)
        console.print(self.renderable())
        text: str = console.file.getvalue()  # type: ignore[attr-defined]
        return "\n".join(line.rstrip() for line in text.splitlines()).rstrip()

    def to_dataframe(self) -> pd.DataFrame:
        """Every number with what is needed to trust it; the columns are those of the CSV report."""
        import pandas as pd

        return pd.read_csv(io.StringIO(self.table("csv")))

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        return self.table()


@dataclass(frozen=True, repr=False)
class Result(_Shown):
    """The cells of an evaluation, or of a whole store.

    Attributes:
        evidence: What happened to each image, cell by cell.
        known: What is known of the defences beside it.
        store: Where the images are.
        failed: Why cells ended with an error, by key.
    """

    evidence: tuple[Evidence, ...]
    known: Known
    store: str
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def tables(self) -> list[Table]:
        """One for each data set, ball and list of images."""
        from benchbox.analysis.table import build

        return build(self.evidence, self.known)

    @property
    def robust(self) -> float:
        """Share of all images, in [0, 1], that are right as they are and under every finished attack.

        Raises:
            RequestError: There are several defences, or none whose number counts.
        """
        row = self._row()
        if row.robust is None or row.withheld:
            raise RequestError(f"{row.label} has no robust accuracy: {row.headline}; print the result to see why")
        return row.robust.percent / 100

    @property
    def clean(self) -> float:
        """Share of all images, in [0, 1], that are right as they are.

        Raises:
            RequestError: There are several defences, or nothing is known of the one.
        """
        row = self._row()
        if row.clean.score is None:
            raise RequestError(f"nothing is known of {row.label} on clean images; print the result to see why")
        return row.clean.score.percent / 100

    def table(self, format: str = "terminal") -> str:
        """The report as text.

        Args:
            format: `terminal`, `markdown`, `latex`, `html`, `csv` or `json`.

        Raises:
            RequestError: There is no such format.
        """
        from benchbox import report

        return report.render(self.evidence, format, self.known) if format != "terminal" else self._text()

    def renderable(self) -> RenderableType:
        """The report as something `rich` can print."""
        from benchbox import report

        return report.terminal(self.evidence, self.known)

    def images(self, attack: str, access: str | None = None, defense: str | None = None) -> NDArray[np.float32]:
        """Adversarial images (N, C, H, W), float32 in [0, 1], in the order of the sample list.

        Args:
            attack: Name.
            access: Under which it was run; may be left out where there is one.
            defense: Against which; likewise.

        Raises:
            RequestError: No cell is meant, or several are, or its images are not all there.
        """
        import numpy as np

        from benchbox.store import Store

        cells = {e.cell.craft_key: e.cell for e in self.evidence if _is(e, attack, access, defense)}
        if len(cells) != 1:
            found = ", ".join(f"{c.defense.name}/{c.access}/{c.attack.name}" for c in cells.values())
            remedy = f"{found}; name access= and defense=" if found else "result.to_dataframe() says what there is"
            raise RequestError(f"{len(cells)} craftings of {attack!r}: {remedy}")
        (cell,) = cells.values()
        with Store.open(self.store, must_exist=True) as store:
            crafted = store.crafted(cell.craft_key, np.arange(len(cell.samples)))
        if crafted is None:
            raise RequestError(f"{cell.attack.name} is unfinished; the same request continues it")
        return crafted.x

    def fates(self) -> pd.DataFrame:
        """What happened to each image: one line for each cell and image.

        `clean` and `adversarial` are the shares of scoring draws that are right: `fates().groupby("label")` is the
        accuracy by class.
        """
        import pandas as pd

        return pd.concat([pd.DataFrame(_fate(item)) for item in self.evidence], ignore_index=True)

    def _row(self) -> Row:
        rows = [row for table in self.tables for row in table.rows]
        if len(rows) != 1:
            named = ", ".join(row.label for row in rows)
            raise RequestError(f"{len(rows)} rows are there ({named or 'none'}); use to_dataframe() or table()")
        return rows[0]

    def _repr_html_(self) -> str:
        return "".join(_html(table) for table in self.tables) or "<p>nothing is stored</p>"


@dataclass(frozen=True, repr=False)
class Compared(_Shown):
    """Two defences image by image, once for each data set and ball.

    Attributes:
        comparisons: The differences, their intervals and tests.
    """

    comparisons: tuple[Comparison, ...]

    def table(self, format: str = "terminal") -> str:
        """The comparison as text.

        Args:
            format: `terminal`, `markdown`, `csv` or `json`.

        Raises:
            RequestError: There is no such format.
        """
        from benchbox.report import comparison

        return comparison.render(self.comparisons, format) if format != "terminal" else self._text()

    def renderable(self) -> RenderableType:
        """The comparison as something `rich` can print."""
        from benchbox.report import comparison

        return comparison.terminal(self.comparisons)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.table())}</pre>"


def _is(item: Evidence, attack: str, access: str | None, defense: str | None) -> bool:
    cell = item.cell
    return (
        cell.attack.name == attack and access in (None, str(cell.access)) and defense in (None, cell.defense.name)
    )


def _fate(item: Evidence) -> dict[str, Any]:
    cell, outcome = item.cell, item.outcome
    return {
        "dataset": cell.samples.dataset,
        "defense": cell.defense.name,
        "training_seed": cell.training_seed,
        "attack": cell.attack.name,
        "access": str(cell.access),
        "through": cell.view.stand_in or "",
        "norm": cell.threat.norm,
        "epsilon": cell.threat.epsilon,
        "index": [cell.samples.indices[position] for position in outcome.position],
        "label": outcome.label,
        "clean": outcome.clean_correct,
        "adversarial": outcome.robust,
        "linf": outcome.linf,
        "l2": outcome.l2,
    }


def _html(table: Table) -> str:
    """A table as a notebook shows it: the same words as everywhere, the notes below."""
    import pandas as pd

    columns: dict[Any, list[str]] = {("", "#"): [row.place for row in table.rows]}
    columns["", "clean"] = [row.clean.figure for row in table.rows]
    columns["", "robust"] = [row.headline for row in table.rows]
    for column in table.columns:
        columns[str(column.access), column.attack] = [row.entries[column].figure for row in table.rows]
    frame = pd.DataFrame(columns, index=[row.label for row in table.rows])
    said = "".join(f"<p>{html.escape(text)}</p>" for text in (*table.remarks, *table.notes))
    return f"<p><b>{html.escape(table.title)}</b></p>{frame.to_html(border=0)}{said}"
