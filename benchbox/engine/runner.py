"""Runs a plan: craft, check, score, commit; batch by batch, so that it can be killed at any time.

What is attacked is a view, what is scored is the deployed defence, and their random streams never meet.
A cell that fails is a row with its error; the grid goes on.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from benchbox.contract import border
from benchbox.contract.attack import Attack, Crafted
from benchbox.contract.defense import Defense
from benchbox.contract.registry import Registry
from benchbox.contract.view import Forward, View
from benchbox.data.dataset import Dataset
from benchbox.domain import Access, Cell, Outcome
from benchbox.draws import Draws
from benchbox.engine import transfer
from benchbox.engine.judge import score
from benchbox.engine.plan import Plan
from benchbox.errors import BenchboxError, DefenseError, StoreError
from benchbox.store import Adversarials, Store
from benchbox.training.artifacts import Training
from benchbox.training.loop import Progress
from benchbox.training.workshop import Workshop


class Observer(Protocol):
    """Hears of everything that happens; the command line draws it."""

    def training(self, wanted: Training, progress: Progress) -> None:
        """A training moved on."""

    def cell(self, cell: Cell, done: int, total: int) -> None:
        """`done` of `total` samples of a cell are in the store."""

    def failed(self, cell: Cell, error: str) -> None:
        """A cell ended with an error."""


@dataclass
class Report:
    """What a run did. Seconds are spent in crafting, in scoring, and in everything else.

    `crashed` of the `failed` cells ended with something other than a `BenchboxError`: a bug in a plug-in.
    """

    done: int = 0
    reused: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    crashed: int = 0
    crafting: float = 0.0
    scoring: float = 0.0
    training: float = 0.0
    total: float = 0.0


class Runner:
    """Fills the cells of a plan.

    Args:
        store: Where outcomes go.
        workshop: Where defences come from.
        attacks: The plug-ins.
        dataset: The images.
        device: Where models run.
        batch_size: Images attacked at once; results do not depend on it.
        observer: Hears of progress.
    """

    def __init__(
        self,
        store: Store,
        workshop: Workshop,
        attacks: Registry[Attack],
        dataset: Dataset,
        device: torch.device,
        batch_size: int,
        observer: Observer,
    ) -> None:
        self.store = store
        self.workshop = workshop
        self.attacks = attacks
        self.dataset = dataset
        self.device = device
        self.batch_size = batch_size
        self.observer = observer
        self._clean: dict[tuple[str, bytes, int], Tensor] = {}

    def run(self, plan: Plan, run: int) -> Report:
        """Run every cell that is not in the store yet.

        Args:
            plan: What to run.
            run: The run's number in the store, for provenance.
        """
        report = Report()
        start = time.perf_counter()
        for cell in plan.cells:
            self.store.add_cell(cell, run)
            todo = np.setdiff1d(np.arange(len(cell.samples)), self.store.positions(cell))
            if len(todo) == 0 and self._described(cell):
                report.reused += 1
                continue
            try:
                self._fill(cell, todo, plan.trainings, report)
                report.done += 1
            except StoreError:
                raise
            except BenchboxError as error:
                self._fail(cell, str(error), report)
            except Exception as error:  # a bug in one plug-in must not cost the two hundred other cells
                report.crashed += 1
                where = traceback.extract_tb(error.__traceback__)[-1]
                self._fail(cell, f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})", report)
        report.total = time.perf_counter() - start
        return report

    def _described(self, cell: Cell) -> bool:
        """Whether nothing is missing beside the samples; a run may have ended between the two."""
        return cell.access is not Access.TRANSFER or self.store.attached(cell.key, "transfer") is not None

    def _fail(self, cell: Cell, error: str, report: Report) -> None:
        self.store.fail(cell, error)
        self.observer.failed(cell, error)
        report.failed[cell.key] = error

    def _fill(self, cell: Cell, todo: np.ndarray, trainings: Mapping[str, Training], report: Report) -> None:
        start = time.perf_counter()
        defense = self.workshop.obtain(trainings[cell.artifact])
        source = self.workshop.obtain(trainings[cell.view.artifact])
        attack = self._attack(cell)
        report.training += time.perf_counter() - start
        done = len(cell.samples) - len(todo)
        self.observer.cell(cell, done, len(cell.samples))
        for positions in _batches(todo, self.batch_size):
            start = time.perf_counter()
            outcome, images, scoring = self._batch(cell, positions, defense, source, attack)
            seconds = time.perf_counter() - start
            self.store.commit_batch(cell, outcome, seconds=seconds, crafted=images)
            report.scoring += scoring
            report.crafting += seconds - scoring
            done += len(positions)
            self.observer.cell(cell, done, len(cell.samples))
        if cell.access is Access.TRANSFER:
            self.store.attach(cell.key, "transfer", self._transfer(cell, source, defense))

    def _batch(
        self, cell: Cell, positions: np.ndarray, defense: Defense, source: Defense, attack: Attack
    ) -> tuple[Outcome, Adversarials | None, float]:
        indices = torch.tensor([cell.samples.indices[p] for p in positions])
        x, y = (t.to(self.device) for t in self.dataset.test.batch(indices))
        x = x.contiguous(memory_format=torch.channels_last)
        draws = Draws(indices.to(self.device), cell.attack_seed)
        for model in (defense, source):
            if not model.deployable:
                model.reveal(x, draws)
        start = time.perf_counter()
        clean = self._clean_predictions(cell, defense, x, draws)
        scoring = time.perf_counter() - start
        stored = self.store.crafted(cell.craft_key, positions)
        if stored is None:
            crafted = self._craft(cell, source, attack, x, y, draws)
            images = _adversarials(cell, positions, crafted)
        else:
            crafted, images = _crafted(stored, self.device), None
        start = time.perf_counter()
        adversarial = score(
            defense,
            crafted.x,
            draws.at("score", "adversarial"),
            cell.scoring_draws,
            self.dataset.spec.classes,
        )
        scoring += time.perf_counter() - start
        return outcome_of(positions, x, y, clean, adversarial, crafted), images, scoring

    def _clean_predictions(self, cell: Cell, defense: Defense, x: Tensor, draws: Draws) -> Tensor:
        key = (cell.artifact, draws.indices.cpu().numpy().tobytes(), cell.attack_seed)
        if key not in self._clean:
            self._clean[key] = score(
                defense, x, draws.at("score", "clean"), cell.scoring_draws, self.dataset.spec.classes
            )
        return self._clean[key]

    def _craft(self, cell: Cell, source: Defense, attack: Attack, x: Tensor, y: Tensor, draws: Draws) -> Crafted:
        # Every sample is attacked, also one that is wrong already: another defence may score these images.
        stream = draws.at("craft", attack.card.name)
        with border.crossing(type(source), DefenseError):
            forward = _forward(source, cell.view.stand_in)
            view = View(forward, y, stream.at("model"), randomized=source.randomized, eot=cell.eot)
            return attack(view, x, y, cell.threat, stream)

    def _transfer(self, cell: Cell, source: Defense, defense: Defense) -> dict[str, float]:
        stored = self.store.crafted(cell.craft_key, np.arange(len(cell.samples)))
        assert stored is not None
        x, y = (t.to(self.device) for t in self.dataset.test.batch(cell.samples.indices))
        return transfer.describe(source, defense, x, torch.from_numpy(stored.x).to(self.device), y)

    def _attack(self, cell: Cell) -> Attack:
        plugin = self.attacks.get(cell.attack.name)
        return plugin.cls(**cell.attack.arguments)


def _forward(source: Defense, stand_in: str | None) -> Forward:
    forward = source if stand_in is None else source.surrogates()[stand_in]
    return border.guarded(forward, type(source), f"defence {source.card.name}")


def _batches(positions: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(positions), size):
        yield positions[start : start + size]


def _adversarials(cell: Cell, positions: np.ndarray, crafted: Crafted) -> Adversarials:
    return Adversarials(
        craft_key=cell.craft_key,
        position=positions,
        x=crafted.x.contiguous(memory_format=torch.contiguous_format).cpu().numpy(),
        first_success=crafted.first_success.cpu().numpy(),
        forwards=crafted.forwards.numpy(),
        backwards=crafted.backwards.numpy(),
    )


def _crafted(stored: Adversarials, device: torch.device) -> Crafted:
    return Crafted(
        torch.from_numpy(stored.x).to(device, memory_format=torch.channels_last),
        torch.from_numpy(stored.first_success),
        torch.from_numpy(stored.forwards),
        torch.from_numpy(stored.backwards),
    )


def outcome_of(
    positions: np.ndarray, x: Tensor, y: Tensor, clean: Tensor, adversarial: Tensor, crafted: Crafted
) -> Outcome:
    """What happened to a batch.

    Args:
        positions: (n,) places in the sample list.
        x: (n, C, H, W) clean images.
        y: (n,) true classes.
        clean: (n, R) predicted classes on them.
        adversarial: (n, R) predicted classes on the adversarial images.
        crafted: The adversarial images.
    """
    delta = (crafted.x - x).flatten(1)
    return Outcome(
        position=positions,
        label=y.cpu().numpy(),
        clean=clean.cpu().numpy(),
        adversarial=adversarial.cpu().numpy(),
        first_success=crafted.first_success.cpu().numpy(),
        linf=delta.abs().amax(1).double().cpu().numpy(),
        l2=delta.norm(dim=1).double().cpu().numpy(),
        forwards=crafted.forwards.numpy(),
        backwards=crafted.backwards.numpy(),
    )
