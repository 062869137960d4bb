"""What everybody computes with, and code of others may not replace: functions of torch, of Python and of benchbox.

A defence that swaps `torch.sign` for another function, or the projection onto the ball, decides how it is attacked
and how it is scored. So does one that edits the inside of such a function, or a constant of benchbox. What is
added to a module is nobody's business; what takes the place of something is put back, and refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from gc import get_referents
from operator import attrgetter, is_
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch

from benchbox.contract.border import is_library, is_of_library

#: Modules that attacks and scoring compute with, beside benchbox's own and those that these name.
MODULES = ("builtins", "math", "gc", "sys", "signal", "threading", "greenlet", "torch")
#: Modules with all that are below them: what those call in their turn.
BELOW = (
    "torch._C.", "torch._tensor.", "torch.autograd.", "torch.fft.", "torch.functional.", "torch.linalg.",
    "torch.nn.", "torch.optim.", "torch.overrides.", "torch.random.", "torch.special.", "torch.utils._contextlib.",
    "numpy.linalg.", "numpy.random.",
)  # fmt: skip
#: Of those, whose classes are looked into as well: contexts, autograd functions, the engine.
BELOW_CLASSES = ("torch.autograd.", "torch.utils._contextlib.")
#: What a plug-in may read and write files with as it likes, and the module whose functions say what is amiss.
FREE = frozenset({"load", "save", "open", "print"})
FREE_MODULE = "warnings"
CLASSES = (torch.Tensor, torch.nn.Module, torch.autograd.Function)
#: Whose layers and optimizers networks are made of and trained with.
LAYERS = (torch.nn, torch.optim)
#: Namespaces of torch's own operators.
OPERATORS = ("aten", "prims")
#: What a function consists of.
PARTS = ("__code__", "__defaults__", "__kwdefaults__")
#: How many names are told.
SHOWN = 3

Place = ModuleType | type


def watch() -> Callable[[], str]:
    """Remember who computes what now.

    Returns:
        What puts back everything that was replaced since, and names it; empty if nothing was.
    """
    places = _places(len(sys.modules))
    before = [(place, vars(place).copy()) for place in places]
    inside = _insides(len(sys.modules))
    inside.note()
    held = [(name, held, _content(held)) for name, held in _containers(len(sys.modules))]
    take_back = _noting()

    def put_back() -> str:
        replaced = take_back()
        replaced += [name for place, was in before for name in _put_back(place, was)]
        replaced += inside.put_back()
        replaced += [name for name, container, was in held if _refill(container, was)]
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
    used = [one for module in own for one in vars(module).values() if isinstance(one, ModuleType)]
    used = [module for module in used if module.__name__ != FREE_MODULE]
    layers = [one for module in LAYERS for one in vars(module).values() if isinstance(one, type)]
    below = [module for name, module in list(sys.modules.items()) if _is_below(name, BELOW)]
    # Modules of torch's core are attributes of it, and not all of them can be imported.
    below += [module for module in vars(torch._C).values() if isinstance(module, ModuleType)]
    inner = [
        one
        for name, module in list(sys.modules.items())
        if _is_below(name, BELOW_CLASSES)
        for one in vars(module).values()
        if isinstance(one, type) and _is_below(one.__module__, BELOW_CLASSES)
    ]
    return tuple(dict.fromkeys((*found, *own, *used, *CLASSES, *classes, *layers, *below, *inner)))


def _is_below(name: str, tops: tuple[str, ...]) -> bool:
    return f"{name}.".startswith(tops)


def _functions(modules: int) -> tuple[FunctionType, ...]:
    """Functions written in Python in those places."""
    values = [value for place in _places(modules) for value in vars(place).values()]
    return tuple(dict.fromkeys(one for value in values for one in _written(value)))


def _written(value: Any) -> Iterator[FunctionType]:
    """The functions behind a function, method or property."""
    for part in (value.fget, value.fset) if isinstance(value, property) else (value,):
        if isinstance(part, staticmethod | classmethod):
            part = part.__func__
        while isinstance(part, FunctionType):
            yield part
            part = vars(part).get("__wrapped__")


class _Inside:
    """What functions consist of.

    Python tells its audit hooks of every reading of a function's code, which makes ten thousand readings
    milliseconds. So all that the functions refer to is looked at in one call, and they are read where that is new.
    """

    def __init__(self, functions: tuple[FunctionType, ...]) -> None:
        self._functions = functions
        self._seen: list[Any] = []
        self._parts: dict[str, list[Any]] = {}

    def note(self) -> None:
        """Remember what they consist of now."""
        if not self._is_as_seen():
            self._seen = get_referents(*self._functions)
            self._parts = {part: [getattr(one, part) for one in self._functions] for part in PARTS}

    def put_back(self) -> Iterator[str]:
        """Give them back what was noted; names those that had something else."""
        if self._is_as_seen():
            return
        for part, was in self._parts.items():
            for function, before in zip(self._functions, was, strict=True):
                if getattr(function, part) is not before:
                    setattr(function, part, before)
                    yield f"the inside of {function.__module__}.{function.__qualname__}"

    def _is_as_seen(self) -> bool:
        now = get_referents(*self._functions)
        return len(now) == len(self._seen) and all(map(is_, now, self._seen))


@lru_cache(maxsize=1)
def _insides(modules: int) -> _Inside:
    return _Inside(_functions(modules))


@lru_cache(maxsize=1)
def _containers(modules: int) -> tuple[tuple[str, Any], ...]:
    """Constants of benchbox that hold others, by name."""
    own = [place for place in _places(modules) if isinstance(place, ModuleType) and _is_ours(place)]
    return tuple(
        (f"{module.__name__}.{name}", value)
        for module in own
        for name, value in vars(module).items()
        if name.isupper() and name[0] != "_" and type(value) in (dict, list, set)
    )


def _content(container: Any) -> list[Any]:
    return [*container, *container.values()] if isinstance(container, dict) else [*container]


def _refill(container: Any, was: list[Any]) -> bool:
    """Put its content back; whether it was another one."""
    now = _content(container)
    if len(now) == len(was) and all(map(is_, now, was)):
        return False
    container.clear()
    if isinstance(container, dict):
        half = len(was) // 2
        container.update(zip(was[:half], was[half:], strict=True))
    else:
        (container.extend if isinstance(container, list) else container.update)(was)
    return True


def _noting() -> Callable[[], list[str]]:
    """Note who registers kernels of torch's own operators; gives what takes them back, and names them."""
    library_class: Any = torch.library.Library
    usual, noted = library_class.impl, dict[Any, str]()

    def impl(library: Any, name: Any, kernel: Any, *how: Any, **more: Any) -> Any:
        found = usual(library, name, kernel, *how, **more)
        if library.ns in OPERATORS and _is_strange(kernel):
            noted[library] = f"the kernel of {library.ns}::{name}"
        return found

    library_class.impl = impl

    def take_back() -> list[str]:
        library_class.impl = usual
        for library in noted:
            library._destroy()
        return list(noted.values())

    return take_back


def _is_ours(module: ModuleType) -> bool:
    return module.__name__.partition(".")[0] == "benchbox"


def _put_back(place: Place, was: Mapping[str, Any]) -> Iterator[str]:
    now = vars(place)
    # Nearly always nothing has changed, and things stand in the same order.
    if len(now) == len(was) and all(map(is_, was.values(), now.values())):
        return
    named = place.__name__ if isinstance(place, ModuleType) else f"{place.__module__}.{place.__qualname__}"
    for name, value in was.items():
        if now.get(name) is value or name in FREE:
            continue
        constant = isinstance(place, ModuleType) and _is_ours(place) and name.strip("_").isupper()
        if constant or (_computes(value) and _is_strange(now.get(name), value)):
            setattr(place, name, value)
            yield f"{named}.{name}"
    if isinstance(place, type):
        for name in list(now):
            if name not in was and _computes(_inherited(place, name)) and _is_strange(now[name]):
                delattr(place, name)
                yield f"{named}.{name}"


def _at(module: Any, name: str) -> Any:
    try:
        return attrgetter(name)(module)
    except AttributeError:
        return None


def _inherited(cls: type, name: str) -> Any:
    return next((vars(base)[name] for base in cls.__mro__[1:] if name in vars(base)), None)


def _computes(value: Any) -> bool:
    """Whether others compute with it: a function, a module of them, an object of torch's core, its engine say."""
    if callable(value) or isinstance(value, property | staticmethod | classmethod | ModuleType):
        return True
    return any(base.__module__.startswith("torch._C") for base in type(value).__mro__)


def _is_strange(value: Any, was: Any = None) -> bool:
    """Whether a replacement is a plug-in's doing: libraries patch one another, and torch itself.

    A built-in that takes the place of another is nobody's patch, nor is an object that calls what it was given: a
    mock, a vectorized function, a compiled script.

    Args:
        value: What is there now.
        was: What was there before.
    """
    # Who wraps a library's function says so, and computes something else all the same.
    while not (isinstance(value, FunctionType) and not is_of_library(value)):
        if (inner := getattr(value, "__func__", None) or getattr(value, "__wrapped__", None)) is None:
            break
        value = inner
    value = getattr(value, "func", value)  # a partial
    if isinstance(value, FunctionType):
        return not is_of_library(value)
    if isinstance(value, BuiltinFunctionType | torch.jit.ScriptFunction):
        return True
    if isinstance(value, ModuleType):
        return not is_library(str(getattr(value, "__file__", None)))
    kind = value if isinstance(value, type) else type(value)
    module = sys.modules.get(kind.__module__)
    # Any class may say that it is another's.
    theirs = is_library(str(getattr(module, "__file__", "<builtin>"))) and _at(module, kind.__qualname__) is kind
    if not theirs:
        return True
    # An object of a library's class does what the class says, unless it was handed somebody's function.
    return not isinstance(value, type) and type(value) is not type(was) and callable(value)
