"""Interval bound propagation: a network trained so that its robustness can be proven, not only attacked.

S. Gowal, K. Dvijotham, R. Stanforth, R. Bunel, C. Qin, J. Uesato, R. Arandjelovic, T. Mann, P. Kohli. Scalable
Verified Training for Provably Robust Image Classification. ICCV 2019 (arXiv 1810.12715), Eq. 5-12 and section 5.

Bounds of every activation follow from those of the layer before; the last layer is folded into the differences of
logits that matter (Eq. 9). The loss is κ · CE(clean logits) + (1 - κ) · CE(worst logits), with κ falling and ε
growing in the course of the training; ε ends above the radius that is evaluated, as in the paper (0.4 for 0.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from benchbox import (
    Batch,
    Card,
    Classifier,
    ClassifierRecipe,
    Count,
    ImageSpec,
    Losses,
    Positive,
    RequestError,
    Schedule,
    ThreatModel,
    Whole,
)

#: Layers that keep the order of numbers: the bounds of what comes out are what comes out of the bounds.
MONOTONE = (nn.ReLU, nn.LeakyReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Flatten, nn.Identity, nn.Tanh, nn.Sigmoid)


class IBPRecipe(ClassifierRecipe):
    """Hyper-parameters of interval bound propagation, with the paper's values for MNIST as defaults.

    Attributes:
        excess: ε of the training over the ε that is evaluated; 0.4 for 0.3.
        kappa: What κ ends at; it begins at 1.
        warm_up: Share of the training before the bounds enter; 2,000 of 60,000 steps.
        ramp: Share of the training over which ε grows and κ falls; 10,000 of 60,000 steps.
    """

    epochs: Whole = 100
    batch_size: Count = 100
    learning_rate: Positive = 5e-4
    schedule: Schedule = "step"
    excess: float = Field(4 / 3, ge=1, le=4)
    kappa: float = Field(0.5, ge=0, le=1)
    warm_up: float = Field(2 / 60, ge=0, lt=1)
    ramp: float = Field(10 / 60, gt=0, le=1)


class Bounds(NamedTuple):
    """Of the activations (N, ...) of some samples: no image of the ball gets below `low` or above `high`."""

    low: Tensor
    high: Tensor


class IBP(Classifier[IBPRecipe]):
    """κ · CE(f(x), y) + (1 - κ) · CE(the worst logits that interval arithmetic allows inside the ball, y)."""

    card = Card("ibp", "interval bound propagation", "Gowal et al., ICCV 2019", 2019, "certified training")
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # No inner attack, so a step costs two plain ones; a decaying rate gets there in a third of the epochs.
        "mnist": {"epochs": 30, "learning_rate": 1e-3, "schedule": "onecycle", "ramp": 0.5},
        # As MNIST; 1,437 images need more passes.
        "digits": {"epochs": 120, "batch_size": 64},
    }

    def __init__(self, recipe: IBPRecipe, images: ImageSpec, *rest: Any) -> None:
        super().__init__(recipe, images, *rest)
        # Said before an hour of training, not after.
        list(layers_of(self.classifier))

    def losses(self, batch: Batch) -> Losses:
        """The two terms of Eq. 12."""
        recipe, clean = self.recipe, self.classifier(batch.x)
        grown = min(max((batch.progress - recipe.warm_up) / recipe.ramp, 0.0), 1.0)
        kappa = 1 - grown * (1 - recipe.kappa)
        terms = {"clean": kappa * F.cross_entropy(clean, batch.y)}
        if grown:
            wide = batch.threat.scaled(recipe.excess * grown)
            # A logit that is surely below the true one by d enters as -d, the true one as 0 (section 3).
            worst = -margins(self.classifier, batch.x, batch.y, wide)
            terms["worst"] = (1 - kappa) * F.cross_entropy(worst, batch.y)
        return {"classifier": terms}

    def certified(self, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
        """(N,) whether interval arithmetic proves that every image of the ball is classified as y.

        Raises:
            RequestError: The ball is no L-infinity ball.
        """
        with torch.no_grad():
            others = F.one_hot(y, self.images.classes) == 0
            return ((margins(self.classifier, x, y, threat) > 0) | ~others).all(1)


def margins(network: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    """(N, K) lower bounds of the true logit minus each logit, over the whole ball; 0 at the true class.

    Raises:
        RequestError: The ball is not L-infinity, or a layer has no interval arithmetic here.
    """
    if threat.norm != "linf":
        raise RequestError(f"ibp bounds L-infinity balls only, got {threat}; use --norm linf")
    *body, head = layers_of(network)
    bounds = Bounds((x - threat.epsilon).clamp(0, 1), (x + threat.epsilon).clamp(0, 1))
    for layer in body:
        bounds = through(layer, bounds)
    assert isinstance(head, nn.Linear)
    center, radius = (bounds.high + bounds.low) / 2, (bounds.high - bounds.low) / 2
    # Eq. 9: the differences of rows of the last layer, not of its outputs, which would count the slack twice.
    rows = head.weight[y][:, None] - head.weight[None]
    offset = head.bias[y][:, None] - head.bias[None] if head.bias is not None else 0.0
    at_center = torch.einsum("nkd,nd->nk", rows, center)
    lower: Tensor = at_center - torch.einsum("nkd,nd->nk", rows.abs(), radius) + offset
    return lower


def through(layer: nn.Module, bounds: Bounds) -> Bounds:
    """The bounds behind a layer (Eq. 5-8)."""
    if isinstance(layer, MONOTONE):
        return Bounds(layer(bounds.low), layer(bounds.high))
    center, radius = (bounds.high + bounds.low) / 2, (bounds.high - bounds.low) / 2
    assert isinstance(layer, (nn.Linear, nn.Conv2d))
    # The layer itself with its weights for moduli, whatever its stride and padding are.
    moduli = {"weight": layer.weight.abs()}
    if layer.bias is not None:
        moduli["bias"] = torch.zeros_like(layer.bias)
    center, radius = layer(center), torch.func.functional_call(layer, moduli, radius)
    return Bounds(center - radius, center + radius)


def layers_of(network: nn.Module) -> Iterator[nn.Module]:
    """The layers of a network that is one after the other.

    Raises:
        RequestError: It is not, or a layer has no interval arithmetic here.
    """
    if isinstance(network, (nn.Conv2d, nn.Linear, *MONOTONE)):
        yield network
        return
    children = list(network.children())
    if not (isinstance(network, nn.Sequential) or (len(children) == 1 and isinstance(children[0], nn.Sequential))):
        known = ", ".join(kind.__name__ for kind in (nn.Conv2d, nn.Linear, *MONOTONE))
        raise RequestError(
            f"ibp cannot bound a {type(network).__name__}; use a sequence of {known}, such as lenet5"
        )
    for child in children:
        yield from layers_of(child)
