"""The data sets everybody uses: digits from scikit-learn, the rest through torchvision and its checksums."""

from __future__ import annotations

import contextlib
import io
import pickle
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchbox.data.catalogue import Entry
from benchbox.draws import sample_draws
from benchbox.errors import DataError

Split = tuple[Tensor, Tensor]


def fetch(
    entry: Entry, folder: Path, *, download: bool = True, progress: Callable[[str], None] | None = None
) -> tuple[Split, Split]:
    """The training and the test set, each as images (N, C, H, W) uint8 and labels (N,) int64.

    Args:
        entry: Which one.
        folder: Where torchvision's layout is looked for, and where it is made.
        download: Whether missing files may be fetched from the net.
        progress: Told, in one line, what is about to be fetched and where it will lie.

    Raises:
        DataError: The files are neither there nor to be had, or they are not the published ones.
    """
    if entry.name == "digits":
        return digits()
    source = SOURCES[entry.name]
    try:
        train, test = source.read(folder, download=False)
    except _FAILURES as missing:
        if not download:
            raise DataError(
                f"{entry.name} is not in {folder} (nothing is downloaded); {source.remedy(folder)}"
            ) from missing
        if progress is not None:
            progress(f"downloading {entry.name} to {folder}")
        try:
            train, test = source.read(folder, download=True)
        except _FAILURES as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"{entry.name} could not be downloaded to {folder} ({reason}); {source.remedy(folder)}"
            ) from error
    for (x, _), split, count in ((train, "training", entry.train), (test, "test", entry.test)):
        if len(x) != count:
            raise DataError(
                f"{entry.name} in {folder} has {len(x)} {split} images instead of {count}; "
                f"delete {source.layout} there and load it again, or save a part of it as {entry.name}.npz"
            )
    return train, test


def digits() -> tuple[Split, Split]:
    """1,437 training and 360 test images: the 8×8 digits of the UCI repository, enlarged to 28×28.

    The values 0 to 16 become 0 to 255, bilinearly interpolated. The split is fixed and stratified by class.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    source = load_digits()
    small = torch.from_numpy(source.images)[:, None] * (255 / 16)
    large = F.interpolate(small, size=28, mode="bilinear", align_corners=False)
    # Exact halves would be rounded as the machine's last bit falls; this decides them alike everywhere.
    x = (large + 1e-6).round().to(torch.uint8)
    y = torch.from_numpy(source.target).long()
    train, test = train_test_split(np.arange(len(y)), test_size=360, stratify=source.target, random_state=0)
    return (x[train], y[train]), (x[test], y[test])


#: What torchvision raises when files are missing, unreadable, corrupt, or the net is out of reach.
_FAILURES = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    AssertionError,
    tarfile.TarError,
    pickle.UnpicklingError,
)


class Source(NamedTuple):
    """A torchvision data set.

    Attributes:
        cls: Name of the class in `torchvision.datasets`.
        layout: The files it looks for in the data folder.
        convert: The data set object -> images (N, C, H, W) uint8 and labels (N,) int64.
        arguments: Of the class, for the training and for the test set.
    """

    cls: str
    layout: str
    convert: Callable[[Any], Split]
    arguments: tuple[Mapping[str, Any], Mapping[str, Any]] = ({"train": True}, {"train": False})

    def read(self, folder: Path, *, download: bool) -> tuple[Split, Split]:
        """Both sets, straight from torchvision."""
        from torchvision import datasets

        build = getattr(datasets, self.cls)
        # torchvision prints which mirror failed; that belongs in the error, and the output is the command's.
        with contextlib.redirect_stdout(io.StringIO()):
            train, test = (self.convert(build(folder, download=download, **own)) for own in self.arguments)
        return train, test

    def remedy(self, folder: Path) -> str:
        """What the user can do without a net."""
        return f"place {self.layout} in {folder}, or name another folder with --data-dir or BENCHBOX_DATA"


def _from_idx(dataset: Any) -> Split:
    return dataset.data[:, None], dataset.targets.long()


def _from_channels_last(dataset: Any) -> Split:
    x = torch.from_numpy(np.ascontiguousarray(dataset.data.transpose(0, 3, 1, 2)))
    return x, torch.tensor(dataset.targets, dtype=torch.int64)


def _from_svhn(dataset: Any) -> Split:
    return torch.from_numpy(np.ascontiguousarray(dataset.data)), torch.from_numpy(dataset.labels).long()


def _from_files(dataset: Any) -> Split:
    """Imagenette: shorter side 160, centre crop, in a fixed random order: its files are sorted by class."""
    from torchvision.transforms import v2

    dataset.transform = v2.Compose([v2.Resize(160), v2.CenterCrop(160), v2.PILToTensor()])
    x = torch.empty(len(dataset), 3, 160, 160, dtype=torch.uint8)
    y = torch.empty(len(dataset), dtype=torch.int64)
    for row, index in enumerate(sample_draws(1).permutation(len(dataset))[0].tolist()):
        x[row], y[row] = dataset[index]
    return x, y


SOURCES: Mapping[str, Source] = {
    "mnist": Source("MNIST", "MNIST/raw/*-ubyte.gz", _from_idx),
    "fashion-mnist": Source("FashionMNIST", "FashionMNIST/raw/*-ubyte.gz", _from_idx),
    "cifar10": Source("CIFAR10", "cifar-10-batches-py/", _from_channels_last),
    "cifar100": Source("CIFAR100", "cifar-100-python/", _from_channels_last),
    "svhn": Source(
        "SVHN", "train_32x32.mat and test_32x32.mat", _from_svhn, ({"split": "train"}, {"split": "test"})
    ),
    "imagenette": Source(
        "Imagenette",
        "imagenette2-160/",
        _from_files,
        ({"split": "train", "size": "160px"}, {"split": "val", "size": "160px"}),
    ),
}
