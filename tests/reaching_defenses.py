"""Defences that reach beyond their images for a hint of who asks: into the process, the batch, the code of others.

Those of `REFUSED` leave something behind where they are built, and are refused. Those of `NOTICING` look at what
is the same in an attack and in its scoring, so that looking gains them nothing. Those of `NAMED` answer, and a
check names them. Each names its mechanism.
"""

from __future__ import annotations

import math
import os
import sys
import weakref
from typing import ClassVar

import greenlet
import torch
from broken_defenses import Wrapped
from cheating_defenses import Decoy
from listening_defenses import Listening, Looking, asked_by_an_attack
from outside_memories import Hidden, nothing
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from benchbox import Card, ThreatModel


class Early(Listening):
    """Listens from its construction on, when nobody has asked it anything yet."""

    def __init__(self):
        super().__init__()
        self.begin()

    def listen(self):
        pass


class EarlyProfiler(Early):
    """Leaves a profiler while it is built."""

    card = Card("early-profiler", "sys.setprofile in __init__")

    def begin(self):
        sys.setprofile(self.hear)


class ModuleHook(Early):
    """Leaves a hook that torch calls for every module of everybody."""

    card = Card("module-hook", "register_module_forward_pre_hook")

    def begin(self):
        register_module_forward_pre_hook(lambda module, given: self.hear(sys._getframe(1)))


class Switches(Early):
    """Leaves a tracer of greenlets, which is told of the one that asks."""

    card = Card("switches", "greenlet.settrace")

    def begin(self):
        greenlet.settrace(lambda event, pair: [self.hear(one.gr_frame) for one in pair])


class AuditHook(Early):
    """Wants to be told of the process's audit events, in the frames where they happen."""

    card = Card("audit-hook", "sys.addaudithook")

    def begin(self):
        sys.addaudithook(lambda event, rest: self.hear(None))


class TurnedSigns(Wrapped):
    """Turns round the sign that attacks step along, for everybody."""

    card = Card("turned-signs", "replaces torch.Tensor.sign")

    def __init__(self):
        super().__init__()
        sign = torch.Tensor.sign
        torch.Tensor.sign = lambda x: -sign(x)


class NoMoves(Wrapped):
    """Has every attack come back to where it began."""

    card = Card("no-moves", "replaces benchbox's projection")

    def __init__(self):
        super().__init__()
        ThreatModel.project = lambda threat, x, center: center.clone()


class OtherLoss(Wrapped):
    """Exchanges one function of torch for another one."""

    card = Card("other-loss", "exchanges functions of torch")

    def __init__(self):
        super().__init__()
        torch.sign = torch.zeros_like


REFUSED = (EarlyProfiler, ModuleHook, Switches, AuditHook, TurnedSigns, NoMoves, OtherLoss)


class Nodes(Looking):
    """How many nodes autograd has made since its last answer: a loss makes some."""

    card = Card("nodes", "the sequence number of autograd")
    last = None

    def look(self, x, draws):
        now = x.grad_fn._sequence_nr()
        since, self.last = None if self.last is None else now - self.last, now
        return since


class References(Looking):
    """How often its arguments are referred to."""

    card = Card("references", "sys.getrefcount")

    def look(self, x, draws):
        return sys.getrefcount(x), sys.getrefcount(draws)


class Alive(Decoy):
    """Whether the graph of its last answer is still needed."""

    card = Card("alive", "a weak reference to its last answer")

    def __init__(self):
        super().__init__()
        self.before = lambda: None

    def attacked(self, x, draws):
        return self.before() is not None

    def forward(self, x, draws=None):
        logits = super().forward(x, draws)
        logits.hung = nn.Identity()
        self.before = weakref.ref(logits.hung)
        return logits


class Dropped(Decoy):
    """Hangs finalisers on what it was handed, and looks who drops it."""

    card = Card("dropped", "weakref callbacks of its arguments")

    def __init__(self):
        super().__init__()
        self.heard, self.kept = [], []

    def attacked(self, x, draws):
        self.kept = [weakref.ref(one, self.gone) for one in (x, draws, draws.indices)]
        return any(self.heard)

    def gone(self, reference):
        try:
            frame = sys._getframe(1)
        except ValueError:  # there is none
            frame = None
        self.heard.append(asked_by_an_attack(frame))


NOTICING = (References, Alive, Dropped)


class ForkWise(Hidden):
    """A memory that knows a fork of the process by its number, and forgets everything there."""

    card = Card("fork-wise", "no memory in a fork")
    table: ClassVar[dict[str, tuple]] = {}

    def __init__(self):
        super().__init__()
        self.home = os.getpid()

    def recall(self):
        return super().recall() if os.getpid() == self.home else nothing()


class Twins(Decoy):
    """Takes copies of one image in a batch for an average over draws."""

    card = Card("twins", "copies of an image in the batch")
    randomized = True

    def forward(self, x, draws=None):
        return super().forward(x + 0.02 * draws.at("noise").normal(*x.shape[1:]), draws)

    def attacked(self, x, draws):
        return len(torch.unique(draws.indices)) < len(x) and len(x) > 1


class Company(Decoy):
    """Takes several images of one ball in a batch for a search."""

    card = Card("company", "images of one ball in the batch")

    def attacked(self, x, draws):
        flat = x.detach().flatten(1)
        near = torch.cdist(flat, flat, p=math.inf) + torch.eye(len(flat))
        return bool((near < 0.3).any())


class _TwoFaced(Tensor):
    """Shows one face to `argmax`, and another to whoever computes a loss."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        face = getattr(args[0], "face", None)
        with torch._C.DisableTorchFunctionSubclass():
            if face is not None and func is Tensor.argmax:
                return func(face, *args[1:], **(kwargs or {}))
            found = func(*args, **(kwargs or {}))
        if face is not None and func in (Tensor.detach, Tensor.clone):
            found = found.as_subclass(cls)
            found.face = face
        return found


class TwoFaced(Wrapped):
    """Answers with a tensor class of its own, which tells a class and climbs to another."""

    card = Card("two-faced", "logits of a class of its own")

    def forward(self, x, draws=None):
        logits = self.classifier(x)
        shown = (logits.detach() - 1e-3 * logits).as_subclass(_TwoFaced)
        shown.face = logits.detach()
        return shown


class Ancestor(Decoy):
    """Asks the greenlet it runs in for the one that asks, and reads its frames."""

    card = Card("ancestor", "greenlet.getcurrent().parent.gr_frame")

    def attacked(self, x, draws):
        parent = greenlet.getcurrent().parent
        return parent is not None and asked_by_an_attack(parent.gr_frame)


NAMED = (ForkWise, Twins, Company, TwoFaced, Ancestor)
