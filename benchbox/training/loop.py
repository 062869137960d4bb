"""The one training loop. A defence states its losses and who minimises them; the loop is here.

Everything random is drawn per sample from (seed, epoch, index), or from torch's generator re-seeded at the
start of each epoch (dropout) and kept with what is kept inside one, so a training that was killed and resumed
ends in the same weights.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from benchbox.contract import border
from benchbox.contract.defense import Batch, Defense, Recipe
from benchbox.contract.process import modes
from benchbox.domain import ThreatModel
from benchbox.draws import Draws
from benchbox.errors import DefenseError
from benchbox.training import layout
from benchbox.training.checkpoint import Checkpoint, Midway, State
from benchbox.training.precision import Precision, float32_outputs, reduced

#: Images prepared at once: what fits a CPU's cache, and what fills a GPU.
PREPARE_BATCH = {"cpu": 125, "cuda": 500}
#: Steps between two reports; reading the losses waits for the device.
REPORT_EVERY = 10
#: Shares of the training after which the schedules with steps divide the learning rate by 10.
STEPS = {"step": (0.75, 0.9), "step-early": (0.5, 0.75), "step-late": (100 / 110, 105 / 110)}


class TrainingImages(Protocol):
    """What the loop needs of a data set."""

    def __len__(self) -> int:
        """Number of images."""

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W) float32 in [0, 1] and labels (n,) at some positions."""


@dataclass(frozen=True)
class Progress:
    """Where a training stands. `done` of `total` steps; the mean of each loss term over the last steps."""

    phase: str
    done: int
    total: int
    epoch: int = 0
    terms: Mapping[str, float] | None = None


def fit(
    defense: Defense,
    recipe: Recipe,
    images: TrainingImages,
    *,
    threat: ThreatModel,
    seed: int,
    device: torch.device,
    precision: Precision = "float32",
    checkpoint: Path | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> list[dict[str, float]]:
    """Train a defence in place.

    Args:
        defense: Built, untrained; its classifier already trained and frozen if it has a base.
        recipe: The hyper-parameters of the loop.
        images: The training set.
        threat: The ball that training attacks keep to.
        seed: Initial weights are the caller's; this seeds order, augmentation, attacks and dropout.
        device: Where to train.
        precision: Of the products in the networks; `benchbox.training.precision` says where it applies.
        checkpoint: File written after every epoch, and within one every half a minute, and read at the start, so
            that a killed training resumes.
        report: Called a few times a second at most by the loop's own rhythm.

    Returns:
        The mean of every loss term, one mapping an epoch; with it the score of the held-out images, if any, as
        `validation`.
    """
    course = _Course(recipe, images, threat, seed, device, precision, defense.validation)
    _lay_out(defense.to(device), course)
    prepared = _prepare(defense, course, report)
    if prepared:
        defense.calibrate(prepared)
    players = {name: parameters for name, parameters in defense.players().items() if parameters}
    own = defense.learning_rates()
    optimizers = {
        name: _optimizer(recipe, parameters, own.get(name, recipe.learning_rate))
        for name, parameters in players.items()
    }
    file = Checkpoint(checkpoint, defense, optimizers)
    state = file.read()
    history, best, midway = state.history, state.best, state.midway
    for epoch in range(len(history), recipe.epochs) if players else ():
        # Called whenever a kill would cost too much.
        keep = partial(_keep, file, history, best, device)
        terms = _epoch(defense, course, prepared, players, optimizers, epoch, report, midway, keep)
        midway = None
        if course.held_out is not None:
            terms["validation"] = _validate(defense, course, prepared)
            # The first of several equally good epochs, as in the literature.
            if all(terms["validation"] > earlier["validation"] for earlier in history):
                best = {name: value.detach().cpu().clone() for name, value in defense.state_dict().items()}
        history.append(terms)
        file.write(State(history, best))
    if best:
        defense.load_state_dict(best)
    return history


@dataclass(frozen=True)
class _Course:
    """What stays the same throughout a training."""

    recipe: Recipe
    images: TrainingImages
    threat: ThreatModel
    seed: int
    device: torch.device
    precision: Precision
    validation: float

    @property
    def steps(self) -> int:
        return math.ceil(len(self.rows) / self.recipe.batch_size)

    @property
    def prepared_at_once(self) -> int:
        return PREPARE_BATCH.get(self.device.type, PREPARE_BATCH["cpu"])

    @cached_property
    def held_out(self) -> Tensor | None:
        """Rows that no step sees, at least one; None without validation."""
        if self.validation <= 0:
            return None
        count = max(1, round(self.validation * len(self.images)))
        draws = Draws(torch.arange(len(self.images)), self.seed).at("validation")
        return draws.uniform(1)[:, 0].argsort(stable=True)[:count]

    @cached_property
    def rows(self) -> Tensor:
        """Rows to train on."""
        everything = torch.arange(len(self.images))
        return everything if self.held_out is None else everything[~torch.isin(everything, self.held_out)]

    def batch(self, rows: Tensor, prepared: Mapping[str, Tensor], epoch: int, step: int) -> Batch:
        batch = self.plain_batch(rows, prepared, "epoch", epoch)
        x, made = batch.x, batch.prepared
        if self.recipe.augment:
            draws = batch.draws.at("augment")
            x = crop_and_flip(x, draws)
            # What was prepared of an image moves with it.
            made = {k: crop_and_flip(v, draws) if v.dim() == 4 else v for k, v in made.items()}
        progress = (epoch + step / self.steps) / self.recipe.epochs
        return replace(batch, x=x, prepared=made, progress=progress)

    def plain_batch(self, rows: Tensor, prepared: Mapping[str, Tensor], *purpose: str | int) -> Batch:
        x, y = self.images.batch(rows)
        draws = Draws(rows.to(self.device), self.seed).at(*purpose)
        made = {name: values[rows].to(self.device) for name, values in prepared.items()}
        return Batch(x.to(self.device), y.to(self.device), draws, 0.0, self.threat, made)


def _lay_out(defense: Defense, course: _Course) -> None:
    """Channels-last weights, the faster ones, unless the defence is seen to raise with them.

    A rule without a clock: the same training ends in the same weights.
    """
    few = course.plain_batch(torch.arange(min(layout.TRIED, len(course.images))), {}, "layout")
    defense.eval()
    undo = modes()
    with torch.random.fork_rng(devices=[course.device] if course.device.type == "cuda" else []):
        layout.answer_channels_last(defense, defense, few.x, few.draws)
    undo()


def _epoch(
    defense: Defense,
    course: _Course,
    prepared: Mapping[str, Tensor],
    players: Mapping[str, list[nn.Parameter]],
    optimizers: Mapping[str, Optimizer],
    epoch: int,
    report: Callable[[Progress], None],
    midway: Midway | None,
    keep: Callable[[int, Mapping[str, Tensor]], None],
) -> dict[str, float]:
    with torch.random.fork_rng(devices=[course.device] if course.device.type == "cuda" else []):
        torch.manual_seed(_epoch_seed(course.seed, epoch))
        order = course.rows[torch.randperm(len(course.rows))]
        defense.train()
        if defense.base is not None:
            defense.classifier.eval()
        sums = {name: value.to(course.device) for name, value in midway.sums.items()} if midway else {}
        if midway:
            midway.throw_on(course.device)
        done, parts = midway.steps if midway else 0, order.split(course.recipe.batch_size)
        for step, rows in enumerate(parts[done:], done):
            batch = course.batch(rows, prepared, epoch, step)
            _set_rate(optimizers, rate(course.recipe.schedule, batch.progress))
            for name, value in _step(defense, course, batch, players, optimizers).items():
                sums[name] = sums[name] + value if name in sums else value
            if step % REPORT_EVERY == REPORT_EVERY - 1 or step == course.steps - 1:
                terms = {name: float(value) / (step + 1) for name, value in sums.items()}
                total = course.recipe.epochs * course.steps
                report(Progress("train", epoch * course.steps + step + 1, total, epoch + 1, terms))
            if step < course.steps - 1:
                keep(step + 1, sums)
    return terms


def _keep(
    file: Checkpoint,
    history: list[dict[str, float]],
    best: dict[str, Tensor],
    device: torch.device,
    steps: int,
    sums: Mapping[str, Tensor],
) -> None:
    if file.is_due:
        file.write(State(history, best, Midway.now(steps, sums, device)))


def _step(
    defense: Defense,
    course: _Course,
    batch: Batch,
    players: Mapping[str, list[nn.Parameter]],
    optimizers: Mapping[str, Optimizer],
) -> dict[str, Tensor]:
    with reduced(course.device, course.precision), float32_outputs(defense):
        undo = modes()
        losses = defense.losses(batch)
        undo()
    _check_losses(losses, players, defense.card.name)
    names = list(players)
    for i, name in enumerate(names):
        # Each player's loss moves its own parameters only, whatever else it flows through.
        total = torch.stack(list(losses[name].values())).sum()
        gradients = torch.autograd.grad(total, players[name], retain_graph=i + 1 < len(names), allow_unused=True)
        for parameter, gradient in zip(players[name], gradients, strict=True):
            parameter.grad = gradient
    for optimizer in optimizers.values():
        optimizer.step()
    return {term: value.detach() for terms in losses.values() for term, value in terms.items()}


def _check_losses(losses: object, players: Mapping[str, list[nn.Parameter]], name: str) -> None:
    """Refuse what cannot be minimised.

    Raises:
        DefenseError: No terms by name for each player, or one that is no number of float type.
    """
    for player in players:
        terms = losses.get(player) if isinstance(losses, Mapping) else None
        if not (isinstance(terms, Mapping) and terms):
            shown = sorted(losses) if isinstance(losses, Mapping) else type(losses).__name__
            raise DefenseError(
                f"defence {name}: losses() returned {shown} and no terms for {player!r}; return "
                f"{{{player!r}: {{'a name': a tensor of one number}}}}"
            )
        for term, value in terms.items():
            shape = tuple(border.tensor(value, f"defence {name}: loss {term!r}").shape)
            if shape:
                raise DefenseError(f"defence {name}: loss {term!r} has shape {shape}; reduce it to one number")


def _validate(defense: Defense, course: _Course, prepared: Mapping[str, Tensor]) -> float:
    """Mean score of the held-out images."""
    assert course.held_out is not None
    defense.eval()
    parts = course.held_out.split(course.prepared_at_once)
    with torch.no_grad():
        scores = [defense.validate(course.plain_batch(rows, prepared, "validation")) for rows in parts]
    return float(torch.cat(scores).double().mean())


def _prepare(defense: Defense, course: _Course, report: Callable[[Progress], None]) -> dict[str, Tensor]:
    defense.eval()
    parts: dict[str, list[Tensor]] = {}
    n = len(course.images)
    for rows in torch.arange(n).split(course.prepared_at_once):
        with reduced(course.device, course.precision), float32_outputs(defense):
            all_made = defense.prepare(course.plain_batch(rows, {}, "prepare"))
        for name, made in all_made.items():
            parts.setdefault(name, []).append(made.detach().cpu())
        if not parts:
            return {}
        report(Progress("prepare", int(rows[-1]) + 1, n))
    return {name: torch.cat(chunks) for name, chunks in parts.items()}


def crop_and_flip(x: Tensor, draws: Draws) -> Tensor:
    """Random crop after zero padding of one eighth, and a horizontal flip of every other image; (N, C, S, S)."""
    n, channels, size, _ = x.shape
    pad = size // 8
    padded = F.pad(x, (pad, pad, pad, pad))
    offset = draws.at("crop").integers(2 * pad + 1, 2)
    flip = draws.at("flip").uniform(1)[:, 0] < 0.5
    steps = torch.arange(size, device=x.device)
    columns = torch.where(flip[:, None], steps.flip(0), steps) + offset[:, 1:]
    tall = padded.gather(2, (steps + offset[:, :1]).view(n, 1, size, 1).expand(n, channels, size, size + 2 * pad))
    return tall.gather(3, columns.view(n, 1, 1, size).expand(n, channels, size, size))


def _optimizer(recipe: Recipe, parameters: list[nn.Parameter], learning_rate: float) -> Optimizer:
    decay = recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, learning_rate, momentum=0.9, nesterov=True, weight_decay=decay)
    return torch.optim.Adam(parameters, learning_rate, weight_decay=decay)


def rate(schedule: str, progress: float) -> float:
    """Factor on the learning rate at a share of the training in [0, 1); the schedules are those of `Recipe`."""
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if schedule == "onecycle":
        return progress / 0.3 if progress < 0.3 else 0.5 * (1 + math.cos(math.pi * (progress - 0.3) / 0.7))
    # Divided, not multiplied by 0.1: the result is the float nearest to 0.01.
    return 1 / 10.0 ** sum(progress >= step for step in STEPS.get(schedule, ()))


def _set_rate(optimizers: Mapping[str, Optimizer], factor: float) -> None:
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            # Never exactly 0: the first step of a one-cycle schedule would be lost.
            group["lr"] = optimizer.defaults["lr"] * max(factor, 1e-4)


def _epoch_seed(seed: int, epoch: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/epoch/{epoch}".encode(), digest_size=6).digest())
