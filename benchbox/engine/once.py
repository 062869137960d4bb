"""One attack on one batch, outside of any plan: nothing is stored."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchbox.contract.attack import Attack
from benchbox.contract.defense import Defense
from benchbox.contract.view import View
from benchbox.domain import Norm, ThreatModel
from benchbox.draws import Draws
from benchbox.engine.gradients import blind
from benchbox.engine.lent import borrowed
from benchbox.errors import DataError, RequestError


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
        DataError: The images are not in [0, 1], or not one label an image.
        AttackError: The attack broke its contract.
        DefenseError: Not one gradient of the model is finite.
    """
    if not isinstance(model, nn.Module):
        raise RequestError(f"{type(model).__name__} is no torch.nn.Module; wrap it in one")
    _check(x, y)
    first = next(model.parameters(), None)
    place = x.device if first is None else first.device
    dtype = first.dtype if first is not None and first.is_floating_point() else torch.float32
    images, labels = x.detach().to(place, torch.float32).contiguous(), y.to(place, torch.int64)
    stream = Draws(torch.arange(len(x), device=place), seed).at("craft", attack.card.name)

    def forward(batch: Tensor, draws: Draws) -> Tensor:
        if isinstance(model, Defense):
            return model(batch, draws)  # type: ignore[no-any-return]
        return model(batch.to(dtype)).float()  # type: ignore[no-any-return]

    randomized = model.randomized if isinstance(model, Defense) else randomized
    with borrowed(model):
        view = View(forward, labels, stream.at("model"), randomized=randomized, eot=eot)
        crafted = attack(view, images, labels, ThreatModel(norm, epsilon), stream)
        if crafted.blind:
            raise blind(model.card.name if isinstance(model, Defense) else type(model).__name__)
        return crafted.x.to(x.device)


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
