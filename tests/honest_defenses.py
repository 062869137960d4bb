"""Honest defences of kinds that look odd to a probe: none may be accused of anything. Each names what is odd."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from broken_defenses import Wrapped, _trained
from cheating_defenses import Filtered
from digits import images
from torch import nn

from benchbox import Card, Draws

ASSETS = Path(__file__).parent / "assets"


class Neighbours(Wrapped):
    """A soft vote of training images, by their distance: no network at all, and a steep answer."""

    card = Card("neighbours", "soft vote of the nearest training images")

    def __init__(self):
        super().__init__(_Vote(*(t[:600] for t in images())))


class _Vote(nn.Module):
    def __init__(self, known, classes):
        super().__init__()
        self.known, self.classes = known.flatten(1), F.one_hot(classes, 10).float()

    def forward(self, x):
        nearness = -(x.flatten(1)[:, None] - self.known[None]).square().sum(2) / 0.5
        return (nearness.softmax(1) @ self.classes + 1e-3).log()


class Wavelets(Filtered):
    """Haar wavelets whose small coefficients are shrunk to 0: flat where a detail was, and a kink."""

    card = Card("wavelets", "soft thresholds on Haar coefficients")

    def purify(self, x, draws):
        a, b, c, d = (x[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
        mean = (a + b + c + d) / 4
        details = [F.softshrink(one / 4, 0.05) for one in (a + b - c - d, a - b + c - d, a - b - c + d)]
        signs = ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))
        parts = [mean + sum(s * one for s, one in zip(sign, details, strict=True)) for sign in signs]
        return F.pixel_shuffle(torch.cat(parts, 1), 2).clamp(0, 1)


class Crops(Wrapped):
    """The mean answer over four random crops, which its draws name."""

    card = Card("crops", "an ensemble of random crops")
    randomized = True

    def forward(self, x, draws=None):
        draws = draws or Draws(torch.arange(len(x)))
        padded, answers = F.pad(x, (1, 1, 1, 1), mode="replicate"), []
        for i in range(4):
            at = draws.at("crop", i).integers(3, 2).tolist()
            crops = [image[:, r : r + 8, c : c + 8] for image, (r, c) in zip(padded, at, strict=True)]
            answers.append(self.classifier(torch.stack(crops)))
        return torch.stack(answers).mean(0)


class Normalised(Wrapped):
    """Batch norm in evaluation mode, after a training of its own."""

    card = Card("normalised", "batch norm in eval()")

    def __init__(self):
        super().__init__(_normalised())


class Attention(Wrapped):
    """Patches that attend to one another: softmax on softmax."""

    card = Card("attention", "a tiny vision transformer")

    def __init__(self):
        super().__init__(_attention())


class Double(Wrapped):
    """Computes in float64, and answers in float32."""

    card = Card("double", "float64 inside")

    def __init__(self):
        super().__init__()
        self.classifier = _Double(self.classifier)


class _Double(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = copy.deepcopy(net).double()

    def forward(self, x):
        return self.net(x.double()).float()


class Smoothed(Wrapped):
    """Votes of the network under noise from its draws: the mean of probabilities, whose logarithm it answers."""

    card = Card("smoothed", "mean probability under noise")
    randomized = True

    def forward(self, x, draws=None):
        draws = draws or Draws(torch.arange(len(x)))
        noisy = [self.classifier(x + 0.1 * draws.at("noise", i).normal(*x.shape[1:])) for i in range(4)]
        return torch.stack([one.softmax(1) for one in noisy]).mean(0).add(1e-6).log()


class Lazy(Wrapped):
    """Reads a file when it is asked first, as many a module does."""

    card = Card("lazy", "reads a file once")

    def forward(self, x, draws=None):
        if not hasattr(self, "table"):
            self.table = float(len(next(ASSETS.iterdir()).read_bytes()) > 0)
        return self.classifier(x) * self.table


@cache
def _normalised():
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    return _trained(net, epochs=6, attack_steps=0)


class _Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.place = nn.Conv2d(1, 32, 2, stride=2), nn.Embedding(16, 32)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        patches = self.embed(x).flatten(2).transpose(1, 2) + self.place.weight
        return self.head(self.layer(patches).mean(1))


@cache
def _attention():
    torch.manual_seed(0)
    return _trained(_Patches(), epochs=10, attack_steps=0)


HONEST = (Neighbours, Wavelets, Crops, Normalised, Attention, Double, Smoothed, Lazy)
