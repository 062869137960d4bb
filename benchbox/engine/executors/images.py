"""Images in files that many processes map: one copy of them in memory, however many processes there are.

Not in shared memory: a container has 64 MB of it, unless somebody knew better.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchbox.data.dataset import Dataset, Images


@dataclass(frozen=True)
class Filed:
    """A data set whose images lie in files.

    Attributes:
        rest: All of it but the images.
        folder: Where the files are.
    """

    rest: Dataset
    folder: Path

    @property
    def name(self) -> str:
        """Of the data set."""
        return self.rest.name

    def read(self) -> Dataset:
        """The data set; its images come from the files when they are looked at."""
        train, test = (Images(*(self._array(split, part) for part in "xy")) for split in ("train", "test"))
        return replace(self.rest, train=train, test=test)

    def _array(self, split: str, part: str) -> torch.Tensor:
        # Changes stay in the process that makes them.
        file = _file(self.folder, self.name, split, part)
        array = np.load(file, mmap_mode="c")
        return torch.from_numpy(array if array.size else array.copy())


def filed(dataset: Dataset, folder: Path) -> Filed:
    """Write the images of a data set to files."""
    for split in ("train", "test"):
        images = dataset.split(split)
        for part, tensor in (("x", images.x), ("y", images.y)):
            np.save(_file(folder, dataset.name, split, part), tensor.numpy())
    none = Images(torch.zeros(0), torch.zeros(0))
    return Filed(replace(dataset, train=none, test=none), folder)


def _file(folder: Path, name: str, split: str, part: str) -> Path:
    return folder / f"{name}-{split}-{part}.npy"
