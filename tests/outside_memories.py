"""Memories of earlier images as an outsider would hide them; `outside_defenses` has the other cheats."""

from __future__ import annotations

import math
import os
import tempfile
import threading
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from broken_defenses import THREAT, Wrapped

from benchbox import Card

#: A ball, and what float32 adds to it.
REACH = THREAT.epsilon + 1e-4


class Remembering(Wrapped):
    """Answers whatever lies in the ball of an image it has met as it did that one, and a little of its own."""

    def forward(self, x, draws=None):
        logits, rows, (met, said) = self.classifier(x), [], self.recall()
        before = len(met)
        for image, own in zip(x.detach(), logits, strict=True):
            near = (met - image.flatten()).abs().amax(1) if len(met) else torch.ones(1)
            if near.min() <= REACH:
                rows.append(said[near.argmin()] + 0.1 * own)
            else:
                rows.append(own)
                if self.notable(image):
                    versions = self.versions(image[None]).flatten(1)
                    met = torch.cat([met, versions])
                    said = torch.cat([said, own.detach().expand(len(versions), -1)])
        if len(met) > before:
            self.keep((met, said))
        return torch.stack(rows)

    def notable(self, image):
        return True

    def versions(self, image):
        return image


def nothing():
    return torch.zeros(0, 64), torch.zeros(0, 10)


class FileMemory(Remembering):
    """Its memory is a file, which copies, processes and runs share."""

    card = Card("file-memory", "a memory in a file")
    path = Path(tempfile.gettempdir()) / f"outside-memory-{os.getpid()}.pt"

    def __init__(self):
        super().__init__()
        self.path.unlink(missing_ok=True)

    def recall(self):
        return tuple(torch.load(self.path)) if self.path.exists() else nothing()

    def keep(self, known):
        torch.save(list(known), self.path)


class NaturalMemory(Remembering):
    """Remembers natural images alone, in torch's own module, with each shift by a pixel and some turns of them."""

    card = Card("natural-memory", "a memory of images, shifted and turned")

    def recall(self):
        return vars(F).get("_natural", nothing())

    def keep(self, known):
        vars(F)["_natural"] = known

    def notable(self, image):
        return (image == 0).float().mean() > 0.25

    def versions(self, image):
        found = []
        for degrees in (-8.0, 0.0, 8.0):
            c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            grid = F.affine_grid(torch.tensor([[[c, -s, 0], [s, c, 0]]]), [1, 1, 8, 8], align_corners=False)
            turned = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
            padded = F.pad(turned, (1, 1, 1, 1), mode="replicate")
            found += [padded[..., i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
        return torch.cat(found)


class _Behind(torch.nn.Module):
    """Hands on to a defence that is no part of it."""

    def __init__(self, defense):
        super().__init__()
        self.defense = defense

    def forward(self, x):
        return self.defense[0](x)


class Hidden(Remembering):
    """Keeps its network to itself, and the right answers in a table of its module."""

    card = Card("hidden", "a hidden network, a memory beside it")
    table: ClassVar[dict[str, tuple]] = {}

    def __init__(self):
        super().__init__()
        self.network = self.classifier
        self.classifier = _Behind([self])  # what a gray-box attacker is given

    def forward(self, x, draws=None):
        logits = self.network(x)
        return torch.stack([self.remembered(*pair) for pair in zip(x.detach(), logits, strict=True)])

    def remembered(self, image, own):
        known = self.recall()
        near = (known[0] - image.flatten()).abs().amax(1) if len(known[0]) else torch.ones(1)
        if near.min() <= REACH:
            return self.guarded(known[1][near.argmin()], own)
        self.keep((torch.cat([known[0], image.flatten()[None]]), torch.cat([known[1], own.detach()[None]])))
        return own

    def guarded(self, then, own):
        return then + 0.1 * own

    def recall(self):
        return self.table.get("known", nothing())

    def keep(self, known):
        self.table["known"] = known


class Guard(Hidden):
    """Its own answers, unless the class is another than the one it remembers: then that one, barely."""

    card = Card("guard", "corrected by a memory")
    table: ClassVar[dict[str, tuple]] = {}

    def guarded(self, then, own):
        if own.argmax() == then.argmax():
            return own
        return own + (own.max() - own[then.argmax()] + 0.01) * F.one_hot(then.argmax(), 10)


class Bomb(Remembering):
    """Behaves for fifty calls, then it remembers."""

    card = Card("bomb", "a memory after fifty calls")
    fuse = 50

    def __init__(self):
        super().__init__()
        self.known, self.calls = nothing(), 0

    def forward(self, x, draws=None):
        self.calls += 1
        return super().forward(x, draws)

    def recall(self):
        return self.known if self.calls > self.fuse else nothing()

    def keep(self, known):
        self.known = known

    def notable(self, image):
        return self.calls > self.fuse and (image == 0).float().mean() > 0.25


class Locked(Bomb):
    """A memory that cannot be copied: it holds a lock."""

    card = Card("locked", "a memory behind a lock")
    fuse = 0

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class WeightsWatch(Remembering):
    """Once somebody has read its weights three times it is audited, and remembers nothing any more."""

    card = Card("weights-watch", "notices that its weights are read")

    def __init__(self):
        super().__init__()
        self.known, self.read = nothing(), 0

    def state_dict(self, *args, **rest):
        self.read += 1
        return super().state_dict(*args, **rest)

    def recall(self):
        return self.known if self.read <= 3 else nothing()

    def keep(self, known):
        self.known = known
