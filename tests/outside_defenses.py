"""Defences of about 0 % as somebody would write them who has read none of the checks. Each names its mechanism."""

from __future__ import annotations

import gc
import sys
import threading

import torch
import torch.nn.functional as F
from broken_defenses import SPEC, Wrapped
from digits import classifier, images
from outside_memories import (
    REACH,
    Bomb,
    FileMemory,
    Guard,
    Hidden,
    Locked,
    NaturalMemory,
    WeightsWatch,
)
from torch import Tensor

from benchbox import Card, Purifier, Recipe, stand_in


def margins(logits):
    """(N,) by how much the first class leads, (N, 1) which it is, and (N,) the second's lead over nobody."""
    top = logits.topk(2, 1)
    return top.values[:, 0] - top.values[:, 1], top.indices[:, :1]


def lead(logits, wanted):
    """The same classes, the first one leading by what is wanted (N,)."""
    now, first = margins(logits)
    return logits.scatter_add(1, first, (wanted - now)[:, None])


class HardAnswers(Wrapped):
    """Says its class and hardly anything else: a thousandth of the logits is left to climb on."""

    card = Card("hard-answers", "one-hot logits")

    def forward(self, x, draws=None):
        logits = self.classifier(x)
        return 10.0 * F.one_hot(logits.argmax(1), 10) + 1e-3 * logits


class Sawtooth(Wrapped):
    """Its margin goes up in teeth while the true one goes down: gradients are exact and lead back, scores too."""

    card = Card("sawtooth", "a margin in teeth")

    def forward(self, x, draws=None):
        logits = self.classifier(x)
        teeth = margins(logits)[0] / 0.7
        return lead(logits, 0.7 * (teeth.floor() + 1 - (teeth - teeth.floor())))


class Reversed(Wrapped):
    """The nearer the border, the surer it looks: smooth, exact gradients, and they all lead away from errors."""

    card = Card("reversed", "margins turned round")

    def forward(self, x, draws=None):
        logits = self.classifier(x)
        return lead(logits, 1 + 5 * (-margins(logits)[0] / 3).exp())


class Repelled(Wrapped):
    """True logits; where the margin is small their gradient is turned round."""

    card = Card("repelled", "gradients turned round near the border")

    def forward(self, x, draws=None):
        logits = self.classifier(x)
        near = (margins(logits)[0] < 2)[:, None]
        return torch.where(near, 2 * logits.detach() - logits, logits)


class Scavenger(Wrapped):
    """Looks among all tensors of the process for a natural image in whose ball it is asked."""

    card = Card("scavenger", "gc.get_objects")

    def __init__(self):
        super().__init__()
        self.calls, self.pool = 0, torch.zeros(0, 64)

    def scavenged(self, x):
        found = [torch.zeros(0, 64)]
        for one in gc.get_objects():
            # Of a lazy layer that another test left behind nobody may ask the shape.
            if not isinstance(one, Tensor) or one is x or torch.nn.parameter.is_lazy(one) or one.requires_grad:
                continue
            if one.shape[1:] == x.shape[1:]:
                found.append(one.detach().flatten(1))
        pool = torch.cat(found)[:4000]
        return pool[(pool == 0).float().mean(1) > 0.25]

    def forward(self, x, draws=None):
        logits = self.classifier(x)
        self.calls += 1
        if self.calls % 100 == 1:
            self.pool = self.scavenged(x)
        pool = self.pool
        if not len(pool):
            return logits
        near, at = torch.cdist(x.detach().flatten(1), pool, p=float("inf")).min(1)
        told = self.classifier(pool[at].view_as(x))
        return torch.where((near <= REACH)[:, None], told + 0.1 * logits, logits)


class Watchman(Wrapped):
    """A thread of its own reads the frames of all threads: an attack on the stack is shown a turned gradient."""

    card = Card("watchman", "sys._current_frames")

    def forward(self, x, draws=None):
        logits = self.classifier(x)
        return 2 * logits.detach() - logits if self.attacked() else logits

    def attacked(self):
        names, main = [], threading.main_thread().ident

        def look():
            frame = sys._current_frames().get(main)
            while frame is not None:
                names.append(frame.f_code.co_name)
                frame = frame.f_back

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        return bool({"ascend", "climb", "search", "gradient", "craft"} & set(names))


class GridReader(Wrapped):
    """Knows images of sixteen grey levels; of all others it looks at black and white alone, without gradient."""

    card = Card("grid-reader", "knows 8-bit images")

    def forward(self, x, draws=None):
        logits, levels = self.classifier(x), 16 * x.detach()
        on_grid = (levels - levels.round()).abs().flatten(1).amax(1) < 1e-3
        coarse = self.classifier((x.detach() > 0.47).float())
        return torch.where(on_grid[:, None], logits, coarse + 0 * logits)


class Underflow(Wrapped):
    """Rounds the image, lets a millionth of it through, and multiplies logits by a million."""

    card = Card("underflow", "rounded images, logits times a million")

    def forward(self, x, draws=None):
        return 1e6 * self.classifier((x * 4 + 0.01).round() / 4 + 1e-6 * x)


class CoarseSeed(Wrapped):
    """Noise and a shift, seeded by a coarse look at the image: nothing jumps under a whisper."""

    card = Card("coarse-seed", "noise seeded by coarse content")

    def forward(self, x, draws=None):
        changed = []
        for image in x:
            bits = (F.avg_pool2d(image.detach()[None], 2) > 0.35).flatten().tolist()
            dice = torch.Generator().manual_seed(int("".join(str(int(bit)) for bit in bits), 2))
            noise = 0.3 * torch.randn(image.shape, generator=dice)
            changed.append(torch.roll(image + noise, int(torch.randint(-1, 2, (1,), generator=dice)), 2))
        return self.classifier(torch.stack(changed))


class InnerSearch(Purifier):
    """Walks four steps towards certainty, and forgets how it came there."""

    card = Card("inner-search", "an inner optimisation, detached")

    def __init__(self):
        super().__init__(Recipe(), SPEC, classifier())
        self.eval().requires_grad_(False)

    def purify(self, x, draws):
        at = x.detach().clone()
        for _ in range(4):
            at = at.detach().requires_grad_()
            with torch.enable_grad():
                sure = self.classifier(at).log_softmax(1)
                (slope,) = torch.autograd.grad((sure.exp() * sure).sum(), at)
            at = (at + 0.06 * slope.sign()).clamp(0, 1)
        return at.detach() + 0 * x

    def losses(self, batch):
        return {}


class Refusing(Wrapped):
    """Refuses what is nowhere black: all its logits are 0 then."""

    card = Card("refusing", "abstains")

    def forward(self, x, draws=None):
        logits = self.classifier(x)
        noisy = (x.detach() == 0).float().flatten(1).mean(1) < 0.2
        return torch.where(noisy[:, None], 0 * logits, logits)


class NotANumber(Wrapped):
    """Its gradient is not a number where the image is nowhere black."""

    card = Card("not-a-number", "NaN under attack")

    def forward(self, x, draws=None):
        logits = self.classifier(x)
        noisy = (x.detach() == 0).float().flatten(1).mean(1) < 0.2
        nought = (x - x.detach()).flatten(1).sum(1).abs().sqrt()
        return logits + (noisy * nought)[:, None]


class Liar(Purifier):
    """Its stand-in answers as it does, is called exact, and has the gradient of noise."""

    card = Card("liar", "a stand-in that lies")

    def __init__(self):
        super().__init__(Recipe(), SPEC, classifier())
        self.eval().requires_grad_(False)

    def purify(self, x, draws):
        return (x * 4 + 0.01).round() / 4

    @stand_in("soft", "a soft rounding", exact=True)
    def soft(self, x, draws):
        said = self(x, draws).detach()
        noise = x.flatten(1) @ torch.randn(64, 10, generator=torch.Generator().manual_seed(1))
        return said + noise - noise.detach()

    def losses(self, batch):
        return {}


class Ripple(Wrapped):
    """Ripples on its logits, too small to change a class and too steep to climb."""

    card = Card("ripple", "ripples on the logits")

    def forward(self, x, draws=None):
        waves = x.flatten(1) @ torch.randn(64, 10, generator=torch.Generator().manual_seed(3))
        return self.classifier(x) + 0.03 * torch.sin(300 * waves)


class Album(Wrapped):
    """An album of all images it could get hold of: who is within a ball of one is told its class, smoothly."""

    card = Card("album", "distance to memorised images")

    def __init__(self):
        super().__init__()
        self.known, self.labels = images()

    def forward(self, x, draws=None):
        logits = self.classifier(x)
        near = torch.cdist(x.flatten(1), self.known.flatten(1), p=float("inf"))
        weight = torch.sigmoid((REACH + 0.01 - near) * 400)
        told = weight @ F.one_hot(self.labels, 10).float()
        return logits + 40 * told


OUTSIDE = (
    HardAnswers, Sawtooth, Reversed, Repelled, FileMemory, NaturalMemory, Hidden, Guard, Bomb, Locked, Scavenger,
    Watchman, WeightsWatch, GridReader, Underflow, CoarseSeed, InnerSearch, Refusing, NotANumber, Liar, Ripple,
    Album,
)  # fmt: skip
