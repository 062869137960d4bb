"""Asks the deployed defence: attack, score, import and audit reach it through one call, and none by another way.

What is scored is the deployed defence in fresh draws that no attack has seen. The call looks the same to it either
way (`benchbox.engine.booth`), in batches of the same size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchbox.contract import border
from benchbox.contract.attack import Crafted
from benchbox.contract.confirmation import Confirmation
from benchbox.contract.deciding import DecidingPurifier
from benchbox.contract.defense import Defense, bare
from benchbox.contract.stepwise import StepwisePurifier
from benchbox.contract.view import Forward, Trail, View, Walk
from benchbox.domain import Cell, Outcome, Precision, ThreatModel
from benchbox.draws import Draws, sample_draws, stack
from benchbox.engine import booth
from benchbox.engine.isolation.stranger import Walker
from benchbox.engine.secret import OPEN
from benchbox.errors import DefenseError, RequestError
from benchbox.training.layout import Layout, hand_over


class Streams:
    """Every random stream of some samples; their names are spelled here and nowhere else.

    A defence sees none of the names: the judge veils what it hands over.

    Args:
        indices: (N,) positions in the data set.
        seed: The cell's.
        device: Where numbers are drawn.
    """

    def __init__(self, indices: Sequence[int], seed: int, device: torch.device) -> None:
        self.indices = tuple(indices)
        self.seed = seed
        self.samples = Draws(torch.tensor(self.indices, dtype=torch.int64, device=device), seed)

    @property
    def clean(self) -> Draws:
        """What the defence draws when it is scored on clean images."""
        return self.samples.at("score", "clean")

    @property
    def adversarial(self) -> Draws:
        """What it draws when it is scored on adversarial images."""
        return self.samples.at("score", "adversarial")

    def crafting(self, attack: str) -> Draws:
        """What an attack draws."""
        return self.samples.at("craft", attack)

    def attacked(self, attack: str) -> Draws:
        """What the model under attack draws."""
        return self.crafting(attack).at("model")


class Judge:
    """One defence, and the only way to ask it.

    Args:
        defense: In evaluation mode, frozen, its weights in the layout.
        layout: How it is run.
        secret: What its draws are named under, hexadecimal.
    """

    def __init__(self, defense: Defense, layout: Layout, secret: str = OPEN) -> None:
        self.defense = defense
        self.layout = layout
        self.secret = secret
        self._named = f"defence {defense.card.name}"
        self._forward = border.guarded(defense, type(defense), self._named)
        self._clean: dict[tuple[int, int, int], Tensor] = {}
        self._certified: dict[tuple[int, int, ThreatModel], bool] = {}
        self._without_proof: set[ThreatModel] = set()

    def ask(self, x: Tensor, draws: Draws, precision: Precision = "float32") -> Tensor:
        """Logits (n, K) of the deployed defence for images (n, C, H, W).

        Raises:
            DefenseError: They have another shape.
        """
        logits = self.asked(self._forward, x, draws, precision)
        check_shape(logits, len(x), self.defense.images.classes, self.defense.card.name)
        return logits

    def bare(self, x: Tensor, draws: Draws) -> Tensor:
        """Logits (n, K) of the classifier in the defence, which a gray-box attacker knows; asked as that is."""
        named = f"the classifier of {self._named}"
        return self.asked(border.guarded(bare(self.defense), type(self.defense), named), x, draws)

    def without_gradient(self, x: Tensor, draws: Draws) -> Tensor:
        """Likewise in a mode that nobody else asks in: whoever answers otherwise watches for gradients."""
        with torch.no_grad():
            return self._forward(hand_over(x, self.layout.channels_last), self._veiled(draws)).detach().float()

    def through(self, stand_in: str | None, precision: Precision = "float32") -> Forward:
        """What an attacker differentiates: the deployed defence, or one of its stand-ins."""
        if stand_in is None:
            return self.ask if precision == "float32" else lambda x, draws: self.ask(x, draws, precision)
        forward = border.guarded(self.defense.surrogates()[stand_in], type(self.defense), self._named)
        return lambda x, draws: self.asked(forward, x, draws, precision)

    def walk(self) -> Walk | None:
        """The deployed defence with the steps it works in and what it decides; None of one that has neither."""
        defense = self.defense
        if not isinstance(defense, StepwisePurifier | DecidingPurifier | Walker):
            return None
        trail = border.guarded(defense.trail, type(defense), self._named, _parts)

        def walk(x: Tensor, draws: Draws) -> Trail:
            last = self.layout.channels_last
            return Trail(*booth.ask_all(trail, x, self._veiled(draws), channels_last=last, precision="float32"))

        return walk

    def asked(self, forward: Forward, x: Tensor, draws: Draws, precision: Precision = "float32") -> Tensor:
        """What another forward pass says in the place of the defence: a part of it, say."""
        last = self.layout.channels_last
        return booth.ask(forward, x, self._veiled(draws), channels_last=last, precision=precision)

    def _veiled(self, draws: Draws) -> Draws:
        return booth.veiled(self.defense, draws, self.secret)

    def view(self, y: Tensor, draws: Draws, *, stand_in: str | None = None, eot: int = 1) -> View:
        """The model an attack is given for one batch of samples of classes y (N,)."""
        randomized, batch = self.defense.randomized, self.layout.batch
        # A stand-in has another backward pass than the steps.
        walk = self.walk() if stand_in is None else None
        return View(self.through(stand_in), y, draws, randomized=randomized, eot=eot, batch=batch, walk=walk)

    def searched(self, cell: Cell, x: Tensor, y: Tensor, draws: Draws) -> View:
        """The model the attack of a cell is given for images x (N, C, H, W) of classes y (N,).

        Of a randomised defence no single draw decides anything: nothing is confirmed before it is scored.
        """
        view = self.view(y, draws, stand_in=cell.view.stand_in, eot=cell.eot)
        view.early_stop = cell.early_stop
        if cell.search_precision != "float32":
            if not self.defense.randomized:
                view.confirmation = Confirmation(view.forward, x, cell.threat, self.layout.batch)
            view.forward = self.through(cell.view.stand_in, cell.search_precision)
        return view

    def reveal(self, x: Tensor, streams: Streams) -> None:
        """Show an oracle the clean images (N, C, H, W); nothing that can be deployed looks."""
        if not self.defense.deployable:
            self.defense.reveal(x.clone(), self._veiled(streams.samples))

    def score(self, x: Tensor, draws: Draws, repeats: int) -> Tensor:
        """Predicted classes (N, R): column r in the r-th fresh draw.

        Args:
            x: (N, C, H, W) float32 in [0, 1].
            draws: Source of the fresh draws.
            repeats: R; 1 for a deterministic defence.

        Raises:
            DefenseError: The defence broke its contract.
        """
        parts = slices(len(x), self.layout.batch)
        with border.crossing(type(self.defense), DefenseError):
            return torch.cat([self._score(x[part], draws.rows(part), repeats) for part in parts])

    def _score(self, x: Tensor, draws: Draws, repeats: int) -> Tensor:
        together = self.layout.batch // len(x)
        columns: list[Tensor] = []
        for part in slices(repeats, together):
            sources = [draws.at(r) for r in range(repeats)[part]]
            copies = x.repeat(len(sources), 1, 1, 1)
            logits = self.ask(copies, stack(sources)).detach()
            check_logits(logits, len(copies), self.defense.images.classes, self.defense.card.name)
            columns += logits.argmax(1).split(len(x))
        return torch.stack(columns, 1)

    def clean(self, x: Tensor, streams: Streams, repeats: int) -> Tensor:
        """Predicted classes (N, R) on the clean images, asked once for each image."""
        keys = [(index, streams.seed, repeats) for index in streams.indices]
        if not all(key in self._clean for key in keys):
            self.reveal(x, streams)
            self._clean.update(zip(keys, self.score(x, streams.clean, repeats), strict=True))
        return torch.stack([self._clean[key] for key in keys])

    def certified(self, x: Tensor, y: Tensor, threat: ThreatModel, streams: Streams) -> Tensor | None:
        """(N,) whether it proves class y for every image of the ball; None of one that proves nothing there.

        Asked once for each image and class.

        Args:
            x: (N, C, H, W) clean images.
            y: (N,) the classes that it gave them, never the true ones, which it might keep.
            threat: The ball.
            streams: Of these samples.

        Raises:
            DefenseError: The defence broke its contract.
        """
        keys = [(index, label, threat) for index, label in zip(streams.indices, y.tolist(), strict=True)]
        if threat not in self._without_proof and not all(key in self._certified for key in keys):
            parts = slices(len(x), self.layout.batch)
            try:
                with border.crossing(type(self.defense), DefenseError):
                    proven = [flag for part in parts for flag in self._proven(x[part], y[part], threat)]
                self._certified.update(zip(keys, proven, strict=True))
            except RequestError:
                self._without_proof.add(threat)
        if threat in self._without_proof:
            return None
        return torch.tensor([self._certified[key] for key in keys], device=x.device)

    def _proven(self, x: Tensor, y: Tensor, threat: ThreatModel) -> list[bool]:
        prove = border.guarded(self.defense.certified, type(self.defense), self._named, _flags)
        draws, last = self._veiled(sample_draws(len(x), device=x.device)), self.layout.channels_last
        found = booth.ask(
            lambda x, _: prove(x, y.clone(), threat), x, draws, channels_last=last, precision="float32"
        )
        if found.shape != (len(x),):
            raise DefenseError(
                f"{self._named} certifies {len(x)} images by a tensor of shape {tuple(found.shape)}; "
                f"return one of shape ({len(x)},)"
            )
        return [flag > 0 for flag in found.tolist()]

    def outcome(
        self, positions: NDArray[np.int64], x: Tensor, y: Tensor, crafted: Crafted, streams: Streams, cell: Cell
    ) -> Outcome:
        """What happened to a batch.

        Args:
            positions: (n,) places in the sample list.
            x: (n, C, H, W) clean images.
            y: (n,) true classes.
            crafted: The adversarial images.
            streams: Of these samples.
            cell: What they are scored for.

        Raises:
            DefenseError: The defence broke its contract.
        """
        self.reveal(x, streams)
        clean = self.clean(x, streams, cell.scoring_draws)
        adversarial = self.score(crafted.x, streams.adversarial, cell.scoring_draws)
        # Last: who is asked for a proof shall not know that scoring is next.
        said = clean[:, 0]
        proven = self.certified(x, said, cell.threat, streams)
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
            distance=None if crafted.distance is None else crafted.distance.numpy(),
            certified=None if proven is None else (proven & (said == y)).cpu().numpy(),
        )


def _flags(found: Any, what: str) -> Tensor:
    """A proof, as numbers."""
    if not isinstance(found, Tensor) or found.dtype is not torch.bool:
        shown = found.dtype if isinstance(found, Tensor) else type(found).__name__
        raise DefenseError(f"{what} certifies by {shown}; return a tensor of bool, one for each image")
    return border.tensor(found.float(), what)


def _parts(trail: Trail, what: str) -> tuple[Tensor, ...]:
    return tuple(border.tensor(part, what) for part in trail.parts)


def slices(n: int, size: int) -> Iterator[slice]:
    """Where `n` rows are cut into parts of at most `size`."""
    return (slice(at, at + size) for at in range(0, n, size))


def check_shape(logits: Tensor, n: int, classes: int, name: str) -> None:
    """Refuse what is not one logit for each class.

    Raises:
        DefenseError: Another shape.
    """
    if logits.shape != (n, classes):
        raise DefenseError(
            f"defence {name} returned shape {tuple(logits.shape)} for {n} images and {classes} classes; "
            f"return logits of shape ({n}, {classes})"
        )


def check_logits(logits: Tensor, n: int, classes: int, name: str) -> None:
    """Refuse what is no logits.

    The rule for probabilities is AutoAttack's (its checks.py): everything in [0, 1] and rows that sum to 1.

    Raises:
        DefenseError: No tensor of real numbers, wrong shape, NaN or infinity, or probabilities.
    """
    border.tensor(logits, f"defence {name}")
    check_shape(logits, n, classes, name)
    if not bool(logits.isfinite().all()):
        raise DefenseError(f"defence {name} returned NaN or infinity; guard its divisions and logarithms")
    low, high = logits.min(), logits.max()
    sums = (logits.sum(1) - 1).abs().max()
    if bool((high < 1 + 1e-5) & (low > -1e-5) & (sums < 1e-5)):
        raise DefenseError(f"defence {name} returned probabilities; return the logits before the softmax")
