"""How many operations an attack launches a step: what a small network on a GPU waits for.

    python benchmarks/launches.py

Counted on the CPU by torch's dispatcher, views left out, so that no load of the machine changes it: LeNet-5, one
step more of each attack, its passes included. `waits` are operations that make the host wait for the device.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchbox import Draws, ImageSpec, ThreatModel, View
from benchbox.contract import registry
from benchbox.nets.lenet import LeNet5

#: Operations that launch nothing.
VIEWS = frozenset(
    (
        "view", "detach", "expand", "slice", "select", "unsqueeze", "squeeze", "transpose", "t",
        "_unsafe_view", "alias", "split", "split_with_sizes", "as_strided", "permute", "empty", "empty_like",
        "empty_strided", "lift_fresh",
    )
)  # fmt: skip
WAITS = ("_local_scalar_dense", "nonzero", "equal")
#: Attacks, the field that says how many steps, a smaller and a larger number of them, and other settings.
ATTACKS: tuple[tuple[str, str, int, int, dict[str, int]], ...] = (
    ("pgd", "steps", 4, 8, {}),
    ("cw", "steps", 4, 8, {}),
    ("apgd-ce", "steps", 10, 20, {}),
    ("fab-t", "steps", 10, 20, {"targets": 1}),
    ("square", "queries", 100, 200, {}),
)


class Launches(TorchDispatchMode):
    """Counts what is launched while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in VIEWS:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def launched(name: str, x: Tensor, model: Any, **settings: int) -> Counter[str]:
    """What a run on images that stand launches."""
    y, draws = model(x).argmax(1), Draws(torch.arange(len(x)))
    attack = registry.attacks().get(name).cls.configure("mnist", **settings)
    with Launches() as counted:
        attack(View(lambda x, _: model(x), y, draws, batch=len(x)), x, y, ThreatModel("linf", 0.001), draws)
    return counted.counts


def main() -> None:
    torch.manual_seed(0)
    model, x = LeNet5(ImageSpec(1, 28, 10)).eval().requires_grad_(False), torch.rand(4, 1, 28, 28)
    with Launches() as forward:
        model(x)
    leaf = x.clone().requires_grad_()
    with Launches() as gradient:
        torch.autograd.grad(model(leaf).sum(), leaf)
    print(f"the network: {forward.counts.total()} forward, {gradient.counts.total()} forward and backward")
    for name, field, few, many, settings in ATTACKS:
        less, more = (launched(name, x, model, **settings, **{field: n}) for n in (few, many))
        steps = many - few
        waits = sum(more[wait] - less[wait] for wait in WAITS) / steps
        print(f"{name:8} {(more.total() - less.total()) / steps:5.1f} a step, {waits:.2f} waits")


if __name__ == "__main__":
    main()
