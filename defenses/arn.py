"""Purification by attack-invariant features.

D. Zhou, T. Liu, B. Han, N. Wang, C. Peng, X. Gao. Towards Defending against Adversarial Examples via
Attack-Invariant Features (ARN). ICML 2021 (arXiv 2106.05036); losses and weights of the authors' code for MNIST.

An encoder learns features from which a discriminator cannot tell clean images from those under either of two
attacks; a decoder restores the clean image from them. The frozen classifier is attacked beforehand, the purifier
itself never. Within the purifier, images are in [-1, 1].

Departures: the second attack is PGD on the margin loss, not Carlini & Wagner's (500 iterations); grey images keep
their one channel instead of three; Adam has betas (0.9, 0.999), not (0.5, 0.999); one schedule of the rate serves
all players, where theirs drops by 0.1 for the autoencoder and by 0.5 for the discriminators. Assumptions: the
gradient penalty is that of WGAN-GP, between the clean and the restored image; the attacks lead away from the true
class.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn import Parameter

from benchbox import (
    Batch,
    Card,
    Count,
    Draws,
    ImageSpec,
    Losses,
    NonNegative,
    Positive,
    Purifier,
    Recipe,
    RequestError,
    Schedule,
    Whole,
    cross_entropy,
    margin,
    stand_in,
)

#: Kernels of the five convolutions, of stride 2 and padding 1: 28 pixels become 14, 8, 4, 2, 1.
KERNELS = (4, 2, 4, 4, 4)


class ARNRecipe(Recipe):
    """Hyper-parameters of ARN, with the authors' values as defaults.

    Attributes:
        width: Channels of the first convolution; all other sizes follow from it.
        lambda_restore: Weight of the squared error of the restored image.
        lambda_normal: Weight of the divergence of the features from a standard normal, summed over everything.
        lambda_invariant: Weight of the features' confusion of the attack discriminator.
        lambda_real: Weight of the restored image's deception of the pixel discriminator.
        lambda_penalty: Weight of the pixel discriminator's gradient penalty.
        attack_steps: Steps of both training attacks.
        attack_step_size: Length of a step, in units of images in [0, 1].
    """

    epochs: Whole = 100  # 20,000 steps of 300 images
    batch_size: Count = 300
    learning_rate: Positive = 1e-4
    schedule: Schedule = "step-early"
    width: int = Field(128, ge=4, le=4096, multiple_of=4)
    lambda_restore: NonNegative = 200.0
    lambda_normal: NonNegative = 1e-6
    lambda_invariant: NonNegative = 0.5
    lambda_real: NonNegative = 0.01
    lambda_penalty: NonNegative = 30.0
    attack_steps: Count = 40
    attack_step_size: Positive = 0.01


class ARN(Purifier[ARNRecipe]):
    """Encode what no attack changes, decode the clean image from it."""

    card = Card("arn", "attack-invariant features", "Zhou et al., ICML 2021", 2021, "purifier")
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Two cores: an eighth of the width is a 64th of the work, and smaller batches at a higher rate need
        # fewer passes. Ten longer steps reach the corners of the ball as forty do.
        "mnist": {
            "epochs": 6,
            "batch_size": 100,
            "learning_rate": 1e-3,
            "schedule": "onecycle",
            "width": 16,
            "attack_steps": 10,
            "attack_step_size": 0.05,
        },
        # As MNIST; 1,437 images need more passes.
        "digits": {"epochs": 32, "batch_size": 50},
        # No CIFAR settings are published: MNIST's weights, half the width, ten steps of 2/255.
        "cifar": {
            "epochs": 60,
            "batch_size": 128,
            "learning_rate": 5e-4,
            "schedule": "onecycle",
            "width": 64,
            "attack_steps": 10,
            "attack_step_size": 2 / 255,
        },
    }

    def __init__(self, recipe: ARNRecipe, images: ImageSpec, classifier: nn.Module) -> None:
        super().__init__(recipe, images, classifier)
        self.encoder = Encoder(images, recipe.width)
        self.decoder = decoder(images, recipe.width)
        features = 16 * recipe.width
        self.attack_discriminator = nn.Sequential(
            *_layer(features, features // 2),
            *_layer(features // 2, features // 8),
            *_layer(features // 8, features // 32),
            nn.Linear(features // 32, 3),
        )
        self.pixel_discriminator = pixel_discriminator(images, recipe.width // 4)

    def purify(self, x: Tensor, draws: Draws) -> Tensor:
        """The image decoded from the mean of the features; nothing is random."""
        return (self.decoder(self.encoder(2 * x - 1)[0]) + 1) / 2  # type: ignore[no-any-return]

    @stand_in("autograd", "plain autograd through encoder, decoder and classifier", exact=True)
    def autograd(self, x: Tensor, draws: Draws) -> Tensor:
        """The defence as it is."""
        return self(x, draws)  # type: ignore[no-any-return]

    def prepare(self, batch: Batch) -> Mapping[str, Tensor]:
        """The images under PGD on the cross-entropy and on the margin of the frozen classifier."""
        return {
            name: batch.attack(
                self.classifier,
                start=batch.threat.random_start(batch.x, batch.draws.at(name)),
                steps=self.recipe.attack_steps,
                step_size=self.recipe.attack_step_size,
                loss=loss,
            )
            for name, loss in (("pgd", cross_entropy), ("margin", margin))
        }

    def players(self) -> Mapping[str, list[Parameter]]:
        """Encoder, decoder, and one discriminator against each."""
        parts = (self.encoder, self.decoder, self.attack_discriminator, self.pixel_discriminator)
        names = ("encoder", "decoder", "attack discriminator", "pixel discriminator")
        return {name: list(part.parameters()) for name, part in zip(names, parts, strict=True)}

    def losses(self, batch: Batch) -> Losses:
        """What the encoder, the decoder and the two discriminators minimise on all three domains at once."""
        recipe = self.recipe
        clean = 2 * batch.x - 1
        x = torch.cat([clean, 2 * batch.prepared["pgd"] - 1, 2 * batch.prepared["margin"] - 1])
        mean, log_variance = self.encoder(x)
        noise = torch.cat([batch.draws.at("feature", i).normal(mean.shape[1]) for i in range(3)])
        features = mean + (log_variance / 2).exp() * noise
        restored = self.decoder(features)
        domain = self.attack_discriminator(features)
        restore = recipe.lambda_restore * F.mse_loss(restored, clean.repeat(3, 1, 1, 1))
        normal = recipe.lambda_normal * divergence_from_normal(mean, log_variance)
        # Only the decoder's own part of the deception reaches it: the encoder's term is not in its player.
        real, fake = self.pixel_discriminator(clean), self.pixel_discriminator(restored)
        return {
            "encoder": {
                "restore": restore,
                "normal": normal,
                "invariant": recipe.lambda_invariant * confusion(domain),
            },
            "decoder": {"restore": restore, "real": recipe.lambda_real * _bce(fake, 1.0)},
            "attack discriminator": {"domain": recognition(domain)},
            "pixel discriminator": {
                "pixel": _bce(real, 1.0) + _bce(fake, 0.0),
                "penalty": recipe.lambda_penalty
                * gradient_penalty(self.pixel_discriminator, clean.repeat(3, 1, 1, 1), restored, batch.draws),
            },
        }


class Encoder(nn.Module):
    """Images (N, C, H, W) in [-1, 1] -> mean and log-variance of the features, (N, 16 · width) each."""

    def __init__(self, images: ImageSpec, width: int) -> None:
        super().__init__()
        sizes(images.size)  # refuses images that are too small
        widths = [images.channels, *(width * 2**i for i in range(4))]
        layers: list[nn.Module] = []
        for (inside, outside), kernel in zip(pairwise(widths), KERNELS, strict=False):
            layers += [_conv(inside, outside, kernel), nn.BatchNorm2d(outside), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.mean, self.log_variance = (_conv(8 * width, 16 * width, KERNELS[4]) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both heads; bounded log-variances keep the exponential finite."""
        maps = self.layers(x)
        return self.mean(maps).mean((2, 3)), self.log_variance(maps).mean((2, 3)).clamp(-10, 10)


def sizes(size: int) -> list[int]:
    """Pixels a side before the first and after each convolution.

    Raises:
        RequestError: The images are too small to be halved five times.
    """
    found = [size]
    for kernel in KERNELS:
        found.append((found[-1] + 2 - kernel) // 2 + 1)
    if found[-1] < 1:
        raise RequestError(f"arn halves images five times, got {size}×{size}; use at least 28×28 pixels")
    return found


def decoder(images: ImageSpec, width: int) -> nn.Sequential:
    """The mirror of the encoder: features (N, 16 · width) -> images (N, C, H, W) in [-1, 1]."""
    steps = sizes(images.size)
    widths = [images.channels, *(width * 2**i for i in range(5))]
    layers: list[nn.Module] = [nn.Unflatten(1, (widths[5], 1, 1)), nn.Upsample(steps[5])]
    for i in reversed(range(5)):
        # A kernel that fits badly rounds down on the way in; the padding gives the row back on the way out.
        missing = steps[i] - ((steps[i + 1] - 1) * 2 - 2 + KERNELS[i])
        layers.append(nn.ConvTranspose2d(widths[i + 1], widths[i], KERNELS[i], 2, 1, output_padding=missing))
        layers += [nn.BatchNorm2d(widths[i]), nn.LeakyReLU(0.2)] if i else [nn.Tanh()]
    return nn.Sequential(*layers)


def pixel_discriminator(images: ImageSpec, width: int) -> nn.Sequential:
    """Images (N, C, H, W) in [-1, 1] -> one logit (N, 1), high for a clean image.

    Without normalisation: the penalty is about the gradient of single images.
    """
    size, widths = images.size, [images.channels, *(width * 2**i for i in range(4))]
    layers: list[nn.Module] = []
    for inside, outside in pairwise(widths):
        layers += [nn.Conv2d(inside, outside, 4, 2, 1), nn.LeakyReLU(0.2)]
        size //= 2
    return nn.Sequential(*layers, nn.Flatten(), *_layer(widths[4] * size**2, 16 * width), nn.Linear(16 * width, 1))


def recognition(domain: Tensor) -> Tensor:
    """The attack discriminator's loss: logits (3N, 3), clean, PGD and margin rows in this order."""
    truth = torch.eye(3, device=domain.device).repeat_interleave(len(domain) // 3, 0)
    return F.binary_cross_entropy_with_logits(domain, truth)


def confusion(domain: Tensor) -> Tensor:
    """The encoder's loss against it: every domain as likely as any other."""
    return _bce(domain, 1 / 3)


def divergence_from_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) ‖ N(0, 1)), summed over samples and features."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum()


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, draws: Draws) -> Tensor:
    """Mean of (‖∂D/∂x‖ - 1)² at random points between pairs of images (Gulrajani et al. 2017, Eq. 3)."""
    share = torch.cat([draws.at("between", i).uniform(1, 1, 1) for i in range(len(real) // len(draws))])
    x = (share * real + (1 - share) * fake).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    lengths: Tensor = gradient.flatten(1).norm(dim=1)
    return (lengths - 1).square().mean()


def _bce(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def _conv(inside: int, outside: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, kernel, stride=2, padding=1)


def _layer(inside: int, outside: int) -> tuple[nn.Module, nn.Module]:
    return nn.Linear(inside, outside), nn.LeakyReLU(0.2)
