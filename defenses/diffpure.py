"""Diffusion purification (DiffPure).

W. Nie, B. Guo, Y. Huang, C. Xiao, A. Vahdat, A. Anandkumar. Diffusion Models for Adversarial Purification. ICML
2022 (arXiv 2205.07460).

Noise is added to the image up to time t* of a diffusion, which drowns the perturbation; the reverse SDE of Song
et al. (ICLR 2021, arXiv 2011.13456) leads back to an image, which the frozen classifier is asked about.
`diffpure` solves the variance-preserving SDE by Euler–Maruyama, with fresh noise in every step; `diffpure:ode`
solves the probability flow ODE in its place, so that the noise of the beginning is all there is.

Departures: ∫β over a step is taken from the discrete chain of the score model instead of a continuous β(t), which
is the same for the linear one; the last step adds no noise, as the samplers of Song et al. leave it out, for with
few steps it would be seen; the result is cut to [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchbox import Card, Draws, stand_in

from ._diffusion import SMALL, DiffusionPurifier, DiffusionRecipe, normal


class DiffPureRecipe(DiffusionRecipe):
    """Hyper-parameters of DiffPure: t* = 0.1 and steps of 10⁻³, as on CIFAR-10 at ε = 8/255 (section 5.1)."""


class DiffPure(DiffusionPurifier[DiffPureRecipe]):
    """Diffuse to t*, and come back by the reverse SDE."""

    card = Card("diffpure", "diffusion purification, VP-SDE", "Nie et al., ICML 2022", 2022, "purifier")
    randomized: ClassVar[bool] = True
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **SMALL,
        # Section 5.1: 0.15 on ImageNet. On CIFAR-10 in the L2 ball of radius 0.5 they have t* = 0.075:
        # --set diffpure.t_star=0.075 --set diffpure.steps=75.
        "imagenette": {"t_star": 0.15, "steps": 150},
    }

    def step(self, i: int, state: Tensor, x: Tensor, draws: Draws) -> Tensor:
        """x + ∫β (x/2 + ∇log p) + √∫β · z."""
        amount, drift = self._flow(i, state)
        state = state + amount * (state / 2 + drift)
        return state if i == self.length - 1 else state + amount**0.5 * normal(draws.at("reverse", i), state)

    def _flow(self, i: int, state: Tensor) -> tuple[float, Tensor]:
        """∫β over step i, and the score at its beginning."""
        before, after = (self.score.alphas[time] for time in self.times[i : i + 2])
        score = -self.score(state, self.times[i]) / (1 - before) ** 0.5
        return math.log(after / before), score


class DiffPureODE(DiffPure):
    """Diffuse to t*, and come back by the probability flow ODE."""

    card = Card("diffpure:ode", "diffusion purification, VP-ODE", "Nie et al., ICML 2022", 2022, "purifier")

    def step(self, i: int, state: Tensor, x: Tensor, draws: Draws) -> Tensor:
        """x + ½ ∫β (x + ∇log p), a step of Euler's."""
        amount, score = self._flow(i, state)
        return state + amount / 2 * (state + score)

    @stand_in("adjoint", "the adjoint ODE, along states that are computed backwards from the purified image")
    def adjoint(self, x: Tensor, draws: Draws) -> Tensor:
        """Logits (N, K). What it saves in memory it pays for in the error of the way back (Chen et al. 2018)."""
        state: Tensor = _Adjoint.apply(self.begin(x, draws), self)
        return self.classifier(self.finish(state))  # type: ignore[no-any-return]

    def back(self, i: int, state: Tensor) -> Tensor:
        """The state before step i, given the one after it: a step of Euler's in the other direction.

        Its score is that at the earlier time, at the state it starts from, for the other is not known yet.
        """
        amount, score = self._flow(i, state)
        return state - amount / 2 * (state + score)


class _Adjoint(torch.autograd.Function):
    """All steps of the ODE; nothing but the last state is kept (Chen et al., NeurIPS 2018, section 2)."""

    @staticmethod
    def forward(ctx: Any, state: Tensor, defense: DiffPureODE) -> Tensor:
        ctx.defense = defense
        draws = Draws(torch.arange(len(state), device=state.device))  # no step of the ODE draws
        for i in range(defense.length):
            state = defense.step(i, state, state, draws)
        ctx.save_for_backward(state)
        return state

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (state,), defense = ctx.saved_tensors, ctx.defense
        draws = Draws(torch.arange(len(state), device=state.device))
        for i in reversed(range(defense.length)):
            with torch.no_grad():
                state = defense.back(i, state)
            leaf = state.detach().requires_grad_()
            with torch.enable_grad():
                after = defense.step(i, leaf, leaf, draws)
            (gradient,) = torch.autograd.grad(after, leaf, gradient)
        return gradient, None
