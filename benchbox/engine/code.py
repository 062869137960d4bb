"""Which code a class of the running program stands for.

Of a class from a file it is that file and every local one that it imports, as of a plug-in. Of one in `__main__`,
a script or a notebook, it is also whatever its functions name: networks, losses and settings beside it, by what
they are compiled to and by value. For a cell of a notebook lies in no file, and an argument of a script in none of
its lines.
"""

from __future__ import annotations

import argparse
import dis
import functools
import hashlib
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import CodeType, EllipsisType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchbox.contract import border, home

#: Values that their text stands for.
_PLAIN = (int, float, complex, str, bytes, type(None), EllipsisType)
#: What Python and pydantic write into a class, or what is said for people.
_SILENT = (
    *("__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__", "__static_attributes__"),
    *("__annotations__", "__annotate", "__pydantic_"),
)


def digest_of(cls: type) -> str:
    """`sha256:…` of all of it."""
    file = _file(sys.modules.get(cls.__module__))
    said = (
        "" if file is None else home.digest(file, [file] if border.is_library(str(file)) else home.files(file, []))
    )
    if said and cls.__module__ != "__main__":
        return said
    return f"sha256:{_sha256(json.dumps([said, *reached(cls)]).encode())}"


def reached(cls: type) -> list[str]:
    """A class and what its functions name, one text each; of other modules their files."""
    reach = _Reach(cls.__module__)
    reach.tell(cls.__qualname__, cls)
    return [*reach.said, *sorted(home.digest(file, home.files(file, [])) for file in reach.files)]


class _Reach:
    """What has been seen of the code of one module, and of values that it names.

    Attributes:
        said: What there is, in an order that follows from the code.
        files: Local ones that it names something of.
    """

    def __init__(self, module: str) -> None:
        self.module = module
        self.said: list[str] = []
        self.files: set[Path] = set()
        self._seen: dict[int, object] = {}  # kept alive, so that no other takes its number

    def tell(self, name: str, value: object) -> None:
        """Take note of a value, and of what it names in turn."""
        if isinstance(value, _PLAIN):
            self.said.append(f"{name} = {value!r}")
        elif id(value) not in self._seen:
            self._seen[id(value)] = value
            self._tell(name, value)

    def _tell(self, name: str, value: Any) -> None:
        match value:
            case type():
                self._class(value)
            case FunctionType():
                self._function(name, value)
            case ModuleType():
                self._file(value)
            case staticmethod() | classmethod() | MethodType():
                self.tell(name, value.__func__)
            case property():
                self._all(name, [value.fget, value.fset, value.fdel])
            case functools.partial():
                self._all(name, [value.func, value.args, value.keywords])
            case list() | tuple():
                self._all(name, value)
            case Mapping():
                self._all(name, {_word(key): one for key, one in value.items()})
            case set() | frozenset():
                self.said.append(f"{name} = {sorted(map(_word, value))}")
            case Tensor() | np.ndarray():
                self.said.append(f"{name} = {_numbers(value)}")
            case nn.Module() | argparse.Namespace() | SimpleNamespace():
                self._all(name, [type(value), vars(value)])
            case _ if type(value).__module__ == self.module:
                self._all(name, [type(value), getattr(value, "__dict__", None)])
            case _ if isinstance(inner := getattr(value, "__wrapped__", None), FunctionType):  # of functools.cache
                self.tell(name, inner)

    def _all(self, name: str, values: Any) -> None:
        """The parts of a value; a mapping has no order."""
        parts = (
            sorted(values.items(), key=lambda part: part[0]) if isinstance(values, Mapping) else enumerate(values)
        )
        for key, value in parts:
            self.tell(f"{name}[{key}]", value)

    def _class(self, cls: type) -> None:
        self.said.append(f"class {cls.__module__}.{cls.__qualname__}")
        if cls.__module__ != self.module:
            self._file(sys.modules.get(cls.__module__))
            return
        self._all(cls.__qualname__, cls.__mro__)
        for name, value in sorted(vars(cls).items()):
            if not name.startswith(_SILENT):
                self.tell(f"{cls.__qualname__}.{name}", value)

    def _function(self, name: str, function: FunctionType) -> None:
        beside = function.__globals__
        if (module := str(beside.get("__name__"))) == self.module:
            self.said.append(f"def {name} {_compiled(function.__code__)}")
            self._all(name, [function.__defaults__, function.__kwdefaults__])
            for kind, named in sorted(_named(function.__code__)):
                if kind == "IMPORT_NAME":
                    self.files.update(home.located(named))
                elif named in beside:
                    self.tell(named, beside[named])
        else:
            self._file(sys.modules.get(module))
        for cell in function.__closure__ or ():  # of a decorator: what it stands before
            with suppress(ValueError):  # it is empty
                self.tell(name, cell.cell_contents)

    def _file(self, module: ModuleType | None) -> None:
        file = _file(module)
        if (
            file
            and module
            and module.__name__.partition(".")[0] != "benchbox"
            and not border.is_library(str(file))
        ):
            self.files.add(file)


def _file(module: ModuleType | None) -> Path | None:
    place = getattr(module, "__file__", None)
    return Path(place).resolve() if place and Path(place).is_file() else None


def _named(code: CodeType) -> set[tuple[str, str]]:
    """What a function, and whatever is defined in it, looks up outside or imports."""
    found = {(one.opname, one.argval) for one in dis.get_instructions(code)}
    inside = (_named(one) for one in code.co_consts if isinstance(one, CodeType))
    return {one for one in found if one[0] in ("LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME")}.union(*inside)


def _compiled(code: CodeType) -> str:
    return repr((code.co_code.hex(), code.co_names, [_word(one) for one in code.co_consts]))


def _word(value: object) -> str:
    """A constant in a text that is the same in every process."""
    match value:
        case CodeType():
            return _compiled(value)
        case tuple():
            return f"({', '.join(map(_word, value))})"
        case frozenset():
            return f"{{{', '.join(sorted(map(_word, value)))}}}"
        case _:
            return repr(value) if isinstance(value, _PLAIN) else type(value).__qualname__


def _numbers(array: Tensor | NDArray[Any]) -> str:
    kind = f"{array.dtype} {tuple(array.shape)} "
    if isinstance(array, Tensor):
        array = array.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return kind + _sha256(array.tobytes())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
