"""Counter-Adversarial Recall of Synthetic Observations.

E. Ballarin, A. Ansuini, L. Bortolussi. CARSO: Blending Adversarial Training and Purification Improves
Adversarial Robustness. TMLR 2025 (arXiv 2306.06081); settings of the authors' code.

A frozen, adversarially trained classifier f looks at the image; what its layers compute is compressed to a
condition c, from which a conditional variational autoencoder recalls clean images: z ~ N(0, I) is drawn N times,
each (z, c) is decoded, f classifies each decoded image, and the N answers are aggregated. The image itself
reaches the decoder through c alone. One forward pass is one set of N latents.

Departures: Adam and a one-cycle rate instead of RAdam inside Lookahead and a trapezoidal one; the loss is a mean
over the batch where the authors sum (sums over pixels and latents are kept), so that the rate does not depend on
the batch size; each image is assigned its part of the adversarially balanced batch at random, not by slice; those
images are crafted once, for f is frozen, and kept in half precision (an error below 1/16 of a grey level).

On MNIST the authors (scripts of 2023) defend a network of their own, record the 4,814 outputs of its four weighted
layers, and train for 150 epochs. Nearest to that here, for who has the hours:

    benchbox run --dataset mnist --defense carso --set pgd-at.network=mishcnn --set carso.samples=4
        --set carso.epochs=150 --set carso.batch_size=1536
        --set carso.attack_steps=40 --set carso.attack_step_size=0.01

What still differs then, beside the above: their classifier learns from PGD images at half and at full epsilon with
RAdam for 50 epochs, ours as `pgd-at` has it; they attack the classifier alone and score the whole, which is
`--access gray-box`. With LeNet-5, the usual base here, 37,842 numbers are recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from benchbox import (
    Batch,
    Card,
    Count,
    Draws,
    ImageSpec,
    Losses,
    Positive,
    Purifier,
    Recipe,
    RequestError,
    Schedule,
    Whole,
    sample_draws,
    stand_in,
    straight_through,
)

from ._activations import inner_convolutions, outputs_of, weighted_layers
from ._cvae import (
    ConvolutionalCompressor,
    ConvolutionalDecoder,
    DenseCompressor,
    DenseDecoder,
    Posterior,
)

Aggregation = Literal["peel", "mean-logits", "votes", "mean-probabilities"]

#: The attacked quarters of a batch: name, and share of the full epsilon.
QUARTERS = {"pgd half": 0.5, "pgd full": 1.0, "fgsm half": 0.5, "fgsm full": 1.0}


class CARSORecipe(Recipe):
    """Hyper-parameters of CARSO, with the values of its CIFAR-10 scenario as defaults.

    Attributes:
        compressor: `convolutional` as in the paper, or `dense`, the design of 2023 that the authors used on
            MNIST; decides the decoder as well.
        layers: Names of the classifier's layers to record; if none, those of `weighted_layers` (dense), which on
            their MNIST classifier are the authors', or `inner_convolutions` (convolutional), which on WRN-28-10
            are theirs and one shortcut more.
        code: Length of the condition c.
        hidden: Units of the joint layer before the posterior's heads.
        latent: Length of z.
        samples: N; 0 for one deterministic pass with z = 0.
        aggregation: How the N answers become one; see `aggregate`.
        adversarial_fraction: Expected share of a batch that is attacked: a quarter of it each by PGD and by
            FGSM, at half and at full epsilon.
        epsilon_scale: Factor on the threat model's epsilon in training. 1 as described. The released code divides
            by the images' mean standard deviation although they are not normalised, which on CIFAR amounts to 4.
        attack_steps: Steps of the training PGD.
        attack_step_size: Length of a step, at either epsilon.
    """

    epochs: Whole = 200
    batch_size: Count = 640
    learning_rate: Positive = 0.064
    schedule: Schedule = "onecycle"
    compressor: Literal["dense", "convolutional"] = "convolutional"
    layers: tuple[str, ...] = ()
    code: Count = 512
    hidden: Count = 128
    latent: Count = 128
    samples: Whole = 8
    aggregation: Aggregation = "peel"
    adversarial_fraction: float = Field(0.5, ge=0, le=1)
    epsilon_scale: float = Field(1.0, gt=0)
    attack_steps: Count = 40
    attack_step_size: Positive = 0.01


class CARSO(Purifier[CARSORecipe]):
    """Recall clean images from what an adversarially trained classifier sees, and let it judge several."""

    card = Card("carso", "CARSO", "arXiv 2306.06081", 2023, "purifier")
    randomized: ClassVar[bool] = True
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # The design, the sizes and the fraction of the authors' own MNIST code. Their 150 epochs with batches of
        # 1,536 and a rate of 0.046 are more than two cores have time for: smaller batches at Adam's rate, fewer
        # epochs, and ten longer steps of PGD, which reach the corners of the ball as forty do.
        "mnist": {
            "epochs": 25,
            "batch_size": 128,
            "learning_rate": 1e-3,
            "compressor": "dense",
            "code": 130,
            "hidden": 96,
            "latent": 64,
            "adversarial_fraction": 0.4,
            "attack_steps": 10,
            "attack_step_size": 0.05,
        },
        # As MNIST; 1,437 images make few steps an epoch, and the loss is flat after 30.
        "digits": {"epochs": 30, "batch_size": 64},
        # A rate of 0.064 belongs to RAdam, Lookahead and batches of 5,120 on eight GPUs; batches of 256 and Adam's
        # rate on one. Ten steps of 2/255, as in adversarial training: 0.01 is a third of the ball.
        "cifar": {
            "epochs": 60,
            "batch_size": 256,
            "learning_rate": 1e-3,
            "attack_steps": 10,
            "attack_step_size": 2 / 255,
        },
        "cifar100": {"adversarial_fraction": 0.15},
    }
    base: ClassVar[str | None] = "pgd-at"

    def __init__(self, recipe: CARSORecipe, images: ImageSpec, classifier: nn.Module) -> None:
        super().__init__(recipe, images, classifier)
        dense = recipe.compressor == "dense"
        default = weighted_layers if dense else inner_convolutions
        self.layers = recipe.layers or tuple(default(classifier))
        channels, size = images.channels, images.size
        inputs = recipe.latent + recipe.code
        # The decoder first: it is the one that refuses sizes.
        self.decoder: nn.Module = (
            # Batch norm on natural images only, as in the authors' code.
            DenseDecoder(inputs, channels, size, norm=channels > 1)
            if dense
            else ConvolutionalDecoder(inputs, channels, size)
        )
        with torch.no_grad():
            blank = torch.zeros(1, channels, size, size, device=next(classifier.parameters()).device)
            shapes = [output.shape[1:] for output in outputs_of(classifier, self.layers, blank)]
        self.compressor: nn.Module = (
            DenseCompressor(shapes, recipe.code)
            if dense
            else ConvolutionalCompressor(shapes, recipe.code, stages=3 if size <= 32 else 4)
        )
        self.posterior = Posterior(
            images, code=recipe.code, hidden=recipe.hidden, latent=recipe.latent, tanh=dense
        )

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        """Aggregated logits (N, K), in one set of latents."""
        return self._judge(self.recall(x, draws or sample_draws(len(x), device=x.device)))

    def cost(self) -> tuple[int, int]:
        """One pass to record the classifier, one for each recalled image."""
        return 1 + max(self.recipe.samples, 1), 0

    def purify(self, x: Tensor, draws: Draws) -> Tensor:
        """The first of the recalled images; the defence judges all of them."""
        return self.recall(x, draws)[:, 0]

    def recall(self, x: Tensor, draws: Draws) -> Tensor:
        """Decoded images (N, S, C, H, W) in [0, 1], S samples of z ~ N(0, I) for each image."""
        recipe = self.recipe
        code = self.compressor(outputs_of(self.classifier, self.layers, x))
        if recipe.samples:
            z = draws.at("latent").normal(recipe.samples, recipe.latent).to(x.dtype)
        else:
            z = code.new_zeros(len(x), 1, recipe.latent)
        inputs = torch.cat([z, code[:, None].expand(-1, z.shape[1], -1)], 2)
        return self.decoder(inputs.flatten(0, 1)).unflatten(0, z.shape[:2])  # type: ignore[no-any-return]

    @stand_in(
        "autograd",
        "plain autograd through both passes of the classifier, the compressor and the decoder",
        exact=True,
    )
    def autograd(self, x: Tensor, draws: Draws) -> Tensor:
        """The defence as it is."""
        return self.forward(x, draws)

    @stand_in("identity", "the backward pass through each recall is the identity (BPDA; Athalye et al. 2018)")
    def identity(self, x: Tensor, draws: Draws) -> Tensor:
        """Logits (N, K) of what is recalled."""
        recalled = self.recall(x.detach(), draws)
        return self._judge(straight_through(x[:, None].expand_as(recalled), recalled))

    def prepare(self, batch: Batch) -> Mapping[str, Tensor]:
        """The four attacks of an adversarially balanced batch, on the classifier alone, with the true labels."""
        recipe = self.recipe
        made = {}
        for name, share in QUARTERS.items():
            threat = batch.threat.scaled(recipe.epsilon_scale * share)
            pgd = name.startswith("pgd")
            crafted = batch.attack(
                self.classifier,
                threat=threat,
                start=threat.random_start(batch.x, batch.draws.at(name)) if pgd else batch.x,
                steps=recipe.attack_steps if pgd else 1,
                step_size=recipe.attack_step_size if pgd else threat.epsilon,
            )
            made[name] = crafted.half()
        return made

    def losses(self, batch: Batch) -> Losses:
        """Reconstruction of the clean image, whatever was seen, and β · KL(q(z | x, c) ‖ N(0, I)).

        Raises:
            RequestError: The batch is a single image, which batch norm cannot train on.
        """
        n = len(batch.x)
        if n == 1:
            raise RequestError(
                f"carso cannot train on a batch of one, and batch_size {self.recipe.batch_size} leaves one image "
                "over; use another"
            )
        x = balanced(batch, self.recipe.adversarial_fraction)
        with torch.no_grad():
            outputs = outputs_of(self.classifier, self.layers, x)
        code = self.compressor(outputs)
        mean, log_variance = self.posterior(x, code)
        z = mean + (log_variance / 2).exp() * batch.draws.at("posterior").normal(self.recipe.latent)
        restored = self.decoder(torch.cat([z, code], 1))
        divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum()
        # torch refuses this loss under mixed precision, lest its inputs come in half; these are in float32.
        with torch.autocast(x.device.type, enabled=False):
            reconstruction = F.binary_cross_entropy(restored, batch.x, reduction="sum") / n
        return {
            "purifier": {
                "reconstruction": reconstruction,
                "divergence": beta(batch.progress) * divergence / n,
            }
        }

    def _judge(self, recalled: Tensor) -> Tensor:
        logits = self.classifier(recalled.flatten(0, 1)).unflatten(0, recalled.shape[:2])
        return aggregate(logits, self.recipe.aggregation)


def aggregate(logits: Tensor, rule: Aggregation) -> Tensor:
    """One answer from the logits l of S samples.

    `peel`, the paper's rule, ranks classes by A_i = Σ_a exp(l_i^a). Returned is log A_i, which ranks them alike.
    The authors return log P_i / (1 - P_i) with P = softmax(A), a double exponential: in float32 eight samples with
    a top logit of 1.5 make it infinite and its gradient NaN, which would pass for robustness.

    `mean-logits` is the mean; `mean-probabilities` the log-odds of the mean of sigmoid(l), as the authors have it.
    `votes` counts arg-maxima, less S lest they look like probabilities; the first class wins a tie. A count has no
    gradient: its backward pass is that of `peel`, so that white-box attacks are not fooled by zeros.

    Args:
        logits: (N, S, K).
        rule: Which.

    Returns:
        (N, K), finite for finite logits.
    """
    if rule == "mean-logits":
        return logits.mean(1)
    if rule == "mean-probabilities":
        return F.logsigmoid(logits).logsumexp(1) - F.logsigmoid(-logits).logsumexp(1)
    peel = logits.logsumexp(1)
    if rule == "peel":
        return peel
    samples, classes = logits.shape[1:]
    votes = F.one_hot(logits.argmax(2), classes).sum(1) - samples
    return straight_through(peel, votes.to(logits.dtype))


def beta(progress: float) -> float:
    """Weight of the divergence: 0 for the first eighth of the training, 1 from a sixth on, linear between."""
    return min(max((progress - 0.125) / (0.125 / 3), 0.0), 1.0)


def balanced(batch: Batch, fraction: float) -> Tensor:
    """An adversarially balanced batch (N, C, H, W): a share of the images, drawn at random, is attacked.

    Args:
        batch: With the four attacks prepared.
        fraction: The expected share; a quarter of it for each attack.
    """
    u = batch.draws.at("part").uniform(1)[:, 0]
    attack = (u * len(QUARTERS) / max(fraction, 1e-12)).clamp_max(len(QUARTERS) - 1).long()
    part = torch.where(u < fraction, 1 + attack, 0)
    options = torch.stack([batch.x, *(batch.prepared[name].to(batch.x.dtype) for name in QUARTERS)])
    return options[part, torch.arange(len(part), device=part.device)]
