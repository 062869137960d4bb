"""What a defence asks the process for while it is asked about images: Python tells it to audit hooks.

A classifier of images needs nothing but its images. The list of all objects would show it the images of the
engine, the frames of all threads the attack, a file or the environment what it noted in another process.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any
from weakref import WeakSet

from benchbox.contract.border import is_library

#: What shows a defence who asks it, by the name of Python's event.
PEEKS = {
    "gc.get_objects": "reads the list of all objects (gc.get_objects)",
    "gc.get_referrers": "reads who refers to an object (gc.get_referrers)",
    "sys._current_frames": "reads the frames of all threads (sys._current_frames)",
    "sys._current_exceptions": "reads the exceptions of all threads (sys._current_exceptions)",
    "ctypes.cdata": "reads memory by its address (ctypes)",
    "ctypes.string_at": "reads memory by its address (ctypes)",
}
#: What outlasts the call, or the process.
TRACES = {
    "os.putenv": "writes to the environment (os.putenv)",
    "os.mkdir": "makes a folder",
    "os.rename": "renames a file",
    "os.utime": "changes the time of a file",
    "socket.connect": "opens a connection",
    "socket.bind": "opens a port",
    "sqlite3.connect": "opens a database",
}
#: What an honest one may do, and a dishonest one as well.
ODDITIES = {
    "gc.get_referents": "reads what an object refers to (gc.get_referents)",
    "_thread.start_new_thread": "starts a thread",
    "subprocess.Popen": "starts a process",
    "os.fork": "starts a process",
}
#: What Python tells nobody of, by the name that code needs for it.
NAMED = {
    "gr_frame": "its code reads the frames of greenlets (gr_frame), among them of the one that asks",
    "dump_traceback": "its code has the frames of all threads written down (faulthandler)",
    "dump_traceback_later": "its code has the frames of all threads written down (faulthandler)",
}
WRITES, READS, REREADS = "writes a file", "reads a file", "reads a file again and again"
#: How often a file may be read: once where it is needed first, in a few copies of the defence.
OFTEN = 5
#: What no honest forward pass does.
NEVER = frozenset({*PEEKS.values(), *TRACES.values(), *NAMED.values(), WRITES, REREADS})
_KNOWN = {**PEEKS, **TRACES, **ODDITIES, "open": ""}
#: Endings of files that belong to a program, which the interpreter itself reads.
_CODE = (".py", ".pyc", ".so", ".pyd", ".dll", ".dylib")
#: Compilers keep what they made, in files and with threads of their own.
_COMPILERS = tuple(os.path.join(*parts) for parts in (("torch", "_inductor"), ("torch", "_dynamo"), ("triton",)))

#: The event of somebody who wants to be told of events as well.
HOOKING = "sys.addaudithook"

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

_heard: set[str] | None = None
_refused = 0
_reads: Counter[str] = Counter()
_hooked = False
_calls = 0
#: Threads that code of others started, and left behind.
_threads: WeakSet[threading.Thread] = WeakSet()


class _Asked(threading.local):
    """How many calls of a defence this thread is in, and how many stretches of somebody's code."""

    depth = 0
    guarded = 0


_asked = _Asked()


@contextlib.contextmanager
def listening() -> Iterator[set[str]]:
    """Collects what defences do that are asked meanwhile, in words, from this thread and from those of their own.

    The hook that Python is given stays for good, and is silent afterwards.
    """
    global _heard
    _listen()
    before, _heard = _heard, set()
    _reads.clear()
    try:
        yield _heard
    finally:
        _heard = before


@contextlib.contextmanager
def asked() -> Iterator[None]:
    """Around a call of a defence."""
    global _calls
    before = threading.enumerate()
    _asked.depth += 1
    _calls += 1
    try:
        yield
    finally:
        _calls -= 1
        _asked.depth -= 1
        _threads.update(thread for thread in threading.enumerate() if thread not in before)


@contextlib.contextmanager
def vetoing() -> Iterator[Callable[[], bool]]:
    """Around code of others: none of it is told of events. Gives what says whether it asked to be."""
    _listen()
    before = _refused
    _asked.guarded += 1
    try:
        yield lambda: _refused > before
    finally:
        _asked.guarded -= 1


def written(cls: type) -> set[str]:
    """What the code of a defence names, where it is nobody's library, that no audit hook would tell of."""
    from benchbox.contract.defense import Defense

    modules = [sys.modules.get(base.__module__) for base in cls.__mro__]
    files = {str(getattr(module, "__file__", None) or "<>") for module in modules}
    own = {file for file in files if not is_library(file) and not file.startswith(_OURS)}
    names: set[str] = set()
    for module in filter(None, modules):
        if getattr(module, "__file__", None) in own:
            for value in vars(module).values():
                if isinstance(value, type) and issubclass(value, Defense) and value not in cls.__mro__:
                    continue  # another defence of the same file
                for function in vars(value).values() if isinstance(value, type) else (value,):
                    names |= _names(getattr(function, "__code__", None))
    return {said for name, said in NAMED.items() if name in names}


def _names(code: CodeType | None) -> set[str]:
    """Names in a function and in those inside it."""
    if code is None:
        return set()
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)


def _listen() -> None:
    global _hooked
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True


def _hook(event: str, args: tuple[Any, ...]) -> None:
    global _refused
    if event == HOOKING and _asked.guarded:
        _refused += 1
        raise RuntimeError("no hook for audit events is added by a plug-in")  # Python says nothing, and adds none
    if _heard is None or event not in _KNOWN:
        return
    # A thread that a defence started is never inside a call of ours. It is one that works while a defence is
    # asked, or that was there afterwards; no other one peeks.
    here = threading.current_thread()
    alone = here in _threads or (here is not threading.main_thread() and (event in PEEKS or _calls > 0))
    if not (alone or _asked.depth) or any("__pycache__" in str(one) for one in args):
        return
    said = _opened(args[0], args[2]) if event == "open" else _KNOWN[event]
    if said and not _compiling():
        _heard.add(said)


def _opened(path: Any, flags: Any) -> str:
    """What opening a file is called; empty for what belongs to a program."""
    if not isinstance(path, str | bytes):
        return ""  # an open descriptor
    name = os.fsdecode(path)
    if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND):
        return "" if name == os.devnull else WRITES
    if name.endswith(_CODE) or is_library(name):
        return ""
    _reads[name] += 1
    return READS if _reads[name] <= OFTEN else REREADS


def _compiling() -> bool:
    frame = sys._getframe()
    while (back := frame.f_back) is not None:
        if any(folder in back.f_code.co_filename for folder in _COMPILERS):
            return True
        frame = back
    return False
