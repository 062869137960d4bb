"""What a transfer result is worth: how good the substitute is, and how much it is like the target."""

from __future__ import annotations

import torch
from torch import Tensor

from benchbox.engine.judge import Judge, Streams

BATCH = 500


def describe(substitute: Judge, target: Judge, x: Tensor, x_adv: Tensor, y: Tensor) -> dict[str, float]:
    """The three numbers without which a low transfer rate means nothing.

    Args:
        substitute: The model the attack was given.
        target: The deployed defence.
        x: (N, C, H, W) clean images.
        x_adv: (N, C, H, W) adversarial images, crafted on the substitute.
        y: (N,) true classes.

    Returns:
        `source_accuracy`: share of clean images the substitute gets right; `source_success`: share of these that
        the attack turned, on the substitute itself; `agreement`: share of clean images on which substitute and
        target predict the same class. All in [0, 1].
    """
    clean, attacked = _predicted(substitute, x), _predicted(substitute, x_adv)
    deployed = _predicted(target, x)
    right = clean == y
    return {
        "source_accuracy": float(right.float().mean()),
        "source_success": float((attacked != y)[right].float().mean()) if bool(right.any()) else 0.0,
        "agreement": float((clean == deployed).float().mean()),
    }


def _predicted(judge: Judge, x: Tensor) -> Tensor:
    found = []
    with torch.no_grad():
        for part in x.split(BATCH):
            streams = Streams(range(len(part)), 0, x.device)
            judge.reveal(part, streams)
            found.append(judge.ask(part, streams.samples).argmax(1))
    return torch.cat(found)
