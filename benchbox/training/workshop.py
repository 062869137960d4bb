"""Trained defences: from memory, from disk, or trained now."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

from benchbox.contract import border
from benchbox.contract.defense import Defense, Recipe
from benchbox.contract.pretrained import Pretrained
from benchbox.data.dataset import Dataset
from benchbox.errors import DefenseError, RequestError
from benchbox.training import loop
from benchbox.training.artifacts import Artifacts, Training
from benchbox.training.layout import lay
from benchbox.training.loop import Progress
from benchbox.training.precision import Precision

if TYPE_CHECKING:
    from benchbox.contract.registry import Registry


class Elsewhere(Protocol):
    """Processes of their own, for defences that shall be neither asked nor trained in this one."""

    def load(self, wanted: Training) -> Defense:
        """A trained defence, in such a process."""

    def untrained(self, wanted: Training) -> Defense:
        """A defence as it is built, in such a process."""

    def train(self, wanted: Training, shop: Workshop) -> None:
        """Train a defence in such a process; its weights are in the shop's artifacts then."""


@dataclass(eq=False)
class Workshop:
    """Hands out defences ready to be attacked: in evaluation mode, frozen, on the device.

    Attributes:
        artifacts: Where trained weights lie.
        defenses: The plug-ins.
        dataset: What defences are trained on.
        device: Where they run.
        precision: What they are trained in.
        provenance: Recorded in the card of everything trained here.
        report: Called with the training and where it stands.
        claim: Holds a piece of work by its name while other processes wait for it.
        apart: Where defences are asked and trained, if not in this process.
        teach: Trains a substitute on what another defence answers; gives what became of its losses.
    """

    artifacts: Artifacts
    defenses: Registry[Defense]
    dataset: Dataset
    device: torch.device
    precision: Precision = "float32"
    provenance: Mapping[str, object] = field(default_factory=dict)
    report: Callable[[Training, Progress], None] = lambda training, progress: None
    claim: Callable[[str], AbstractContextManager[object]] = nullcontext
    apart: Elsewhere | None = None
    teach: Callable[[Workshop, Training, Defense], list[dict[str, float]]] | None = None
    _ready: dict[str, Defense] = field(default_factory=dict, init=False)
    _loaded: dict[str, Defense] = field(default_factory=dict, init=False)
    _spoiled: dict[str, Exception] = field(default_factory=dict, init=False)

    def obtain(self, wanted: Training) -> Defense:
        """The trained defence, trained first if need be, together with everything it builds on.

        Raises:
            ArtifactError: Its weights on disk are damaged, or cannot be written.
            DefenseError: Its own code failed.
            RequestError: It takes no images of this shape.
        """
        if wanted.digest in self._spoiled:
            # Twenty cells may want it; it fails once.
            raise self._spoiled[wanted.digest]
        if wanted.digest not in self._ready:
            try:
                self._ready[wanted.digest] = self._here(wanted) if self.apart is None else self._there(wanted)
            except Exception as error:
                self._spoiled[wanted.digest] = error
                raise
        return self._ready[wanted.digest]

    def lend(self, key: str, defense: Defense) -> None:
        """Hand out this object for a digest, as it is."""
        self._ready[key] = defense

    def _here(self, wanted: Training) -> Defense:
        if wanted.digest not in self._loaded:
            with border.crossing(self.defenses.get(wanted.defense.name).cls, DefenseError):
                self._loaded[wanted.digest] = _frozen(self._make(wanted), self.device)
        return self._loaded[wanted.digest]

    def _there(self, wanted: Training) -> Defense:
        assert self.apart is not None
        for step in wanted.chain:
            if step.teacher is not None:
                self._here(step)  # a network of benchbox's own, which asks its teacher for answers
            elif step.source is None and step.weights not in self.artifacts:
                with self.claim(f"training/{step.weights}"):
                    if step.weights not in self.artifacts:
                        self.apart.train(step, self)
        return self.apart.load(wanted)

    def _make(self, wanted: Training) -> Defense:
        defense, recipe = self.build(wanted)
        if wanted.source is not None:
            assert isinstance(defense, Pretrained)
            defense.adopt(wanted.source)
            return defense
        if wanted.weights not in self.artifacts:
            with self.claim(f"training/{wanted.weights}"):
                # Whoever waited for the claim finds the weights made.
                if wanted.weights not in self.artifacts:
                    self._train(wanted, defense, recipe)
                    return defense
        self.artifacts.load_into(wanted, defense)
        return defense

    def untrained(self, wanted: Training) -> Defense:
        """The defence as it is built, on a base as it is built; with weights only where a file gives them.

        Raises:
            DefenseError: Its own code failed.
            RequestError: It takes no images of this shape.
        """
        if wanted.digest in self._ready:
            return self._ready[wanted.digest]
        if self.apart is not None:
            return self.apart.untrained(wanted)
        with border.crossing(self.defenses.get(wanted.defense.name).cls, DefenseError):
            defense, _ = self._built(wanted, self.untrained(wanted.base) if wanted.base else None)
            if wanted.source is not None:
                assert isinstance(defense, Pretrained)
                defense.adopt(wanted.source)
        return _frozen(defense, self.device)

    def build(self, wanted: Training) -> tuple[Defense, Recipe]:
        """The untrained defence on its trained base, and its recipe. Initial weights follow from the seed."""
        return self._built(wanted, self._here(wanted.base) if wanted.base else None)

    def _built(self, wanted: Training, base: Defense | None) -> tuple[Defense, Recipe]:
        cls = self.defenses.get(wanted.defense.name).cls
        if cls.square and self.dataset.spec.width is not None:
            height, width = self.dataset.spec.shape[1:]
            raise RequestError(
                f"{wanted.defense.name} is built for square images, {wanted.dataset} has {height}×{width} pixels; "
                "crop or pad them, or bring a network that takes them: --defense model.py:FACTORY --weights FILE"
            )
        recipe = cls.recipe_type(**wanted.defense.arguments)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(wanted.seed)
            # A copy: what one defence does to its classifier, its layout included, is no other's business.
            classifier = copy.deepcopy(base.classifier) if base else None
            try:
                return cls(recipe, self.dataset.spec, classifier), recipe
            except TypeError as error:
                if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                    raise  # it was called, and something in it failed
                remedy = "let it take (self, recipe, images, classifier=None)"
                raise DefenseError(f"defence {wanted.defense.name}: {error}; {remedy}") from error

    def _train(self, wanted: Training, defense: Defense, recipe: Recipe) -> None:
        start = time.perf_counter()
        checkpoint = self.artifacts.checkpoint(wanted.weights)
        # What was done before a kill is in no clock: the seconds of a resumed training are those since.
        resumed = checkpoint.exists()
        if wanted.teacher is not None:
            assert self.teach is not None
            history = self.teach(self, wanted, defense)
        else:
            history = loop.fit(
                defense,
                recipe,
                self.dataset.train,
                threat=wanted.threat,
                seed=wanted.seed,
                device=self.device,
                precision=self.precision,
                checkpoint=checkpoint,
                report=lambda progress: self.report(wanted, progress),
            )
        seconds = time.perf_counter() - start
        card = {
            "seconds": seconds,
            "precision": self.precision,
            "resumed": resumed,
            "losses": history,
            "provenance": self.provenance,
        }
        self.artifacts.save(wanted, defense, card)


def _frozen(defense: Defense, device: torch.device) -> Defense:
    # A training may have left the weights channels-last; whoever runs the defence chooses its layout.
    lay(defense, False)
    return defense.to(device).eval().requires_grad_(False)
