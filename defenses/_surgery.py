"""Pixel surgery: which pixels the target classifier's prediction depends on most (PSSR, Eq. 3-7).

X. Fu, Y. Zhou, L. Ma, L. Zhang. Invariance-powered Trustworthy Defense via Remove Then Restore. arXiv 2402.00304.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbox import Count, NonNegative, Positive, Recipe, Whole


class SurgeryRecipe(Recipe):
    """Hyper-parameters of pixel surgery, with the paper's values as defaults.

    Attributes:
        alpha: Threshold over the mean saliency (Eq. 6).
        threshold: `sample`: the mean of each image's own map ("the mean value of the saliency map", section 1), as
            Fig. 2 and 8 show it at work on confident and on strongly attacked images. `dataset`: the mean is a
            constant over the adversarial training images ("can be pre-computed as a constant", section 4.5),
            which the weak attacks among them set: on images under PGD hardly anything exceeds it.
        saliency: `absolute`: |∂P/∂x| as in Simonyan et al. 2013, whom the paper follows. `signed`: ∂P/∂x, as Eq. 3
            is printed; then only pixels that speak for the predicted class are removed.
        craft_against: Class that training perturbations lead away from: the classifier's own `prediction`, or the
            true `label`. With labels the purifier can read the class off the perturbation (label leaking).
        attack_steps: Steps of the training PGD; advertorch's default.
        attack_step_size: Length of a step; advertorch's default.
    """

    epochs: Whole = 100
    learning_rate: Positive = 1e-3
    alpha: NonNegative = 1.5
    threshold: Literal["dataset", "sample"] = "sample"
    saliency: Literal["absolute", "signed"] = "absolute"
    craft_against: Literal["prediction", "label"] = "prediction"
    attack_steps: Count = 40
    attack_step_size: Positive = 0.01


#: How steep the soft mask is at the threshold, for a saliency measured in mean saliencies.
SHARPNESS = 5.0


def saliency(
    classifier: nn.Module, x: Tensor, *, signed: bool = False, again: bool = False
) -> tuple[Tensor, Tensor]:
    """The two factors of S = ∂P/∂x or |∂P/∂x| (Eq. 3), P the probability of the predicted class.

    With o = z_ŷ - logsumexp of the other logits, P = σ(o) and ∂P/∂x = σ(o) σ(-o) ∂o/∂x exactly. Kept apart,
    the gradient never underflows, also where P is 1 in float32.

    Args:
        classifier: Images (N, C, H, W) -> logits (N, K).
        x: Images.
        signed: Whether the sign is kept.
        again: Whether the factors can be differentiated once more, so that a gradient flows back into x.

    Returns:
        max over channels of ∂o/∂x or |∂o/∂x|, as in Simonyan et al. 2013 (N, 1, H, W), and σ(o) σ(-o) (N,).
    """
    # Attack libraries call under no_grad; the saliency needs a gradient of its own.
    with torch.enable_grad():
        again = again and x.requires_grad
        leaf = x if again else x.detach().requires_grad_()
        logits = classifier(leaf)
        top = F.one_hot(logits.argmax(1), logits.shape[1]).bool()
        odds = logits[top] - logits.masked_fill(top, -torch.inf).logsumexp(1)
        (gradient,) = torch.autograd.grad(odds.sum(), leaf, create_graph=again)
        odds = odds if again else odds.detach()
        size = gradient if signed else gradient.abs()
        return size.amax(1, keepdim=True), odds.sigmoid() * (-odds).sigmoid()


def trivial_mask(gradient: Tensor, factor: Tensor, recipe: SurgeryRecipe, constant: Tensor) -> Tensor:
    """M_t = 1 - M_s (Eq. 4, 5): 0 where the saliency reaches the threshold, else 1; (N, 1, H, W) float32."""
    if recipe.threshold == "sample":
        # The factor is the same on both sides of the comparison and cancels.
        threshold = recipe.alpha * gradient.mean((1, 2, 3), keepdim=True)
        # The mean of a signed map may be negative; what does not speak for the class is not salient all the same.
        salient = (gradient >= threshold) & (gradient > 0)
    else:
        salient = gradient * factor.view(-1, 1, 1, 1) >= constant
    return (~salient).float()


def softly(mask: Tensor, gradient: Tensor, factor: Tensor, recipe: SurgeryRecipe, constant: Tensor) -> Tensor:
    """M_t as it is, with the backward pass of a sigmoid of the saliency instead of none.

    Args:
        mask: (N, 1, H, W), what `trivial_mask` says.
        gradient: First factor of the saliency, differentiable.
        factor: Second one, likewise.
        recipe: Which threshold it is.
        constant: The threshold where it is one for all images.
    """
    over, scale = beyond(gradient, factor, recipe, constant)
    soft = 1 - (SHARPNESS * over / scale).sigmoid()
    return mask + (soft - soft.detach())


def beyond(gradient: Tensor, factor: Tensor, recipe: SurgeryRecipe, constant: Tensor) -> tuple[Tensor, Tensor]:
    """How far the saliency of each pixel is beyond the threshold (N, 1, H, W), and the scale to see that in.

    Differentiable where the factors of the saliency are; the scale, a mean saliency, is taken as constant.
    """
    if recipe.threshold == "sample":
        threshold = (recipe.alpha * gradient.mean((1, 2, 3), keepdim=True)).clamp_min(0)
        scale = gradient.detach().abs().mean((1, 2, 3), keepdim=True)
        return gradient - threshold, scale.clamp_min(1e-30)
    return gradient * factor.view(-1, 1, 1, 1) - constant, constant.clamp_min(1e-30)
