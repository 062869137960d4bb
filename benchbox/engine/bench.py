"""Defences ready to be asked: obtained once, laid out as they run fastest, each behind its judge."""

from __future__ import annotations

from dataclasses import replace

import torch

from benchbox.contract import border
from benchbox.contract.defense import Defense
from benchbox.data.dataset import Dataset
from benchbox.draws import sample_draws
from benchbox.engine import device
from benchbox.engine.judge import Judge
from benchbox.errors import DefenseError
from benchbox.store import Store
from benchbox.training.artifacts import Training
from benchbox.training.layout import TRIED, Layout, lay, measure
from benchbox.training.workshop import Workshop


class Bench:
    """Judges by artifact.

    Args:
        workshop: Where trained defences come from.
        store: Where a layout is remembered.
        dataset: Its training images are what a defence is tried on.
        device: Where models run.
        batch_size: Images a call, where it was asked for; measured otherwise.
        images: How many images will be attacked, for how long measuring may take.
    """

    def __init__(
        self,
        workshop: Workshop,
        store: Store,
        dataset: Dataset,
        device: torch.device,
        batch_size: int | None = None,
        images: int = 0,
    ) -> None:
        self.workshop = workshop
        self.store = store
        self.dataset = dataset
        self.device = device
        self.batch_size = batch_size
        self.images = images
        self._judges: dict[str, Judge] = {}

    def judge(self, wanted: Training) -> Judge:
        """The defence of an artifact behind its judge, trained first if need be.

        Raises:
            BenchboxError: It cannot be obtained.
        """
        if wanted.digest not in self._judges:
            self._judges[wanted.digest] = self._made(wanted)
        return self._judges[wanted.digest]

    def _made(self, wanted: Training) -> Judge:
        defense = self.workshop.obtain(wanted)
        key = f"layout {wanted.digest}, {device.describe(self.device)}, torch {torch.__version__}"
        layout = Layout.from_dict(self.store.recall(key))
        if layout is None:
            layout = fastest(defense, self.dataset, self.device, self.images, self.batch_size)
            self.store.remember(key, layout.as_dict())
        elif self.batch_size:
            layout = replace(layout, batch=self.batch_size)
        lay(defense, layout.channels_last)
        return Judge(defense, layout)


def fastest(
    defense: Defense, dataset: Dataset, where: torch.device, images: int, batch_size: int | None = None
) -> Layout:
    """The layout a defence runs fastest in, tried on training images: the test images are met when they count."""
    known = dataset.train if len(dataset.train) else dataset.test
    x = known.batch(slice(TRIED))[0].to(where)
    draws = sample_draws(len(x), device=where)
    asked = border.guarded(defense, type(defense), f"defence {defense.card.name}")
    with border.crossing(type(defense), DefenseError):
        if not defense.deployable:
            defense.reveal(x, draws)
        return measure(defense, asked, x, draws, images, batch_size)
