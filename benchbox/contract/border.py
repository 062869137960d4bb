"""The border around foreign code: nothing that a plug-in does ends, bends or crashes the program.

Every call into a plug-in (importing its file, building it, training it, a search, a forward pass) is made inside
`crossing`. What it raises becomes one line that names the plug-in and the line of its code; what it changed of
the process is put back. A bug of benchbox itself stays a traceback: the innermost frame that is no library's
decides whose it is.
"""

from __future__ import annotations

import contextlib
import dis
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, ParamSpec, TypeVar, overload
from weakref import WeakKeyDictionary

from benchbox.errors import AttackError, BenchboxError, DefenseError
from benchbox.text import a, printable

if TYPE_CHECKING:
    from torch import Tensor

    from benchbox.contract.home import Home

P = ParamSpec("P")
T = TypeVar("T")

#: The homes of the classes that come from a file.
HOMES: WeakKeyDictionary[type, Home] = WeakKeyDictionary()
#: Modules of ours that only hand a call on: an error below them is that of the plug-in they called.
_PASSING = ("border", "defense", "classifier", "pretrained", "view", "attack", "home", "stepwise", "process")
#: Characters of somebody's message that are shown.
LONGEST = 1000
_LIBRARIES = tuple(
    {os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "purelib", "platlib")}
)


@contextlib.contextmanager
def crossing(plugin: type[Any], fault: type[BenchboxError], *, alone: bool = False) -> Iterator[None]:
    """Call a plug-in: errors are named, globals are restored, its own modules are at hand.

    Once a unit of work: it costs some milliseconds. Of a built-in purifier, too, for its base may be anybody's.
    What it prints goes to the standard error.

    Args:
        plugin: Its class.
        fault: `DefenseError` or `AttackError`.
        alone: Whether it has the process to itself: then what it does to it is its own affair.

    Raises:
        BenchboxError: A `fault`, in place of whatever the plug-in raised; Ctrl-C passes.
    """
    from benchbox.contract.process import restored

    home = HOMES.get(plugin)
    # What happens while a built-in attack runs is the doing of the defence it asks, whose own border is around it.
    ours = issubclass(fault, AttackError) and plugin.__module__.partition(".")[0] == "benchbox"
    with restored(), home.entered() if home else contextlib.nullcontext():
        sys.stdout = sys.stderr
        try:
            with contextlib.nullcontext() if ours or alone else sealed(_named(plugin, fault), fault):
                yield
        except BaseException as error:
            reraise(error, plugin, fault)


@contextlib.contextmanager
def sealed(what: str, fault: type[BenchboxError]) -> Iterator[None]:
    """Around code of others: what it leaves behind in the process is put away, and refused.

    Args:
        what: Whose code it is, in words.
        fault: What to raise.

    Raises:
        BenchboxError: A `fault`: it left a listener behind, or replaced what others compute with.
    """
    from benchbox.contract import listeners, overheard, seal

    with overheard.vetoing() as vetoed:
        put_away, put_back = listeners.watch(signals=True), seal.watch()
        try:
            yield
        finally:
            replaced, left = put_back(), put_away()
            if vetoed():
                left = " and ".join(filter(None, (left, "a hook for audit events (sys.addaudithook)")))
    if left:
        raise fault(f"{what} leaves {left} behind, which would see who asks it; remove it before it returns")
    if replaced:
        raise fault(f"{what} replaces {replaced}, which everybody computes with; call another function instead")


@overload
def guarded(call: Callable[P, Any], plugin: type[Any], what: str) -> Callable[P, Tensor]: ...
@overload
def guarded(
    call: Callable[P, Any], plugin: type[Any], what: str, check: Callable[[Any, str], T]
) -> Callable[P, T]: ...
def guarded(
    call: Callable[P, Any], plugin: type[Any], what: str, check: Callable[[Any, str], Any] | None = None
) -> Callable[P, Any]:
    """A forward pass of a defence that names it when it fails or returns no tensor. Costs nothing to speak of.

    Torch's default type and device and its gradient mode are put back at once, all other globals by the `crossing`
    around it. Who leaves a listener behind is refused (`listeners`).

    Args:
        call: Images and draws -> logits.
        plugin: The class of the defence.
        what: It in words, for the message: "defence jpeg".
        check: What looks at the answer, for something else than one tensor.
    """

    from benchbox.contract.listeners import watch
    from benchbox.contract.overheard import asked
    from benchbox.contract.process import modes

    checked = check or tensor

    def ask(*args: P.args, **kwargs: P.kwargs) -> Any:
        undo, put_away = modes(), watch()
        try:
            with asked():
                found = call(*args, **kwargs)
        except BaseException as error:
            reraise(error, plugin, DefenseError)
        finally:
            left = put_away()
            undo()
            left = left or put_away()  # what lay below a default device
        if left:
            raise DefenseError(
                f"{what} leaves {left} behind, which would see who asks it; remove it before forward returns"
            )
        return checked(found, what)

    return ask


def reraise(error: BaseException, plugin: type[Any], fault: type[BenchboxError]) -> NoReturn:
    """Raise an error that came out of a plug-in under its name; one of ours, or of the user's, as it is.

    Args:
        error: As it was caught.
        plugin: The class that was called.
        fault: `DefenseError` or `AttackError`.
    """
    place = culprit(error.__traceback__, plugin)
    if not is_foreign(error, place, plugin):
        raise error
    where = f", {place.file}, line {place.line}" if place and not place.ours else ""
    raise fault(f"{_named(plugin, fault)}{where}: {reason(error)}; mend its code") from error


def _named(plugin: type[Any], fault: type[BenchboxError]) -> str:
    kind = "attack" if issubclass(fault, AttackError) else "defence"
    return f"{kind} {getattr(getattr(plugin, 'card', None), 'name', plugin.__name__)}"


class Place(NamedTuple):
    """A line of code, and whether it is benchbox's."""

    file: str
    line: int
    ours: bool


def culprit(trace: TracebackType | None, plugin: type[Any] | None = None) -> Place | None:
    """The innermost line that is neither a library's nor a mere handing on; None if there is none."""
    package = plugin.__module__.partition(".")[0] if plugin else ""
    found = None
    while trace:
        frame = trace.tb_frame
        file, module = frame.f_code.co_filename, str(frame.f_globals.get("__name__", ""))
        top, _, rest = module.partition(".")
        if top == "benchbox":
            if rest.removeprefix("contract.") not in _PASSING:
                found = Place(file, trace.tb_lineno, True)
        elif not is_library(file) or (top == package and top != ""):
            found = Place(_shown(file), trace.tb_lineno, False)
        trace = trace.tb_next
    return found


def is_foreign(error: BaseException, place: Place | None, plugin: type[Any] | None = None) -> bool:
    """Whether an error is a plug-in's own doing."""
    if isinstance(error, KeyboardInterrupt):
        return _raised_by_hand(error)
    if isinstance(error, BenchboxError):
        return False
    if not isinstance(error, Exception):
        return True  # sys.exit and its like: nothing of benchbox ends the program
    if place is None:
        return plugin is None or not plugin.__module__.startswith("benchbox.plugins.")
    return not place.ours


@lru_cache(maxsize=16384)
def is_library(file: str) -> bool:
    """Whether a file belongs to Python or to an installed package."""
    real = os.path.realpath(file)
    return file.startswith("<") or real.startswith(_LIBRARIES) or "site-packages" in Path(real).parts


def is_of_library(function: Any) -> bool:
    """Whether a function was written in such a file; a text that is executed belongs to who executes it."""
    if not is_library(function.__code__.co_filename):
        return False
    file = function.__globals__.get("__file__")
    return is_library(file) if isinstance(file, str) else function.__code__.co_filename.startswith("<frozen")


def is_without_gradient(error: BaseException) -> bool:
    """Whether autograd says that there is no gradient, rather than that something broke."""
    said = reason(error)
    return "does not require grad" in said or "not have been used in the graph" in said


def reason(error: BaseException) -> str:
    """An error in one line, which is cut where it is endless."""
    try:
        said = str(error)
    except BaseException as another:  # its __str__ is foreign code, too
        said = f"its text cannot be had ({type(another).__name__})"
    line = " ".join(f"{type(error).__name__}: {said[: 2 * LONGEST]}".split()).rstrip(": ")
    return printable(line if len(line) <= LONGEST else f"{line[:LONGEST]}… ({len(said)} characters)")


def tensor(found: Any, what: str, fault: type[BenchboxError] = DefenseError) -> Tensor:
    """What a plug-in returned, if it is a tensor of real floating-point numbers; a plain one.

    Args:
        found: The value.
        what: Who returned it, in words: "defence jpeg".
        fault: What to raise.

    Raises:
        BenchboxError: A `fault`: it is anything else.
    """
    from torch import Tensor, strided

    if not isinstance(found, Tensor):
        shown = "None" if found is None else a(type(found).__name__)
        raise fault(f"{what} returned {shown}; return {_within(found)}")
    plain: Tensor = found if type(found) is Tensor else _plain(found, what, fault)
    if plain.layout is not strided or plain.is_meta:
        kind = "without numbers, on the device meta" if plain.is_meta else f"of layout {plain.layout}"
        raise fault(f"{what} returned a tensor {kind}; return a dense one, on the device of the images")
    if not plain.dtype.is_floating_point:
        raise fault(f"{what} returned {plain.dtype}; return float32")
    return plain


def _within(found: Any) -> str:
    """What to return in place of something that is no tensor, in words."""
    from torch import Tensor

    if isinstance(found, tuple | list) and found and isinstance(found[0], Tensor):
        return "its first element alone"
    if isinstance(found, dict):
        named = [key for key, value in found.items() if isinstance(key, str) and isinstance(value, Tensor)]
        key = "logits" if "logits" in named else next(iter(named), "")
        return f"its {key!r} alone" if key else "a torch tensor"
    with contextlib.suppress(Exception):  # an attribute of somebody's object may be any code
        if isinstance(found.logits, Tensor):
            return "its .logits alone"
    return "a torch tensor"


def _plain(found: Any, what: str, fault: type[BenchboxError]) -> Tensor:
    """A tensor of a class of its own, without it: such a class is told of whatever is done with its tensors."""
    from torch import Tensor
    from torch._C import DisableTorchFunctionSubclass

    if type(found).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        raise fault(
            f"{what} returned a {type(found).__name__}, a class that sees whatever is done with its tensors; "
            "return a plain one"
        )
    with DisableTorchFunctionSubclass():
        plain: Tensor = found.as_subclass(Tensor)
    return plain


def _raised_by_hand(error: KeyboardInterrupt) -> bool:
    """Whether a plug-in raised it by a statement; Ctrl-C strikes between any two instructions."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    if trace is None:
        return False
    code = trace.tb_frame.f_code
    return not is_library(code.co_filename) and dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def _shown(file: str) -> str:
    """A path as the user would type it here."""
    try:
        near = os.path.relpath(file)
    except (OSError, ValueError):
        return file
    return file if near.startswith("..") else near
