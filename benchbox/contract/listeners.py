"""What code of others could leave behind in the process to watch who asks it: put away at once, and refused.

A profiler, a tracer, an alarm or a callback of the garbage collector is called inside the frames of whoever
computes next, and a mode of torch sees every tensor of theirs; what records allocations or operators tells later
whose they were. No honest forward pass leaves one.
"""

from __future__ import annotations

import faulthandler
import gc
import signal
import sys
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import greenlet
import torch
from torch.nn.modules import module as _module
from torch.utils._device import DeviceContext

from benchbox.contract.border import is_library, is_of_library

#: Timers, and signals, whose handlers run between any two instructions of the program.
TIMERS = {
    getattr(signal, name): getattr(signal, timer)
    for name, timer in (("SIGALRM", "ITIMER_REAL"), ("SIGVTALRM", "ITIMER_VIRTUAL"), ("SIGPROF", "ITIMER_PROF"))
    if hasattr(signal, name)
}
SIGNALS = tuple(sorted(signal.valid_signals() - {signal.SIGINT, signal.SIGTERM}))

_AUTOGRAD: Any = torch.autograd

#: Hooks that torch calls for every module there is, by number.
_MODULE_HOOKS: tuple[dict[int, Any], ...] = tuple(
    registered
    for name, registered in vars(_module).items()
    if name.startswith("_global_") and "hooks" in name and isinstance(registered, dict)
)


def watch(*, signals: bool = False) -> Callable[[], str]:
    """Remember who listens now.

    Args:
        signals: Whether to look at the handlers of all signals, and not at those of timers alone.

    Returns:
        What puts away everybody who was added since, and says who it was; empty if nobody was.
    """
    main = threading.current_thread() is threading.main_thread()
    profile, trace, callbacks = sys.getprofile(), sys.gettrace(), list(gc.callbacks)
    switches, hooks = greenlet.gettrace(), [set(registered) for registered in _MODULE_HOOKS]
    watched: tuple[int, ...] = (SIGNALS if signals else tuple(TIMERS)) if main else ()
    handlers = [signal.getsignal(number) for number in watched]
    finders, traced, profiled = list(sys.meta_path), tracemalloc.is_tracing(), _is_profiled()
    depths = [depth() for _, depth, _ in _MODES]

    def put_away() -> str:
        found = []
        if sys.getprofile() is not profile:
            sys.setprofile(profile)
            found.append("a profiler (sys.setprofile)")
        if sys.gettrace() is not trace:
            sys.settrace(trace)
            found.append("a tracer (sys.settrace)")
        if gc.callbacks != callbacks:
            gc.callbacks[:] = callbacks
            found.append("a callback of the garbage collector (gc.callbacks)")
        if greenlet.gettrace() is not switches:
            greenlet.settrace(switches)
            found.append("a tracer of greenlets (greenlet.settrace)")
        for registered, before in zip(_MODULE_HOOKS, hooks, strict=True):
            if added := set(registered) - before:
                for number in added:
                    del registered[number]
                found.append("a hook for all modules (register_module_…_hook)")
        for number, handler in zip(watched, handlers, strict=True):
            now = signal.getsignal(number)
            if now is not handler and callable(now) and not _is_library(now):
                if number in TIMERS:
                    signal.setitimer(TIMERS[number], 0)
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
                found.append(f"a handler of {signal.Signals(number).name}")
        new = [one for one in sys.meta_path if one not in finders]
        if strange := [one for one in new if not _is_library(getattr(one, "find_spec", one))]:
            sys.meta_path[:] = [one for one in sys.meta_path if one not in strange]
            found.append("a finder of modules (sys.meta_path)")
        if tracemalloc.is_tracing() and not traced:
            tracemalloc.stop()
            found.append("a trace of allocations (tracemalloc)")
        if _is_profiled() and not profiled:
            _AUTOGRAD._disable_profiler()
            found.append("a profiler of operators (torch.profiler)")
        # It writes everybody's frames to a file by itself, and nobody is told whether it does.
        faulthandler.cancel_dump_traceback_later()
        for (name, depth, pop), deep in zip(_MODES, depths, strict=True):
            if depth() > deep:
                found.append(name)
            while depth() > deep:
                pop()
        return " and ".join(dict.fromkeys(found))

    return put_away


def _is_profiled() -> bool:
    return bool(_AUTOGRAD._profiler_enabled())


def _is_library(value: Any) -> bool:
    """Whether the code of a function, a method or an object belongs to Python or to an installed package."""
    value = getattr(value, "func", value)  # a partial
    value = getattr(value, "__func__", value)  # a method
    if hasattr(value, "__code__"):
        return is_of_library(value)
    module = sys.modules.get(str(getattr(value, "__module__", None)))
    return is_library(str(getattr(module, "__file__", None) or "<builtin>"))


def _functions() -> int:
    """How many function modes there are; none below torch's default device, a setting that is put back as one."""
    depth: int = torch._C._len_torch_function_stack()
    is_device = depth > 0 and isinstance(torch._C._get_function_stack_at(depth - 1), DeviceContext)
    return 0 if is_device else depth


def _hooks() -> int:
    """How many pairs of default hooks for saved tensors are in force, one at most as far as it can be told."""
    top: Any = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return int(top is not None and top(False) is not None)


def _pop_dispatch() -> None:
    torch._C._pop_torch_dispatch_stack(None)


def _pop_hooks() -> None:
    torch._C._autograd._pop_saved_tensors_default_hooks()


#: Stacks of torch that a forward pass may push on: what is on them, how deep they are, and how to pop one.
_MODES: tuple[tuple[str, Callable[[], int], Callable[[], Any]], ...] = (
    ("a torch function mode", _functions, torch._C._pop_torch_function_stack),
    ("a torch dispatch mode", torch._C._len_torch_dispatch_stack, _pop_dispatch),
    ("hooks for saved tensors", _hooks, _pop_hooks),
)
