"""One attack on one batch, outside of any plan: nothing is stored."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchbox.contract import border
from benchbox.contract.attack import Attack
from benchbox.contract.defense import Defense
from benchbox.contract.view import View
from benchbox.domain import Norm, ThreatModel
from benchbox.draws import Draws
from benchbox.engine.gradients import blind
from benchbox.engine.lent import borrowed
from benchbox.errors import DataError, DefenseError, RequestError
from benchbox.training.layout import is_out_of_memory

Ask = Callable[[Tensor, Draws], Tensor]


def craft(
    attack: Attack,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    norm: Norm,
    epsilon: float,
    *,
    seed: int,
    randomized: bool,
    eot: int,
) -> Tensor:
    """Adversarial images (N, C, H, W) float32, on the device of `x`; see `benchbox.attack`.

    Raises:
        RequestError: The model is no module.
        DataError: The images are not in [0, 1], or not one label an image, or the model has no such class.
        AttackError: The attack broke its contract.
        DefenseError: The model does not take such images, or not one of its gradients is finite.
    """
    if not isinstance(model, nn.Module):
        raise RequestError(f"{type(model).__name__} is no torch.nn.Module; wrap it in one")
    _check(x, y)
    first = next(model.parameters(), None)
    place = x.device if first is None else first.device
    dtype = first.dtype if first is not None and first.is_floating_point() else torch.float32
    images, labels = x.detach().to(place, torch.float32).contiguous(), y.to(place, torch.int64)
    stream = Draws(torch.arange(len(x), device=place), seed).at("craft", attack.card.name)

    def ask(batch: Tensor, draws: Draws) -> Tensor:
        if isinstance(model, Defense):
            return model(batch, draws)  # type: ignore[no-any-return]
        return model(batch.to(dtype)).float()  # type: ignore[no-any-return]

    forward = _fitting(ask, images, labels, type(model).__name__)
    randomized = model.randomized if isinstance(model, Defense) else randomized
    with borrowed(model):
        view = View(forward, labels, stream.at("model"), randomized=randomized, eot=eot)
        crafted = attack(view, images, labels, ThreatModel(norm, epsilon), stream)
        if crafted.blind:
            raise blind(model.card.name if isinstance(model, Defense) else type(model).__name__)
        return crafted.x.to(x.device)


def _fitting(ask: Ask, x: Tensor, y: Tensor, name: str) -> Ask:
    """A model whose first call tells whether images and labels are such as it takes."""
    asked = False

    def forward(batch: Tensor, draws: Draws) -> Tensor:
        nonlocal asked
        if asked:
            return ask(batch, draws)
        try:
            logits = ask(batch, draws)
        except (RuntimeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            raise DefenseError(
                f"{name} cannot take images {tuple(x.shape)}: {border.reason(error)}; give images of the shape it "
                "was trained on"
            ) from error
        if logits.ndim != 2:
            raise DefenseError(f"{name} returns {tuple(logits.shape)}, expected logits (N, K); return these alone")
        if len(wrong := y[(y < 0) | (y >= logits.shape[1])]):
            raise DataError(
                f"a label is {int(wrong[0])}, and {name} has the classes 0 to {logits.shape[1] - 1}; give labels "
                "of the classes it was trained on"
            )
        asked = True
        return logits

    return forward


def _check(x: Tensor, y: Tensor) -> None:
    if x.ndim != 4 or not x.is_floating_point():
        raise DataError(f"images are {x.dtype} {tuple(x.shape)}; give (N, C, H, W) float32 in [0, 1]")
    if y.shape != x.shape[:1] or y.is_floating_point():
        raise DataError(
            f"labels are {y.dtype} {tuple(y.shape)} for {len(x)} images; give one class number an image"
        )
    if len(x) and not (bool(x.isfinite().all()) and float(x.min()) >= 0 and float(x.max()) <= 1):
        raise DataError(
            f"images are in [{float(x.min()):g}, {float(x.max()):g}], expected [0, 1]; divide by 255, and let the "
            "model normalise"
        )
