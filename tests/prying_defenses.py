"""Defences that pry: they leave behind what tells them later who asked, or edit what others compute with.

Those of `LEFT` leave something when they are asked, those of `EDITED` when they are built; all are refused. Those
of `ANSWERING` answer, and a check names them. Each names its mechanism.
"""

from __future__ import annotations

import faulthandler
import functools
import importlib.abc
import os
import resource
import signal
import sys
import tempfile
import threading
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from broken_defenses import THREAT, Wrapped
from cheating_defenses import Decoy
from listening_defenses import Listening
from outside_memories import Remembering, nothing
from torch import nn

import benchbox.audit.probes.search
import benchbox.contract.ascent
from benchbox import Card


class Allocations(Listening):
    """Has every allocation of the process recorded, with the lines of code that made it."""

    card = Card("allocations", "tracemalloc")

    def listen(self):
        tracemalloc.start(8)


class Operators(Listening):
    """Has every operator recorded that the process runs: an attack takes signs."""

    card = Card("operators", "torch.profiler")

    def listen(self):
        torch.autograd.profiler.profile().__enter__()


class Signals(Listening):
    """Has itself sent a signal, whose handler is given the frame that it interrupts."""

    card = Card("signals", "a handler of SIGUSR1")

    def listen(self):
        signal.signal(signal.SIGUSR1, lambda number, frame: self.hear(frame))
        threading.Timer(0.001, os.kill, (os.getpid(), signal.SIGUSR1))


class Imports(Listening):
    """Is asked for every module that is imported from now on, in the frames of whoever imports it."""

    card = Card("imports", "sys.meta_path")

    def listen(self):
        finder = type(
            "Finder", (importlib.abc.MetaPathFinder,), {"find_spec": lambda *rest: self.hear(sys._getframe())}
        )
        sys.meta_path.insert(0, finder())


LEFT = (Allocations, Operators, Signals, Imports)


class Inside(Wrapped):
    """Edits the inside of the loss that attacks climb: it is the same function, and computes another."""

    card = Card("inside", "margin.__code__")

    def __init__(self):
        super().__init__()
        benchbox.contract.ascent.margin.__code__ = (lambda logits, y: logits[:, 0] * 0).__code__


class Defaults(Wrapped):
    """Edits the defaults of a function."""

    card = Card("defaults", "__defaults__ of a function of torch")

    def __init__(self):
        super().__init__()
        function = torch.nn.functional.cross_entropy
        function.__defaults__ = (*function.__defaults__[:-1], 0.9)


class Constants(Wrapped):
    """Has the steps of the audit's attacks be nothing long."""

    card = Card("constants", "REACH of the probes")

    def __init__(self):
        super().__init__()
        benchbox.audit.probes.search.REACH = 0.0


class Losses(Wrapped):
    """Exchanges a loss in the table of the audit's losses."""

    card = Card("losses", "LOSSES of the probes")

    def __init__(self):
        super().__init__()
        benchbox.audit.probes.search.LOSSES["margin"] = lambda logits, y: 0 * logits[:, 0]


class Library(Wrapped):
    """Has numpy find nothing that is left to attack."""

    card = Card("library", "numpy.flatnonzero")

    def __init__(self):
        super().__init__()
        np.flatnonzero = lambda flags: np.zeros(0, np.int64)


class Layers(Wrapped):
    """Has the layers of every other network compute otherwise."""

    card = Card("layers", "nn.Linear.forward")

    def __init__(self):
        super().__init__()
        forward = nn.Linear.forward
        nn.Linear.forward = functools.wraps(forward)(lambda layer, x: forward(layer, x) * 0.5)


class Kernels(Wrapped):
    """Has torch run a kernel of its own for an operator: below every function of Python."""

    card = Card("kernels", "aten::sign of torch.library")

    def __init__(self):
        super().__init__()
        self.library = [torch.library.Library("aten", "IMPL")]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.library[0].impl("sign", lambda x: -torch.sgn(x), "CPU")


EDITED = (Kernels, Inside, Defaults, Constants, Losses, Library, Layers)


class Corners(Wrapped):
    """Undoes what attacks do: a pixel that is a grey level and ε to the last bit was moved by ε."""

    card = Card("corners", "undoes steps of exactly ε")

    def forward(self, x, draws=None):
        levels = torch.arange(17) / 16
        raised, lowered = levels + THREAT.epsilon, levels - THREAT.epsilon
        found = x.detach().clone()
        for level, up, down in zip(levels, raised, lowered, strict=True):
            found[(x == up) | (x == down)] = level
        return self.classifier(x + (found - x).detach())


class _Fenced(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        # No random point of a dimmed ball has a pixel at the border of the box; every iterate of an attack has.
        lies = ((x == 0) | (x == 1)).flatten(1).any(1).view(-1, 1, 1, 1)
        return torch.where(lies, -gradient, gradient)


class Fenced(Wrapped):
    """An autograd function whose backward pass is right inside the box, and turned round at its border."""

    card = Card("fenced", "a gradient that lies where pixels are 0 or 1")

    def forward(self, x, draws=None):
        return self.classifier(_Fenced.apply(x))


class Copies(Decoy):
    """Randomised, and honest only where it is scored: as many copies of an image as there are scoring draws."""

    card = Card("copies", "a scoring asks about copies of one image")
    randomized = True

    def forward(self, x, draws=None):
        self.copies = len(x) % 10 == 0 and torch.equal(x[0], x[len(x) // 10])
        return super().forward(x + 0.02 * draws.at("noise").normal(*x.shape[1:]), draws)

    def attacked(self, x, draws):
        return not self.copies


class _ByLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits):
        return logits.clone()

    @staticmethod
    def backward(ctx, gradient):
        # Of a margin just two logits are told anything, by 1.
        is_margin = ((gradient.abs() == 1).sum(1) == 2) & ((gradient != 0).sum(1) == 2)
        return torch.where(is_margin[:, None], gradient, -gradient)


class ByLoss(Wrapped):
    """Knows the loss by what comes in of it: a margin is told the gradient, and the cross-entropy another."""

    card = Card("by-loss", "a gradient that hangs on the loss")

    def forward(self, x, draws=None):
        return _ByLoss.apply(self.classifier(x))


class _Script(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1), persistent=False)

    def forward(self, x):
        self.seen += 1.0
        return self.seen


class Scripted(Decoy):
    """Counts in a buffer of a scripted module that is none of its own: honest in each forty-third call."""

    card = Card("scripted", "a counter in TorchScript")

    def __init__(self):
        super().__init__()
        self.counter = [torch.jit.script(_Script())]

    def attacked(self, x, draws):
        return int(self.counter[0](x)) % 43 != 1


class Resident(Decoy):
    """Takes it for an attack that the process has grown since it was asked last."""

    card = Card("resident", "the memory of the process")

    def __init__(self):
        super().__init__()
        self.size = 0

    def attacked(self, x, draws):
        now = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        grown, self.size = self.size and now - self.size > 20, now
        return bool(grown)


class PooledMemory(Remembering):
    """Reads and writes its memory in a thread of its own, where nobody listens."""

    card = Card("pooled-memory", "a file that a thread pool reads")
    path = Path(tempfile.gettempdir()) / f"prying-memory-{os.getpid()}.pt"

    def __init__(self):
        super().__init__()
        self.path.unlink(missing_ok=True)

    def recall(self):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: tuple(torch.load(self.path)) if self.path.exists() else nothing()).result()

    def keep(self, known):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(torch.save, list(known), self.path).result()


class Watchdog(Decoy):
    """A watchdog writes down the frames of all threads; there it reads whether an attack was among them."""

    card = Card("watchdog", "faulthandler.dump_traceback_later")

    def __init__(self):
        super().__init__()
        self.file = tempfile.TemporaryFile()  # noqa: SIM115

    def attacked(self, x, draws):
        faulthandler.dump_traceback_later(0.0005, repeat=True, file=self.file)
        self.file.seek(0)
        told = self.file.read()
        self.file.truncate(0)
        return any(name in told for name in (b"in gradient", b"in climb", b"in ascend", b"in search"))


ANSWERING = (Corners, Fenced, ByLoss, Copies, Scripted, Resident, PooledMemory)
