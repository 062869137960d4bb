"""The unit of work: some images of one cell, crafted and scored. Pure, so that it can run in any process."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchbox.contract import border
from benchbox.contract.attack import Attack, Crafted
from benchbox.contract.view import View
from benchbox.data.dataset import Dataset
from benchbox.domain import Cell, Outcome
from benchbox.engine.judge import Judge, Streams
from benchbox.errors import AttackError, DefenseError
from benchbox.store import Adversarials, clean_images
from benchbox.training.layout import is_out_of_memory


@dataclass(frozen=True)
class Unit:
    """Some images of a cell.

    Attributes:
        cell: The cell.
        positions: (n,) places in its sample list.
        stored: Their adversarial images, where another cell made them already.
    """

    cell: Cell
    positions: NDArray[np.int64]
    stored: Adversarials | None = None


@dataclass(frozen=True)
class Models:
    """What a unit asks.

    Attributes:
        attacked: The model whose view the attack is given.
        deployed: The defence that is scored.
        attack: Built with the cell's settings.
        dataset: The images.
        device: Where they are put.
    """

    attacked: Judge
    deployed: Judge
    attack: Attack
    dataset: Dataset
    device: torch.device

    def halve(self, images: int) -> int:
        """Ask the models with smaller batches from now on; how many of so many images to work on at once.

        Raises:
            DefenseError: They run out of memory on a single image.
        """
        batch = min(images, self.attacked.layout.batch) // 2
        if batch == 0:
            names = {judge.defense.card.name for judge in (self.attacked, self.deployed)}
            raise DefenseError(
                f"{self.attack.card.name} on {' and '.join(sorted(names))} runs out of memory on a single image; "
                "free some, or use a device with more (--device)"
            )
        for judge in (self.attacked, self.deployed):
            judge.layout = replace(judge.layout, batch=min(batch, judge.layout.batch))
        return images if self.attack.pooled else batch


@dataclass(frozen=True)
class Done:
    """What came of a unit.

    Attributes:
        outcome: Of its images.
        images: The adversarial images, if they were made here.
        crafting: Seconds.
        scoring: Seconds.
        broken: (n,) gradients of each image with a NaN or an infinity.
        blind: Whether all gradients were nothing else.
        encoded: The outcome as the store keeps it, where the worker has packed it.
    """

    outcome: Outcome
    images: Adversarials | None
    crafting: float
    scoring: float
    broken: NDArray[np.float64]
    blind: bool
    encoded: bytes | None = None


def attempt(unit: Unit, models: Models) -> Done | None:
    """Do the work; None if memory did not suffice."""
    try:
        return work(unit, models)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    # Only here, when the frames that held the tensors are gone.
    if models.device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def work(unit: Unit, models: Models) -> Done:
    """Craft what is not crafted yet, and score it on the deployed defence.

    Raises:
        AttackError: The attack broke its contract.
        DefenseError: The defence did.
    """
    cell = unit.cell
    indices = [cell.samples.indices[p] for p in unit.positions]
    x, y = (t.to(models.device) for t in models.dataset.test.batch(torch.tensor(indices)))
    streams = Streams(indices, cell.attack_seed, models.device)
    start = time.perf_counter()
    # Before the attack: a defence that notices one shall have been asked what it says without.
    with models.deployed.layout.on_threads():
        models.deployed.clean(x, streams, cell.scoring_draws)
    middle = time.perf_counter()
    crafted = craft(models, cell, x, y, streams) if unit.stored is None else _crafted(unit.stored, models.device)
    end = time.perf_counter()
    outcome = _scored(unit, models, x, y, crafted, streams)
    if len(in_vain := _in_vain(crafted, outcome)):
        crafted = _to_the_end(unit, models, x, y, crafted, in_vain)
        outcome = _scored(unit, models, x, y, crafted, streams)
    images = adversarials(cell, unit.positions, x, crafted) if unit.stored is None else None
    broken = np.zeros(len(unit.positions)) if crafted.broken is None else crafted.broken[0].numpy()
    return Done(outcome, images, end - middle, middle - start + time.perf_counter() - end, broken, crafted.blind)


def craft(models: Models, cell: Cell, x: Tensor, y: Tensor, streams: Streams) -> Crafted:
    """Adversarial images for every sample, also for one that is wrong already: others may score these images.

    Raises:
        AttackError: The attack broke its contract.
        DefenseError: The attacked defence did.
    """
    name, attacked = models.attack.card.name, models.attacked
    attacked.reveal(x, streams)
    with attacked.layout.on_threads(), border.crossing(type(attacked.defense), DefenseError):
        view = attacked.searched(cell, x, y, streams.attacked(name))
        try:
            return models.attack(view, x, y, cell.threat, streams.crafting(name))
        except (RuntimeError, AttackError) as error:
            # An attack that is not ours differentiates by itself, and is not to blame for what it is given.
            if not border.is_without_gradient(error) or _has_gradient(view, x):
                raise
            raise without_gradient(attacked, cell) from error


def _scored(unit: Unit, models: Models, x: Tensor, y: Tensor, crafted: Crafted, streams: Streams) -> Outcome:
    with models.deployed.layout.on_threads():
        return models.deployed.outcome(unit.positions, x, y, crafted, streams, unit.cell)


def _in_vain(crafted: Crafted, outcome: Outcome) -> NDArray[np.intp]:
    """Rows whose search ended early at an image that does not break the deployed defence."""
    left = False if crafted.left is None else crafted.left.cpu().numpy()
    return np.flatnonzero(left & (outcome.robust > 0))


def _to_the_end(
    unit: Unit, models: Models, x: Tensor, y: Tensor, crafted: Crafted, rows: NDArray[np.intp]
) -> Crafted:
    """What was crafted, with some rows searched once more, to the last step.

    So that a search which ends early is never weaker: not by the last digit of a logit, nor where a stand-in errs
    on an image that the defence gets right, nor where a defence errs once in order to be left alone.
    """
    cell, at = replace(unit.cell, early_stop=False), torch.from_numpy(rows).to(x.device)
    streams = Streams([cell.samples.indices[p] for p in unit.positions[rows]], cell.attack_seed, x.device)
    again = craft(models, cell, x[at], y[at], streams)
    return crafted.with_rows(at, again)


def _has_gradient(view: View, x: Tensor) -> bool:
    leaf = x.detach().requires_grad_()
    try:
        with torch.enable_grad():
            torch.autograd.grad(view(leaf).sum(), leaf)
    except RuntimeError:
        return False
    return True


def without_gradient(attacked: Judge, cell: Cell) -> DefenseError:
    """The error for a network that autograd does not see through."""
    through = f" through its stand-in {cell.view.stand_in}" if cell.view.stand_in else ""
    return DefenseError(
        f"{attacked.defense.card.name}{through} gives no gradient: its logits do not depend on the image "
        "for autograd (no_grad, detach, numpy); compute them with torch, mark a @benchbox.stand_in, or use square"
    )


def adversarials(cell: Cell, positions: NDArray[np.int64], x: Tensor, crafted: Crafted) -> Adversarials:
    """Adversarial images as the store keeps them; x are the clean ones."""
    return Adversarials(
        craft_key=cell.craft_key,
        position=positions,
        x=crafted.x.cpu().numpy(),
        first_success=crafted.first_success.cpu().numpy(),
        forwards=crafted.forwards.numpy(),
        backwards=crafted.backwards.numpy(),
        distance=None if crafted.distance is None else crafted.distance.numpy(),
        clean=clean_images(cell.samples.clean_key, positions, x.cpu().numpy()),
    )


def _crafted(stored: Adversarials, device: torch.device) -> Crafted:
    return Crafted(
        torch.from_numpy(stored.x).to(device),
        torch.from_numpy(stored.first_success),
        torch.from_numpy(stored.forwards),
        torch.from_numpy(stored.backwards),
        distance=None if stored.distance is None else torch.from_numpy(stored.distance),
    )
