"""Synthetic evidence with known answers, and what its tables say."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchbox import report
from benchbox.analysis import leaderboard
from benchbox.analysis.background import NOTHING, Background
from benchbox.analysis.table import Row, Table
from benchbox.domain import Access, Cell, Evidence, Nature, Outcome, SampleList, Spec, ThreatModel, ViewSpec
from benchbox.report.leaderboard import document as leaderboard_document

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
N = 100
SAMPLES = SampleList("mnist", "test", tuple(range(N)), "d" * 64)
THREAT = ThreatModel("linf", 0.3)
#: An attack of every kind that a rank needs, so that one cell can be ranked where a test is about something else.
EVERYTHING = Nature(
    "ensemble",
    climbs=("cross-entropy",),
    families=("score-based", "decision-based"),
    steps=40,
    step=1 / 30,
    queries=1000,
)
GRAY, WHITE, BPDA, TRANSFER = Access.GRAY_BOX, Access.WHITE_BOX, Access.BPDA, Access.TRANSFER


def outcome(right: np.ndarray, clean: np.ndarray) -> Outcome:
    """Label 0 everywhere; a wrong prediction is 1. Both (n, R)."""
    n = len(right)
    return Outcome(
        position=np.arange(n),
        label=np.zeros(n, np.int64),
        clean=np.where(clean, 0, 1),
        adversarial=np.where(right, 0, 1),
        first_success=np.full(n, -1),
        linf=np.full(n, 0.3),
        l2=np.full(n, 4.0),
        forwards=np.full(n, 41.0),
        backwards=np.full(n, 40.0),
    )


def first(k: int, n: int = N) -> np.ndarray:
    """(n, 1): the first k samples are right."""
    return (np.arange(n) < k)[:, None]


def evidence(
    name: str = "none",
    access: Access = WHITE,
    attack: str = "pgd",
    right: np.ndarray | int = 50,
    *,
    clean: np.ndarray | int = 99,
    arguments: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    stand_in: str | None = None,
    **cell: Any,
) -> Evidence:
    right = first(right) if isinstance(right, int) else right
    clean = np.repeat(first(clean), right.shape[1], 1) if isinstance(clean, int) else clean
    defense = Spec(name, dict(arguments or {}), "benchbox/1")
    weights = f"weights of {name} {sorted(defense.arguments.items())}"
    source = {GRAY: "base", TRANSFER: "substitute"}.get(access, cell.get("artifact", weights))
    view = ViewSpec(source, stand_in)
    made = Cell(defense, weights, Spec(attack, dict(settings or {}), "benchbox/1"), access, view, THREAT, SAMPLES)
    made = replace(made, **{"scoring_draws": right.shape[1], "nature": EVERYTHING, **cell})
    return Evidence(
        made,
        outcome(right, clean),
        "done",
        seconds=1.5,
        run=3,
        created="2025-01-01",
        provenance={"commit": "abc123"},
    )


def unfinished(item: Evidence, scored: int) -> Evidence:
    return replace(item, outcome=item.outcome.rows(slice(scored)), status="partial")


def failed(item: Evidence, error: str) -> Evidence:
    return replace(unfinished(item, 0), status="failed", error=error)


def only(items: list[Evidence], known: Background = NOTHING, *, against: str | None = None) -> Table:
    (found,) = leaderboard.build(items, known, against=against)
    return found


def percent(found: Row) -> float | None:
    return found.robust.percent if found.robust else None


def row(found: Table, label: str) -> Row:
    return next(r for r in found.rows if r.label == label)


def rendered(
    items: Sequence[Evidence],
    format: str,
    known: Background | None = None,
    *,
    against: str | None = None,
    **options: Any,
) -> str:
    """The leaderboard of some evidence in a format."""
    return report.render(report.tabulate(items, known, against=against), format, **options)


def small_print(table: Table) -> tuple[str, ...]:
    """The sentences under a table."""
    return tuple(leaderboard_document([table]).sections[0].remarks)


def footnotes(table: Table) -> tuple[str, ...]:
    """What its numbers refer to."""
    return tuple(leaderboard_document([table]).sections[0].notes)
