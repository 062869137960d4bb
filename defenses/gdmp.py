"""Guided diffusion purification (GDMP).

J. Wang, Z. Lyu, D. Lin, B. Dai, H. Fu. Guided Diffusion Model for Adversarial Purification. arXiv 2205.14969
(2022).

Several times over, the image is diffused to a small time and led back by the ancestral sampler of a DDPM (Ho et
al., NeurIPS 2020). In every step the state is drawn towards the image as it came in, diffused to the same time,
so that what is purified stays the same picture: the mean of the step moves by s_t · Σ_t · (that - the state),
which is the gradient of their mean squared error, with s_t = a · √(1 - ᾱ_t) / √ᾱ_t.

Departures: the factors 2 and 1/CHW of the mean squared error's gradient are part of a; the guide has noise of its
own in each step; the result is cut to [0, 1]. The authors' own constant a
was not at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from benchbox import Card, Count, Draws, NonNegative

from ._diffusion import SMALL, DiffusionPurifier, DiffusionRecipe, normal


class GDMPRecipe(DiffusionRecipe):
    """Hyper-parameters of GDMP, with the paper's times for CIFAR-10 as defaults.

    Attributes:
        rounds: How often the image is diffused and led back.
        guidance: How strongly a step is pulled towards the image that came in (a); 0 for not at all.
    """

    forward_only: ClassVar[tuple[str, ...]] = (*DiffusionRecipe.forward_only, "rounds", "guidance")

    t_star: float = Field(0.036, gt=0, le=1)
    steps: Count = 36
    rounds: Count = 4
    guidance: NonNegative = 10.0


class GDMP(DiffusionPurifier[GDMPRecipe]):
    """Diffuse a little and come back under guidance, several times."""

    card = Card("gdmp", "guided diffusion purification", "Wang et al., arXiv 2205.14969", 2022, "purifier")
    randomized: ClassVar[bool] = True
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **SMALL,
        # The ball is ten times that of CIFAR-10, so the noise is deeper; half the rounds, fewer steps. A stronger
        # guide brings the perturbation back with the picture.
        "mnist": {**SMALL["mnist"], "rounds": 2, "guidance": 1.0},
        # What held-out training images chose, as for `diffpure` (docs/diffusion.md).
        "digits": {**SMALL["digits"], "t_star": 0.1, "guidance": 0.3},
    }

    @property
    def length(self) -> int:
        """The reverse steps of all rounds."""
        return self.recipe.rounds * self.recipe.steps

    def step(self, i: int, state: Tensor, x: Tensor, draws: Draws) -> Tensor:
        """A guided step of the ancestral sampler (Ho et al., Eq. 7); the first of a later round diffuses anew."""
        round_, place = divmod(i, self.recipe.steps)
        before, after = (self.score.alphas[time] for time in self.times[place : place + 2])
        if round_ and place == 0:
            state = self.diffused(state, self.times[0], self._of_round(round_, draws))
        noise = self.score(state, self.times[place])
        # Cut, as the samplers of DDPMs do: an image is nowhere else.
        image = ((state - (1 - before) ** 0.5 * noise) / before**0.5).clamp(-1, 1)
        ratio = before / after
        mean = (after**0.5 * (1 - ratio) * image + ratio**0.5 * (1 - after) * state) / (1 - before)
        variance = (1 - after) / (1 - before) * (1 - ratio)
        guide = self.diffused(2 * x - 1, self.times[place], draws.at("guide", i))
        pull = self.recipe.guidance * ((1 - before) / before) ** 0.5 * variance
        state = mean + min(pull, 1.0) * (guide - state)
        return state if variance == 0 else state + variance**0.5 * normal(draws.at("reverse", i), state)

    def faithful(self, i: int, x: Tensor, draws: Draws) -> Tensor:
        """The image diffused to where step i has led, with the noise of its round."""
        round_, place = divmod(i, self.recipe.steps)
        return self.diffused(2 * x - 1, self.times[place + 1], self._of_round(round_, draws))

    def _of_round(self, round_: int, draws: Draws) -> Draws:
        """Of the noise that a round begins with; that of the first is every diffusion purifier's."""
        return draws.at("round", round_) if round_ else draws
