"""What everybody computes with, and code of others may not replace: functions of torch, of Python and of benchbox.

A defence that swaps `torch.sign` for another function, or the projection onto the ball, decides how it is attacked
and how it is scored. What is added to a module is nobody's business; what takes the place of something is put
back, and refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from operator import is_
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch

from benchbox.contract.border import is_library

#: Modules that attacks and scoring compute with, beside benchbox's own.
MODULES = (
    "builtins", "math", "gc", "sys", "signal", "threading", "greenlet",
    "torch", "torch.autograd", "torch.linalg", "torch.nn.functional", "torch.random", "torch.special",
)  # fmt: skip
#: What a plug-in may read and write files with as it likes.
FREE = frozenset({"load", "save", "open", "print"})
CLASSES = (torch.Tensor, torch.nn.Module, torch.autograd.Function)
#: How many names are told.
SHOWN = 3

Place = ModuleType | type


def watch() -> Callable[[], str]:
    """Remember who computes what now.

    Returns:
        What puts back everything that was replaced since, and names it; empty if nothing was.
    """
    before = [(place, dict(vars(place))) for place in _places(len(sys.modules))]

    def put_back() -> str:
        replaced = [name for place, was in before for name in _put_back(place, was)]
        more = f" and {len(replaced) - SHOWN} more" if len(replaced) > SHOWN else ""
        return ", ".join(replaced[:SHOWN]) + more

    return put_back


@lru_cache(maxsize=1)
def _places(modules: int) -> tuple[Place, ...]:
    """Modules and classes, as long as there are so many modules."""
    found: list[Place] = [module for name in MODULES if (module := sys.modules.get(name)) is not None]
    own = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "benchbox"]
    classes = {
        one: None
        for module in own
        for one in vars(module).values()
        if isinstance(one, type) and one.__module__.partition(".")[0] == "benchbox"
    }
    return (*found, *own, *CLASSES, *classes)


def _put_back(place: Place, was: Mapping[str, Any]) -> Iterator[str]:
    now = vars(place)
    # Nearly always nothing has changed, and things stand in the same order.
    if len(now) == len(was) and all(map(is_, was.values(), now.values())):
        return
    named = place.__name__ if isinstance(place, ModuleType) else f"{place.__module__}.{place.__qualname__}"
    for name, value in was.items():
        if now.get(name) is not value and name not in FREE and _computes(value) and _is_strange(now.get(name)):
            setattr(place, name, value)
            yield f"{named}.{name}"
    if isinstance(place, type):
        for name in list(now):
            if name not in was and _computes(_inherited(place, name)) and _is_strange(now[name]):
                delattr(place, name)
                yield f"{named}.{name}"


def _inherited(cls: type, name: str) -> Any:
    return next((vars(base)[name] for base in cls.__mro__[1:] if name in vars(base)), None)


def _computes(value: Any) -> bool:
    return callable(value) or isinstance(value, property | staticmethod | classmethod)


def _is_strange(value: Any) -> bool:
    """Whether a replacement is a plug-in's doing: libraries patch one another, and torch itself.

    A built-in that takes the place of another is nobody's patch.
    """
    while (inner := getattr(value, "__func__", None) or getattr(value, "__wrapped__", None)) is not None:
        value = inner
    value = getattr(value, "func", value)  # a partial
    if isinstance(value, FunctionType):
        return not is_library(value.__code__.co_filename)
    if isinstance(value, BuiltinFunctionType):
        return True
    module = sys.modules.get(type(value).__module__)
    return not is_library(str(getattr(module, "__file__", "<builtin>")))
