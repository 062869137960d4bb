"""Adversarial Training on Purification.

G. Lin, C. Li, J. Zhang, T. Tanaka, Q. Zhao. Adversarial Training on Purification (AToP): Advancing Both
Robustness and Generalization. ICLR 2024 (arXiv 2401.16352); settings of the authors' notebooks.

A random transform destroys part of the image and with it part of the perturbation; a generator g regenerates
the whole of it; the frozen classifier f classifies that. g is first trained to restore images, then also to
have adversarial images classified correctly. Throughout, f sees images in [0, 1] and g images in [-1, 1].

Departures: g starts from random weights, for DeepFill's weights from Places2 are not to be had here; it works at
the images' own size instead of 256×256, with a DeepFill of that size (`_deepfill.py`: contextual
attention between single cells, fewer dilations, a shallower discriminator); each image of a batch has a mask of
its own where the authors' code shares one; Adam has betas (0.9, 0.999), not (0.5, 0.999); generator and
discriminator step at once. The diffusion purifier, for which the paper has no experiment, is left out.

What a start from random weights costs: on MNIST, four fifths of whose pixels are black, g ends in black images
when L1 pre-trains it, its coarse stage for good, in the refining one long enough for a purifier of little use.
With squared errors it keeps 96.6 % of the clean images (results/published), of which the classifier alone has
99.0. Of `consistency`, on 1,000 held-out training images with 20,000 others to train on: `clean` leaves 91.6 %,
`adversarial` 87.7 (benchmarks/atop_choice.py), for g then sees no clean image while it is fine-tuned. The log of
the authors' CIFAR-10 run, on a classifier that is right on 93.2 % of the clean images, has 82.8 % on 512 of them
after one epoch from Places2's weights and 91.0 after 29.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

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
    Whole,
    stand_in,
)

from ._deepfill import DeepFill, SNPatchGAN
from ._mae import MaskedAutoencoder


class AToPRecipe(Recipe):
    """Hyper-parameters of AToP, with the paper's values as defaults.

    Attributes:
        transform: `rt1` loses random patches; `rt2` adds noise first; `rt3` is `rt2` with masks that together
            cover the image, of which each completion contributes the pixels it had not seen.
        purifier: `gan` (DeepFill v2 as in Ughini et al. 2022) or `mae` (a masked autoencoder as in Wu et al.
            2023; its sizes are ours, it has no adversarial loss).
        missing_rate: Share of the patches that `rt1` and `rt2` lose, to the nearest patch.
        sigma: Standard deviation of the noise, in units of images in [0, 1].
        masks: N of `rt3`, each of which loses 1/N of the patches.
        patch: Pixels a side of a patch. The paper's 32 of 256 are an eighth of the image: 4 of 32. 28 has no
            eighth, and 4 again makes 7×7 patches.
        pretraining: Share of the training in which g only restores (λ = 0); not given in the paper, whose g was
            trained before, for a number of epochs that is not recorded.
        restoring: The distance that g is pre-trained with: `l1` as in Eq. 7, or `l2`. From random weights L1 ends
            in its median where most pixels are black, an image without a stroke that tanh never leaves again.
        lambda_classification: λ of Eq. 8.
        consistency: What the restoring losses see when fine-tuning. `adversarial`: the adversarial image, as input
            and as target (the authors' revised Eq. 8 and most of their notebooks). `clean`: the clean one, as in
            the submitted Eq. 8 and in the notebook whose log is published; it costs a second pass.
        detach_gan: Whether the discriminator is kept from moving g when fine-tuning, as in the released
            notebooks. The paper does not say so.
        craft_against: What training FGSM leads away from: the true `label`, as the authors do, from which g may
            learn to read the class off the perturbation (label leaking), or the classifier's own `prediction`.
        width: Channels of DeepFill at half the image size; a quarter of a token's length in the autoencoder.
        attention: Whether DeepFill's refinement has its branch with contextual attention.
        depth: Blocks of the autoencoder's encoder.
    """

    unsaid: ClassVar[tuple[str, ...]] = (*Recipe.unsaid, "restoring")

    epochs: Whole = 300
    batch_size: Count = 16
    learning_rate: Positive = 1e-4
    transform: Literal["rt1", "rt2", "rt3"] = "rt2"
    purifier: Literal["gan", "mae"] = "gan"
    missing_rate: float = Field(0.25, ge=0, lt=1)
    sigma: float = Field(0.25, ge=0)
    masks: int = Field(4, ge=2, le=1000)
    patch: Count = 4
    pretraining: float = Field(0.5, ge=0, le=1)
    restoring: Literal["l1", "l2"] = "l1"
    lambda_classification: NonNegative = 0.05
    consistency: Literal["clean", "adversarial"] = "adversarial"
    detach_gan: bool = False
    craft_against: Literal["label", "prediction"] = "label"
    width: int = Field(48, ge=4, le=4096, multiple_of=4)
    attention: bool = True
    depth: Count = 6


class AToP(Purifier[AToPRecipe]):
    """Destroy part of the image at random, regenerate all of it with a generator trained for the classifier."""

    card = Card("atop", "adversarial training on purification", "arXiv 2401.16352", 2024, "purifier")
    randomized: ClassVar[bool] = True
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Two cores: a third of the width is a ninth of the work, and larger batches at a larger, decaying rate
        # get along with fewer passes over the 60,000 images.
        "mnist": {
            "epochs": 4,
            "batch_size": 64,
            "learning_rate": 1e-3,
            "schedule": "onecycle",
            "width": 16,
            # Strokes are close by; there is no distant texture to copy.
            "attention": False,
            # Four fifths of the pixels are black, and black was all that came of L1.
            "restoring": "l2",
            "pretraining": 0.4,
            "consistency": "clean",
        },
        # 1,437 images need more passes; half of their pixels are black, and L1 gets somewhere.
        "digits": {
            "epochs": 20,
            "batch_size": 32,
            "restoring": "l1",
            "pretraining": 0.5,
            "consistency": "adversarial",
        },
        # The authors' 300 epochs of 10,000 images are 60 of 50,000; larger batches for a GPU. Flips and crops: the
        # authors flip only, the engine offers both or none.
        "cifar": {
            "epochs": 60,
            "batch_size": 128,
            "learning_rate": 1e-3,
            "schedule": "onecycle",
            "augment": True,
        },
        # An eighth of 160 pixels.
        "imagenette": {"patch": 20},
    }

    def __init__(self, recipe: AToPRecipe, images: ImageSpec, classifier: nn.Module) -> None:
        super().__init__(recipe, images, classifier)
        if images.size % recipe.patch:
            fitting = ", ".join(str(d) for d in range(1, images.size) if images.size % d == 0)
            raise RequestError(
                f"atop cannot cut images of {images.size} pixels into patches of {recipe.patch}; "
                f"set patch to one of {fitting}"
            )
        channels, size = images.channels, images.size
        self.generator: nn.Module
        self.discriminator: SNPatchGAN | None = None
        if recipe.purifier == "gan":
            self.generator = DeepFill(channels, size, width=recipe.width, attention=recipe.attention)
            # 64 of 48 in the authors' code.
            self.discriminator = SNPatchGAN(channels, size, width=4 * recipe.width // 3)
        else:
            self.generator = MaskedAutoencoder(
                channels, size, patch=recipe.patch, width=4 * recipe.width, depth=recipe.depth
            )

    def purify(self, x: Tensor, draws: Draws) -> Tensor:
        """g(t(x)), every pixel regenerated; for `rt3` the sum of m_i · g(t_i(x)), t_i with noise of its own."""
        masks = missing_patches(self.recipe, self.images.size, draws)
        completed = [self._complete(x, m, draws.at("completion", i))[-1] for i, m in enumerate(masks)]
        if self.recipe.transform == "rt3":
            completed = [m * image for m, image in zip(masks, completed, strict=True)]
        return (torch.stack(completed).sum(0) + 1) / 2

    @stand_in("autograd", "plain autograd through the transform, the generator and the classifier", exact=True)
    def autograd(self, x: Tensor, draws: Draws) -> Tensor:
        """The defence as it is."""
        return self(x, draws)  # type: ignore[no-any-return]

    def prepare(self, batch: Batch) -> Mapping[str, Tensor]:
        """x': FGSM on the classifier alone (section 4.2); f is frozen, so once is enough."""
        y = batch.y if self.recipe.craft_against == "label" else self.classifier(batch.x).argmax(1)
        return {"fgsm": batch.attack(self.classifier, y=y, steps=1, step_size=batch.threat.epsilon)}

    def players(self) -> Mapping[str, list[Parameter]]:
        """g, and for the GAN its discriminator."""
        discriminator = list(self.discriminator.parameters()) if self.discriminator else []
        return {"generator": list(self.generator.parameters()), "discriminator": discriminator}

    def losses(self, batch: Batch) -> Losses:
        """L_org, and once pre-training is over λ · CE(f(g(t(x'))), y) with it (Eq. 7, 8)."""
        tuning = batch.progress >= self.recipe.pretraining
        attacked = batch.prepared["fgsm"]
        x = attacked if tuning and self.recipe.consistency == "adversarial" else batch.x
        mask, stages = self._training_pass(x, batch.draws)
        target = 2 * x - 1
        norm, distance = ("l2", F.mse_loss) if self.recipe.restoring == "l2" and not tuning else ("l1", F.l1_loss)
        generator = {f"{norm} of stage {i}": distance(stage, target) for i, stage in enumerate(stages, 1)}
        generator["classification"] = target.new_zeros(())
        if tuning:
            restored = stages if x is attacked else self._training_pass(attacked, batch.draws.at("attacked"))[1]
            logits = self.classifier((restored[-1] + 1) / 2)
            generator["classification"] = self.recipe.lambda_classification * F.cross_entropy(logits, batch.y)
        if self.discriminator is None:
            return {"generator": generator}
        real, fake = self.discriminator(torch.cat([target, stages[-1]]), mask.repeat(2, 1, 1, 1)).chunk(2)
        fooled = fake.detach() if tuning and self.recipe.detach_gan else fake
        generator["adversarial"] = -fooled.mean()
        # The hinge loss; the engine lets it move the discriminator only, though `fake` hangs on g as well.
        return {
            "generator": generator,
            "discriminator": {"real": 0.5 * F.relu(1 - real).mean(), "fake": 0.5 * F.relu(1 + fake).mean()},
        }

    def _training_pass(self, x: Tensor, draws: Draws) -> tuple[Tensor, tuple[Tensor, ...]]:
        # One of the N masks of rt3 is enough: each completion is made on its own, and four would cost four times.
        mask = missing_patches(self.recipe, self.images.size, draws)[0]
        return mask, self._complete(x, mask, draws.at("completion", 0))

    def _complete(self, x: Tensor, mask: Tensor, draws: Draws) -> tuple[Tensor, ...]:
        """All stages of g(t(x)), images (N, C, H, W) in [-1, 1]."""
        if self.recipe.transform != "rt1":
            x = (x + self.recipe.sigma * draws.at("noise").normal(*x.shape[1:])).clamp(0, 1)
        # Missing pixels are 0 of [-1, 1], mid-grey, as in the authors' code.
        return self.generator((2 * x - 1) * (1 - mask), mask)  # type: ignore[no-any-return]


def missing_patches(recipe: AToPRecipe, size: int, draws: Draws) -> list[Tensor]:
    """The random masks m of section 4.1: one, or the N of `rt3`, which are disjoint and cover the image.

    Args:
        recipe: Says which transform, how much is missing, and in patches of what size.
        size: Pixels a side of the images, divisible by the patch.
        draws: Row i decides the masks of sample i.

    Returns:
        Masks (N, 1, size, size), float32, 1 where missing. Each has the same number of patches in every row.
    """
    side = size // recipe.patch
    rank = draws.at("mask").permutation(side**2).view(-1, 1, side, side)
    if recipe.transform == "rt3":
        chosen = [rank % recipe.masks == i for i in range(recipe.masks)]
    else:
        chosen = [rank < round(recipe.missing_rate * side**2)]
    return [m.float().repeat_interleave(recipe.patch, 2).repeat_interleave(recipe.patch, 3) for m in chosen]
