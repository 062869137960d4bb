"""A user's own images: one file NAME.npz with x_train, y_train, x_test and y_test."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchbox.data.catalogue import Entry
from benchbox.errors import DataError

KEYS = ("x_train", "y_train", "x_test", "y_test")

Split = tuple[Tensor, Tensor]


def read(path: Path, entry: Entry | None = None) -> tuple[Split, Split]:
    """Read and check a file.

    Args:
        path: Of x_train and x_test, uint8 (N, H, W, C) or (N, H, W) with H = W, and y_train and y_test,
            integers (N,) in 0 … K-1.
        entry: What the images have to be if the name is a known one. The number of classes of any other data
            set is the highest label plus one, and every class has to occur in y_train.

    Returns:
        The training and the test set, each as images (N, C, H, W) uint8 and labels (N,) int64.

    Raises:
        DataError: The file is not that.
    """
    arrays = _open(path)
    train = _split(path, "train", arrays)
    test = _split(path, "test", arrays)
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataError(
            f"{path}: x_train has images (C, H, W) = {tuple(train[0].shape[1:])} and x_test "
            f"{tuple(test[0].shape[1:])}; give both one shape"
        )
    if entry is not None:
        _check_entry(path, entry, train[0])
    _check_labels(path, train[1], test[1], entry.classes if entry else None)
    return train, test


def _open(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in KEYS if key not in file]
            if missing:
                raise DataError(
                    f"{path} has no {', '.join(missing)} (it has {', '.join(file) or 'nothing'}); "
                    f"save it with np.savez(path, {', '.join(f'{key}=…' for key in KEYS)})"
                )
            return {key: file[key] for key in KEYS}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        # np.load hands out a bare array, not an archive, for a .npy file that was renamed: hence TypeError.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read ({reason}); save plain arrays with np.savez") from error


def _split(path: Path, split: str, arrays: dict[str, NDArray[Any]]) -> Split:
    x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
    if x.dtype != np.uint8:
        whole, numeric = x.dtype.kind in "iu", x.dtype.kind in "iuf" and x.size
        found = f"{x.dtype} in [{x.min():g}, {x.max():g}]" if numeric else f"{x.dtype}"
        remedy = "x.astype('uint8')" if whole else "(255 * x).round().astype('uint8') from [0, 1]"
        raise DataError(
            f"{path}: images must be uint8 0..255 (N, H, W, C) or (N, H, W), got {found} in x_{split}; "
            f"convert them with {remedy}"
        )
    if x.ndim not in (3, 4) or x.shape[1] != x.shape[2] or 0 in x.shape:
        raise DataError(
            f"{path}: x_{split} must be square images (N, H, W, C) or (N, H, W), at least one, got shape "
            f"{x.shape}; crop them, or move the channels last"
        )
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise DataError(
            f"{path}: y_{split} must be integers (N,), got {y.dtype} {y.shape}; give one class number an image"
        )
    if len(x) != len(y):
        raise DataError(
            f"{path}: x_{split} has {len(x)} images and y_{split} {len(y)} labels; give each image one label"
        )
    channels_last = x if x.ndim == 4 else x[..., None]
    channels_first = np.ascontiguousarray(channels_last.transpose(0, 3, 1, 2))
    return torch.from_numpy(channels_first), torch.from_numpy(y.astype(np.int64))


def _check_entry(path: Path, entry: Entry, x: Tensor) -> None:
    expected = (entry.channels, entry.size, entry.size)
    if tuple(x.shape[1:]) != expected:
        raise DataError(
            f"{path}: {entry.name} has images (C, H, W) = {expected}, got {tuple(x.shape[1:])}; "
            "save other images under another name"
        )


def _check_labels(path: Path, train: Tensor, test: Tensor, classes: int | None) -> None:
    count = int(train.max()) + 1 if classes is None else classes
    for split, y in (("train", train), ("test", test)):
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= count:
            raise DataError(
                f"{path}: y_{split} has labels {low} to {high}, but the classes are 0 to {count - 1}; "
                "number the classes from 0, and train on each one that is tested"
            )
    if classes is None:
        absent = sorted(set(range(min(count, len(train) + 1))) - set(train.tolist()))
        if absent or count < 2:
            what = f"no image of class {absent[0]}" if absent else "one class only"
            raise DataError(f"{path}: y_train has {what}; number the classes 0 … K-1, K at least 2")
