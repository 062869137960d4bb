"""The tensors of a checkpoint, and how they find their places in a network.

People's checkpoints nest the tensors under `state_dict`, `model`, `ema` and the like, and wrappers (DataParallel,
`torch.compile`, a class that normalises first) put a word before every name, in the file or in the network. What
fits is taken; what does not is refused with the first name that does not.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchbox.contract import weightfile
from benchbox.errors import ArtifactError

State = Mapping[str, Tensor]

#: Of several that fit, the first of these is taken: what was trained goes before its moving averages.
_USUAL = ("", "state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights")
#: What wrappers of torch put before or into names; it says nothing of the network.
_WRAPPERS = ("module", "_orig_mod")
#: Counters that a checkpoint may have or lack: nothing that is computed here depends on them.
_COUNTERS = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")
_REMEDY = "build the network the weights were saved from"
_LOG = logging.getLogger("benchbox")


def split(file: Path) -> tuple[Path, str]:
    """`net.pt#state_dict_ema` as the file and the key in it; no key is the empty one."""
    path, _, key = str(file).rpartition("#")
    return (file, "") if file.exists() or not path else (Path(path), key)


def sha256(file: Path) -> str:
    """Which weights they are: of the file, and of the key where one is named."""
    path, key = split(file)
    with path.open("rb") as content:
        return _named_digest(hashlib.file_digest(content, "sha256"), key)


def content(file: Path, digest: str) -> bytes:
    """What lies in a weights file, if it is still what was asked for.

    Args:
        file: As for `fill`.
        digest: What `sha256` said of it.

    Raises:
        ArtifactError: It is not there, or has changed.
    """
    path, key = split(file)
    weightfile.kind(path)
    found = path.read_bytes()
    if _named_digest(hashlib.sha256(found), key) != digest:
        raise ArtifactError(
            f"{path} is another file than a moment ago, when the work was planned; ask again, and give weights "
            "that nobody is writing to"
        )
    return found


def sets(file: Path, content: bytes | None = None) -> dict[str, State]:
    """Every set of tensors of a weights file, by the dotted key it lies under; the empty key is the file itself.

    Args:
        file: Without a key.
        content: What was read from it, if it was.

    Raises:
        ArtifactError: It is damaged, holds code, or holds no tensors by name.
    """
    found = dict(_states(weightfile.read_weights(file, content)))
    if not found:
        raise ArtifactError(f"{file} is no state_dict; save module.state_dict() and nothing else")
    return found


def fill(module: nn.Module, file: Path, content: bytes | None = None) -> None:
    """Load weights into a module: every name and no other, but for wrappers and counters.

    Says, through the logger `benchbox`, which of several sets it takes and which constants the file lacks.

    Args:
        module: Without wrappers; changed.
        file: `net.pt`, or `net.pt#key` for one of several sets in it.
        content: What was read from it, if it was.

    Raises:
        ArtifactError: The first name that is missing, that has another shape, or that nobody wants.
    """
    path, key = split(file)
    states = sets(path, content)
    if key:
        states = {key: _named(path, states, key)}
    tried = {name: _Fit(state, module) for name, state in states.items()}
    fits = sorted((name for name, fit in tried.items() if not fit.problem), key=_rank)
    if not fits:
        best = max(tried, key=lambda name: tried[name].matching)
        where = f"{path}#{best}" if best else str(path)
        part = next(_parts_that_fit(states[best], module), "")
        hint = (
            f", or take the part of it that fits: --weights {path}#{f'{best}.' if best else ''}{part}"
            if part
            else ""
        )
        raise ArtifactError(f"{where}{tried[best].problem}{hint}")
    taken = tried[fits[0]]
    if len(fits) > 1:
        others = " or ".join(f"{path}#{name}" for name in fits[1:])
        _LOG.warning("%s has %s; %s is taken; for another, --weights %s", path, _list(fits), fits[0], others)
    elif fits[0] and not key:
        _LOG.warning("%s: the weights under %r are taken", path, fits[0])
    if taken.kept:
        _LOG.warning("%s lacks %s; what the network was built with is kept", path, _list(taken.kept))
    module.load_state_dict(taken.state, strict=False)


def _named_digest(digest: hashlib._Hash, key: str) -> str:
    if key:
        digest.update(f"#{key}".encode())
    return digest.hexdigest()


def _parts_that_fit(state: State, module: nn.Module) -> Iterator[str]:
    """First words of names whose tensors alone fill a module: `model` beside `teacher`, as Lightning saves."""
    for front in dict.fromkeys(name.partition(".")[0] for name in state):
        part = {k.removeprefix(f"{front}."): v for k, v in state.items() if k.startswith(f"{front}.")}
        if part and not _Fit(part, module).problem:
            yield front


class _Fit:
    """How a set of tensors fits a module.

    Attributes:
        state: The tensors, under the module's names.
        problem: The first thing that does not fit, and the remedy, to stand behind the file's name; empty if all
            does.
        matching: How many tensors have a place.
        kept: Constants of the module that are missing.
    """

    def __init__(self, found: State, module: nn.Module) -> None:
        wanted = module.state_dict()
        needed = _needed(module)
        names = _matched([k for k in found if not _is_counter(k)], list(wanted), needed)
        self.state = {own: found[name] for own, name in names.items() if own is not None}
        self.matching = sum(own in self.state and self.state[own].shape == wanted[own].shape for own in wanted)
        self.kept = [k for k in wanted if k not in self.state and k not in needed and not _is_counter(k)]
        extra = [name for name in found if name not in set(names.values()) and not _is_counter(name)]
        self.problem = self._first(found, wanted, needed, extra)

    def _first(self, found: State, wanted: State, needed: set[str], extra: list[str]) -> str:
        for key, value in wanted.items():
            if key not in self.state and key in needed:
                near = difflib.get_close_matches(key, extra, n=1)
                return f" has no {key!r}{f' but {near[0]!r}' if near else ''}; {_REMEDY}"
            if key in self.state and self.state[key].shape != value.shape:
                shapes = tuple(self.state[key].shape), tuple(value.shape)
                return f": {key!r} is {shapes[0]} where the network has {shapes[1]}; {_REMEDY}"
            if key in self.state and (fault := _fault(self.state[key], value, key in needed)):
                return f": {key!r} {fault}"
        return f" has {extra[0]!r}, which the network has not; {_REMEDY}" if extra else ""


def _matched(found: list[str], wanted: list[str], needed: set[str]) -> dict[str, str]:
    """The module's name -> the file's, for the words to leave out in front that match the most."""
    theirs, ours = _bare(found), _bare(wanted)
    core = [name for name, original in ours.items() if original in needed] or list(ours)
    best: dict[str, str] = {}
    for ahead in _fronts(theirs):
        stripped = {name[len(ahead) :]: original for name, original in theirs.items()}
        for front in _fronts(core):
            names = {
                original: stripped[name[len(front) :]]
                for name, original in ours.items()
                if name.startswith(front) and name[len(front) :] in stripped
            }
            if len(names) > len(best):
                best = names
    return best


def _bare(names: Iterable[str]) -> dict[str, str]:
    """Names without the words of wrappers -> the names; as they are where two would become one."""
    names = list(names)
    bare = {".".join(word for word in name.split(".") if word not in _WRAPPERS): name for name in names}
    return bare if len(bare) == len(names) else {name: name for name in names}


def _fronts(names: Iterable[str]) -> list[str]:
    """What every name begins with, up to a stop, the shortest first: nothing, `model.`, `model.net.`."""
    words = [name.split(".")[:-1] for name in names]
    fronts = [""]
    for level in zip(*words, strict=False):
        if len(set(level)) > 1:
            break
        fronts.append(f"{fronts[-1]}{level[0]}.")
    return fronts


def _needed(module: nn.Module) -> set[str]:
    """What was learned: parameters, and the statistics of normalisations. Other buffers are constants."""
    learned = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    return learned | {name for name, _ in module.named_buffers() if name.rpartition(".")[2].startswith("running_")}


def _fault(found: Tensor, wanted: Tensor, learned: bool) -> str:
    """Why the numbers of a tensor are not taken, with the remedy; empty if they are."""
    if found.is_quantized or found.layout is not torch.strided or found.is_meta:
        kind = "quantised" if found.is_quantized else "without numbers" if found.is_meta else str(found.layout)
        return f"is {kind}; save it as a dense tensor of floating-point numbers"
    if wanted.is_floating_point() and not found.is_floating_point():
        return f"is {found.dtype} where the network has {wanted.dtype}; {_REMEDY}"
    if learned and bool(found.isnan().any()):
        return "holds NaN, so the training has diverged; take an earlier checkpoint"
    return ""


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] in _COUNTERS


def _states(found: Any, at: str = "", depth: int = 4) -> Iterator[tuple[str, State]]:
    """Every dict with tensors in it, by dotted key."""
    if isinstance(found, list | tuple):
        found = {str(place): value for place, value in enumerate(found)}
    if not isinstance(found, Mapping) or not depth:
        return
    tensors = {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if tensors:
        yield at, tensors
    for key, value in found.items():
        if not isinstance(value, Tensor):
            yield from _states(value, f"{at}.{key}" if at else str(key), depth - 1)


def _named(file: Path, states: Mapping[str, State], key: str) -> State:
    """The set under a key, or the part of a set whose names begin like that.

    Raises:
        ArtifactError: There is none.
    """
    if key in states:
        return states[key]
    for name, state in states.items():
        front = f"{key.removeprefix(name).removeprefix('.')}."
        part = {k.removeprefix(front): v for k, v in state.items() if k.startswith(front)}
        if key.startswith(name) and part:
            return part
    raise ArtifactError(f"{file} has no tensors under {key!r}; it has {_list(states) or 'none'}")


def _rank(name: str) -> tuple[int, int]:
    return (_USUAL.index(name) if name in _USUAL else len(_USUAL)), len(name)


def _list(names: Iterable[str]) -> str:
    shown = [repr(name) for name in names]
    return ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")
