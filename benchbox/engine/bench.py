"""Defences ready to be asked: obtained once, laid out as they run fastest, each behind its judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from benchbox.contract import border
from benchbox.contract.defense import Defense
from benchbox.data.dataset import Dataset
from benchbox.draws import Draws, sample_draws
from benchbox.engine import device
from benchbox.engine import secret as secrets
from benchbox.engine.judge import Judge, check_shape
from benchbox.engine.vetting import vet
from benchbox.errors import DefenseError
from benchbox.store import Store
from benchbox.training.artifacts import Training
from benchbox.training.layout import TRIED, Layout, lay, measure
from benchbox.training.workshop import Workshop

#: What the remarks of vetting are attached to an artifact as.
CONTRACT = "contract"


@dataclass(eq=False)
class Bench:
    """Judges by artifact.

    Attributes:
        workshop: Where trained defences come from.
        store: Where a layout is remembered; None where somebody else does it.
        dataset: Its training images are what a defence is tried on.
        device: Where models run.
        batch_size: Images a call, where it was asked for; measured otherwise.
        images: How many images will be attacked, for how long measuring may take.
        secret: What draws are named under, where it was given; the store's otherwise.
        remarks: What vetting said that is no breach of a contract, by artifact.
    """

    workshop: Workshop
    store: Store | None
    dataset: Dataset
    device: torch.device
    batch_size: int | None = None
    images: int = 0
    secret: str | None = None
    remarks: dict[str, dict[str, str]] = field(default_factory=dict, init=False)
    _layouts: dict[str, Layout] = field(default_factory=dict, init=False)
    _judges: dict[str, Judge] = field(default_factory=dict, init=False)
    _spoiled: dict[str, Exception] = field(default_factory=dict, init=False)

    def judge(self, wanted: Training) -> Judge:
        """The defence of an artifact behind its judge, trained first if need be.

        Raises:
            BenchboxError: It cannot be obtained, or breaks its contract.
        """
        if wanted.digest in self._spoiled:
            # Twenty cells may want it; it fails once.
            raise self._spoiled[wanted.digest]
        if wanted.digest not in self._judges:
            try:
                self._judges[wanted.digest] = self._made(wanted)
            except Exception as error:
                self._spoiled[wanted.digest] = error
                raise
        return self._judges[wanted.digest]

    def _secret(self) -> str:
        """The one that was given, else the store's; without a store one that whoever scores replaces."""
        if self.secret is not None:
            return self.secret
        return secrets.of(self.store) if self.store else secrets.new()

    def know(self, digest: str, layout: Layout) -> None:
        """Take it from somebody else how an artifact is run."""
        self._layouts.setdefault(digest, layout)

    def _made(self, wanted: Training) -> Judge:
        defense = self.workshop.obtain(wanted)
        with border.crossing(type(defense), DefenseError):
            return self._ready(wanted, defense)

    def _ready(self, wanted: Training, defense: Defense) -> Judge:
        x, draws = _few(defense, self.dataset, self.device)
        key = layout_key(wanted.digest, device.describe(self.device))
        layout = self._layouts.get(wanted.digest)
        if layout is None and self.store:
            layout = remembered(self.store, wanted.digest, self.device)
        if layout is None:
            layout = measure(defense, _named(defense), x, draws, self.images, self.batch_size)
            if self.store and not self.batch_size:  # asked for once, it is not what was found to be fastest
                self.store.remember(key, layout.as_dict())
        elif self.batch_size:
            layout = replace(layout, batch=self.batch_size)
        lay(defense, layout.channels_last)
        judge = Judge(defense, layout, self._secret())
        if remarks := vet(judge, x, draws):
            self.remarks[wanted.digest] = remarks
            if self.store:
                self.store.attach(wanted.digest, CONTRACT, remarks)
        return judge


def layout_key(digest: str, described: str) -> str:
    """What the layout of an artifact on a device is remembered as."""
    return f"layout {digest}, {described}, torch {torch.__version__}"


def remembered(store: Store, digest: str, where: torch.device) -> Layout | None:
    """The layout that an artifact was seen to run fastest in on this device."""
    return Layout.from_dict(store.recall(layout_key(digest, device.describe(where))))


def fastest(
    defense: Defense,
    dataset: Dataset,
    where: torch.device,
    images: int,
    batch_size: int | None = None,
    known: Layout | None = None,
) -> Layout:
    """The layout a defence runs fastest in, with its weights laid so.

    Args:
        defense: In evaluation mode, on the device.
        dataset: Its training images are what it is tried on.
        where: The device.
        images: How many will be attacked, for how long measuring may take.
        batch_size: Images a call, where it was asked for.
        known: What was found out before; nothing is measured then.
    """
    if known is not None:
        lay(defense, known.channels_last)
        return replace(known, batch=batch_size or known.batch)
    with border.crossing(type(defense), DefenseError):
        x, draws = _few(defense, dataset, where)
        return measure(defense, _named(defense), x, draws, images, batch_size)


def _named(defense: Defense) -> Callable[[Tensor, Draws], Tensor]:
    """The forward pass of a defence that is named when it fails, or returns something else than logits."""
    forward = border.guarded(defense, type(defense), f"defence {defense.card.name}")

    def ask(x: Tensor, draws: Draws) -> Tensor:
        logits = forward(x, draws)
        check_shape(logits, len(x), defense.images.classes, defense.card.name)
        return logits

    return ask


def _few(defense: Defense, dataset: Dataset, where: torch.device) -> tuple[Tensor, Draws]:
    """Images to try a defence on: of the training set, for the test images are met when they count."""
    known = dataset.train if len(dataset.train) else dataset.test
    x = known.batch(slice(TRIED))[0].to(where)
    draws = sample_draws(len(x), device=where)
    if not defense.deployable:
        defense.reveal(x, draws)
    return x, draws
