"""What tests of trained purifiers share: a short training, and the way to disk and back."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import digits
import torch

from benchbox.contract.defense import Purifier
from benchbox.data.dataset import Images
from benchbox.domain import ImageSpec, ThreatModel
from benchbox.draws import sample_draws
from benchbox.training.artifacts import load_tensors, save_tensors
from benchbox.training.loop import fit


def trained(defense: Purifier, threat: ThreatModel) -> Sequence[dict[str, float]]:
    """The mean losses of each epoch of a training on 200 digits, which leaves the classifier as it was."""
    x, y = digits.images()
    images = Images((x[:200] * 255).to(torch.uint8), y[:200])
    defense.requires_grad_().classifier.requires_grad_(False)
    before = {k: v.clone() for k, v in defense.classifier.state_dict().items()}
    history = fit(defense, defense.recipe, images, threat=threat, seed=0, device=torch.device("cpu"))
    for name, value in defense.classifier.state_dict().items():
        assert torch.equal(value, before[name])
    return history


def comes_back(defense: Purifier, spec: ImageSpec, folder: Path) -> bool:
    """Whether a defence answers the same when its weights are read into another one of its kind."""
    save_tensors(folder / "w.safetensors", defense.state_dict(), {})
    torch.manual_seed(99)
    again = type(defense)(defense.recipe, spec, copy.deepcopy(digits.classifier()))
    again.load_state_dict(load_tensors(folder / "w.safetensors")[0], strict=True)
    again.to(memory_format=torch.channels_last)  # as the engine does; it rounds otherwise
    x, draws = digits.images()[0][:10], sample_draws(10)
    return torch.equal(again.eval()(x, draws), defense.eval()(x, draws))
