"""What the last layer of a defended network sees, its penultimate features: for who gives it another readout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from benchbox import nets
from benchbox.contract.defense import Defense
from benchbox.draws import Draws
from benchbox.errors import DefenseError


def penultimate(defense: Defense, forward: Callable[[Tensor, Draws], Any]) -> Callable[[Tensor, Draws], Tensor]:
    """(x, draws) -> features (n, D) of a defended network, with the gradient of a model.

    Args:
        defense: The defence, whose classifier ends in a linear layer.
        forward: It, or one of its stand-ins.

    Raises:
        RequestError: The classifier has no linear layer to replace.
    """
    head = nets.head(defense.classifier)

    def features(x: Tensor, draws: Draws) -> Tensor:
        seen: list[Tensor] = []
        handle = head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        try:
            forward(x, draws)
        finally:
            handle.remove()
        # A saliency branch runs the classifier first; the last pass is the one that answers.
        if not seen or seen[-1].shape[0] != len(x) or seen[-1].dim() != 2:
            raise DefenseError(f"the head of {defense.card.name} does not see one row of features an image")
        return seen[-1]

    return features
