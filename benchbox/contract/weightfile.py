"""Weights on disk, told apart by what is in them and never by their ending; nothing here unpickles code."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from benchbox.errors import ArtifactError

#: How files begin that are often found in the place of weights: what they are, and what to do.
_BEGINNINGS = (
    (b"version https://git-lfs", "a pointer of git-lfs", "fetch the file itself with `git lfs pull`"),
    (b"\x89HDF", "an HDF5 file, of Keras perhaps", "load it there and save its tensors as .safetensors"),
    (b"\x93NUMPY", "a numpy array", "save the state_dict of the network as .safetensors"),
    (b"GGUF", "a GGUF file", "save the state_dict of the network as .safetensors"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"BZh", "a bzip2 archive", "unpack it"),
    (b"\xfd7zXZ", "an xz archive", "unpack it"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"Rar!", "a rar archive", "unpack it"),
)
#: How every pickle of torch's begins that is no zip archive: its magic number.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_STATE = "save model.state_dict() and nothing else, as .safetensors"


def kind(file: Path) -> str:
    """`safetensors` or `torch`.

    Raises:
        ArtifactError: It is anything else; says what, and what to do.
    """
    head, size = _head(file)
    if size == 0:
        raise ArtifactError(f"{file} is empty; copy or download it again")
    for beginning, what, remedy in _BEGINNINGS:
        if head.startswith(beginning):
            raise _no_weights(file, what, remedy)
    if head.startswith(b"PK\x03\x04"):
        return _zip(file)
    if head.startswith(_LEGACY):
        return "torch"
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000:
        return "safetensors"
    raise _no_weights(file, *_guess(head))


def read_weights(file: Path, content: bytes | None = None) -> Any:
    """What a weights file holds: tensors by name, or whatever a checkpoint of torch nests them in.

    Args:
        file: The file.
        content: What was read from it, if it was.

    Raises:
        ArtifactError: It is none, is damaged, or holds what would have to be unpickled.
    """
    found, content = kind(file), file.read_bytes() if content is None else content
    if found == "safetensors":
        try:
            return load(content)
        except SafetensorError as error:
            raise ArtifactError(f"{file} is no safetensors file ({error}); save it anew") from error
    try:
        # By its content: given a name, torch goes by the ending.
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever the bytes make of it
        raise ArtifactError(_refusal(file, error)) from error


def _head(file: Path) -> tuple[bytes, int]:
    if file.is_dir():
        inside = sorted(f.name for f in file.iterdir() if f.is_file())[:5]
        raise ArtifactError(f"{file} is a folder; name the file in it ({', '.join(inside) or 'it has none'})")
    try:
        with file.open("rb") as content:
            return content.read(4096), file.stat().st_size
    except FileNotFoundError:
        raise ArtifactError(f"no weights at {file}; give the path of a .safetensors file") from None
    except OSError as error:
        raise ArtifactError(f"cannot read {file}: {error.strerror}; check its permissions") from None


def _zip(file: Path) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            # Torch reads past a wrong checksum.
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        raise ArtifactError(f"{file} is cut short or damaged; copy or download it again") from None
    if damaged:
        raise ArtifactError(
            f"{file} is damaged: {damaged} is not what its checksum says; copy or download it again"
        )
    ends = {name.rpartition("/")[2] for name in names}
    if any("/code/" in name or name.startswith("code/") for name in names) or "constants.pkl" in ends:
        raise _no_weights(file, "a TorchScript program", f"load it with torch.jit.load and {_STATE}")
    if ends & {"archive_format", "serialized_exported_program.json"}:
        raise _no_weights(file, "an exported program of torch", _STATE)
    if "data.pkl" in ends:
        return "torch"
    if all(name.endswith(".npy") for name in names) and names:
        raise _no_weights(file, "an .npz of numpy arrays", _STATE)
    if "model.weights.h5" in ends:
        raise _no_weights(file, "a model of Keras", "load it there and save its tensors as .safetensors")
    raise _no_weights(file, f"an archive (of {', '.join(names[:3]) or 'nothing'})", "unpack it")


def _guess(head: bytes) -> tuple[str, str]:
    """What a file may be that begins like no other, and what to do."""
    if head.lstrip().startswith(b"<"):
        return "a web page", "a login or a warning was saved in its place; download the file itself"
    if head[:1] == b"\x08" and (b"onnx" in head.lower() or b"pytorch" in head.lower()):
        return "an ONNX model", f"take the network it was exported from and {_STATE}"
    if head.lstrip().startswith(b"{") and b'"weight_map"' in head:
        return "an index of weights in several files", f"load them all into the network and {_STATE}"
    if head[:1] == b"\x80":
        return "a pickle of Python objects", f"what it holds could be code and is not read; {_STATE}"
    if head[257:262] == b"ustar":
        return "a tar archive", "unpack it"
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        text = "" if error.start < len(head) - 4 else head[: error.start].decode()
    if text and "\0" not in text:
        return f"text, {text.split(maxsplit=1)[0][:30]!r} …" if text.split() else "blank", _STATE
    return "something unknown, or damaged", f"copy or download it again, or {_STATE}"


def _no_weights(file: Path, what: str, remedy: str) -> ArtifactError:
    return ArtifactError(f"{file} is no weights file but {what}; {remedy}")


def _refusal(file: Path, error: Exception) -> str:
    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # it cannot tell of a damaged file, nor of the format before torch 1.6
        unsafe = []
    remedy = "where you trust it, load it with weights_only=False and save its state_dict as .safetensors"
    layers = ("torch.nn.modules.", "torch.nn.parallel.", "torchvision.", "timm.")
    if any(name.startswith(layers) for name in unsafe):
        own = next((name for name in unsafe if not name.startswith("torch.")), unsafe[0])
        return f"{file} holds a whole pickled model ({own}), which is code; {remedy}"
    if unsafe:
        return (
            f"{file} holds {', '.join(unsafe[:3])} beside the tensors, which would have to be unpickled; {remedy}"
        )
    return (
        f"{file} is damaged or holds more than tensors, which would have to be unpickled "
        f"({type(error).__name__}); {remedy}"
    )
