"""What a trained model does to a few images, as arrays that a figure can draw. Torch is loaded here alone.

Attacks are made on the bare classifier (gray-box), as in the figures of the papers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from benchbox.contract.defense import Purifier
from benchbox.draws import Draws
from benchbox.engine.once import craft
from benchbox.errors import RequestError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchbox.contract.defense import Defense
    from benchbox.data.dataset import Dataset
    from benchbox.domain import ThreatModel
    from benchbox.engine.session import Session

#: The stage of a surgery that says which pixels stay.
MASK = "trivial mask"


@dataclass(frozen=True)
class Stage:
    """Images on their way through a defence.

    Attributes:
        name: What they are.
        images: (N, C, H, W) in [0, 1].
        predicted: (N,) class that the bare classifier sees in them; None where they are no images to classify.
        confidence: (N,) probability of that class.
        heat: (N, H, W) Grad-CAM of the classifier, in [0, 1].
    """

    name: str
    images: NDArray[np.float32]
    predicted: NDArray[np.int64] | None = None
    confidence: NDArray[np.float32] | None = None
    heat: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Specimens:
    """A few images, and how they were attacked.

    Attributes:
        dataset: Name.
        indices: (N,) in the test split.
        label: (N,) true classes.
        x: (N, C, H, W) clean.
        attacked: By name of the attack.
    """

    dataset: Dataset
    threat: ThreatModel
    indices: tuple[int, ...]
    label: Tensor
    x: Tensor
    attacked: Mapping[str, Tensor] = field(default_factory=dict)


def one_of_each_class(dataset: Dataset, n: int) -> tuple[int, ...]:
    """The first test image of each of the first n classes: nobody has picked them."""
    y = dataset.test.y
    found = [int((y == k).nonzero()[0]) for k in range(n) if bool((y == k).any())]
    if not found:
        raise RequestError(f"{dataset.name} has no test image of the first {n} classes; ask for more --samples")
    return tuple(found)


def attacked(
    session: Session,
    dataset: Dataset,
    defense: Defense,
    threat: ThreatModel,
    indices: Sequence[int],
    attacks: Sequence[str],
) -> Specimens:
    """Test images and what attacks make of them on the bare classifier.

    Raises:
        RequestError: There is no such attack.
    """
    x, y = dataset.test.batch(list(indices))
    made = {}
    for name in attacks:
        plugin = session.attacks.get(name)
        attack = plugin.cls.configure(dataset.family, dataset.name, **plugin.preset)
        made[name] = craft(
            attack, defense.classifier, x, y, threat.norm, threat.epsilon, seed=0, randomized=False, eot=1
        )
    return Specimens(dataset, threat, tuple(indices), y, x, made)


def stages(defense: Defense, x: Tensor, indices: Sequence[int]) -> dict[str, Tensor]:
    """The images on their way through a purifier, in its own words; the last are what the classifier sees.

    Raises:
        RequestError: It is no purifier.
    """
    if not isinstance(defense, Purifier):
        raise RequestError(f"{defense.card.name} changes no image; name a purifier with --defense")
    with torch.no_grad():
        return dict(defense.stages(x, Draws(torch.tensor(list(indices)), 0)))


def seen(classifier: nn.Module, name: str, x: Tensor) -> Stage:
    """Images with what the classifier says of them."""
    with torch.no_grad():
        confidence, predicted = classifier(x).softmax(1).max(1)
    return Stage(name, x.numpy(), predicted.numpy(), confidence.numpy())


def grad_cam(classifier: nn.Module, x: Tensor) -> NDArray[np.float32]:
    """(N, H, W) in [0, 1]: where the last convolution finds the predicted class (Selvaraju et al. 2017, Eq. 1, 2).

    Raises:
        RequestError: The classifier has no convolution.
    """
    layers = [module for module in classifier.modules() if isinstance(module, nn.Conv2d)]
    if not layers:
        raise RequestError("Grad-CAM needs a convolution, and the classifier has none")
    kept: list[Tensor] = []
    hook = layers[-1].register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        with torch.enable_grad():
            logits = classifier(x.clone().requires_grad_())
            (gradient,) = torch.autograd.grad(logits.max(1).values.sum(), kept[0])
    finally:
        hook.remove()
    weights = gradient.mean((2, 3), keepdim=True)
    cam = (weights * kept[0].detach()).sum(1, keepdim=True).relu()
    cam = nn.functional.interpolate(cam, x.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    return (cam / cam.amax((1, 2), keepdim=True).clamp_min(1e-12)).numpy()


def penultimate(classifier: nn.Module, x: Tensor) -> NDArray[np.float32]:
    """(N, D): what the last linear layer is given.

    Raises:
        RequestError: The classifier has no linear layer.
    """
    layers = [module for module in classifier.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise RequestError("the figure needs a last linear layer, and the classifier has none")
    kept: list[Tensor] = []
    hook = layers[-1].register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0]))
    try:
        with torch.no_grad():
            classifier(x)
    finally:
        hook.remove()
    return kept[0].flatten(1).numpy()


def t_sne(features: Sequence[NDArray[np.float32]], seed: int = 0) -> list[NDArray[np.float32]]:
    """Each (N, D) as (N, 2), by itself (van der Maaten and Hinton 2008)."""
    from sklearn.manifold import TSNE

    made = []
    for one in features:
        perplexity = min(30.0, max(2.0, (len(one) - 1) / 3))
        made.append(TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(one))
    return made


def decomposed(x: Tensor, x_adv: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """The whole perturbation, its salient and its trivial part, each added to the clean image.

    Args:
        x: (N, C, H, W) clean.
        x_adv: Attacked.
        mask: (N, 1, H, W), 1 where a pixel is trivial.
    """
    delta = x_adv - x
    return {"full": x_adv, "salient": x + delta * (1 - mask), "trivial": x + delta * mask}


def right(classifier: nn.Module, x: Tensor, y: Tensor) -> NDArray[np.bool_]:
    """(N, 1) whether each image is classified correctly."""
    with torch.no_grad():
        return (classifier(x).argmax(1) == y).numpy()[:, None]  # type: ignore[no-any-return]
