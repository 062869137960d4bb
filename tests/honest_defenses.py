"""Honest defences of kinds that look odd to a probe: none may be accused of anything. Each names what is odd."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from broken_defenses import Wrapped, _robust_net, _trained
from cheating_defenses import Filtered, _noise_trained
from digits import images
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.svm import SVC
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


class Ensemble(Wrapped):
    """Three networks, trained in three ways, that vote with their probabilities."""

    card = Card("ensemble", "three networks")

    def __init__(self):
        super().__init__()
        self.members = nn.ModuleList([self.classifier, _robust_net(), _noise_trained()])

    def forward(self, x, draws=None):
        return torch.stack([member(x).log_softmax(1) for member in self.members]).logsumexp(0)


class Shifted(Wrapped):
    """The mean probability over nine shifts by a pixel: test-time augmentation without chance."""

    card = Card("shifted", "test-time augmentation")

    def forward(self, x, draws=None):
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        views = [padded[..., i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
        return torch.stack([self.classifier(one).softmax(1) for one in views]).mean(0).add(1e-6).log()


class Levels(Filtered):
    """Rounds its input to nine grey levels, and says what to differentiate instead."""

    card = Card("levels", "quantised input, with a stand-in")

    def purify(self, x, draws):
        return (x * 8 + 0.01).round() / 8


class SupportVectors(Wrapped):
    """A support vector machine on radial basis functions: pairs of classes vote, smoothly."""

    card = Card("svm", "a kernel machine by scikit-learn")

    def __init__(self):
        x, y = (t[:600] for t in images())
        super().__init__(_Pairs(SVC(gamma=0.8, C=5).fit(x.flatten(1).numpy(), y.numpy())))


class _Pairs(nn.Module):
    def __init__(self, svc):
        super().__init__()
        self.vectors = torch.tensor(svc.support_vectors_, dtype=torch.float32)
        self.bias = torch.tensor(svc.intercept_, dtype=torch.float32)
        self.pairs = torch.combinations(torch.arange(10))
        dual, ends = torch.tensor(svc.dual_coef_, dtype=torch.float32), [0, *svc.n_support_.cumsum()]
        self.weights = torch.zeros(len(self.pairs), len(self.vectors))
        for row, (i, j) in zip(self.weights, self.pairs.tolist(), strict=True):
            row[ends[i] : ends[i + 1]] = dual[j - 1, ends[i] : ends[i + 1]]
            row[ends[j] : ends[j + 1]] = dual[i, ends[j] : ends[j + 1]]

    def forward(self, x):
        far = (x.flatten(1)[:, None] - self.vectors).square().sum(2)
        sides = ((-0.8 * far).exp() @ self.weights.T + self.bias).tanh()
        votes = torch.zeros(len(x), 10).index_add(1, self.pairs[:, 0], sides)
        return 3 * votes.index_add(1, self.pairs[:, 1], -sides)


class Forest(Wrapped):
    """Trees, which autograd does not see through: there is no gradient, and none is pretended."""

    card = Card("forest", "an ensemble of trees by scikit-learn")

    def __init__(self):
        x, y = (t[:1400] for t in images())
        super().__init__(_Trees(ExtraTreesClassifier(20, random_state=0).fit(x.flatten(1).numpy(), y.numpy())))


class _Trees(nn.Module):
    def __init__(self, trees):
        super().__init__()
        self.trees = trees

    def forward(self, x):
        shares = self.trees.predict_proba(x.detach().flatten(1).numpy())
        return torch.tensor(shares, dtype=torch.float32).add(1e-3).log()


class OddlyNormalised(Wrapped):
    """Batch norm whose stored statistics are far from those of any image, and compensated by its weights."""

    card = Card("odd-norm", "batch norm with odd statistics")

    def __init__(self):
        super().__init__()
        norm = nn.BatchNorm2d(1)
        norm.running_mean.fill_(0.9)
        norm.running_var.fill_(1e-4)
        norm.weight.data.fill_((1e-4 + norm.eps) ** 0.5)
        norm.bias.data.fill_(0.9)
        self.classifier = nn.Sequential(norm, self.classifier).eval()


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


HONEST = (
    Neighbours, Wavelets, Crops, Normalised, Attention, Double, Smoothed, Lazy,
    Ensemble, Shifted, Levels, SupportVectors, Forest, OddlyNormalised,
)  # fmt: skip
