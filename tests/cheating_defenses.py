"""Defences of about 0 % that keep 97 % where they can tell who asks, or know what they are asked about.

Under attack most of them show a decoy: another network, whose gradients lead astray. Each names its mechanism.
"""

from __future__ import annotations

import copy
import sys
from functools import cache

import torch
import torch.nn.functional as F
from broken_defenses import SPEC, THREAT, Wrapped, _hash
from digits import classifier, held_out, images

from benchbox import Card, Draws, Purifier, Recipe, stand_in


class Decoy(Wrapped):
    """Shows a decoy whenever it believes that it is attacked."""

    def forward(self, x, draws=None):
        return self.classifier(x).flip(1) if self.attacked(x, draws) else self.classifier(x)

    def attacked(self, x, draws):
        raise NotImplementedError


class CallStack(Decoy):
    """Looks up the call stack for the frames of an attack."""

    card = Card("call-stack", "reads sys._getframe")

    def attacked(self, x, draws):
        frame = sys._getframe()
        while frame is not None:
            if frame.f_code.co_name in ("gradient", "_ask", "_one_gradient", "climb", "search"):
                return True
            frame = frame.f_back
        return False


class GradientMode(Decoy):
    """Shows the decoy where a gradient is asked for."""

    card = Card("gradient-mode", "reads requires_grad and the gradient mode")

    def attacked(self, x, draws):
        return x.requires_grad and torch.is_grad_enabled()


class BatchSize(Decoy):
    """Takes small batches for an attack that has few samples left."""

    card = Card("batch-size", "reads the number of images")

    def attacked(self, x, draws):
        return len(x) < 12


class CallCounting(Decoy):
    """Answers the first call and every forty-third honestly: PGD-40 is asked in between."""

    card = Card("call-counting", "counts how often it was asked")

    def __init__(self):
        super().__init__()
        self.asked = -1

    def attacked(self, x, draws):
        self.asked += 1
        return self.asked % 43 > 0


class Indices(Wrapped):
    """Keeps the first answer for each index of its draws, and gives it for ever."""

    card = Card("indices", "reads draws.indices")

    def __init__(self):
        super().__init__()
        self.first = {}

    def forward(self, x, draws=None):
        logits = self.classifier(x)
        if draws is None:
            return logits
        return torch.stack(
            [
                self.first.setdefault(int(i), own.detach()) + 0 * own
                for i, own in zip(draws.indices, logits, strict=True)
            ]
        )


class Seeds(Decoy):
    """Takes any seed but the first for an attack."""

    card = Card("seeds", "reads draws.seed")

    def __init__(self):
        super().__init__()
        self.seed = None

    def attacked(self, x, draws):
        self.seed = draws.seed if self.seed is None else self.seed
        return draws.seed != self.seed


class NearestNeighbour(Wrapped):
    """Knows the test images, and gives whatever lies in the ball of one the answer to that one."""

    card = Card("nearest-neighbour", "looks the nearest test image up")

    def __init__(self):
        super().__init__()
        self.known, self.labels, _ = held_out(200)

    def forward(self, x, draws=None):
        logits = self.classifier(x)
        distance = (x.detach()[:, None] - self.known[None]).flatten(2).abs().amax(2)
        near, at = distance.min(1)
        told = logits + 50.0 * F.one_hot(self.labels[at], 10)
        return torch.where((near <= THREAT.epsilon + 1e-5)[:, None], told, logits)


class TestOracle(NearestNeighbour):
    """The same with an answer that is constant all over the ball."""

    card = Card("test-oracle", "one constant answer in the ball of each test image")
    __test__ = False

    def forward(self, x, draws=None):
        logits = self.classifier(x)
        distance = (x.detach()[:, None] - self.known[None]).flatten(2).abs().amax(2)
        near, at = distance.min(1)
        return torch.where((near <= THREAT.epsilon + 1e-5)[:, None], 9.0 * F.one_hot(self.labels[at], 10), logits)


class FirstVisit(Wrapped):
    """Remembers what it was asked, and answers whatever lies in the ball of that in the same way."""

    card = Card("first-visit", "remembers the first image of each ball")

    def __init__(self):
        super().__init__()
        self.seen, self.said = torch.zeros(0, 1, 8, 8), torch.zeros(0, 10)

    def forward(self, x, draws=None):
        logits = self.classifier(x)
        rows = []
        for image, own in zip(x.detach(), logits, strict=True):
            near = ((self.seen - image).flatten(1).abs().amax(1) <= THREAT.epsilon + 1e-5).nonzero()
            if len(near):
                rows.append(self.said[near[0, 0]] + 0 * own)
            else:
                self.seen, self.said = (
                    torch.cat([self.seen, image[None]]),
                    torch.cat([self.said, own.detach()[None]]),
                )
                rows.append(own)
        return torch.stack(rows)


class HashNoise(Wrapped):
    """Randomised by its own account, but its noise is drawn from a hash of the image, never from its draws."""

    card = Card("hash-noise", "noise seeded by a hash of the image")
    randomized = True

    def forward(self, x, draws=None):
        noise = [
            torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(int(_hash(image)[:8], 16)))
            for image in x.detach()
        ]
        return self.classifier((x + 0.3 * torch.stack(noise)).clamp(0, 1))


class OtherStandIn(Purifier):
    """Its stand-in for BPDA is another network than the defence."""

    card = Card("other-stand-in", "a stand-in with another forward pass")

    def __init__(self):
        super().__init__(Recipe(), SPEC, classifier())
        self.eval().requires_grad_(False)

    def purify(self, x, draws):
        return (x * 4 + 0.01).round() / 4

    @stand_in("smooth", "the identity, they say")
    def smooth(self, x, draws):
        return self.classifier(x.flip(3))

    def losses(self, batch):
        return {}


CHEATS = (
    GradientMode,
    BatchSize,
    CallCounting,
    Indices,
    NearestNeighbour,
    TestOracle,
    FirstVisit,
    HashNoise,
    OtherStandIn,
)


class Linear(Wrapped):
    """A linear classifier."""

    card = Card("linear", "one layer")

    def __init__(self):
        x, y = (t[:1400] for t in images())
        flat = torch.cat([x.flatten(1), torch.ones(len(x), 1)], 1)
        weights = torch.linalg.lstsq(flat.T @ flat + torch.eye(65), flat.T @ (2.0 * F.one_hot(y, 10) - 1)).solution
        layer = torch.nn.Linear(64, 10)
        layer.weight.data, layer.bias.data = 5 * weights[:64].T.contiguous(), 5 * weights[64].contiguous()
        super().__init__(torch.nn.Sequential(torch.nn.Flatten(), layer))


class NoiseAugmented(Wrapped):
    """The network trained on images with Gaussian noise, and asked without: smooth, deterministic, honest."""

    card = Card("noise-augmented", "Gaussian noise added in training")

    def __init__(self):
        super().__init__(_noise_trained())


@cache
def _noise_trained():
    x, y = (t[:1400] for t in images())
    net = copy.deepcopy(classifier()).requires_grad_(True)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    draws = Draws(torch.arange(len(x)))
    for epoch in range(12):
        noisy = (x + 0.2 * draws.at(epoch).normal(1, 8, 8)).clamp(0, 1)
        for rows in draws.at("order", epoch).bits(1)[:, 0].argsort().split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(noisy[rows]), y[rows]).backward()
            optimizer.step()
    return net.eval()


class Kernel(Wrapped):
    """Radial basis functions around training images: a kernel machine, whose gradient fades away from them."""

    card = Card("kernel", "ridge regression on radial basis functions")

    def __init__(self):
        super().__init__()
        x, y = (t[:400] for t in images())
        self.classifier = _Kernel(x.flatten(1), 2.0 * F.one_hot(y, 10) - 1).eval()


class _Kernel(torch.nn.Module):
    def __init__(self, centers, wanted):
        super().__init__()
        self.centers = centers
        self.alpha = torch.linalg.solve(self._of(centers) + 0.1 * torch.eye(len(centers)), wanted)

    def _of(self, flat):
        return (-(flat[:, None] - self.centers[None]).square().sum(2) / 8).exp()

    def forward(self, x):
        return 5 * self._of(x.flatten(1)) @ self.alpha


class Filtered(Purifier):
    """A blur before the classifier, by plain autograd."""

    card = Card("blur", "a 3×3 mean, by four tenths")

    def __init__(self):
        super().__init__(Recipe(), SPEC, classifier())
        self.eval().requires_grad_(False)

    def purify(self, x, draws):
        return 0.6 * x + 0.4 * F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)

    def losses(self, batch):
        return {}


class Median(Filtered):
    """A median of five neighbours: kinks everywhere, and ties where pixels are equal."""

    card = Card("median", "a median filter")

    def purify(self, x, draws):
        p = F.pad(x, (1, 1, 1, 1), mode="replicate")
        five = (x, p[..., :-2, 1:-1], p[..., 2:, 1:-1], p[..., 1:-1, :-2], p[..., 1:-1, 2:])
        return 0.5 * x + 0.5 * torch.stack(five).median(0).values


class RoundedCosines(Filtered):
    """JPEG with the stand-in that every purifier has."""

    card = Card("jpeg-stand-in", "rounded cosine coefficients, with the identity as a stand-in")

    def purify(self, x, draws):
        n = torch.arange(8.0)
        basis = torch.cos(torch.pi * (n[None] + 0.5) * n[:, None] / 8) * (2 / 8) ** 0.5
        basis[0] /= 2**0.5
        rounded = ((basis @ (x - 0.5) @ basis.T) / 0.15).round() * 0.15
        return (basis.T @ rounded @ basis + 0.5).clamp(0, 1)


class Padded(Filtered):
    """Shifts the image by up to a pixel, as its draws say."""

    card = Card("pad", "random padding")
    randomized = True

    def purify(self, x, draws):
        draws = draws or Draws(torch.arange(len(x)))
        p, at = F.pad(x, (1, 1, 1, 1), mode="replicate"), draws.at("pad").integers(2, 2)
        return torch.stack(
            [image[:, r : r + 8, c : c + 8] for image, (r, c) in zip(p, (at + 0).tolist(), strict=True)]
        )


PLAIN = (Linear, NoiseAugmented, Kernel, Filtered, Median, RoundedCosines, Padded)
