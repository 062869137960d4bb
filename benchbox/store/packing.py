"""Predicted classes as a few hundred characters: one bit for each that is right, a few for each that is wrong.

Whole numbers in, base64 out. No compressor, so the same predictions give the same text on every machine.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

import numpy as np

from benchbox.errors import StoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def width_of(classes: NDArray[np.int64]) -> int:
    """Bits that hold the largest of some classes, at least 1."""
    return max(1, int(classes.max(initial=0)).bit_length())


def pack(values: NDArray[Any], width: int) -> str:
    """Non-negative whole numbers of `width` bits each, or booleans of one, as base64."""
    places = np.arange(width - 1, -1, -1)
    bits = (values.astype(np.int64).ravel()[:, None] >> places) & 1
    return base64.b64encode(np.packbits(bits.astype(np.uint8)).tobytes()).decode()


def unpack(text: str, width: int, count: int) -> NDArray[np.int64]:
    """Inverse of `pack`: (count,) numbers.

    Raises:
        StoreError: The text is no base64, or too short or too long.
    """
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise StoreError(
            f"packed values cannot be read ({error}); take the file from where it was published"
        ) from None
    if len(content) != -(-width * count // 8):
        raise StoreError(
            f"{len(content)} bytes are packed where {count} values of {width} bits are announced; take the file "
            "from where it was published"
        )
    bits = np.unpackbits(np.frombuffer(content, np.uint8), count=width * count).reshape(count, width)
    numbers: NDArray[np.int64] = bits.astype(np.int64) @ (1 << np.arange(width - 1, -1, -1))
    return numbers


def pack_predictions(predicted: NDArray[np.int64], label: NDArray[np.int64], width: int) -> tuple[str, str]:
    """Which predictions are right, and the classes of those that are not.

    Args:
        predicted: (N, R) classes.
        label: (N,) true classes.
        width: Bits of a class.
    """
    right = predicted == label[:, None]
    return pack(right, 1), pack(predicted[~right], width)


def unpack_predictions(
    right: str, wrong: str, label: NDArray[np.int64], draws: int, width: int
) -> NDArray[np.int64]:
    """Inverse of `pack_predictions`: (N, R) classes.

    Raises:
        StoreError: The texts are not what was packed.
    """
    hits = unpack(right, 1, len(label) * draws).astype(bool).reshape(len(label), draws)
    predicted = np.repeat(label[:, None], draws, axis=1)
    predicted[~hits] = unpack(wrong, width, int((~hits).sum()))
    return predicted
