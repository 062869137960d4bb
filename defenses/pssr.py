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
    DecidingPurifier,
    Draws,
    ImageSpec,
    Losses,
    NonNegative,
    Purifier,
    Schedule,
    stand_in,
    straight_through,
)

from ._pix2pix import PatchGAN, UNet, drop
from ._r_drop import adversarial_r_drop
from ._surgery import SurgeryRecipe, beyond, saliency, softly, trivial_mask

KINDS = ("benign", "fgsm", "pgd")


class PSSRRecipe(SurgeryRecipe):
    """Hyper-parameters of PSSR, with the paper's values as defaults.

    Attributes:
        lambda_query: λ1, weight of the classification loss (Eq. 10).
        lambda_pixel: λ2, weight of the L1 loss (Eq. 9).
        lambda_ard: λ3, weight of Adversarial R-Drop (Eq. 11).
        passes: k, how often dropout is drawn a step (Fig. 10b).
        dropout: Its rate; not given in the paper, 0.5 as in pix2pix.
        dropout_at: Where it is: in the `decoder` as in pix2pix, for every loss, or on the generator's `output` for
            Adversarial R-Drop alone, as section 4.3 describes it.
        condition: What the generator E sees beside the trivial component. `mask`: M_t, which the defence knows,
            so that a removed pixel is no black one. `none`: nothing, as Fig. 8 and Eq. 11 write E(x_t). `input`:
            the image as it came in, E(x, x_t) of Eq. 8-10; the clean x printed there is known in training only.
        pixel: Eq. 9 summed over the pixels of an image as printed, or their `mean`, which is enough for grey ones.
        benign: Whether a third of the training images are benign; the paper trains on adversarial ones.
        width: Channels of the generator's first layer; not given in the paper.
    """

    lambda_query: NonNegative = 1.0
    lambda_pixel: NonNegative = 1.0
    lambda_ard: NonNegative = 0.5
    passes: Count = 2
    dropout: float = Field(0.5, ge=0, lt=1)
    dropout_at: Literal["decoder", "output"] = "decoder"
    condition: Literal["none", "mask", "input"] = "mask"
    pixel: Literal["sum", "mean"] = "mean"
    benign: bool = True
    width: Count = 32


# 100 epochs are a night on two cores; a decaying rate gets there in fewer, and ten longer steps reach the
# corners of the ball as forty do.
_ONE_CYCLE: Schedule = "onecycle"
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "mnist": {"epochs": 9, "schedule": _ONE_CYCLE, "attack_steps": 10, "attack_step_size": 0.05},
    # Trained on 1,150 of the training images, 16 epochs leave 85.7 % of the other 287 clean and 83.6 % under
    # gray-box PGD-20 (in float32 84.0 and 85.4 %); 12 leave 82.6 and 77.4 %. Thirty of a constant rate leave 90.9
    # and 89.9 %, and a first run would wait for them.
    "digits": {"epochs": 16, "schedule": _ONE_CYCLE, "batch_size": 64, "width": 16},
    # advertorch's step of 0.01 is a third of the ball of 8/255; ten steps of 2/255 as in adversarial training.
    "cifar": {
        "pixel": "sum",  # with the mean the generator does not learn to give colour images back (docs/pssr.md)
        "epochs": 30,
        "schedule": _ONE_CYCLE,
        "attack_steps": 10,
        "attack_step_size": 2 / 255,
        "width": 64,
    },
}

S = TypeVar("S", bound=SurgeryRecipe, default=SurgeryRecipe)


class PixelSurgery(DecidingPurifier[S]):
    """Remove the salient pixels and leave it at that; only the threshold is computed, nothing is trained."""

    version: ClassVar[int] = 2
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
        return self.regenerate(*self.remove(x), x)

    @stand_in("mask-constant", "V0: the mask is held constant, its exact gradient almost everywhere", exact=True)
    def autograd(self, x: Tensor, draws: Draws) -> Tensor:
        """The defence as it is."""
        return self.forward(x, draws)

    @stand_in(
        "identity-removal", "V1: the removal's backward pass is the identity, so removed pixels get a gradient"
    )
    def identity(self, x: Tensor, draws: Draws) -> Tensor:
        """In place of the identity through the whole purifier: where nothing is regenerated it is the same."""
        trivial, mask = self.remove(x.detach())
        return self.classifier(self.regenerate(straight_through(x, trivial), mask, x))  # type: ignore[no-any-return]

    @stand_in(
        "soft-mask",
        "V3: the mask's backward pass is a sigmoid's, through the saliency, which is differentiated once more",
    )
    def soft(self, x: Tensor, draws: Draws) -> Tensor:
        """Sees how pixels come to be removed. Between two classes of a ReLU network there is nothing to see."""
        signed = self.recipe.saliency == "signed"
        gradient, factor = saliency(self.classifier, x, signed=signed, again=True)
        hard = trivial_mask(gradient.detach(), factor.detach(), self.recipe, self.threshold)
        mask = softly(hard, gradient, factor, self.recipe, self.threshold)
        return self.classifier(self.regenerate(x * mask, mask, x))  # type: ignore[no-any-return]

    def cost(self) -> tuple[int, int]:
        """A forward and a backward pass for the saliency, a forward pass for the prediction."""
        return 2, 1

    def remove(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The trivial component x · M_t (Eq. 4, 5, 7) and M_t itself."""
        mask = trivial_mask(*self.saliency(x), self.recipe, self.threshold)
        return x * mask, mask

    def saliency(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """S in its two factors, as the recipe reads Eq. 3."""
        return saliency(self.classifier, x, signed=self.recipe.saliency == "signed")

    def margins(self, x: Tensor, draws: Draws) -> Tensor:
        """(N, H·W) of each pixel how far its saliency is beyond the threshold, in mean saliencies."""
        gradient, factor = saliency(self.classifier, x, signed=self.recipe.saliency == "signed", again=True)
        over, scale = beyond(gradient, factor, self.recipe, self.threshold)
        return (over / scale).flatten(1)

    def stages(self, x: Tensor, draws: Draws) -> Mapping[str, Tensor]:
        """M_t, x_t and E(x_t), as in Fig. 8; without a regenerator the last two are the same."""
        trivial, mask = self.remove(x)
        regenerated = self.regenerate(trivial, mask, x)
        return {"trivial mask": mask, "trivial component": trivial, "regenerated": regenerated}

    def regenerate(self, trivial: Tensor, mask: Tensor, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] from what the surgery left of them; here, just that."""
        return trivial

    def prepare(self, batch: Batch) -> Mapping[str, Tensor]:
        """Training images under FGSM and PGD on the frozen classifier, and the saliency of each kind.

        Nothing where nothing is trained and each image has a threshold of its own.
        """
        if self.recipe.threshold == "sample" and not self.players():
            return {}
        made = self.attacked(batch)
        for kind, x in zip(KINDS, (batch.x, made["fgsm"], made["pgd"]), strict=True):
            made[f"{kind} gradient"], made[f"{kind} factor"] = self.saliency(x)
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
        seen = channels + {"none": 0, "mask": 1, "input": channels}[recipe.condition]
        self.extrapolator = UNet(seen, channels, images.size, width=recipe.width, dropout=recipe.dropout)
        self.discriminator = PatchGAN(2 * channels, width=recipe.width)

    def regenerate(self, trivial: Tensor, mask: Tensor, x: Tensor) -> Tensor:
        """Regenerated images; dropout is off, so nothing here is random."""
        return self.extrapolator(self.conditioned(trivial, mask, x))  # type: ignore[no-any-return]

    def conditioned(self, trivial: Tensor, mask: Tensor, x: Tensor) -> Tensor:
        """What the generator sees."""
        beside = {"none": [], "mask": [mask], "input": [x]}[self.recipe.condition]
        return torch.cat([trivial, *beside], 1)

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
        recipe, k = self.recipe, self.recipe.passes
        trivial, mask, drawn = self.training_input(batch)
        fake, dropped = self._generated(self.conditioned(trivial, mask, drawn), batch.draws)
        repeats = len(fake) // len(trivial)
        x, condition = batch.x.repeat(repeats, 1, 1, 1), trivial.repeat(repeats, 1, 1, 1)
        logits = self.classifier(fake)
        pixel = F.l1_loss(fake, x) * (x[0].numel() if recipe.pixel == "sum" else 1)
        # The decoder's dropout is in what every loss sees; the output's in what this one sees.
        seen = logits if dropped is None else self.classifier(dropped)
        real_score = self.discriminator(trivial, batch.x)
        # Asked once for both sides: each one's loss moves its own parameters alone, whatever it flows through.
        fake_score = self.discriminator(condition, fake)
        return {
            "extrapolator": {
                "adversarial": F.binary_cross_entropy_with_logits(fake_score, torch.ones_like(fake_score)),
                "query": recipe.lambda_query * F.cross_entropy(logits, batch.y.repeat(repeats)),
                "pixel": recipe.lambda_pixel * pixel,
                "ard": recipe.lambda_ard * adversarial_r_drop(seen, batch.prepared["clean logits"], k),
            },
            "discriminator": {
                "real": F.binary_cross_entropy_with_logits(real_score, torch.ones_like(real_score)),
                "fake": F.binary_cross_entropy_with_logits(fake_score, torch.zeros_like(fake_score)),
            },
        }

    def _generated(self, seen: Tensor, draws: Draws) -> tuple[Tensor, Tensor | None]:
        """Generated images, and what dropout on the output leaves of them if it is there; k of each, pass by pass.

        In float32 under mixed precision too: the engine sees to the output of `forward`, and this is `decode`'s.
        """
        code, recipe = self.extrapolator.encode(seen), self.recipe
        if recipe.dropout_at == "decoder":
            passes = (self.extrapolator.decode(code, draws.at("dropout", i)) for i in range(recipe.passes))
            return torch.cat(list(passes)).float(), None
        fake = self.extrapolator.decode(code, None).float()
        return fake, torch.cat([drop(fake, recipe.dropout, draws.at("output", i)) for i in range(recipe.passes)])

    def training_input(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """What the extrapolator is trained on: x_t and M_t of each image as it was drawn, and that image."""
        mask, drawn = self.training_mask(batch), self.drawn_images(batch)
        return drawn * mask, mask, drawn

    def training_mask(self, batch: Batch) -> Tensor:
        """M_t of each image as it was drawn."""
        kind, made = self.drawn_kinds(batch), batch.prepared
        gradient = _choose(kind, [made[f"{name} gradient"] for name in KINDS])
        factor = _choose(kind, [made[f"{name} factor"] for name in KINDS])
        return trivial_mask(gradient, factor, self.recipe, self.threshold)

    def drawn_kinds(self, batch: Batch) -> Tensor:
        """(N,) which of `KINDS` each image of the batch enters as, with equal probability."""
        draws = batch.draws.at("kind")
        return draws.integers(3) if self.recipe.benign else 1 + draws.integers(2)

    def drawn_images(self, batch: Batch) -> Tensor:
        """Each image of the batch as it was drawn."""
        return _choose(self.drawn_kinds(batch), [batch.x, batch.prepared["fgsm"], batch.prepared["pgd"]])


class WithoutARDRecipe(PSSRRecipe):
    """PSSR's, without Adversarial R-Drop. The passes stay, so that nothing else differs."""

    lambda_ard: NonNegative = 0.0


W = TypeVar("W", bound=WithoutARDRecipe, default=WithoutARDRecipe)


class WithoutARD(PSSR[W]):
    """Surgery and regeneration, trained without Adversarial R-Drop."""

    card = Card("pssr:ps+cae", "PSSR without Adversarial R-Drop", "arXiv 2402.00304", 2024, "ablation")
    ablations: ClassVar[tuple[str, ...]] = ("pssr:ps", "pssr:cae")


class RegenerationRecipe(WithoutARDRecipe):
    """PSSR's without Adversarial R-Drop; where nothing is removed there is no mask to see."""

    condition: Literal["none", "mask", "input"] = "none"


class Regeneration(WithoutARD[RegenerationRecipe]):
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

    def soft(self, x: Tensor, draws: Draws) -> Tensor:
        """No stand-in either: there is no mask."""
        return self.forward(x, draws)

    def margins(self, x: Tensor, draws: Draws) -> Tensor:
        """Nothing is decided."""
        return x.new_empty(len(x), 0)

    def stages(self, x: Tensor, draws: Draws) -> Mapping[str, Tensor]:
        """There is no surgery to show."""
        return {"regenerated": self.purify(x, draws)}

    def cost(self) -> tuple[int, int]:
        """No saliency."""
        return 1, 0

    def remove(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Nothing is removed."""
        return x, torch.ones_like(x[:, :1])

    def prepare(self, batch: Batch) -> Mapping[str, Tensor]:
        """As PSSR, without the saliencies."""
        return self.attacked(batch)

    def calibrate(self, prepared: Mapping[str, Tensor]) -> None:
        """There is no threshold."""

    def training_mask(self, batch: Batch) -> Tensor:
        """All ones: the images as they were drawn, whole."""
        return torch.ones_like(batch.x[:, :1])


def _choose(kind: Tensor, options: list[Tensor]) -> Tensor:
    # Row i of the option that row i drew.
    return torch.stack(options)[kind, torch.arange(len(kind), device=kind.device)]
