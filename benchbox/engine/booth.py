"""The booth a defence is asked in: whoever asks, and whatever for, it is handed the same things in the same way.

A defence that could tell an attack from its scoring could answer the one and hide from the other. So every image
is a copy of its own that asks for a gradient, whether anybody wants one or not; its draws are named under a
secret; and the frames of whoever asks are out of its sight (`sys._getframe` ends at the booth). What can still be
seen from inside a process is listed in docs/trust.md, with the check that watches it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from greenlet import greenlet
from torch import Tensor
from torch.autograd.function import once_differentiable

from benchbox.contract.defense import Defense
from benchbox.contract.view import Forward
from benchbox.domain import Precision
from benchbox.draws import Draws
from benchbox.engine.secret import OPEN
from benchbox.training.layout import hand_over
from benchbox.training.precision import reduced


def veiled(defense: Defense, draws: Draws, secret: str) -> Draws:
    """What a defence sees of some draws.

    A deterministic one needs none, so it gets the same for every image: it cannot know a sample again. A
    randomised one gets names that are others in every call. An ablation that cannot be deployed is shown the
    true ones.

    Args:
        defense: Who will see them.
        draws: Of the samples.
        secret: Hexadecimal; `OPEN` for a randomised defence hides nothing.
    """
    if not defense.deployable:
        return draws
    if not defense.randomized:
        return Draws(torch.zeros_like(draws.indices))
    return draws if secret == OPEN else draws.hidden(bytes.fromhex(secret))


def ask(forward: Forward, x: Tensor, draws: Draws, *, channels_last: bool, precision: Precision) -> Tensor:
    """Logits (n, K) float32, with a gradient for whoever differentiates them.

    Args:
        forward: Of the defence, or of a stand-in.
        x: (n, C, H, W) images.
        draws: As the defence may see them.
        channels_last: The layout of its copy.
        precision: Of its convolutions and matrix products.
    """
    (logits,) = ask_all(forward, x, draws, channels_last=channels_last, precision=precision)
    return logits


def ask_all(
    forward: Callable[[Tensor, Draws], Tensor | tuple[Tensor, ...]],
    x: Tensor,
    draws: Draws,
    *,
    channels_last: bool,
    precision: Precision,
) -> tuple[Tensor, ...]:
    """As `ask`, of what answers with several tensors."""
    wanted = torch.is_grad_enabled() and x.requires_grad
    # A copy already here: the graph of what is handed over leads back to it, and so may a defence.
    leaf = x.detach().clone().requires_grad_()

    def called() -> _Inside:
        let_differentiate_again()
        # What is handed over is made here and not by whoever asks, so that it ends here, too.
        found = forward(hand_over(leaf, channels_last), draws.rows(slice(None)))
        answers = found if isinstance(found, tuple) else (found,)
        # Whoever asks computes in float32, whatever a network does.
        return _Inside(leaf, tuple(answer.float() for answer in answers))

    with torch.enable_grad(), reduced(x.device, precision):
        inside: _Inside = greenlet(called).switch()
    if not (wanted and any(answer.requires_grad for answer in inside.answers)):
        return inside.copies()
    return _Through.apply(x, inside)  # type: ignore[no-any-return]


def let_differentiate_again() -> None:
    """Have code that `torch.compile` makes from now on be differentiated more than once, if it is there at all.

    Torch keeps this setting by context, so it is asked for where the code is called.
    """
    config: Any = sys.modules.get("torch._functorch.config")
    if config is not None and config.donated_buffer:
        config.donated_buffer = False


def slope(outputs: Sequence[Tensor], leaf: Tensor, gradients: Sequence[Tensor]) -> Tensor:
    """The gradient (n, C, H, W) of some images; whoever differentiates may come back, for that of another logit.

    Code that was compiled before it was handed over lets itself be differentiated once.
    """
    let_differentiate_again()  # a backward pass may be compiled when it is asked for first
    try:
        return torch.autograd.grad(outputs, leaf, gradients, retain_graph=True)[0]
    except RuntimeError as error:
        if "donated buffers" not in str(error):
            raise
    return torch.autograd.grad(outputs, leaf, gradients)[0]


class _Inside:
    """What a call left: an image, and answers with their graph.

    A defence may have hung hooks and finalisers on them, so they are differentiated, and dropped, where it was
    asked: with no frame of anybody in sight.
    """

    def __init__(self, leaf: Tensor, answers: tuple[Tensor, ...]) -> None:
        self.leaf = leaf
        self.answers = answers

    def copies(self) -> tuple[Tensor, ...]:
        """The answers without their graph; who gave them cannot change them any more."""
        return tuple(answer.detach().clone() for answer in self.answers)

    def gradient(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Of the image, given those of the answers."""
        pairs = [pair for pair in zip(self.answers, gradients, strict=True) if pair[0].requires_grad]
        outputs, given = zip(*pairs, strict=True)
        found: Tensor = greenlet(partial(slope, outputs, self.leaf, given)).switch()
        return found.contiguous()

    def __del__(self) -> None:
        greenlet(self.__dict__.clear).switch()


class _Through(torch.autograd.Function):
    """Answers that were computed from a copy, as functions of the image."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inside: _Inside) -> tuple[Tensor, ...]:
        ctx.inside = inside
        return inside.copies()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.inside.gradient(gradients), None
