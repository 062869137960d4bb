"""What a process has only one of, and puts back after code that may have changed it.

A plug-in that sets torch's default type or its number of threads would change the numbers of every other one.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np
import torch

from benchbox.contract import border

Undo = Callable[[], object]

_STREAMS = ("stdin", "stdout", "stderr")
_RESOURCE: Any = importlib.import_module("resource") if os.name == "posix" else None
#: Limits of a file's size, of open files, of memory.
_LIMITS = ("RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_AS")


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Put back everything below. Costs a fraction of a millisecond: once a unit of work, not a call."""
    undone = [keep() for keep in _KEPT]
    try:
        yield
    finally:
        for undo in undone:
            undo()


def _ends() -> Undo:
    """The ways out that no `except` sees become one that it does; a forked child keeps them."""
    found, here = {name: getattr(os, name) for name in ("_exit", "abort")}, os.getpid()

    def seen(name: str) -> Callable[..., NoReturn]:
        def end(*status: int) -> NoReturn:
            if os.getpid() != here:
                found[name](*status)
            raise SystemExit(f"os.{name}({', '.join(map(str, status))})")

        return end

    for name in found:
        setattr(os, name, seen(name))

    def undo() -> None:
        for name, way in found.items():
            setattr(os, name, way)

    return undo


def _interpreter() -> Undo:
    """Arguments, module path, streams, environment, working directory, recursion limit, excepthook."""
    found = {name: getattr(sys, name) for name in ("argv", *_STREAMS, "excepthook")}
    argv, path, limit = list(sys.argv), list(sys.path), sys.getrecursionlimit()
    environment, folder = dict(os.environ), _folder()
    opened = [name for name in _STREAMS if not getattr(found[name], "closed", True)]

    def undo() -> None:
        for name, value in found.items():
            setattr(sys, name, value)
        for name in opened:
            if found[name].closed:
                _reopen(name)
        sys.argv[:], sys.path[:] = argv, path
        if sys.getrecursionlimit() != limit:
            sys.setrecursionlimit(limit)
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)
        if folder is not None and _folder() != folder:
            with contextlib.suppress(OSError):  # the plug-in may have removed it
                os.chdir(folder)

    return undo


def _reopen(name: str) -> None:
    """A stream that was closed; whatever it was, it leads where its descriptor does."""
    with contextlib.suppress(OSError):
        number = _STREAMS.index(name)
        stream = os.fdopen(number, "w" if number else "r", buffering=1, errors="replace", closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _descriptors() -> Undo:
    """What the first three file descriptors lead to; before the streams, which write to them."""
    kept = {}
    for number in range(len(_STREAMS)):
        with contextlib.suppress(OSError):  # a service has none
            kept[number] = os.dup(number)

    def undo() -> None:
        for number, twin in kept.items():
            if not _leads_where(number, twin):
                os.dup2(twin, number)
            os.close(twin)

    return undo


def _leads_where(number: int, twin: int) -> bool:
    try:
        return os.path.samestat(os.fstat(number), os.fstat(twin))
    except OSError:
        return False


def _modules() -> Undo:
    """Modules of Python and of installed packages, which everybody imports by name."""
    found = dict(sys.modules)

    def undo() -> None:
        for name, module in found.items():
            file = getattr(module, "__file__", None) or "<builtin>"
            if sys.modules.get(name) is not module and border.is_library(file):
                sys.modules[name] = module

    return undo


def _limits() -> Undo:
    """What the process may write, and to whom; what it logs."""
    mask = os.umask(0)
    os.umask(mask)
    kinds = [getattr(_RESOURCE, name) for name in _LIMITS if hasattr(_RESOURCE, name)]
    limits = {kind: _RESOURCE.getrlimit(kind) for kind in kinds}
    silent = logging.root.manager.disable

    def undo() -> None:
        os.umask(mask)
        if logging.root.manager.disable != silent:
            logging.disable(silent)
        for kind, limit in limits.items():
            if _RESOURCE.getrlimit(kind) != limit:
                with contextlib.suppress(ValueError, OSError):  # a hard limit can only be lowered
                    _RESOURCE.setrlimit(kind, limit)

    return undo


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


def _warnings() -> Undo:
    filters, shown = list(warnings.filters), warnings.showwarning

    def undo() -> None:
        warnings.showwarning = shown
        if list(warnings.filters) != filters:
            # Of the public ways to change the list, the one that also forgets what was shown already.
            warnings.resetwarnings()
            warnings.filters.extend(filters)  # type: ignore[attr-defined]

    return undo


def _signals() -> Undo:
    """Handlers; Python lets the main thread alone set them."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def undo() -> None:
        for number, handler in found.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)

    return undo


def _randomness() -> Undo:
    """The global generators, which foreign code uses and benchbox never does."""
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    errors = np.geterr()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None

    def undo() -> None:
        random.setstate(python)
        np.random.set_state(legacy)
        np.seterr(**errors)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)

    return undo


def modes() -> Undo:
    """Default type and device, gradient mode: whoever computes after a single call would compute otherwise."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    gradients = torch.is_grad_enabled()

    def undo() -> None:
        torch.set_grad_enabled(gradients)
        if torch.get_default_dtype() != dtype:
            torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)

    return undo


def _threads() -> Undo:
    threads = torch.get_num_threads()

    def undo() -> None:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)

    return undo


def _flags() -> Undo:
    """What decides which kernels run and how they round."""
    places: tuple[tuple[Any, str], ...] = (
        (torch.backends.cudnn, "enabled"),
        (torch.backends.cudnn, "benchmark"),
        (torch.backends.cudnn, "deterministic"),
        (torch.backends.cudnn, "allow_tf32"),
        (torch.backends.cuda.matmul, "allow_tf32"),
        (torch.backends.quantized, "engine"),
    )
    found = [(place, name, getattr(place, name)) for place, name in places]
    deterministic, products = _deterministic(), _products()
    autocast, anomaly = torch.is_autocast_enabled("cpu"), torch.is_anomaly_enabled()
    denormals = _denormals()

    def undo() -> None:
        # First of all, for it sets some of the others.
        if products is not None and _products() != products:
            torch.set_float32_matmul_precision(products)
        for place, name, value in found:
            if getattr(place, name) != value:
                setattr(place, name, value)
        if _deterministic() != deterministic:
            # Not for nothing: setting it loads torch's compiler, which takes seconds.
            torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        torch.set_autocast_enabled("cpu", autocast)
        torch.autograd.set_detect_anomaly(anomaly)
        if _denormals() != denormals:
            torch.set_flush_denormal(not denormals)

    return undo


def _deterministic() -> tuple[bool, bool]:
    """Whether kernels have to be deterministic, and whether that is a warning only."""
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _products() -> str | None:
    """How exact products of float32 matrices are; None where torch has two ways to say it, and both were used."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _denormals() -> bool:
    """Whether numbers below the smallest normal one are kept; torch sets it and does not tell it."""
    return bool(torch.tensor(1e-40, dtype=torch.float32, device="cpu").mul(0.5) > 0)


_KEPT: tuple[Callable[[], Undo], ...] = (
    _limits, _ends, _descriptors, _interpreter, _modules, _warnings, _signals, _randomness, modes, _threads,
    _flags,
)  # fmt: skip
