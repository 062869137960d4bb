"""Purifiers that are a sequence of steps: their gradient in the memory of one step, and every state on the way.

    class Mine(StepwisePurifier[MineRecipe]):
        length = 10                                   # how many steps
        def begin(self, x, draws): ...                # the state before the first
        def step(self, i, state, x, draws): ...       # one step on
        def finish(self, state): ...                  # the purified image

A step is computed anew in the backward pass, from the state before it and the same draws, so that the noise is
the same and only states are kept (gradient checkpointing; Chen et al. 2016, arXiv 1604.06174).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from benchbox.contract.defense import Purifier, R
from benchbox.contract.stand_ins import stand_in, straight_through
from benchbox.contract.view import Trail
from benchbox.draws import Draws
from benchbox.errors import DefenseError

#: Steps that the stand-in `skipped` differentiates.
DIFFERENTIATED = 5


class StepwisePurifier(Purifier[R]):
    """A purifier whose work is a sequence of steps from one state to the next, all of one shape.

    Attributes:
        checkpointed: Whether a step is computed anew in the backward pass. Its gradient is the same either way.
    """

    checkpointed: bool = True

    @property
    @abstractmethod
    def length(self) -> int:
        """Number of steps, 1 or more."""

    @abstractmethod
    def step(self, i: int, state: Tensor, x: Tensor, draws: Draws) -> Tensor:
        """The state (N, …) after step i (from 0), given that before it and the image x (N, C, H, W).

        A function of its arguments alone: it is called again in the backward pass. It may write into the state.
        """

    def begin(self, x: Tensor, draws: Draws) -> Tensor:
        """The state (N, …) before the first step; the image itself unless a subclass makes more of it."""
        return x

    def finish(self, state: Tensor) -> Tensor:
        """The purified images, in [0, 1], of the state after the last step."""
        return state

    def faithful(self, i: int, x: Tensor, draws: Draws) -> Tensor:
        """What the state after step i would be if the steps kept the image as it came in.

        The image; a subclass whose states are of another shape, or another scale, writes it anew.
        """
        return x

    def purify(self, x: Tensor, draws: Draws) -> Tensor:
        """Every step, one after the other."""
        state = self.begin(x, draws)
        for i in range(self.length):
            state = self._step(i, state, x, draws)
        return self.finish(state)

    def trail(self, x: Tensor, draws: Draws) -> Trail:
        """Logits (N, K), the state after each step, and the faithful one.

        Raises:
            DefenseError: There are none, or they differ in shape.
        """
        if self.length < 1:
            raise DefenseError(f"defence {self.card.name} has length {self.length}; take 1 step or more")
        state, states = self.begin(x, draws), []
        for i in range(self.length):
            state = self._step(i, state, x, draws)
            states.append(state)
        logits = self.classifier(self.finish(state))
        faithful = [self.faithful(i, x, draws) for i in range(self.length)]
        if wrong := [i for i, one in enumerate(faithful) if one.shape != state.shape]:
            raise DefenseError(
                f"defence {self.card.name}: faithful({wrong[0]}) is {tuple(faithful[wrong[0]].shape)} where the "
                f"states are {tuple(state.shape)}; make it one of them"
            )
        return Trail(logits, torch.stack(states, 1), torch.stack(faithful, 1))

    @stand_in("autograd", "the exact gradient, through every step with the noise it had", exact=True)
    def autograd(self, x: Tensor, draws: Draws) -> Tensor:
        """The defence as it is."""
        return self(x, draws)  # type: ignore[no-any-return]

    @stand_in("skipped", f"through {DIFFERENTIATED} of the steps, evenly spread; the others are the identity")
    def skipped(self, x: Tensor, draws: Draws) -> Tensor:
        """Logits (N, K)."""
        last, chosen = self.length - 1, min(DIFFERENTIATED, self.length)
        return self._through(x, draws, {round(k * last / max(chosen - 1, 1)) for k in range(chosen)})

    @stand_in(
        "beginning", "through what precedes the first step (of a diffusion, its noise); no step is differentiated"
    )
    def beginning(self, x: Tensor, draws: Draws) -> Tensor:
        """Logits (N, K)."""
        return self._through(x, draws, ())

    def _through(self, x: Tensor, draws: Draws, differentiated: Collection[int]) -> Tensor:
        """Logits; of the steps, some have a derivative, the others pass the gradient on as it comes."""
        state = self.begin(x, draws)
        for i in range(self.length):
            if i in differentiated:
                state = self._step(i, state, x, draws)
            else:
                with torch.no_grad():
                    after = self._apart(i, state, x, draws)
                state = straight_through(state, after)
        return self.classifier(self.finish(state))  # type: ignore[no-any-return]

    def _step(self, i: int, state: Tensor, x: Tensor, draws: Draws) -> Tensor:
        if not (self.checkpointed and torch.is_grad_enabled() and (state.requires_grad or x.requires_grad)):
            return self._apart(i, state, x, draws)
        # All its randomness is in the draws: there is no state of torch's generator to keep.
        step = partial(self._apart, i)
        return checkpoint(step, state, x, draws, use_reentrant=False, preserve_rng_state=False)

    def _apart(self, i: int, state: Tensor, x: Tensor, draws: Draws) -> Tensor:
        """A step on a copy: one that writes into its state would be computed anew from what it wrote."""
        after = self.step(i, state.clone(), x, draws)
        if after.shape != state.shape:
            raise DefenseError(
                f"defence {self.card.name}: step {i} makes {tuple(after.shape)} of a state {tuple(state.shape)}; "
                "keep its shape"
            )
        return after
