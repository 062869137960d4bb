"""Adversarial images as files, out and in: anyone can score ours, and ours can be attacked by anyone.

Written as safetensors; read from safetensors or .npz. Nothing here unpickles, and nothing needs torch.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchbox.domain import TOLERANCE, Evidence, ImageSpec, Norm, SampleList, ThreatModel
from benchbox.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Of the metadata; raised when its meaning changes.
VERSION = 1
#: Share of a grey level that float32 may take from a whole one.
GREY = 1e-3
#: Formats that run code when they are read.
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib")


@dataclass(frozen=True)
class AdversarialFile:
    """What a file holds; row i is one image.

    Attributes:
        sha256: Of the file.
        x: floats or uint8, (N, C, H, W) or (N, H, W, C), as found.
        indices: (N,) int64, places in the test split.
        labels: (N,) int64 true classes, if the file has them.
    """

    sha256: str
    x: NDArray[Any]
    indices: NDArray[np.int64]
    labels: NDArray[np.int64] | None = None


def export(evidence: Evidence, x: NDArray[np.float32]) -> bytes:
    """A safetensors file of a finished cell: images, places, labels, and a JSON record in its metadata.

    Args:
        evidence: The cell.
        x: (N, C, H, W) float32, its adversarial images in the order of the sample list; kept to the bit.

    Raises:
        DataError: The cell is not finished.
    """
    from safetensors.numpy import save

    cell, outcome = evidence.cell, evidence.outcome
    if not len(outcome) == len(cell.samples) == len(x):
        raise DataError(
            f"cell {cell.key[:12]} has {len(outcome)} of {len(cell.samples)} images; finish it with `benchbox run`"
        )
    order = np.argsort(outcome.position)
    record = {
        "version": VERSION,
        "key": cell.key,
        "cell": cell.as_dict(),
        "samples": cell.samples.as_dict(),
        "threat": asdict(cell.threat),
        "predictions": {
            "clean": outcome.clean[order].tolist(),
            "adversarial": outcome.adversarial[order].tolist(),
        },
        **({} if outcome.certificate is None else {"certified": outcome.certificate.tolist()}),
        "provenance": dict(evidence.provenance),
    }
    tensors: dict[str, NDArray[Any]] = {
        "x_adv": np.ascontiguousarray(x),
        "positions": np.arange(len(x)),
        "indices": np.array(cell.samples.indices, np.int64),
        "labels": np.ascontiguousarray(outcome.label[order]),
    }
    return bytes(save(tensors, {"benchbox": json.dumps(record, ensure_ascii=False)}))


def read(path: Path) -> AdversarialFile:
    """Read a file.

    Args:
        path: `.safetensors` or `.npz` with `x_adv` and, if they are not the first images of the test split,
            `indices`; `labels` are checked where there are any.

    Raises:
        DataError: It is a pickle, cannot be read, or is not that.
    """
    if path.suffix.lower() in PICKLES:
        raise DataError(
            f"{path} may run code when it is read, so it is not; save it with "
            "np.savez('adversarials.npz', x_adv=x.cpu().numpy(), indices=…) or as safetensors"
        )
    if path.suffix.lower() not in (".safetensors", ".npz"):
        raise DataError(f"{path} is no .safetensors or .npz file; save it with np.savez(path, x_adv=…, indices=…)")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check the path") from None
    arrays = _safetensors(path, content) if path.suffix.lower() == ".safetensors" else _npz(path)
    x = arrays["x_adv"]
    if x.ndim != 4 or (x.dtype.kind != "f" and x.dtype != np.uint8) or len(x) == 0:
        raise DataError(
            f"{path}: x_adv is {x.dtype} {x.shape}; give float32 in [0, 1] or uint8, (N, C, H, W) or (N, H, W, C)"
        )
    indices = _integers(path, arrays, "indices", len(x))
    return AdversarialFile(
        hashlib.sha256(content).hexdigest(),
        x,
        np.arange(len(x)) if indices is None else indices,
        _integers(path, arrays, "labels", len(x)),
    )


def rows_of(file: AdversarialFile, samples: SampleList, available: int) -> NDArray[np.int64]:
    """(n,) the rows of a file that are the images of a sample list, in its order.

    Args:
        file: Images of other indices are left out.
        samples: What is to be covered.
        available: Images in the split.

    Raises:
        DataError: An index is outside of the split, occurs twice, or is missing.
    """
    outside = file.indices[(file.indices < 0) | (file.indices >= available)]
    if len(outside):
        raise DataError(
            f"index {outside[0]} is not in the {samples.split} split of {samples.dataset}, which has {available} "
            f"images; number them from 0 to {available - 1}"
        )
    values, counts = np.unique(file.indices, return_counts=True)
    if (counts > 1).any():
        twice = int(counts.argmax())
        raise DataError(f"index {values[twice]} occurs {counts[twice]} times; give each image once")
    place = {index: row for row, index in enumerate(file.indices.tolist())}
    missing = [index for index in samples.indices if index not in place]
    if missing:
        covered = next(i for i in range(len(values) + 1) if i == len(values) or values[i] != i)
        remedy = f"score fewer with --samples {covered}" if covered else "add the missing images"
        raise DataError(
            f"the file lacks {len(missing)} of the {len(samples)} images of the list (the first is {missing[0]}); "
            f"{remedy}"
        )
    return np.array([place[index] for index in samples.indices], np.int64)


def images(file: AdversarialFile, rows: NDArray[np.int64], spec: ImageSpec) -> NDArray[np.float32]:
    """(n, C, H, W) float32 images of some rows; uint8 becomes k / 255 and floats stay what they are.

    Raises:
        DataError: They are not the shape of the data set's images.
    """
    first, last = spec.shape, (*spec.shape[1:], spec.channels)
    if file.x.shape[1:] not in (first, last):
        raise DataError(
            f"x_adv has images of shape {file.x.shape[1:]}; give (N, C, H, W) = (N, {first[0]}, {first[1]}, "
            f"{first[2]}) or (N, H, W, C)"
        )
    x = file.x[rows]
    x = x if x.shape[1:] == first else x.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(x / np.float32(255) if x.dtype == np.uint8 else x, np.float32)


def is_rounded(x_adv: NDArray[np.float32]) -> bool:
    """Whether images went through 8 bits, as every PNG does: all pixels are whole grey levels."""
    levels = x_adv.astype(np.float64) * 255
    return bool(np.isfinite(levels).all() and np.abs(levels - np.rint(levels)).max(initial=0) < GREY)


def slack(x_adv: NDArray[np.float32], threat: ThreatModel) -> float:
    """How far rounding to 8 bits may have taken an image of (C, H, W) out of the ball: half a level a pixel."""
    pixels = float(np.prod(x_adv.shape[1:]))
    levels: dict[Norm, float] = {"linf": 1.0, "l2": pixels**0.5, "l1": pixels}
    return 0.5 / 255 * levels.get(threat.norm, 0.0)


def check(
    x_adv: NDArray[np.float32],
    x: NDArray[np.float32],
    indices: NDArray[np.int64],
    threat: ThreatModel,
    beyond_by: float = 0.0,
) -> None:
    """Refuse images an attacker may not use.

    Args:
        x_adv: (N, C, H, W) float32.
        x: Likewise, the clean images.
        indices: (N,) their places in the split, for the message.
        threat: The ball.
        beyond_by: How far they may lie outside of it, for who projects them afterwards.

    Raises:
        RequestError: The threat model is no ball of a norm.
        DataError: A pixel is not finite or outside [0, 1], or an image outside the ball, each by more than
            float32 rounding (1e-6); names the worst image.
    """
    threat.require_norm()
    broken: NDArray[np.bool_] = np.logical_not(np.isfinite(x_adv).reshape(len(x), -1).all(axis=1))
    if broken.any():
        raise DataError(
            f"image {indices[broken][0]} has NaN or infinite pixels; {_count(broken)}; guard divisions"
        )
    exact = x_adv.astype(np.float64)
    beyond = np.maximum(-exact, exact - 1).reshape(len(x), -1).max(axis=1)
    if beyond.max() > TOLERANCE:
        worst = int(beyond.argmax())
        raise DataError(
            f"image {indices[worst]} has pixels in [{x_adv[worst].min():.6g}, {x_adv[worst].max():.6g}]; "
            f"{_count(beyond > TOLERANCE)}; give images in [0, 1], not normalised"
        )
    delta = (exact - x).reshape(len(x), -1)
    distance = np.linalg.norm(delta, {"linf": np.inf, "l2": 2}.get(threat.norm, 1), axis=1)
    excess = distance - threat.epsilon - beyond_by
    tolerance = threat.tolerance(delta.shape[1])
    if excess.max() > tolerance:
        worst = int(excess.argmax())
        raise DataError(
            f"image {indices[worst]} is {distance[worst]:.7g} from the clean one, outside the ball {threat} by "
            f"{excess[worst] + beyond_by:.2g}, the worst; {_count(excess > tolerance)}; project them, or name "
            "their --epsilon and --norm"
        )


def check_labels(file: AdversarialFile, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
    """Refuse a file whose labels, where it has some, are not the data set's: its indices mean other images.

    Raises:
        DataError: They are not.
    """
    if file.labels is None:
        return
    wrong = file.labels[rows] != labels
    if wrong.any():
        at = rows[wrong][0]
        raise DataError(
            f"image {file.indices[at]} is labelled {file.labels[at]} in the file, {labels[wrong][0]} in the data "
            f"set; {_count(wrong)}; the indices are of another split or order"
        )


def _require_images(path: Path, held: Iterable[str]) -> None:
    if "x_adv" not in (names := list(held)):
        raise DataError(f"{path} has no x_adv (it has {', '.join(names) or 'nothing'}); name the images x_adv")


def _safetensors(path: Path, content: bytes) -> Mapping[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays: Mapping[str, NDArray[Any]] = load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); save it again as safetensors") from None
    _require_images(path, arrays)
    return arrays


def _npz(path: Path) -> Mapping[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            _require_images(path, file)
            return {key: file[key] for key in file if key in ("x_adv", "indices", "labels")}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read ({reason}); save plain arrays with np.savez") from None


def _integers(path: Path, arrays: Mapping[str, NDArray[Any]], key: str, n: int) -> NDArray[np.int64] | None:
    if key not in arrays:
        return None
    found = arrays[key]
    if found.shape != (n,) or not np.issubdtype(found.dtype, np.integer):
        raise DataError(f"{path}: {key} is {found.dtype} {found.shape}; give {n} integers, one an image")
    return found.astype(np.int64)


def _count(wrong: NDArray[np.bool_]) -> str:
    return f"{int(wrong.sum())} of {len(wrong)} images are affected"
