"""What happened to each image of each cell: a data frame, for accuracy by class and whatever else one may ask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from benchbox.analysis.table import Table
    from benchbox.domain import Cell, Evidence

COLUMNS = (
    *("key", "dataset", "defense", "defense_label", "artifact", "training_seed"),
    *("attack", "attack_label", "attack_seed", "access", "through", "norm", "epsilon"),
    *("index", "label", "clean", "adversarial", "linf", "l2", "certified"),
)


def frame(evidence: Iterable[Evidence], tables: Sequence[Table]) -> pd.DataFrame:
    """One line for each cell and image.

    Args:
        evidence: The cells.
        tables: The leaderboard of them, for what defences and attacks are called beside the others.
    """
    import pandas as pd

    rows = {
        (table.samples, table.threat, row.defense.identity, row.training_seed, row.artifact): row.label
        for table in tables
        for row in table.rows
    }
    attacks = {
        measurement.evidence.cell.key: column.attack
        for table in tables
        for row in table.rows
        for column, entry in row.own.items()
        for measurement in entry.measurements
    }

    def called(cell: Cell) -> dict[str, str]:
        row = cell.samples, cell.threat, cell.defense.identity, cell.training_seed, cell.artifact
        return {"defense_label": rows[row], "attack_label": attacks.get(cell.key, cell.attack.name)}

    fates = [pd.DataFrame(_fate(item) | called(item.cell), columns=list(COLUMNS)) for item in evidence]
    return pd.concat(fates or [pd.DataFrame(columns=list(COLUMNS))], ignore_index=True)


def _fate(item: Evidence) -> dict[str, Any]:
    cell, outcome = item.cell, item.outcome
    # Of a published cell only the largest of all distances is known, which is no image's own.
    unknown = np.full(len(outcome), np.nan)
    return {
        "key": cell.key,
        "dataset": cell.samples.dataset,
        "defense": cell.defense.name,
        "artifact": cell.artifact,
        "training_seed": cell.training_seed,
        "attack": cell.attack.name,
        "attack_seed": cell.attack_seed,
        "access": str(cell.access),
        "through": cell.view.stand_in or "",
        "norm": cell.threat.norm,
        "epsilon": cell.threat.epsilon,
        "index": [cell.samples.indices[position] for position in outcome.position],
        "label": outcome.label,
        "clean": outcome.clean_correct,
        "adversarial": outcome.robust,
        "linf": outcome.linf if outcome.measured else unknown,
        "l2": outcome.l2 if outcome.measured else unknown,
        "certified": outcome.certified,
    }
