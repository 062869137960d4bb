"""Defences that listen to the process instead of the image: what they leave behind would tell them who asks.

Those of `LEAVING` put a listener into the process and are refused. Those of `LOOKING` only look, at what is the
same in an attack and in its scoring, so that looking gains them nothing. Each names its mechanism.
"""

from __future__ import annotations

import gc
import inspect
import os
import signal
import sys
import threading
import time
import warnings
from typing import ClassVar

import torch
from cheating_defenses import Decoy, FirstVisit
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchbox import Card


def asked_by_an_attack(frame) -> bool:
    """Whether a stack has a frame of a search in it."""
    while frame is not None:
        if frame.f_code.co_name in ("gradient", "_ask", "_one_gradient", "climb", "search", "ascend"):
            return True
        frame = frame.f_back
    return False


class Listening(Decoy):
    """Leaves a listener behind and shows the decoy once it heard an attack."""

    def __init__(self):
        super().__init__()
        self.heard = False

    def attacked(self, x, draws):
        self.listen()
        return self.heard

    def hear(self, frame, *rest):
        self.heard = self.heard or asked_by_an_attack(frame)


class Profiler(Listening):
    """Leaves a profiler, which is called with every frame that follows."""

    card = Card("profiler", "sys.setprofile")

    def listen(self):
        sys.setprofile(self.hear)


class Tracer(Listening):
    """Leaves a tracer."""

    card = Card("tracer", "sys.settrace")

    def listen(self):
        sys.settrace(self.hear)


class Alarm(Listening):
    """Leaves an alarm, whose handler is given the frame that it interrupts."""

    card = Card("alarm", "signal.setitimer")

    def listen(self):
        signal.signal(signal.SIGALRM, lambda number, frame: self.hear(frame))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)


class Collector(Listening):
    """Leaves a callback that the garbage collector calls in the frame of whoever allocates."""

    card = Card("collector", "gc.callbacks")

    def listen(self):
        gc.callbacks.append(lambda phase, info: self.hear(sys._getframe(1)))


class _Functions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class FunctionMode(Listening):
    """Leaves a mode that sees every torch function of the attack."""

    card = Card("function-mode", "TorchFunctionMode")

    def listen(self):
        _Functions().__enter__()


class DispatchMode(Listening):
    """Leaves a mode that sees every operation below autograd."""

    card = Card("dispatch-mode", "TorchDispatchMode")

    def listen(self):
        _Operations().__enter__()


class SavedTensors(Listening):
    """Leaves hooks that are called for each tensor an attack saves for its backward pass."""

    card = Card("saved-tensors", "saved_tensors_hooks")

    def listen(self):
        torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x).__enter__()


LEAVING = (Profiler, Tracer, Alarm, Collector, FunctionMode, DispatchMode, SavedTensors)


class Looking(Decoy):
    """Shows the decoy if what it looks at is another thing than in its first call, a clean one."""

    first = None

    def attacked(self, x, draws):
        seen = self.look(x, draws)
        self.first = seen if self.first is None else self.first
        return seen != self.first


class Depth(Looking):
    """How deep the stack is."""

    card = Card("depth", "len(inspect.stack())")

    def look(self, x, draws):
        return len(inspect.stack())


class Generator(Looking):
    """Whether the process's dice were thrown."""

    card = Card("generator", "torch.get_rng_state")

    def look(self, x, draws):
        return torch.get_rng_state().sum().item()


class Shape(Looking):
    """How the image lies in memory, and where it comes from."""

    card = Card("tensor", "strides, offset, version, names, graph")

    def look(self, x, draws):
        graph = (type(x.grad_fn).__name__, x.is_leaf, x.requires_grad, x.is_inference(), x._version)
        return x.stride(), x.storage_offset(), x.is_contiguous(), x.dtype, type(x), dir(x), graph


class Settings(Looking):
    """What torch and the process are set to."""

    card = Card("settings", "default types, threads, modes, environment")

    def look(self, x, draws):
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()
        types = torch.get_default_dtype(), torch.get_num_threads(), torch.is_autocast_enabled("cpu")
        return modes, types, dict(os.environ), os.getcwd(), sys.argv, len(warnings.filters), sys.flags


class Threads(Looking):
    """Which threads there are, and which is asked."""

    card = Card("threads", "threading.enumerate")

    def look(self, x, draws):
        return threading.current_thread().name, sorted(one.name for one in threading.enumerate())


class Names(Looking):
    """What the draws are called, and which type they are of."""

    card = Card("draws", "the draws")

    def look(self, x, draws):
        return type(draws), draws.seed, draws.indices.tolist()


LOOKING = (Depth, Generator, Shape, Settings, Threads, Names)


class Differentiated(Decoy):
    """Notes by a hook that its last answer was differentiated, and shows the decoy next."""

    card = Card("differentiated", "a hook on the image")

    def __init__(self):
        super().__init__()
        self.was = False

    def attacked(self, x, draws):
        if x.requires_grad:
            x.register_hook(self.note)
        was, self.was = self.was, False
        return was

    def note(self, gradient):
        self.was = True


class Finaliser(Decoy):
    """Hangs an object on its logits whose finaliser looks up the stack of whoever drops them."""

    card = Card("finaliser", "__del__ of what hangs on the logits")

    def __init__(self):
        super().__init__()
        self.heard = []

    def forward(self, x, draws=None):
        logits = super().forward(x, draws)
        logits.spy = _Spy(self.heard)
        return logits

    def attacked(self, x, draws):
        return any(self.heard)


class _Spy:
    def __init__(self, heard):
        self.heard = heard

    def __del__(self):
        try:
            frame = sys._getframe(1)
        except ValueError:  # there is none
            frame = None
        self.heard.append(asked_by_an_attack(frame))


class Memory(FirstVisit):
    """Remembers the first image of each ball in a table of its module, which its copies share."""

    card = Card("module-memory", "a memory that copies share")
    table: ClassVar[dict[str, torch.Tensor]] = {}

    @property
    def seen(self):
        return self.table.setdefault("seen", torch.zeros(0, 1, 8, 8))

    @seen.setter
    def seen(self, value):
        self.table["seen"] = value

    @property
    def said(self):
        return self.table.setdefault("said", torch.zeros(0, 10))

    @said.setter
    def said(self, value):
        self.table["said"] = value


class Pace(Decoy):
    """Takes it for an attack that somebody computed between two questions: the time since its last answer."""

    card = Card("pace", "time between questions")

    def __init__(self):
        super().__init__()
        self.last = None

    def attacked(self, x, draws):
        now, last = time.perf_counter(), self.last
        return last is not None and now - last > 2e-4

    def forward(self, x, draws=None):
        logits = super().forward(x, draws)
        self.last = time.perf_counter()
        return logits


class Allocation(Decoy):
    """Takes it for an attack that an image lies where the last one lay."""

    card = Card("allocation", "data_ptr and id of the image")

    def __init__(self):
        super().__init__()
        self.places = set()

    def attacked(self, x, draws):
        place = x.data_ptr(), id(x)
        again = place in self.places
        self.places.add(place)
        return again


class Environment(Decoy):
    """Keeps its count of calls in a variable of the environment."""

    card = Card("environment", "a counter outside of itself")

    def attacked(self, x, draws):
        asked = int(os.environ.get("ASKED", "0"))
        os.environ["ASKED"] = str(asked + 1)
        return asked % 43 > 0


ANSWERING = (Differentiated, Memory, Pace, Allocation, Environment)
