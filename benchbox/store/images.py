"""Adversarial images as they are handed on: packed, as what an attack did to the clean ones."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchbox.errors import StoreError
from benchbox.store import arrays, perturbation


@dataclass(frozen=True)
class Adversarials:
    """What an attack made of some samples; row i is one sample.

    Attributes:
        craft_key: `Cell.craft_key`, which every cell that uses these images shares.
        position: (N,) int64, place in the sample list.
        x: (N, C, H, W) float32, the images.
        first_success: (N,) int64, see `Outcome.first_success`.
        forwards: (N,) float64, forward passes spent on the sample.
        backwards: (N,) float64, backward passes likewise.
        distance: (N,) float64, see `Outcome.distance`; None likewise.
        clean: The images that the attack was given, under a name of their own (`clean_images`). What was done to
            them takes half the bytes of the images themselves; None where they are not known.

    Raises:
        StoreError: The rows do not match, or the images are not float32, which is what they come back as.
    """

    craft_key: str
    position: NDArray[np.int64]
    x: NDArray[np.float32]
    first_success: NDArray[np.int64]
    forwards: NDArray[np.float64]
    backwards: NDArray[np.float64]
    distance: NDArray[np.float64] | None = None
    clean: Adversarials | None = None

    def __post_init__(self) -> None:
        if self.x.dtype != np.float32 or self.x.ndim != 4:
            raise StoreError(f"adversarial images are {self.x.dtype} {self.x.shape}; give float32 (N, C, H, W)")
        rows = (len(self.x),)
        for name in ("position", "first_success", "forwards", "backwards", "distance"):
            column = getattr(self, name)
            if column is not None and column.shape != rows:
                raise StoreError(
                    f"{name} has shape {column.shape} for {rows[0]} adversarial images; give one an image"
                )
        if self.clean is not None and (clean := (len(self.clean), *self.clean.shape)) != self.x.shape:
            raise StoreError(f"clean images are {clean}, adversarial ones {self.x.shape}; give one for each")

    def __len__(self) -> int:
        return len(self.position)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image: (C, H, W)."""
        return self.x.shape[1:]

    @cached_property
    def packed(self) -> dict[str, bytes]:
        """As they are kept. Packing takes several times what storing does: whoever made them does it."""
        return pack(self)

    def as_packed(self) -> Packed:
        """The same as it is sent and kept: packed, and nothing else."""
        clean = None if self.clean is None else self.clean.as_packed()
        return Packed.of(self.craft_key, self.position, self.packed, self.shape, clean)

    def rows(self, chosen: NDArray[Any]) -> Adversarials:
        """Some of the rows: a mask, or numbers."""
        clean = None if self.clean is None else self.clean.rows(chosen)
        return Adversarials(self.craft_key, **{k: v[chosen] for k, v in self.columns().items()}, clean=clean)

    def columns(self) -> dict[str, NDArray[Any]]:
        """The arrays there are, by name."""
        known = {name: getattr(self, name) for name in _ARRAYS}
        return {name: array for name, array in known.items() if array is not None}


class Packed(Adversarials):
    """Packed images that are unpacked when somebody looks: whoever hands them on need not."""

    _shape: tuple[int, ...]

    @classmethod
    def of(
        cls,
        craft_key: str,
        position: NDArray[np.int64],
        packed: dict[str, bytes],
        shape: tuple[int, ...],
        clean: Adversarials | None = None,
    ) -> Packed:
        """What `Adversarials.packed` gave; it is intact.

        Args:
            craft_key: As it was.
            position: As it was.
            packed: The columns.
            shape: Of one image: (C, H, W).
            clean: As it was.
        """
        self = cls.__new__(cls)
        vars(self).update(craft_key=craft_key, position=position, packed=packed, _shape=shape, clean=clean)
        return self

    def __post_init__(self) -> None:  # made anew from its arrays, as `dataclasses.replace` does
        super().__post_init__()
        vars(self)["_shape"] = self.x.shape[1:]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image: (C, H, W)."""
        return self._shape

    def __getattribute__(self, name: str) -> Any:
        if name in _INSIDE and name not in (known := vars(self)) and "packed" in known:
            known.update(dict.fromkeys(_INSIDE) | unpack(known["packed"]["images"], known["clean"]))
        return super().__getattribute__(name)

    def __reduce__(self) -> tuple[Any, ...]:
        return Packed.of, (self.craft_key, self.position, self.packed, self._shape, self.clean)


_ARRAYS = tuple(field.name for field in fields(Adversarials) if field.name not in ("craft_key", "clean"))
_INSIDE = frozenset(_ARRAYS) - {"position"}

#: Clean images by name and positions: every attack on them hands them in, and they are packed once.
_CLEAN: dict[tuple[str, bytes], Adversarials] = {}
_CLEAN_KEPT = 8


def clean_images(key: str, position: NDArray[np.int64], x: NDArray[np.float32]) -> Adversarials:
    """Clean images, kept as what an attack of no steps made.

    Args:
        key: `SampleList.clean_key`.
        position: (N,) places in that list.
        x: (N, C, H, W) float32, the images.
    """
    at = (key, position.tobytes())
    if at not in _CLEAN or not np.array_equal(_CLEAN[at].x, x):
        while len(_CLEAN) >= _CLEAN_KEPT:
            _CLEAN.pop(next(iter(_CLEAN)))
        nothing = np.zeros(len(position))
        _CLEAN[at] = Adversarials(key, position, x, nothing.astype(np.int64), nothing, nothing)
    return _CLEAN[at]


def pack(made: Adversarials) -> dict[str, bytes]:
    """The two packed columns of a piece: positions, to find it by, and all the rest.

    Beside the positions stands the name of the clean images where they are needed to unpack it.
    """
    columns = made.columns()
    where = {"position": columns.pop("position")}
    clean = made.clean
    if clean is None or (moved := perturbation.encode(made.x, clean.x)) is None:
        return {"position": arrays.pack(where), "images": arrays.pack(columns)}
    del columns["x"]
    where["clean"] = np.frombuffer(clean.craft_key.encode(), np.uint8)
    return {"position": arrays.pack(where), "images": arrays.pack(columns | moved, zlib.Z_RLE)}


def unpack(packed: bytes, clean: Adversarials | None) -> dict[str, NDArray[Any]]:
    """The arrays but the positions.

    Raises:
        ValueError: They are no packed images, or are of other clean ones.
    """
    columns = arrays.unpack(packed)
    if "x" in columns:
        return columns
    if clean is None:
        raise ValueError("their clean images are not there")
    x = perturbation.decode(columns, clean.x)
    return {name: array for name, array in columns.items() if name in _INSIDE} | {"x": x}


def where(packed: bytes) -> tuple[NDArray[np.int64], str | None]:
    """Positions of a piece, and the name of the clean images that it is unpacked with.

    Raises:
        ValueError: These bytes are no positions.
    """
    found = arrays.unpack(packed)
    if not {"position"} <= found.keys() <= {"position", "clean"}:
        raise ValueError(f"not positions of images, but {', '.join(found)}")
    clean = found.get("clean")
    return found["position"], None if clean is None else clean.tobytes().decode()
