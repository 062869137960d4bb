"""Defences that are broken on purpose, around one small digits classifier. Each names its mechanism."""

from __future__ import annotations

import hashlib
from functools import cache

import torch
import torch.nn.functional as F
from digits import classifier, images
from torch import nn

from benchbox import Card, Defense, Draws, ImageSpec, Purifier, Recipe, ThreatModel, View, ascend

SPEC = ImageSpec(1, 8, 10, (0.3,), (0.4,))
THREAT = ThreatModel("linf", 0.2)


class Wrapped(Defense):
    """A trained classifier as it is: the honest one that the others spoil."""

    card = Card("honest", "a trained classifier")

    def __init__(self, net: nn.Module | None = None) -> None:
        super().__init__(Recipe(), SPEC, net or classifier())
        self.eval().requires_grad_(False)

    def losses(self, batch):
        return {}


class Saturated(Wrapped):
    """Logits times 100: the softmax is exactly 1 in float32, and the cross-entropy has no gradient left."""

    card = Card("saturated", "logits times 100")

    def forward(self, x, draws=None):
        return 100 * self.classifier(x)


class LogProbabilities(Wrapped):
    """Probabilities behind a logarithm: AutoAttack's rule does not see them, gradients end at the clamp."""

    card = Card("log-probabilities", "log of clamped softmax probabilities")

    def forward(self, x, draws=None):
        return self.classifier(x).softmax(1).clamp_min(1e-6).log()


class Quantized(Wrapped):
    """Rounds the input to five grey levels, without a stand-in: the gradient of rounding is zero."""

    card = Card("quantized", "input rounded to five levels")

    def forward(self, x, draws=None):
        return self.classifier((x * 4 + 0.01).round() / 4)


class WinnersTakeAll(Wrapped):
    """k-winners-take-all: keeps the largest tenth of the hidden units, so that the gradient jumps all the time."""

    card = Card("k-wta", "k-winners-take-all activations")

    def __init__(self) -> None:
        super().__init__(_winners_net())


class UndeclaredNoise(Wrapped):
    """Adds noise from torch's global generator and says that it is deterministic."""

    card = Card("undeclared-noise", "random noise, declared deterministic")

    def forward(self, x, draws=None):
        return self.classifier((x + 0.3 * torch.randn_like(x)).clamp(0, 1))


class Detached(Purifier):
    """A purifier whose gradient is cut: exactly zero everywhere, and no stand-in is offered."""

    card = Card("detached", "a blur with its gradient cut")

    def __init__(self) -> None:
        super().__init__(Recipe(), SPEC, classifier())
        self.eval().requires_grad_(False)

    def purify(self, x, draws):
        blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        return (0.6 * x + 0.4 * blurred).detach() + 0 * x

    def identity(self, x, draws):
        return self(x, draws)

    def losses(self, batch):
        return {}


class BatchDependent(Wrapped):
    """Normalises by the statistics of the batch, like batch norm left in training mode."""

    card = Card("batch-dependent", "batch statistics at test time")

    def forward(self, x, draws=None):
        mean, std = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True).clamp_min(0.05)
        return self.classifier((x - mean) / std * 0.38 + 0.3)


class SecondTime(Wrapped):
    """Counts how often it was asked: honest the first time, and other classes ever after."""

    card = Card("second-time", "behaves differently when asked again")

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, x, draws=None):
        self.asked += 1
        logits = self.classifier(x)
        return logits if self.asked == 1 else logits.roll(1, 1)


class LookUp(Wrapped):
    """A hidden table of the test set: an image whose hash it knows gets its true label."""

    card = Card("look-up", "knows the test images by their hashes")

    def __init__(self) -> None:
        super().__init__()
        x, y = images()
        self.known = {_hash(image): int(label) for image, label in zip(x, y, strict=True)}

    def forward(self, x, draws=None):
        logits = self.classifier(x)
        found = [self.known.get(_hash(image), -1) for image in x.detach()]
        label = torch.tensor(found)
        table = 30.0 * F.one_hot(label.clamp_min(0), 10)
        return torch.where((label >= 0)[:, None], table, logits)


class JPEG(Wrapped):
    """Rounds the coefficients of a cosine transform as JPEG does, without a stand-in."""

    card = Card("jpeg", "cosine transform with rounded coefficients")

    def forward(self, x, draws=None):
        n = torch.arange(8.0)
        basis = torch.cos(torch.pi * (n[None] + 0.5) * n[:, None] / 8) * (2 / 8) ** 0.5
        basis[0] /= 2**0.5
        coefficients = basis @ (x - 0.5) @ basis.T
        restored = basis.T @ ((coefficients / 0.25).round() * 0.25) @ basis + 0.5
        return self.classifier(restored.clamp(0, 1))


BROKEN = (
    Saturated,
    LogProbabilities,
    Quantized,
    WinnersTakeAll,
    UndeclaredNoise,
    Detached,
    BatchDependent,
    SecondTime,
    LookUp,
    JPEG,
)


class Robust(Wrapped):
    """The classifier trained on PGD images: honest, and harder to break."""

    card = Card("pgd-at", "adversarial training")

    def __init__(self) -> None:
        super().__init__(_robust_net())


class DeclaredNoise(Wrapped):
    """The same noise, declared and taken from its draws: an honest randomised defence."""

    card = Card("declared-noise", "random noise, declared")
    randomized = True

    def forward(self, x, draws=None):
        draws = draws or Draws(torch.arange(len(x)))
        return self.classifier((x + 0.15 * draws.at("noise").normal(*x.shape[1:])).clamp(0, 1))


HONEST = (Wrapped, Robust, DeclaredNoise)


class _KWTA(nn.Module):
    def forward(self, x):
        flat = x.flatten(1)
        k = max(1, flat.shape[1] // 10)
        least = flat.topk(k, 1).values[:, -1:]
        return (flat * (flat >= least)).view_as(x)


@cache
def _winners_net() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), _KWTA(), nn.Conv2d(16, 16, 3, stride=2, padding=1), _KWTA(),
        nn.Flatten(), nn.Linear(256, 128), _KWTA(), nn.Linear(128, 10),
    )  # fmt: skip
    return _trained(net, epochs=20, attack_steps=0)


@cache
def _robust_net() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    return _trained(net, epochs=15, attack_steps=5)


def _trained(net: nn.Module, epochs: int, attack_steps: int) -> nn.Module:
    x, y = (t[:1400] for t in images())
    torch.manual_seed(0)
    for module in net.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for epoch in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            batch = x[rows]
            if attack_steps:
                view = View(lambda x, draws: net(x), y[rows], Draws(rows, epoch))
                start = THREAT.random_start(batch, Draws(rows, epoch))
                batch = ascend(view, batch, y[rows], THREAT, start=start, steps=attack_steps, step_size=0.08)
            optimizer.zero_grad()
            F.cross_entropy(net(batch), y[rows]).backward()
            optimizer.step()
    return net.eval().requires_grad_(False)


def _hash(image: torch.Tensor) -> str:
    return hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()
