"""What the layers inside a network compute, for defences that read a classifier's mind."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from benchbox import RequestError, unknown


def outputs_of(network: nn.Module, layers: Sequence[str], x: Tensor) -> list[Tensor]:
    """The outputs of some layers for a batch of images, differentiable in the images.

    Of a convolution or a linear layer that a norm or an activation follows, these are the pre-activations. The
    hooks live for this one call, so nothing is kept between calls.

    Args:
        network: Images (N, C, H, W) -> anything.
        layers: Names of its modules, as in `named_modules`. Of one that is called twice, the last call counts.
        x: The images.

    Returns:
        One tensor a layer, in the order of `layers`.

    Raises:
        RequestError: There is no such layer, or the forward pass does not use it.
    """
    modules = dict(network.named_modules())
    found: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        # A copy: the activation that follows may work in place.
        found[name] = output.clone()

    for name in layers:
        if name not in modules:
            raise unknown(f"layer of {type(network).__name__}", name, modules)
    handles = [modules[name].register_forward_hook(partial(keep, name)) for name in layers]
    try:
        network(x)
    finally:
        for handle in handles:
            handle.remove()
    for name in layers:
        if name not in found:
            raise RequestError(
                f"the forward pass of {type(network).__name__} does not use layer {name!r}; name another"
            )
    return [found[name] for name in layers]


def weighted_layers(network: nn.Module) -> list[str]:
    """Names of every convolution and linear layer, the logits' included, in the order they were registered.

    Raises:
        RequestError: There is none.
    """
    return _named(network, nn.Conv2d, nn.Linear)


def inner_convolutions(network: nn.Module, most: int = 27) -> list[str]:
    """Names of every convolution but the first, shortcuts included; evenly spaced ones where there are too many.

    Args:
        network: Its convolutions are taken in the order they were registered.
        most: How many at most: a WRN-28-10 has 27 behind its stem, a ResNet-18 19, a DenseNet-121 119.

    Raises:
        RequestError: There is no convolution.
    """
    names = _named(network, nn.Conv2d)
    names = names[1:] or names
    if len(names) <= most:
        return names
    return [names[round(i * (len(names) - 1) / (most - 1))] for i in range(most)]


def _named(network: nn.Module, *kinds: type[nn.Module]) -> list[str]:
    names = [name for name, module in network.named_modules() if isinstance(module, kinds)]
    if not names:
        raise RequestError(
            f"{type(network).__name__} has no {' or '.join(kind.__name__ for kind in kinds)} to record; "
            "name layers of other kinds"
        )
    return names
