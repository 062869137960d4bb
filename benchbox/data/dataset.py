"""Data sets: every image kept as uint8, handed out as float32 in [0, 1].

A data set is looked up in three places: `NAME.npz` in the data folder (a user's own images), torchvision's
layout in the same folder, and the net, through torchvision and its checksums.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from benchbox.data.catalogue import KNOWN, Family
from benchbox.domain import ImageSpec, Norm, SampleList
from benchbox.draws import sample_draws
from benchbox.errors import DataError, RequestError, unknown
from benchbox.text import check_name

EPSILON: dict[Family, float] = {"mnist": 0.3, "cifar": 8 / 255}

#: Only digits, small enough to be scored whole, departs from this size of the default sample list.
DEFAULT_SAMPLES = 1000

_LOG = logging.getLogger("benchbox")


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images.

    Attributes:
        x: (N, C, H, W) uint8.
        y: (N,) int64, in 0 … K-1.
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, indices: Tensor | Sequence[int] | slice) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W) float32 in [0, 1] and labels (n,) int64, in the order of `indices`."""
        chosen = self.rows(indices)
        return chosen.x.float().div_(255), chosen.y

    def rows(self, indices: Tensor | Sequence[int] | slice) -> Images:
        """Some of the images, in the order of `indices`."""
        which = indices if isinstance(indices, slice | Tensor) else torch.tensor(indices, dtype=torch.int64)
        return Images(self.x[which], self.y[which])

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex of the shape, the pixels and the labels."""
        content = hashlib.sha256(str(tuple(self.x.shape)).encode())
        content.update(self.x.contiguous().numpy().data)
        content.update(self.y.contiguous().numpy().astype("<i8").data)
        return content.hexdigest()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training set, which may be empty, and a test set.

    Attributes:
        name: As the user typed it.
        family: Which settings attacks and recipes fall back to.
        train: Images to train on.
        test: Images to score on.
        spec: Channels, size, classes, and the mean and standard deviation of each channel of `train`.
        epsilon: The customary radius of the ball, in the units of images in [0, 1].
        norm: The norm that goes with it.
    """

    name: str
    family: Family
    train: Images
    test: Images
    spec: ImageSpec
    epsilon: float
    norm: Norm = "linf"

    def split(self, name: str) -> Images:
        """The images of `train` or `test`.

        Raises:
            RequestError: There is no such split.
        """
        splits = {"train": self.train, "test": self.test}
        if name not in splits:
            raise unknown("split", name, splits)
        return splits[name]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the digests of both sets. What was trained depends on `train.digest` alone."""
        return hashlib.sha256(f"{self.train.digest} {self.test.digest}".encode()).hexdigest()


def data_folder(data_dir: Path | None = None) -> Path:
    """Where data sets lie: the argument, else `$BENCHBOX_DATA`, else `~/.cache/benchbox/data`."""
    if data_dir is not None:
        return Path(data_dir).expanduser()
    named = os.environ.get("BENCHBOX_DATA")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "benchbox" / "data"


def load(
    name: str,
    data_dir: Path | None = None,
    *,
    download: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Dataset:
    """Load a data set by name.

    Args:
        name: A name of `benchbox.data.catalogue.KNOWN`, or that of a file `NAME.npz` in the data folder; the file
            wins where both exist. Or the path of an .npz file, or of a folder of class folders of images.
        data_dir: The data folder; see `data_folder`.
        download: Whether missing files may be fetched from the net.
        progress: Told, in one line, what is about to be fetched and where it will lie.

    Raises:
        RequestError: Nobody claims the name.
        DataError: The files are missing, corrupt, or not what they have to be.
    """
    folder = data_folder(data_dir)
    own = _own(name, folder)
    if own is not None:
        return _read(own)
    if name in KNOWN:
        from benchbox.data.sources import fetch

        train, test = fetch(KNOWN[name], folder, download=download, progress=progress)
        return _assemble(name, Images(*train), Images(*test), KNOWN[name].classes)
    if os.path.lexists(there := folder / f"{name}.npz"):
        raise DataError(f"{there} is no file, but a folder or a link to nothing; put the images there")
    names = {*KNOWN, *(file.stem for file in folder.glob("*.npz"))}
    remedy = (
        f"known: {', '.join(sorted(names))}; or put your own images in {folder / name}.npz, or give the path of "
        "an .npz file or of a folder of class folders"
    )
    raise unknown("data set", name, names, remedy)


def _own(name: str, folder: Path) -> Path | None:
    """The user's file or folder that a name stands for; a path is one from here, or from the data folder.

    Raises:
        RequestError: It is a path, and nothing is there.
    """
    if (folder / f"{name}.npz").is_file() and os.sep not in name:
        return folder / f"{name}.npz"
    is_path = name.endswith(".npz") or "/" in name or os.sep in name or name in (".", "..")
    here = Path(name).expanduser()
    if name not in KNOWN or is_path:
        for place in (here, folder / name):
            if place.is_dir() or (place.is_file() and is_path):
                return place
    if is_path:
        raise RequestError(
            f"no data set at {name}, neither here nor in {folder}; give the path of an .npz file or of a folder "
            "of class folders"
        )
    return None


def _read(own: Path) -> Dataset:
    """A user's own images; they are known by the name of the file or folder."""
    name = check_name("data set", own.resolve().stem if own.is_file() else own.resolve().name)
    if own.is_dir():
        from benchbox.data import folder

        train, test = folder.read(own)
        _say_shared(own, train[0], test[0])
        labels = torch.cat([train[1], test[1]])
        return _assemble(name, Images(*train), Images(*test), int(labels.max()) + 1)
    if own.suffix != ".npz":
        raise DataError(f"{own} is no .npz file and no folder; save the images with np.savez")
    from benchbox.data import npz

    train, test, classes = npz.read(own, KNOWN.get(name))
    _say_shared(own, train[0], test[0])
    return _assemble(name, Images(*train), Images(*test), classes)


def _say_shared(own: Path, train: Tensor, test: Tensor) -> None:
    """Test images that are also trained on make a number too high; whose they are may not know."""
    trained = {hashlib.sha256(image.numpy().data).digest() for image in train}
    shared = [
        i for i, image in enumerate(test) if trained and hashlib.sha256(image.numpy().data).digest() in trained
    ]
    if shared:
        _LOG.warning(
            "%s: %d of %d test images are training images, too, the first is number %d; a training knows them",
            own,
            len(shared),
            len(test),
            shared[0],
        )


def _assemble(name: str, train: Images, test: Images, classes: int) -> Dataset:
    known = train if len(train) else test
    _, channels, height, width = known.x.shape
    family: Family = KNOWN[name].family if name in KNOWN else "mnist" if channels == 1 else "cifar"
    mean, std = _statistics(known.x)
    spec = ImageSpec(channels, height, classes, mean, std, None if width == height else width)
    return Dataset(name, family, train, test, spec, EPSILON[family])


def _statistics(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 images (N, C, H, W), in the units of [0, 1].

    Taken from the exact counts of the 256 grey levels, so that no machine and no number of threads rounds
    them differently.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(x.shape[1]):
        share = torch.bincount(x[:, channel].flatten(), minlength=256).double() / x[:, channel].numel()
        mean = float((share * levels).sum())
        variance = float((share * (levels - mean) ** 2).sum())
        means.append(mean)
        # A channel that never varies must not be divided by zero; one grey level is the finest scale.
        stds.append(max(variance**0.5, 1 / 255))
    return tuple(means), tuple(stds)


def sample_list(
    dataset: Dataset, n: int | None = None, split: str = "test", *, seed: int | None = None
) -> SampleList:
    """The first n images of a split, or n drawn at random.

    The first n are no random sample: the first half of MNIST's test set is harder than the second. Of two random
    lists with the same seed the shorter one is the beginning of the longer one.

    Args:
        dataset: Where they come from.
        n: How many; None for all of `digits` and for at most 1,000 of any other.
        split: `test`, or `train`.
        seed: What they are drawn with, without replacement; None for the first n.

    Raises:
        DataError: The split has fewer images than n, or n is less than 1.
        RequestError: There is no such split.
    """
    images = dataset.split(split)
    if n is None:
        n = len(images) if dataset.name == "digits" else min(DEFAULT_SAMPLES, len(images))
    if not 1 <= n <= len(images):
        raise DataError(
            f"asked for {n} {split} images of {dataset.name}, which has {len(images)}; ask for 1 to {len(images)}"
        )
    if seed is None:
        return SampleList(dataset.name, split, tuple(range(n)), images.rows(slice(n)).digest)
    chosen = sample_draws(1, seed).at("samples").permutation(len(images))[0, :n]
    return SampleList(dataset.name, split, tuple(chosen.tolist()), images.rows(chosen).digest, seed)
