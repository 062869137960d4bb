"""Pixel Surgery and Semantic Regeneration.

X. Fu, Y. Zhou, L. Ma, L. Zhang. Invariance-powered Trustworthy Defense via Remove Then Restore.
arXiv 2402.00304, 2024. No code was published; where the paper leaves a choice open, the field says so.

Surgery removes the pixels that the target classifier's prediction depends on most (Eq. 3-7); a conditional
GAN regenerates the image from what is left (Eq. 8-10), kept consistent across dropout by Adversarial R-Drop
(Eq. 11). The target classifier stays frozen throughout.

`pssr` is all three; `pssr:ps`, `pssr:cae` and `pssr:ps+cae` are the rows of the paper's ablation (Table 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn import Parameter
from typing_extensions import TypeVar

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
    Schedule,
    Whole,
    stand_in,
    straight_through,
)

from ._pix2pix import PatchGAN, UNet

KINDS = ("benign", "fgsm", "pgd")


class SurgeryRecipe(Recipe):
    """Hyper-parameters of pixel surgery, with the paper's values as defaults.

    Attributes:
        alpha: Threshold over the mean saliency (Eq. 6).
        threshold: `dataset`: the mean is a constant over the adversarial training images ("can be pre-computed
            as a constant", section 4.2). `sample`: it is the mean of each image. The paper allows both readings.
        craft_against: Class that training perturbations lead away from: the classifier's own `prediction`, or the
            true `label`. With labels the purifier can read the class off the perturbation (label leaking).
        attack_steps: Steps of the training PGD; advertorch's default.
        attack_step_size: Length of a step; advertorch's default.
    """

    epochs: Whole = 100
    learning_rate: Positive = 1e-3
    alpha: NonNegative = 1.5
    threshold: Literal["dataset", "sample"] = "dataset"
    craft_against: Literal["prediction", "label"] = "prediction"
    attack_steps: Count = 40
    attack_step_size: Positive = 0.01


class PSSRRecipe(SurgeryRecipe):
    """Hyper-parameters of PSSR, with the paper's values as defaults.

    Attributes:
        lambda_query: λ1, weight of the classification loss (Eq. 10).
        lambda_pixel: λ2, weight of the L1 loss (Eq. 9).
        lambda_ard: λ3, weight of Adversarial R-Drop (Eq. 11).
        passes: k, how often dropout is drawn a step (Fig. 10b).
        dropout: Its rate; not given in the paper, 0.5 as in pix2pix.
        width: Channels of the generator's first layer; not given in the paper.
    """

    lambda_query: NonNegative = 1.0
    lambda_pixel: NonNegative = 1.0
    lambda_ard: NonNegative = 0.5
    passes: Count = 2
    dropout: float = Field(0.5, ge=0, lt=1)
    width: Count = 32


# 100 epochs are a night on two cores; a decaying rate gets there in fewer, and ten longer steps reach the
# corners of the ball as forty do.
_ONE_CYCLE: Schedule = "onecycle"
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "mnist": {"epochs": 9, "schedule": _ONE_CYCLE, "attack_steps": 10, "attack_step_size": 0.05},
    # Trained on 1,150 of the training images, 16 epochs of a decaying rate are worth 30 of a constant one on the
    # other 287: 91.6 against 92.0 % clean, 89.9 against 89.2 % under gray-box PGD-20.
    "digits": {"epochs": 16, "schedule": _ONE_CYCLE, "batch_size": 64, "width": 16},
    # advertorch's step of 0.01 is a third of the ball of 8/255; ten steps of 2/255 as in adversarial training.
    "cifar": {
        "epochs": 30,
        "schedule": _ONE_CYCLE,
        "attack_steps": 10,
        "attack_step_size": 2 / 255,
        "width": 64,
    },
}


S = TypeVar("S", bound=SurgeryRecipe, default=SurgeryRecipe)


class PixelSurgery(Purifier[S]):
    """Remove the salient pixels and leave it at that; only the threshold is computed, nothing is trained."""

    card = Card("pssr:ps", "pixel surgery without regeneration", "arXiv 2402.00304", 2024, "ablation")
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        scope: {k: v for k, v in departures.items() if k in SurgeryRecipe.model_fields}
        for scope, departures in RECIPES.items()
    }

    threshold: Tensor

    def __init__(self, recipe: S, images: ImageSpec, classifier: nn.Module) -> None:
        super().__init__(recipe, images, classifier)
        self.register_buffer("threshold", torch.zeros(()))

    def purify(self, x: Tensor, draws: Draws) -> Tensor:
        """What the surgery leaves."""
        return self.regenerate(self.remove(x))

    @stand_in("mask-constant", "V0: the mask is held constant, its exact gradient almost everywhere", exact=True)
    def autograd(self, x: Tensor, draws: Draws) -> Tensor:
        """The defence as it is."""
        return self.forward(x, draws)

    @stand_in(
        "identity-removal", "V1: the removal's backward pass is the identity, so removed pixels get a gradient"
    )
    def identity(self, x: Tensor, draws: Draws) -> Tensor:
        """In place of the identity through the whole purifier: where nothing is regenerated it is the same."""
        return self.classifier(self.regenerate(straight_through(x, self.remove(x.detach()))))  # type: ignore[no-any-return]

    def cost(self) -> tuple[int, int]:
        """A forward and a backward pass for the saliency, a forward pass for the prediction."""
        return 2, 1

    def remove(self, x: Tensor) -> Tensor:
        """The trivial component x · M_t (Eq. 4, 5, 7)."""
        gradient, factor = saliency(self.classifier, x)
        return x * trivial_mask(gradient, factor, self.recipe, self.threshold)

    def stages(self, x: Tensor, draws: Draws) -> Mapping[str, Tensor]:
        """M_t, x_t and E(x_t), as in Fig. 8; without a regenerator the last two are the same."""
        gradient, factor = saliency(self.classifier, x)
        mask = trivial_mask(gradient, factor, self.recipe, self.threshold)
        trivial = x * mask
        return {"trivial mask": mask, "trivial component": trivial, "regenerated": self.regenerate(trivial)}

    def regenerate(self, trivial: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] from what the surgery left of them; here, just that."""
        return trivial

    def prepare(self, batch: Batch) -> Mapping[str, Tensor]:
        """Training images under FGSM and PGD on the frozen classifier, and the saliency of each kind."""
        made = self.attacked(batch)
        for kind, x in zip(KINDS, (batch.x, made["fgsm"], made["pgd"]), strict=True):
            made[f"{kind} gradient"], made[f"{kind} factor"] = saliency(self.classifier, x)
        return made

    def attacked(self, batch: Batch) -> dict[str, Tensor]:
        """The images under FGSM and under PGD, and the classifier's logits for the clean ones."""
        logits = self.classifier(batch.x)
        y = batch.y if self.recipe.craft_against == "label" else logits.argmax(1)
        fgsm = batch.attack(self.classifier, y=y, steps=1, step_size=batch.threat.epsilon)
        pgd = batch.attack(
            self.classifier,
            y=y,
            start=batch.threat.random_start(batch.x, batch.draws),
            steps=self.recipe.attack_steps,
            step_size=self.recipe.attack_step_size,
        )
        return {"fgsm": fgsm, "pgd": pgd, "clean logits": logits}

    def calibrate(self, prepared: Mapping[str, Tensor]) -> None:
        """ε = α · mean of S over the adversarial training images (Eq. 6)."""
        means = [
            (prepared[f"{kind} gradient"].flatten(1).mean(1) * prepared[f"{kind} factor"]).mean()
            for kind in ("fgsm", "pgd")
        ]
        self.threshold.fill_(self.recipe.alpha * torch.stack(means).mean())

    def players(self) -> Mapping[str, list[Parameter]]:
        """Nobody."""
        return {}

    def losses(self, batch: Batch) -> Losses:
        """None."""
        return {}


P = TypeVar("P", bound=PSSRRecipe, default=PSSRRecipe)


class PSSR(PixelSurgery[P]):
    """Remove the salient pixels, regenerate the rest."""

    card = Card(
        "pssr",
        "pixel surgery and semantic regeneration",
        paper="arXiv 2402.00304",
        year=2024,
        kind="purifier",
    )
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES
    ablations: ClassVar[tuple[str, ...]] = ("pssr:ps", "pssr:cae", "pssr:ps+cae")

    def __init__(self, recipe: P, images: ImageSpec, classifier: nn.Module) -> None:
        super().__init__(recipe, images, classifier)
        channels = images.channels
        self.extrapolator = UNet(channels, channels, images.size, width=recipe.width, dropout=recipe.dropout)
        self.discriminator = PatchGAN(2 * channels, width=recipe.width)

    def regenerate(self, trivial: Tensor) -> Tensor:
        """Regenerated images; dropout is off, so nothing here is random."""
        return self.extrapolator(trivial)  # type: ignore[no-any-return]

    @stand_in("identity-purifier", "V2: the whole purifier's backward pass is the identity")
    def identity_purifier(self, x: Tensor, draws: Draws) -> Tensor:
        """As of any purifier."""
        return Purifier.identity(self, x, draws)

    def players(self) -> Mapping[str, list[Parameter]]:
        """The two sides of Eq. 8."""
        return {
            "extrapolator": list(self.extrapolator.parameters()),
            "discriminator": list(self.discriminator.parameters()),
        }

    def losses(self, batch: Batch) -> Losses:
        """Eq. 12, with the generator's part of Eq. 8 in its non-saturating form.

        Each image of the batch enters as benign, under FGSM or under PGD, with equal probability.
        """
        recipe = self.recipe
        trivial = self.training_input(batch)
        code = self.extrapolator.encode(trivial)
        regenerated = [self.extrapolator.decode(code, batch.draws.at("dropout", i)) for i in range(recipe.passes)]
        # In float32 under mixed precision too: the engine sees to the output of `forward`, and this is `decode`'s.
        fake, x = torch.cat(regenerated).float(), batch.x.repeat(recipe.passes, 1, 1, 1)
        condition = trivial.repeat(recipe.passes, 1, 1, 1)
        logits = self.classifier(fake)
        real_score = self.discriminator(trivial, batch.x)
        fake_score = self.discriminator(condition, fake.detach())
        fooled = self.discriminator(condition, fake)
        return {
            "extrapolator": {
                "adversarial": F.binary_cross_entropy_with_logits(fooled, torch.ones_like(fooled)),
                "query": recipe.lambda_query * F.cross_entropy(logits, batch.y.repeat(recipe.passes)),
                "pixel": recipe.lambda_pixel * F.l1_loss(fake, x),
                "ard": recipe.lambda_ard
                * adversarial_r_drop(logits, batch.prepared["clean logits"], recipe.passes),
            },
            "discriminator": {
                "real": F.binary_cross_entropy_with_logits(real_score, torch.ones_like(real_score)),
                "fake": F.binary_cross_entropy_with_logits(fake_score, torch.zeros_like(fake_score)),
            },
        }

    def training_input(self, batch: Batch) -> Tensor:
        """What the extrapolator is trained on: the trivial component of each image as it was drawn."""
        drawn = batch.draws.at("kind").integers(3)
        made = batch.prepared
        gradient = _choose(drawn, [made[f"{kind} gradient"] for kind in KINDS])
        factor = _choose(drawn, [made[f"{kind} factor"] for kind in KINDS])
        return drawn_images(batch) * trivial_mask(gradient, factor, self.recipe, self.threshold)


class WithoutARDRecipe(PSSRRecipe):
    """PSSR's, without Adversarial R-Drop. The passes stay, so that nothing else differs."""

    lambda_ard: NonNegative = 0.0


class WithoutARD(PSSR[WithoutARDRecipe]):
    """Surgery and regeneration, trained without Adversarial R-Drop."""

    card = Card("pssr:ps+cae", "PSSR without Adversarial R-Drop", "arXiv 2402.00304", 2024, "ablation")
    ablations: ClassVar[tuple[str, ...]] = ("pssr:ps", "pssr:cae")


class Regeneration(WithoutARD):
    """The generator alone, which sees every pixel: neither surgery nor Adversarial R-Drop."""

    card = Card("pssr:cae", "regeneration without pixel surgery", "arXiv 2402.00304", 2024, "ablation")
    ablations: ClassVar[tuple[str, ...]] = ()

    #: Of any purifier; the surgery's own have nothing to stand in for.
    identity = Purifier.identity

    @stand_in("autograd", "plain autograd through the generator and the classifier", exact=True)
    def autograd(self, x: Tensor, draws: Draws) -> Tensor:
        """The defence as it is."""
        return self.forward(x, draws)

    def identity_purifier(self, x: Tensor, draws: Draws) -> Tensor:
        """No stand-in of its own: it is `identity`."""
        return self.identity(x, draws)

    def stages(self, x: Tensor, draws: Draws) -> Mapping[str, Tensor]:
        """There is no surgery to show."""
        return {"regenerated": self.regenerate(x)}

    def cost(self) -> tuple[int, int]:
        """No saliency."""
        return 1, 0

    def remove(self, x: Tensor) -> Tensor:
        """Nothing is removed."""
        return x

    def prepare(self, batch: Batch) -> Mapping[str, Tensor]:
        """As PSSR, without the saliencies."""
        return self.attacked(batch)

    def calibrate(self, prepared: Mapping[str, Tensor]) -> None:
        """There is no threshold."""

    def training_input(self, batch: Batch) -> Tensor:
        """The images as they were drawn, whole."""
        return drawn_images(batch)


def drawn_images(batch: Batch) -> Tensor:
    """Each image of the batch as benign, under FGSM or under PGD, with equal probability."""
    options = [batch.x, batch.prepared["fgsm"], batch.prepared["pgd"]]
    return _choose(batch.draws.at("kind").integers(3), options)


def saliency(classifier: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The two factors of S = |∂P/∂x| (Eq. 3), P the probability of the predicted class.

    With o = z_ŷ - logsumexp of the other logits, P = σ(o) and ∂P/∂x = σ(o) σ(-o) ∂o/∂x exactly. Kept apart,
    the gradient never underflows, also where P is 1 in float32.

    Args:
        classifier: Images (N, C, H, W) -> logits (N, K).
        x: Images; no gradient flows back into them.

    Returns:
        max over channels of |∂o/∂x|, as in Simonyan et al. 2013 (N, 1, H, W), and σ(o) σ(-o) (N,).
    """
    # Attack libraries call under no_grad; the saliency needs a gradient of its own.
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        logits = classifier(leaf)
        top = F.one_hot(logits.argmax(1), logits.shape[1]).bool()
        odds = logits[top] - logits.masked_fill(top, -torch.inf).logsumexp(1)
        (gradient,) = torch.autograd.grad(odds.sum(), leaf)
    odds = odds.detach()
    return gradient.abs().amax(1, keepdim=True), odds.sigmoid() * (-odds).sigmoid()


def trivial_mask(gradient: Tensor, factor: Tensor, recipe: SurgeryRecipe, constant: Tensor) -> Tensor:
    """M_t = 1 - M_s (Eq. 4, 5): 0 where the saliency reaches the threshold, else 1; (N, 1, H, W) float32."""
    if recipe.threshold == "sample":
        # The factor is the same on both sides of the comparison and cancels.
        threshold = recipe.alpha * gradient.mean((1, 2, 3), keepdim=True)
        salient = (gradient >= threshold) & (gradient > 0)
    else:
        salient = gradient * factor.view(-1, 1, 1, 1) >= constant
    return (~salient).float()


def adversarial_r_drop(logits: Tensor, clean: Tensor, passes: int) -> Tensor:
    """L_ARD (Eq. 11): sum over the passes of KL(F(E(x_t)_i) ‖ F(x)), mean over samples.

    Args:
        logits: (passes · N, K), pass by pass.
        clean: (N, K), logits of the clean images.
        passes: k.
    """
    log_p = F.log_softmax(logits, 1)
    log_q = F.log_softmax(clean, 1).repeat(passes, 1)
    return (log_p.exp() * (log_p - log_q)).sum(1).mean() * passes


def _choose(kind: Tensor, options: list[Tensor]) -> Tensor:
    # Row i of the option that row i drew.
    return torch.stack(options)[kind, torch.arange(len(kind), device=kind.device)]
