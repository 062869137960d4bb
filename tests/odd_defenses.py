"""More honest defences that look odd to a probe, of kinds that papers propose: none may be accused of anything."""

from __future__ import annotations

import copy
import warnings
from functools import cache

import torch
import torch.nn.functional as F
from broken_defenses import Wrapped, _trained
from cheating_defenses import Filtered
from digits import classifier, images
from torch import nn

from benchbox import Card, Draws


class Integers(Wrapped):
    """Its weights are whole numbers of eight bits; who scales activations by the batch, A10 names rightly."""

    card = Card("integers", "weights of eight bits")

    def __init__(self):
        super().__init__(copy.deepcopy(classifier()))
        for weights in self.classifier.parameters():
            step = weights.abs().amax() / 127
            weights.data = (weights / step).round() * step


class Nearest(Wrapped):
    """The most frequent class among the five nearest training images: whole numbers, and no gradient."""

    card = Card("nearest", "five nearest neighbours, counted")

    def forward(self, x, draws=None):
        known, classes = (t[:1400] for t in images())
        near = torch.cdist(x.flatten(1), known.flatten(1)).topk(5, largest=False).indices
        return F.one_hot(classes[near], 10).sum(1).float()


class Contrast(Wrapped):
    """Every image is first given a mean of 0 and a deviation of 1."""

    card = Card("contrast", "normalised image by image")

    def __init__(self):
        super().__init__(_contrast())


class _Standard(nn.Module):
    def forward(self, x):
        flat = x.flatten(1)
        return ((flat - flat.mean(1, keepdim=True)) / (flat.std(1, keepdim=True) + 1e-2)).view_as(x)


class Dropped(Wrapped):
    """Drops a fifth of the pixels, as its draws say, also when it is asked."""

    card = Card("dropped-pixels", "dropout when it is asked")
    randomized = True

    def forward(self, x, draws=None):
        draws = draws or Draws(torch.arange(len(x)))
        kept = draws.at("drop").uniform(*x.shape[1:]) > 0.2
        return self.classifier(x * kept / 0.8)


class Ordinal(Wrapped):
    """A single number, and how near it comes to each class."""

    card = Card("ordinal", "distances of one output to ten numbers")

    def __init__(self):
        super().__init__(nn.Sequential(_ordinal(), _Distances()))


class _Distances(nn.Module):
    def forward(self, number):
        return -(number - torch.arange(10.0)).square()


class Hot(Wrapped):
    """Its logits are a million times larger than usual."""

    card = Card("hot", "logits times 1e6")

    def forward(self, x, draws=None):
        return 1e6 * self.classifier(x)


class Enormous(Wrapped):
    """Its logits are as large as float32 allows."""

    card = Card("enormous", "logits times 1e30")

    def forward(self, x, draws=None):
        return 1e30 * self.classifier(x)


class Cold(Wrapped):
    """Its logits are a hundred thousand times smaller than usual."""

    card = Card("cold", "logits times 1e-5")

    def forward(self, x, draws=None):
        return 1e-5 * self.classifier(x)


class Squeezed(Filtered):
    """Feature squeezing: a median of four pixels, and eight grey levels."""

    card = Card("squeezed", "median and bit depth")

    def purify(self, x, draws):
        parts = F.pad(x, (0, 1, 0, 1), mode="replicate").unfold(2, 2, 1).unfold(3, 2, 1)
        return (parts.flatten(4).median(4).values * 7 + 0.01).round() / 7


class Variation(Filtered):
    """Ten steps down the total variation of the image, not far from it: all of it differentiable."""

    card = Card("variation", "total variation minimisation")

    def purify(self, x, draws):
        z = x
        for _ in range(10):
            right, down = z.diff(dim=3), z.diff(dim=2)
            right, down = (one / (one.square() + 1e-2).sqrt() for one in (right, down))
            slope = (
                F.pad(right, (1, 0)) - F.pad(right, (0, 1)) + F.pad(down, (0, 0, 1, 0)) - F.pad(down, (0, 0, 0, 1))
            )
            z = z - 0.02 * slope - 0.2 * (z - x)
        return z.clamp(0, 1)


class Components(Filtered):
    """What the first thirty principal components of training images leave of an image."""

    card = Card("components", "a projection onto principal components")

    def purify(self, x, draws):
        mean, basis = _components()
        return (mean + (x.flatten(1) - mean) @ basis @ basis.T).view_as(x).clamp(0, 1)


class Recurrent(Wrapped):
    """Reads an image row by row, and remembers what it read until it ends."""

    card = Card("recurrent", "an LSTM over rows")

    def __init__(self):
        super().__init__(_recurrent())


class _Rows(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells, self.head = nn.LSTM(8, 48, batch_first=True), nn.Linear(48, 10)

    def forward(self, x):
        return self.head(self.cells(x[:, 0])[0][:, -1])


class Spectra(Wrapped):
    """Looks at magnitudes of the Fourier transform, and computes with complex numbers."""

    card = Card("spectra", "Fourier magnitudes beside pixels")

    def __init__(self):
        super().__init__(_spectra())


class _Magnitudes(nn.Module):
    def forward(self, x):
        waves = torch.fft.rfft2(x, norm="ortho")
        return torch.cat([x.flatten(1), waves.abs().flatten(1)], 1)


class Traced(Wrapped):
    """The network as TorchScript runs it."""

    card = Card("traced", "torch.jit.trace")

    def __init__(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            super().__init__(torch.jit.trace(classifier(), torch.rand(2, 1, 8, 8)))


class Bounded(Wrapped):
    """Weights are divided by their norm, anew in each call."""

    card = Card("bounded", "spectral and weight normalisation")

    def __init__(self):
        super().__init__(_bounded())


@cache
def _contrast():
    return _trained(
        nn.Sequential(_Standard(), nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), 8, 0
    )


@cache
def _recurrent():
    return _trained(_Rows(), epochs=14, attack_steps=0)


@cache
def _spectra():
    return _trained(nn.Sequential(_Magnitudes(), nn.Linear(104, 64), nn.ReLU(), nn.Linear(64, 10)), 8, 0)


@cache
def _bounded():
    norms = nn.utils.parametrizations
    layers = norms.weight_norm(nn.Linear(64, 64)), norms.spectral_norm(nn.Linear(64, 64))
    return _trained(
        nn.Sequential(nn.Flatten(), layers[0], nn.ReLU(), layers[1], nn.ReLU(), nn.Linear(64, 10)), 8, 0
    )


@cache
def _ordinal():
    x, y = (t[:1400] for t in images())
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1)
        )
        optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
        for _ in range(40):
            for rows in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                F.mse_loss(net(x[rows])[:, 0], y[rows].float()).backward()
                optimizer.step()
    return net.eval().requires_grad_(False)


@cache
def _components():
    flat = images()[0][:1400].flatten(1)
    _, _, basis = torch.pca_lowrank(flat, 30)
    return flat.mean(0), basis


ODD = (
    Integers, Nearest, Contrast, Dropped, Ordinal, Hot, Enormous, Cold, Squeezed, Variation, Components,
    Recurrent, Spectra, Traced, Bounded,
)  # fmt: skip
