"""What a name that nobody claims was meant to be: a file, a folder, a notebook, weights."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from benchbox.errors import RequestError, unknown

_WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".onnx", ".pkl", ".h5", ".npz")
_DATA = ".npz file and no folder; save the images with np.savez('NAME.npz', x_test=…, y_test=…)"


def misnamed(kind: str, name: str, known: Collection[str]) -> RequestError:
    """The error for a name that nobody claims.

    Args:
        kind: `defence`, `attack` or whatever else is looked up, in the user's words.
        name: As it was typed.
        known: Every name that would have been found.
    """
    if kind == "data set":
        is_file = Path(name).is_file()
        return RequestError(f"{name} is no {_DATA}") if is_file else unknown(kind, name, known)
    path, _, attribute = name.rpartition(":") if ":" in name else (name, "", "")
    place, written = Path(path), attribute or "NAME"
    if place.suffix == ".py":
        return RequestError(f"{name} names nothing in the file; write {path}:NAME, a class or function in it")
    if place.is_dir():
        return RequestError(f"{path} is a folder; name a file in it, as {path.rstrip('/')}/__init__.py:{written}")
    if place.suffix == ".ipynb":
        return RequestError(
            f"{path} is a notebook; make a file of it, `jupyter nbconvert --to script {path}`, and name "
            f"{place.stem}.py:{written}"
        )
    if kind == "defence" and place.suffix in _WEIGHTS:
        return RequestError(
            f"{path} is no network; name what builds it, and the weights beside it: --defense file.py:NAME "
            f"--weights {path}"
        )
    return unknown(kind, name, known)
