"""A folder of class folders of images, as torchvision's ImageFolder reads them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchbox.data.npz import Split, empty
from benchbox.draws import sample_draws
from benchbox.errors import DataError

_LOG = logging.getLogger("benchbox")
_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
_TEST = ("test", "val", "valid", "validation")


def read(path: Path) -> tuple[Split, Split]:
    """Read and check a folder: `train/CLASS/*` and `test/CLASS/*` (or `val`), or `CLASS/*` alone for a test set.

    Classes are numbered in the order of their names. Images are put into a fixed random order, as the files are
    sorted by class. They are grey if all of them are, else RGB; of transparent pixels the colour is taken.

    Returns:
        The training and the test set, each as images (N, C, H, W) uint8 and labels (N,) int64.

    Raises:
        DataError: There are no images, one cannot be read or is not of 8 bits, or they have several sizes.
    """
    test = next((path / name for name in _TEST if (path / name).is_dir()), None)
    parts = {"test": test} if test else {"test": path}
    if test and (path / "train").is_dir():
        parts["train"] = path / "train"
    found = {split: _files(part) for split, part in parts.items() if part}
    classes = sorted({name for files in found.values() for name, _ in files})
    if not found["test"]:
        raise DataError(
            f"{path} has no images in class folders; lay them as {path.name}/test/CLASS/IMAGE.png and, for "
            f"training, {path.name}/train/CLASS/IMAGE.png"
        )
    shown = ", ".join(f"{name} = {number}" for number, name in enumerate(classes[:10]))
    _LOG.warning(
        "%s: %d classes, numbered in their order: %s%s", path, len(classes), shown, ", …" * (len(classes) > 10)
    )
    transparent: list[Path] = []
    pixels = {split: [_pixels(file, transparent) for _, file in files] for split, files in found.items()}
    if transparent:
        _LOG.warning(
            "%s: %d images have transparent pixels, the first is %s; what colour lies there is taken",
            path,
            len(transparent),
            transparent[0].name,
        )
    grey = all(image.ndim == 2 for images in pixels.values() for image in images)
    sizes = {
        image.shape[:2]: file
        for split in found
        for image, (_, file) in zip(pixels[split], found[split], strict=True)
    }
    if len(sizes) > 1:
        (one, first), (two, second) = list(sizes.items())[:2]
        raise DataError(
            f"{path} has images of {one[0]}×{one[1]} ({first.name}) and {two[0]}×{two[1]} ({second.name}) pixels; "
            "resize or crop them to one size"
        )
    splits = {
        split: _stacked(pixels[split], [classes.index(name) for name, _ in files], grey)
        for split, files in found.items()
    }
    return splits.get("train") or empty(splits["test"]), splits["test"]


def _files(path: Path) -> list[tuple[str, Path]]:
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    return [
        (folder.name, file)
        for folder in folders
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in _ENDINGS
    ]


def _pixels(file: Path, transparent: list[Path]) -> NDArray[np.uint8]:
    """(H, W) of a grey image, else (H, W, 3); a file with transparent pixels is added to the list.

    Raises:
        DataError: It cannot be read, or has more than 8 bits: Pillow would make all above 255 white.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(
                    f"{file} has numbers of more than 8 bits (mode {image.mode}); save it with 8, scaled as the "
                    "network is to see it"
                )
            if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
                transparent.append(file)
            return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise DataError(
            f"{file} is no image that can be read ({type(error).__name__}); remove or mend it"
        ) from None


def _stacked(images: list[NDArray[np.uint8]], labels: list[int], grey: bool) -> Split:
    if grey:
        x = np.stack(images)[:, None]
    else:
        x = np.stack([image if image.ndim == 3 else np.repeat(image[..., None], 3, 2) for image in images])
        x = x.transpose(0, 3, 1, 2)
    order = sample_draws(1).permutation(len(labels))[0]
    return torch.from_numpy(np.ascontiguousarray(x))[order], torch.tensor(labels, dtype=torch.int64)[order]
