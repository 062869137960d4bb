"""What came of an evaluation: numbers, tables, data frames and images, all read from evidence."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from benchbox.domain import NULL_ATTACK
from benchbox.engine.request import ALIASES, Grid
from benchbox.errors import RequestError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from rich.console import RenderableType

    from benchbox.analysis.background import Background
    from benchbox.analysis.comparison import Comparison
    from benchbox.analysis.paper_layout import Layout
    from benchbox.analysis.table import Row, Table
    from benchbox.domain import Cell, Evidence
    from benchbox.report.document import Document, Section
    from benchbox.store import Records


def known_of(evidence: Sequence[Evidence], store: Records) -> Background:
    """What was noted of the defences when they were run, their audits, and how all weights were trained."""
    from benchbox.analysis.background import Background

    names = {item.cell.defense.name for item in evidence}
    artifacts = {item.cell.artifact for item in evidence}
    attached = store.attachments()  # at once: one question for each cell would take seconds
    noted = {name: store.recall(f"defense {name}") or {} for name in sorted(names)}
    return Background(
        purifiers=[name for name, kind in noted.items() if kind.get("purifies")],
        oracles=[name for name, kind in noted.items() if not kind.get("deployable", True)],
        randomized=[name for name, kind in noted.items() if kind.get("randomized")],
        kinds=noted,
        audits={artifact: found for artifact in artifacts if (found := attached.get((artifact, "audit")))},
        # Of all cells: the names of the craftings of ten thousand would take longer than their report.
        gradients={key: found for (key, kind), found in attached.items() if kind == "gradients"},
        contract={artifact: found for artifact in artifacts if (found := attached.get((artifact, "contract")))},
        papers={name: kind["bibtex"] for name, kind in noted.items() if kind.get("bibtex")},
        cards=store.artifacts(),
    )


class _Shown:
    """Shows itself: as text in Python, as a table in a notebook."""

    def document(self) -> Document:
        """What it has to say, for every format."""
        raise NotImplementedError

    def table(self, format: str = "terminal") -> str:
        """The report as text.

        Args:
            format: `terminal`, `markdown`, `latex`, `html`, `csv` or `json`.

        Raises:
            RequestError: There is no such format.
        """
        from benchbox import report

        text = report.render(self.document(), format)
        return "\n".join(line.rstrip() for line in text.splitlines()).rstrip() if format == "terminal" else text

    def renderable(self) -> RenderableType:
        """The report as something `rich` can print."""
        from benchbox import report

        return report.renderable(self.document())

    def _repr_html_(self) -> str:
        return "".join(map(_html, self.document().sections)) or "<p>nothing is stored</p>"

    def to_dataframe(self) -> pd.DataFrame:
        """Every number with what is needed to trust it; the columns are those of the CSV report."""
        import pandas as pd

        document = self.document()
        said = [{key: value for key, value in line.items() if value != ""} for line in document.lines()]
        return pd.DataFrame(said, columns=list(document.fields))

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
    known: Background
    store: str
    failed: Mapping[str, str] = field(default_factory=dict)

    def only(self, **words: Any) -> Result:
        """The cells that fit: the words of a request, say `attacks="pgd"`, `access="bpda"`, `epsilon="8/255"`.

        The null attack stays with its row, whose control it is. Settings, weights and protocols choose no cells.

        Raises:
            RequestError: A word does not fit, or no cell does.
        """
        asked = Grid().with_options(words)
        given = {ALIASES.get(word, word): word for word in words}
        for name, word in given.items():
            if name not in _FITS:
                told = f"{word}={words[word]!r} chooses no stored cells"
                raise RequestError(f"{told}; these words do: {', '.join(_FITS)}")
        kept = tuple(e for e in self.evidence if all(_FITS[name](e.cell, asked) for name in given))
        if not kept:
            said = ", ".join(f"{word} {value}" for word, value in words.items())
            raise RequestError(
                f"{self.store} holds nothing of {said}; `benchbox report` without them says what it holds"
            )
        return replace(self, evidence=kept)

    @property
    def tables(self) -> list[Table]:
        """One for each data set, ball and list of images."""
        from benchbox.analysis.leaderboard import build

        return build(self.evidence, self.known)

    @property
    def robust(self) -> float:
        """Share of all images, in [0, 1], that are right as they are and under every finished attack.

        Raises:
            RequestError: There are several defences, or none whose number counts.
        """
        row = self._counting()
        if row.robust is None:
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

    @property
    def certified(self) -> float:
        """Share of all images, in [0, 1], of which the defence proves that no image of the ball is misclassified.

        Raises:
            RequestError: There are several defences, or nothing is proven of the one, or its numbers do not count.
        """
        row = self._counting()
        if row.certified is None:
            raise RequestError(f"nothing is proven of {row.label}; print the result to see why")
        return row.certified.percent / 100

    def document(self, against: str | None = None) -> Document:
        """The leaderboard, for every format.

        Args:
            against: Name, label or digest of the defence that every other is compared with.

        Raises:
            RequestError: There is nothing or too much to compare with.
        """
        from benchbox import report

        return report.tabulate(self.evidence, self.known, against=against)

    def paper_table(self, layout: int | Layout, *, paper: bool = False, intervals: bool = False) -> Document:
        """A table in the shape of the PSSR paper's, for every format.

        Args:
            layout: 1 to 4, or which rows, columns, data sets and accesses.
            paper: Print the paper's numbers beside ours.
            intervals: Print 95 % intervals.

        Raises:
            RequestError: Nobody knows a row, a column or a data set of the layout.
        """
        from benchbox import report
        from benchbox.analysis.paper_layout import Layout

        chosen = layout if isinstance(layout, Layout) else Layout(layout)
        return report.paper_table(self.evidence, self.known, layout=chosen, paper=paper, intervals=intervals)

    def conventions(self) -> Document:
        """What was scored in several draws, by every convention of counting them, for every format."""
        from benchbox.report import conventions

        return conventions.document(self.evidence)

    def attacks(self) -> Document:
        """Each defence beside the others under every way it was attacked, and what that cost, for every format."""
        from benchbox.report import attacks

        return attacks.document(self.tables)

    def audits(self) -> Document:
        """What the audits of the defences found, for every format."""
        from benchbox.audit import CHECKS
        from benchbox.report import audits

        return audits.document(self.tables, self.known.audits, {check.id: check.name for check in CHECKS})

    def cost(self) -> Document:
        """Passes and minutes of every cell, for every format."""
        from benchbox.report import cost

        return cost.document(self.evidence)

    def paper_numbers(self) -> Document:
        """What came of each number of the PSSR paper's tables, for every format."""
        from benchbox.analysis.reproduction import answers
        from benchbox.report import paper_numbers

        return paper_numbers.document(answers(self.tables))

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

        A cell is its `key`; `defense_label` and `attack_label` say what sets its recipe, weights and settings
        apart, as the leaderboard does. `clean` and `adversarial` are the shares of scoring draws that are right:
        `fates().groupby(["key", "label"])` is the accuracy by class. `certified` is missing where nothing is
        proven, `linf` and `l2` where they were not kept for each image, as in a published file.
        """
        from benchbox.report import fates

        return fates.frame(self.evidence, self.tables)

    def _counting(self) -> Row:
        """The one row, if its numbers are what they say."""
        row = self._row()
        if row.withheld or row.invalid:
            why = row.headline if row.withheld else f"its audit says {row.badge}"
            raise RequestError(f"{row.label} has no number that counts: {why}; print the result to see why")
        return row

    def _row(self) -> Row:
        rows = [row for table in self.tables for row in table.rows]
        if len(rows) != 1:
            named = ", ".join(row.label for row in rows)
            raise RequestError(f"{len(rows)} rows are there ({named or 'none'}); use to_dataframe() or table()")
        return rows[0]


@dataclass(frozen=True, repr=False)
class Compared(_Shown):
    """Two defences image by image, once for each data set and ball.

    Attributes:
        comparisons: The differences, their intervals and tests.
    """

    comparisons: tuple[Comparison, ...]

    def document(self) -> Document:
        """The comparison, for every format."""
        from benchbox.report import comparison

        return comparison.document(self.comparisons)


def _is_control(cell: Cell) -> bool:
    return cell.attack.name == NULL_ATTACK


#: What a stored cell knows of the words of a request.
_FITS: Mapping[str, Callable[[Cell, Grid], bool]] = {
    "defenses": lambda cell, asked: cell.defense.name in asked.defenses,
    "datasets": lambda cell, asked: cell.samples.dataset in asked.datasets,
    "attacks": lambda cell, asked: (
        _is_control(cell) or cell.attack.name in asked.attacks or "all" in asked.attacks
    ),
    "accesses": lambda cell, asked: _is_control(cell) or cell.access in asked.accesses,
    "sources": lambda cell, asked: True,  # a cell knows the weights it was crafted on, and no names
    "samples": lambda cell, asked: len(cell.samples) == asked.samples,
    "sample_seed": lambda cell, asked: cell.samples.seed == asked.sample_seed,
    "seeds": lambda cell, asked: cell.training_seed in asked.seeds,
    "attack_seed": lambda cell, asked: cell.attack_seed == asked.attack_seed,
    "scoring_draws": lambda cell, asked: cell.scoring_draws == asked.scoring_draws,
    "eot": lambda cell, asked: cell.eot == asked.eot,
    "search_precision": lambda cell, asked: _is_control(cell) or cell.search_precision == asked.search_precision,
    "epsilon": lambda cell, asked: any(math.isclose(cell.threat.epsilon, radius) for radius in asked.epsilon),
    "norm": lambda cell, asked: cell.threat.norm == asked.norm,
}


def _is(item: Evidence, attack: str, access: str | None, defense: str | None) -> bool:
    cell = item.cell
    return (
        cell.attack.name == attack and access in (None, str(cell.access)) and defense in (None, cell.defense.name)
    )


def _html(section: Section) -> str:
    """A section as a notebook shows it: the same words as everywhere, the notes below."""
    import pandas as pd

    said = [f"<p><b>{html.escape(section.title)}</b></p>"]
    for grid in section.grids:
        columns = {
            (column.group, column.title): [row[i].text for row in grid.rows]
            for i, column in enumerate(grid.columns)
            if i != grid.head
        }
        frame = pd.DataFrame(columns, index=[row[grid.head].text for row in grid.rows])
        said.append(frame.to_html(border=0))
    lines = (*section.notes, *section.sentences, *section.remarks)
    return "".join([*said, *(f"<p>{html.escape(line)}</p>" for line in lines)])
