"""A user's own images: NAME.npz with x_test and y_test, and x_train and y_train for trainings."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchbox.data import labels
from benchbox.data.catalogue import Entry
from benchbox.errors import DataError

TEST = ("x_test", "y_test")
TRAIN = ("x_train", "y_train")
#: Optional: a whole number, where the highest label does not tell.
CLASSES = "classes"
_LOG = logging.getLogger("benchbox")

Split = tuple[Tensor, Tensor]


def read(path: Path, entry: Entry | None = None) -> tuple[Split, Split, int]:
    """Read and check a file.

    Args:
        path: Of x_test and, where something is trained, x_train: uint8 (N, H, W, C), (N, C, H, W) or (N, H, W);
            and y_test and y_train: class numbers (N,) in 0 … K-1, or what `labels.numbered` makes of them.
        entry: What the images have to be if the name is a known one. The number of classes of any other data
            set is `classes` if the file has it, else the highest label plus one; every class has to occur in
            y_train.

    Returns:
        The training set, which may be empty, and the test set, each as images (N, C, H, W) uint8 and labels (N,)
        int64; and the number of classes.

    Raises:
        DataError: The file is not that.
    """
    arrays = _open(path)
    y = labels.numbered({key: arrays[key] for key in ("y_train", "y_test") if key in arrays}, str(path))
    test = _split(path, "test", arrays["x_test"], y["y_test"])
    train = _split(path, "train", arrays["x_train"], y["y_train"]) if "x_train" in arrays else empty(test)
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataError(
            f"{path}: x_train has images (C, H, W) = {tuple(train[0].shape[1:])} and x_test "
            f"{tuple(test[0].shape[1:])}; give both one shape"
        )
    if entry is not None:
        _check_entry(path, entry, test[0])
    classes = entry.classes if entry else _classes(path, arrays)
    return train, test, _check_labels(path, train[1], test[1], classes)


def empty(test: Split) -> Split:
    """No training images, of the shape of a test set's."""
    return test[0][:0], test[1][:0]


def _open(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            keys = TEST if not any(key in file for key in TRAIN) else (*TRAIN, *TEST)
            missing = [key for key in keys if key not in file]
            if missing:
                raise DataError(
                    f"{path} has no {', '.join(missing)} (it has {', '.join(file) or 'nothing'}); "
                    f"save it with np.savez(path, {', '.join(f'{key}=…' for key in keys)})"
                )
            return {key: file[key] for key in (*keys, CLASSES) if key in file}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        # np.load hands out a bare array, not an archive, for a .npy file that was renamed: hence TypeError.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read ({reason}); save plain arrays with np.savez") from error


def _split(path: Path, split: str, x: NDArray[Any], y: NDArray[np.int64]) -> Split:
    if x.dtype != np.uint8:
        found = f"{x.dtype} in [{x.min():g}, {x.max():g}]" if x.dtype.kind in "iuf" and x.size else f"{x.dtype}"
        raise DataError(
            f"{path}: images must be uint8 0..255 (N, H, W, C) or (N, H, W), got {found} in x_{split}; "
            f"{_remedy(x)}"
        )
    if len(x) == 0 and split == "train":
        raise DataError(f"{path}: x_train is empty; leave it and y_train out where nothing is trained")
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise DataError(
            f"{path}: x_{split} must be images (N, H, W, C) or (N, H, W), at least one, got shape {x.shape}; "
            f"reshape them, as in x_{split}.reshape(-1, 28, 28)"
        )
    if len(x) != len(y):
        raise DataError(
            f"{path}: x_{split} has {len(x)} images and y_{split} {len(y)} labels; give each image one label"
        )
    channels_last = x if x.ndim == 4 else x[..., None]
    if channels_last.shape[3] not in (1, 3) and channels_last.shape[1] in (1, 3):
        _LOG.warning("%s: x_%s has shape %s; its channels are taken to come first", path, split, x.shape)
        channels_last = channels_last.transpose(0, 2, 3, 1)
    if channels_last.shape[3] not in (1, 3):
        raise DataError(
            f"{path}: x_{split} has {channels_last.shape[3]} channels; give grey or RGB images, as in "
            f"x_{split}[..., :3]"
        )
    channels_first = np.ascontiguousarray(channels_last.transpose(0, 3, 1, 2))
    return torch.from_numpy(channels_first), torch.from_numpy(y)


def _remedy(x: NDArray[Any]) -> str:
    """How to make bytes of numbers that are none: what would wrap around or cut off is not advised."""
    if x.dtype.kind == "b":
        return "convert them with 255 * x.astype('uint8')"
    low, high = (x.min(), x.max()) if x.dtype.kind in "iuf" and x.size else (np.nan, np.nan)
    if low >= 0 and high <= 1 and x.dtype.kind == "f":
        return "convert them with (255 * x).round().astype('uint8')"
    if low >= 0 and high <= 255:
        return f"convert them with x{'.round()' if x.dtype.kind == 'f' else ''}.astype('uint8')"
    if low >= 0 and x.dtype == np.uint16:
        return "scale them to 0..255 as the network is to see them, full 16 bits with (x // 257).astype('uint8')"
    return "save them as they were before they were normalised, in whole numbers from 0 to 255"


def _classes(path: Path, arrays: dict[str, NDArray[Any]]) -> int | None:
    found = arrays.get(CLASSES)
    if found is None:
        return None
    if found.size != 1 or found.dtype.kind not in "iu" or int(found.item()) < 2:
        raise DataError(f"{path}: {CLASSES} is {found.dtype} {found.shape}; give their number, at least 2")
    return int(found.item())


def _check_entry(path: Path, entry: Entry, x: Tensor) -> None:
    expected = (entry.channels, entry.size, entry.size)
    if tuple(x.shape[1:]) != expected:
        raise DataError(
            f"{path}: {entry.name} has images (C, H, W) = {expected}, got {tuple(x.shape[1:])}; "
            "save other images under another name"
        )


def _check_labels(path: Path, train: Tensor, test: Tensor, classes: int | None) -> int:
    """The number of classes."""
    count = int((train if len(train) else test).max()) + 1 if classes is None else classes
    for split, y in (("train", train), ("test", test)):
        low, high = (int(y.min()), int(y.max())) if len(y) else (0, 0)
        if low < 0 or high >= count:
            raise DataError(
                f"{path}: y_{split} has labels {low} to {high}, but the classes are 0 to {count - 1}; "
                "number the classes from 0, and train on each one that is tested"
            )
    if classes is None:
        known = train if len(train) else test
        absent = sorted(set(range(min(count, len(train) + 1))) - set(train.tolist())) if len(train) else []
        if absent or count < 2:
            what = f"no image of class {absent[0]}" if absent else "one class only"
            split = "y_train" if known is train else "y_test"
            raise DataError(f"{path}: {split} has {what}; number the classes 0 … K-1, K at least 2")
    return count
