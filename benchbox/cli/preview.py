"""What a run would do, without doing it: the table of `benchbox run --dry-run`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from benchbox.engine.budget import duration
from benchbox.progress import describe_training
from benchbox.text import counted

if TYPE_CHECKING:
    from benchbox.domain import Cell
    from benchbox.engine.estimate import Estimate
    from benchbox.engine.plan import Plan
    from benchbox.training.artifacts import Artifacts, Training


@dataclass(frozen=True)
class State:
    """A plan held against the store.

    Attributes:
        plan: What was asked for.
        stored: Samples of each cell that are in the store, by key.
    """

    plan: Plan
    stored: Mapping[str, int]

    @property
    def open(self) -> list[Cell]:
        """The cells that have to be run."""
        return [cell for cell in self.plan.cells if self.stored[cell.key] < len(cell.samples)]

    def untrained(self, artifacts: Artifacts) -> list[Training]:
        """What has to be trained for them, in that order."""
        trainings = self.plan.trainings
        needed: dict[str, Training] = {}
        for cell in self.open:
            for key in (cell.artifact, cell.view.artifact):
                needed |= {step.weights: step for step in trainings[key].chain}
        return [step for key, step in needed.items() if step.source is None and key not in artifacts]


def preview(states: Sequence[State], artifacts: Artifacts) -> RenderableType:
    """The cells of some plans, what they share, what is stored and what is trained first."""
    return Group(*(part for state in states for part in _part(state, artifacts)))


def _part(state: State, artifacts: Artifacts) -> list[RenderableType]:
    request = state.plan.request
    axes = list(request.axes)
    table = Table(title=_title(state), title_justify="left", title_style="bold")
    for column in ("defence", "seed", *axes, "attack", "access", "through", "images", "crafting", "state"):
        justify: JustifyMethod = "right" if column in ("seed", "images", "crafting") else "left"
        table.add_column(column, justify=justify, overflow="fold")
    numbers = _craftings(state.plan.cells)
    for cell in state.plan.cells:
        table.add_row(
            cell.defense.name,
            str(cell.training_seed),
            *(_value(cell, axis) for axis in axes),
            cell.attack.name,
            str(cell.access),
            cell.view.stand_in or "",
            str(len(cell.samples)),
            f"#{numbers[cell.craft_key]}",
            _state(state.stored[cell.key], len(cell.samples)),
        )
    return [table, Text(_sentence(state)), *_trainings(state.untrained(artifacts)), Text()]


def _title(state: State) -> str:
    threat = f", {state.plan.cells[0].threat}" if state.plan.cells else ""
    return f"{state.plan.request.dataset}{threat}"


def _craftings(cells: Sequence[Cell]) -> dict[str, int]:
    """A number for each crafting, in the order of the cells."""
    return {key: i + 1 for i, key in enumerate(dict.fromkeys(cell.craft_key for cell in cells))}


def _value(cell: Cell, axis: str) -> str:
    plugin, _, field = axis.rpartition(".")
    values = [spec.arguments[field] for spec in (cell.defense, cell.attack) if spec.name == plugin]
    return str(values[0]) if values else ""


def _state(stored: int, total: int) -> str:
    return "stored" if stored == total else f"{stored} stored" if stored else "to run"


def _sentence(state: State) -> str:
    cells, unfinished = state.plan.cells, state.open
    shared = sum(count > 1 for count in Counter(cell.craft_key for cell in cells).values())
    return (
        f"{counted(len(cells), 'cell')}: {len(cells) - len(unfinished)} stored, {len(unfinished)} to run; "
        f"{counted(len(_craftings(cells)), 'crafting')}, {shared} of them shared by several cells"
    )


def _trainings(untrained: Sequence[Training]) -> list[RenderableType]:
    if not untrained:
        return [Text("nothing has to be trained")]
    steps = "; ".join(
        f"{describe_training(step)} ({counted(step.defense.arguments['epochs'], 'epoch')})" for step in untrained
    )
    return [Text(f"to be trained first: {steps}")]


def duration_of(found: Sequence[Estimate]) -> str:
    """How long all of it will take, and what that stands on."""
    seconds = sum(one.seconds for one in found)
    recorded, timed = sum(one.recorded for one in found), sum(one.timed for one in found)
    unknown = dict.fromkeys(text for one in found for text in one.unknown)
    bases = [
        *([f"{recorded} as long as their like took here before"] if recorded else []),
        *([f"{timed} by their passes and one timed pass"] if timed else []),
    ]
    words = f"at most about {duration(seconds)} ({', '.join(bases)})" if bases else ""
    rest = f"not known: {', '.join(unknown)}" if unknown else ""
    return "; ".join(filter(None, (words, rest))) or "nothing is left to do"
