"""What the diffusion purifiers share: a score model, its schedule of noise, and the way into the noise.

J. Ho, A. Jain, P. Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020 (arXiv 2006.11239). An image v
in [-1, 1] at time k of 1 … T is √ᾱ_k · v + √(1 - ᾱ_k) · ε with ε ~ N(0, I); ᾱ_0 = 1 is the image itself. The
score model, a UNet of the library diffusers, predicts ε. It is trained here with L_simple, or read from a folder.

Departures: no moving average of the weights, for a short training under a decaying rate needs none; on small grey
images the UNet sees blocks of pixels as channels (`patch`), which saves most of the work at the full resolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn import Parameter
from typing_extensions import TypeVar

from benchbox import (
    ArtifactError,
    Batch,
    Count,
    Draws,
    ImageSpec,
    Losses,
    Positive,
    Recipe,
    RequestError,
    Schedule,
    StepwisePurifier,
    Whole,
)

from . import _diffusers_folder as folder

#: Length of the chain that is trained here, and its first and last β, as in Ho et al.
CHAIN, BETAS = 1000, (1e-4, 0.02)


class DiffusionRecipe(Recipe):
    """What a diffusion purifier sets; the training is that of Ho et al. on CIFAR-10 unless a data set departs.

    Attributes:
        t_star: How far into the noise the image is taken, as a share of the chain.
        steps: Reverse steps from there, evenly spread over the chain (respacing); as many as times for every one.
        score: Folder of a diffusers model to take in place of training one: its `config.json`, its weights as
            safetensors and its scheduler's configuration.
        score_digest: SHA-256 of what is in that folder; fills in itself, so that results follow its contents.
        width: Channels of the UNet at its highest resolution.
        multipliers: Its resolutions, each half the one before, by their channels as multiples of `width`.
        layers: Residual blocks at each resolution.
        attention: Resolutions with self-attention, by their place in `multipliers`; the middle always has it.
        patch: Side of the blocks of pixels that the UNet sees as channels.
    """

    forward_only: ClassVar[tuple[str, ...]] = ("t_star", "steps")

    epochs: Whole = 2000
    batch_size: Count = 128
    learning_rate: Positive = 2e-4
    schedule: Schedule = "onecycle"
    t_star: float = Field(0.1, gt=0, le=1)
    steps: Count = 100
    score: str = ""
    score_digest: str = ""
    width: Count = 128
    multipliers: tuple[Count, ...] = Field((1, 2, 2, 2), min_length=1)
    layers: Count = 2
    attention: tuple[Whole, ...] = (1,)
    patch: Count = 1

    def identity(self) -> dict[str, Any]:
        """With what is in the folder; a score model that is trained here goes without saying."""
        whole = super().identity()
        if self.score:
            return {**whole, "score_digest": folder.digest(self.score)}
        return {name: value for name, value in whole.items() if not name.startswith("score")}


#: Score models for the grey data sets, small enough for a processor.
SMALL: Mapping[str, Mapping[str, Any]] = {
    # 7×7 blocks of 4×4 pixels at a single resolution, and the attention in the middle of it; few steps, for two
    # cores. t* is twice that of CIFAR-10: of held-out training images of digits, more noise costs more clean
    # accuracy than it wins back (docs/diffusion.md; on MNIST, too, where it would be less).
    "mnist": {
        "epochs": 8,  # 950 steps: seven core minutes
        "batch_size": 512,
        "learning_rate": 2e-3,
        "t_star": 0.2,
        "steps": 5,
        "width": 32,
        "multipliers": (1,),
        "layers": 1,
        "attention": (),
        "patch": 4,
    },
    # As MNIST; 1,437 images need more passes.
    "digits": {"epochs": 150, "batch_size": 128, "learning_rate": 1e-3},
}

D = TypeVar("D", bound=DiffusionRecipe, default=DiffusionRecipe)


class DiffusionPurifier(StepwisePurifier[D]):
    """Takes an image into the noise and, in steps, back."""

    learns: ClassVar[str] = "score model"

    def __init__(self, recipe: D, images: ImageSpec, classifier: nn.Module) -> None:
        super().__init__(recipe, images, classifier)
        self.score = read(recipe, images) if recipe.score else built(recipe, images)
        start = round(recipe.t_star * self.score.chain)
        if start < recipe.steps:
            raise RequestError(
                f"{self.card.name}.steps = {recipe.steps} does not fit: t_star {recipe.t_star:g} of a chain of "
                f"{self.score.chain} has {start} times; set steps to that or fewer"
            )
        if self.score.alphas[start] <= 0:
            raise RequestError(
                f"{self.card.name}.t_star = {recipe.t_star:g} is where this score model's chain has only noise, "
                "from which no image comes back; take less"
            )
        #: The times from t* to 0; step i leads from the i-th to the one after it.
        self.times = [round(start * (1 - k / recipe.steps)) for k in range(recipe.steps + 1)]

    @property
    def length(self) -> int:
        """The reverse steps."""
        return self.recipe.steps

    def begin(self, x: Tensor, draws: Draws) -> Tensor:
        """The image in [-1, 1], diffused to t*."""
        return self.diffused(2 * x - 1, self.times[0], draws)

    def finish(self, state: Tensor) -> Tensor:
        """Back in [0, 1]."""
        return ((state + 1) / 2).clamp(0, 1)

    def faithful(self, i: int, x: Tensor, draws: Draws) -> Tensor:
        """The image diffused to where step i has led, with the noise that it was taken to t* with."""
        return self.diffused(2 * x - 1, self.times[i + 1], draws)

    def diffused(self, v: Tensor, time: int, draws: Draws) -> Tensor:
        """An image v in [-1, 1] at a time of the chain, with noise of the sample's own."""
        alpha = self.score.alphas[time]
        return math.sqrt(alpha) * v + math.sqrt(1 - alpha) * normal(draws.at("forward"), v)

    def players(self) -> Mapping[str, list[Parameter]]:
        """The score model, unless it was read."""
        return {"score": [] if self.recipe.score else list(self.score.parameters())}

    def losses(self, batch: Batch) -> Losses:
        """L_simple (Ho et al., Eq. 14): the squared error of ε at a random time of each image."""
        v = 2 * batch.x - 1
        time = batch.draws.at("time").integers(self.score.chain) + 1
        noise = normal(batch.draws.at("noise"), v)
        alpha = v.new_tensor(self.score.alphas)[time].view(-1, 1, 1, 1)
        found = self.score(alpha.sqrt() * v + (1 - alpha).sqrt() * noise, time)
        return {"score": {"noise": F.mse_loss(found, noise)}}


class ScoreModel(nn.Module):
    """A UNet of diffusers that says which noise is in an image.

    Attributes:
        alphas: ᾱ at the times 0 … T.
        chain: T.
    """

    def __init__(self, unet: nn.Module, alphas: list[float], predicts: str, patch: int = 1) -> None:
        super().__init__()
        self.unet = unet
        self.alphas = [1.0, *alphas]
        self.chain = len(alphas)
        self.predicts = predicts
        self.patch = patch

    def forward(self, state: Tensor, time: int | Tensor) -> Tensor:
        """The noise ε (N, C, H, W) in states (N, C, H, W) at a time of 1 … T, one for all or one for each (N,)."""
        at = torch.as_tensor(time, device=state.device).expand(len(state))
        blocks = F.pixel_unshuffle(state, self.patch)
        # A model that also learned variances returns them below; its own time counts from 0.
        found = F.pixel_shuffle(self.unet(blocks, at - 1).sample[:, : blocks.shape[1]], self.patch).to(state.dtype)
        if self.predicts == "epsilon":
            return found
        alpha = state.new_tensor(self.alphas)[at].view(-1, 1, 1, 1)
        if self.predicts == "v_prediction":
            return alpha.sqrt() * found + (1 - alpha).sqrt() * state
        return (state - alpha.sqrt() * found) / (1 - alpha).sqrt()


def normal(draws: Draws, like: Tensor) -> Tensor:
    """Standard normal numbers in the shape and type of some states."""
    return draws.normal(*like.shape[1:]).to(like.dtype)


def built(recipe: DiffusionRecipe, images: ImageSpec) -> ScoreModel:
    """An untrained score model.

    Raises:
        RequestError: The images cannot be cut into its blocks or halved as often as it has resolutions, or
            diffusers is not installed.
    """
    halvings = len(recipe.multipliers) - 1
    if any(side % (recipe.patch * 2**halvings) for side in images.shape[1:]):
        raise RequestError(
            f"images of {_sides(*images.shape[1:])} pixels cannot be cut into blocks of {recipe.patch} and halved "
            f"{halvings} times; set patch or multipliers so that they can"
        )
    channels = images.channels * recipe.patch**2
    attention = [place in recipe.attention for place in range(halvings + 1)]
    unet = folder.library().UNet2DModel(
        sample_size=tuple(side // recipe.patch for side in images.shape[1:]),
        in_channels=channels,
        out_channels=channels,
        block_out_channels=tuple(recipe.width * m for m in recipe.multipliers),
        layers_per_block=recipe.layers,
        down_block_types=tuple("AttnDownBlock2D" if some else "DownBlock2D" for some in attention),
        up_block_types=tuple("AttnUpBlock2D" if some else "UpBlock2D" for some in reversed(attention)),
        norm_num_groups=max(g for g in (32, 16, 8, 4, 2, 1) if recipe.width % g == 0),
    )
    betas = torch.linspace(*BETAS, CHAIN, dtype=torch.float64)
    return ScoreModel(unet, (1 - betas).cumprod(0).tolist(), "epsilon", recipe.patch)


def read(recipe: DiffusionRecipe, images: ImageSpec) -> ScoreModel:
    """The score model of the recipe's folder; one for smaller images of more channels sees blocks of these.

    Raises:
        RequestError: Diffusers is not installed, or the model is for other images.
        ArtifactError: The folder holds no such model, or another than when it was asked for.
    """
    if recipe.score_digest not in ("", folder.digest(recipe.score)):
        raise ArtifactError(f"{recipe.score} holds another model than a moment ago; ask for it anew")
    unet, alphas, predicts = folder.read(recipe.score)
    channels, (height, width) = unet.config.in_channels, folder.sides(unet.config.sample_size, images.shape)
    patch = max(images.size // height, 1)
    if (channels, height * patch, width * patch) != (images.channels * patch**2, *images.shape[1:]):
        raise RequestError(
            f"the score model in {recipe.score} is for {_sides(channels, height, width)} images, not "
            f"{_sides(*images.shape)}; take one that was trained on such images"
        )
    score = ScoreModel(unet, alphas, predicts, patch)
    _try(score, images, f"the score model in {recipe.score}")
    return score


def _try(score: ScoreModel, images: ImageSpec, named: str) -> None:
    """Ask once: a size that cannot be halved, a class that is waited for, or NaN would come out much later.

    Raises:
        ArtifactError: It does not answer as a score model does.
    """
    asked = f"{named}, asked about a {_sides(*images.shape)} image,"
    try:
        with torch.no_grad():
            found = score(torch.zeros(1, *images.shape), score.chain)
    except Exception as error:  # of the library's: what it was given is at fault
        raise ArtifactError(f"{asked} fails: {folder.said(error)}; take another model") from error
    if found.shape[1:] != images.shape:
        raise ArtifactError(f"{asked} answers with {_sides(*found.shape[1:])} numbers; take another model")
    if not bool(found.isfinite().all()):
        raise ArtifactError(f"{asked} answers with NaN or infinity; take another model, or save it again")


def _sides(*sizes: int) -> str:
    return "×".join(map(str, sizes))
