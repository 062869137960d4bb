"""What a gradient through a diffusion purifier costs, and what asking its draws together saves.

    python benchmarks/diffusion.py
    python benchmarks/diffusion.py --out cost.json --figure memory.svg    # as in docs/evidence

Memory is that of the tensors that are alive at once, at most, beside the weights and images that are there before;
weights are random, for they change neither memory nor time.
"""

from __future__ import annotations

import argparse
import json
import time
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchbox import View, sample_draws
from benchbox.contract import registry
from benchbox.data.catalogue import KNOWN
from benchbox.domain import ImageSpec

STEPS = (5, 10, 20, 50)
#: Of a gradient whose memory is measured, and of those that are timed or go through many steps.
MANY, IMAGES, DRAWS = 16, 4, 20
#: Steps whose memory is compared with that of DiffAttack, from t* = 1.
COMPARED = (10, 50, 200, 1000)


def purifier(steps: int, **fields: Any) -> Any:
    """DiffPure as it is set on MNIST, with so many reverse steps, on an untrained classifier."""
    none, diffpure = (registry.defenses().get(name).cls for name in ("none", "diffpure"))
    spec = ImageSpec(KNOWN["mnist"].channels, KNOWN["mnist"].size, 10, (0.13,), (0.31,))
    torch.manual_seed(0)
    classifier = none(none.configure("mnist", "mnist"), spec).classifier
    defense = diffpure(diffpure.configure("mnist", "mnist", steps=steps, **fields), spec, classifier)
    return defense.eval().requires_grad_(False)


def gradient(defense: Any, images: int) -> Tensor:
    """Of the first logit, at random images."""
    draws = sample_draws(images)
    x = draws.uniform(1, 28, 28).requires_grad_()
    return torch.autograd.grad(defense(x, draws)[:, 0].sum(), x)[0]


def deviated(defense: Any, images: int) -> Tensor:
    """DiffAttack's gradient, of a loss in every step, at random images."""
    draws, y = sample_draws(images), torch.zeros(images, dtype=torch.int64)
    view = View(defense, y, draws, randomized=True, walk=defense.trail)
    loss = registry.attacks().get("diffattack").cls().along(view, draws.uniform(1, 28, 28))
    return view.along(draws.uniform(1, 28, 28), lambda trail: loss(trail, y))[0]


class Layer(nn.Module):
    """The smallest of score models."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 1)

    def forward(self, blocks: Tensor, time: Tensor) -> Any:
        """As a UNet of diffusers answers."""
        return SimpleNamespace(sample=self.layer(blocks))


class Held(TorchDispatchMode):
    """Bytes of the tensors alive.

    Attributes:
        now: At this moment.
        most: At most, so far.
    """

    def __init__(self, before: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.most = 0
        self._alive = {tensor.untyped_storage()._cdata: None for tensor in before}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor) and (key := tensor.untyped_storage()._cdata) not in self._alive:
                self._meet(key, tensor.untyped_storage())
        return found

    def _meet(self, key: int, storage: Any) -> None:
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)

        def leave(_: object) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, leave)


def peak(found: Callable[[Any, int], Tensor], defense: Any, images: int) -> float:
    """Mebibytes that one gradient holds at most."""
    with Held([*defense.parameters(), *defense.buffers()]) as held:
        found(defense, images)
    return held.most / 2**20


def memory() -> list[dict[str, Any]]:
    """Peaks by number of steps, with the steps computed anew and with everything kept."""
    rows = []
    for steps in STEPS:
        defense = purifier(steps)
        found = {}
        for defense.checkpointed in (True, False):
            found[defense.checkpointed] = peak(gradient, defense, MANY)
        anew, kept = found[True], found[False]
        rows.append({"images": MANY, "reverse steps": steps, "computed anew, MiB": anew, "kept, MiB": kept})
        print(rows[-1], flush=True)
    return rows


def attacked() -> list[dict[str, Any]]:
    """Peaks of four images, computed anew: of the gradient, and of DiffAttack's, whose loss needs every state."""
    rows = []
    for steps in COMPARED:
        defense = purifier(steps, t_star=1)
        # Of a step nothing is kept but its states, so a score model will do with which the chain takes seconds.
        defense.score.unet = Layer(defense.score.patch**2).requires_grad_(False)
        found = {
            "gradient, MiB": peak(gradient, defense, IMAGES),
            "DiffAttack's, MiB": peak(deviated, defense, IMAGES),
        }
        rows.append({"images": IMAGES, "reverse steps": steps, **found})
        print(rows[-1], flush=True)
    return rows


def growth(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the most steps need, as a multiple of what the fewest do."""
    first, *_, last = rows
    said = f"peak of {last['reverse steps']} steps / of {first['reverse steps']}"
    return [{said: key[:-5], "ratio": last[key] / first[key]} for key in ("computed anew, MiB", "kept, MiB")]


def together() -> list[dict[str, Any]]:
    """CPU seconds of one EOT-20 gradient of four images: the draws as copies in one batch, and one by one."""
    defense = purifier(5)
    draws, y = sample_draws(IMAGES), torch.zeros(IMAGES, dtype=torch.int64)
    x = draws.uniform(1, 28, 28)
    seconds: dict[str, float] = {}
    for said, batch in (("copies in one batch", 125), ("a loop over draws", None)):
        view = View(defense, y, draws, randomized=True, eot=DRAWS, batch=batch)
        view.gradient(x, lambda logits: logits[:, 0])
        start = time.process_time()
        for _ in range(3):
            view.gradient(x, lambda logits: logits[:, 0])
        seconds[said] = (time.process_time() - start) / 3
    ratio = seconds["copies in one batch"] / seconds["a loop over draws"]
    print(seconds, ratio, flush=True)
    return [{"EOT-20 gradient of 4 images, CPU s": said, "seconds": value} for said, value in seconds.items()] + [
        {"EOT-20 gradient of 4 images, CPU s": "ratio", "seconds": ratio}
    ]


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Memory against steps."""
    from benchbox.figures.style import canvas

    figure = canvas(4.8, 3.0)
    axes = figure.add_subplot()
    for key, marker in (("kept, MiB", "s"), ("computed anew, MiB", "o")):
        axes.plot(
            [row["reverse steps"] for row in rows], [row[key] for row in rows], marker=marker, label=key[:-5]
        )
    axes.set_xlabel("reverse steps")
    axes.set_ylabel("peak memory of a gradient, MiB")
    axes.set_ylim(0)
    axes.legend(frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, bbox_inches="tight")


if __name__ == "__main__":
    words = argparse.ArgumentParser()
    words.add_argument("--out", type=Path, help="where the numbers are written, too")
    words.add_argument("--figure", type=Path, help="where memory against steps is drawn")
    asked = words.parse_args()
    torch.set_num_threads(1)
    peaks = memory()
    found = {
        "memory": peaks,
        "growth": growth(peaks),
        "together": together(),
        "attacked": attacked(),
        "torch": torch.__version__,
    }
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if asked.figure:
        draw(peaks, asked.figure)
