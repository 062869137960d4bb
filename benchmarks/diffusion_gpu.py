"""What a score model of CIFAR-10's size costs on a GPU: memory against reverse steps, and an EOT-20 step of PGD.

    python benchmarks/diffusion_gpu.py docs/evidence/diffusion-gpu.json
    python benchmarks/diffusion_gpu.py /tmp/x.json --device cpu --width 8       # a rehearsal: does it run?

DiffPure as it is set for CIFAR-10 (the UNet of Ho et al.'s DDPM, weights random) before ResNet-18, likewise.
Memory is the most that torch has allocated for one gradient beyond what lay there before; on a processor it is not
read.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchbox import Draws, ThreatModel, View, ascend, cross_entropy, sample_draws
from benchbox.contract import registry
from benchbox.data.catalogue import KNOWN
from benchbox.domain import ImageSpec
from benchbox.training.layout import is_out_of_memory

STEPS, IMAGES = (5, 10, 20, 50), 4
#: Draws of a gradient, reverse steps it goes through, rows of one call, rounds of which the best counts.
DRAWS, REVERSE, TOGETHER, ROUNDS = 20, 5, 80, 2
MIB = 2**20


def purifier(where: torch.device, steps: int, **fields: Any) -> Any:
    """DiffPure of CIFAR-10 with so many reverse steps, untrained."""
    none, diffpure = (registry.defenses().get(name).cls for name in ("none", "diffpure"))
    spec = ImageSpec(KNOWN["cifar10"].channels, KNOWN["cifar10"].size, 10, (0.5,) * 3, (0.25,) * 3)
    torch.manual_seed(0)
    classifier = none(none.configure("cifar", "cifar10"), spec).classifier
    defense = diffpure(diffpure.configure("cifar", "cifar10", steps=steps, **fields), spec, classifier)
    return defense.to(where).eval().requires_grad_(False)


def images(where: torch.device) -> tuple[torch.Tensor, torch.Tensor, Draws]:
    """Random ones."""
    draws = sample_draws(IMAGES, device=where)
    return draws.uniform(3, 32, 32), torch.zeros(IMAGES, dtype=torch.int64, device=where), draws


def peak(defense: Any, where: torch.device) -> float | str:
    """Mebibytes of one gradient."""
    x, y, draws = images(where)
    view = View(defense, y, draws, randomized=True)
    if where.type != "cuda":
        view.gradient(x, lambda logits: cross_entropy(logits, y))
        return "not read"
    try:
        for _ in range(2):  # the first makes cuDNN's choices
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            view.gradient(x, lambda logits: cross_entropy(logits, y))
            torch.cuda.synchronize()
            most = torch.cuda.max_memory_allocated() - before
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return "out of memory"
    return round(most / MIB, 1)


def memory(where: torch.device, fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Peaks by number of steps, with the steps computed anew and with everything kept."""
    rows = []
    for steps in STEPS:
        defense = purifier(where, steps, **fields)
        row: dict[str, Any] = {"reverse steps": steps}
        for said, defense.checkpointed in (("computed anew, MiB", True), ("kept, MiB", False)):
            row[said] = peak(defense, where)
        rows.append(row)
        print(row, flush=True)
    return rows


def steps_of_pgd(where: torch.device, fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Seconds of one EOT-20 step of PGD on four images: draws as copies in one batch, and one by one."""
    defense = purifier(where, REVERSE, **fields)
    x, y, draws = images(where)
    threat = ThreatModel("linf", 8 / 255)
    views = {
        "copies in one batch": View(defense, y, draws, randomized=True, eot=DRAWS, batch=TOGETHER),
        "a loop over draws": View(defense, y, draws, randomized=True, eot=DRAWS),
    }
    spent: dict[str, list[float]] = {said: [] for said in views}
    for _ in range(ROUNDS + 1):  # in turn, so that what else the machine does meets both
        for said, view in views.items():
            step = lambda view=view: ascend(view, x, y, threat, start=x, steps=1, step_size=2 / 255)  # noqa: E731
            spent[said].append(seconds(step, where))
    best = {said: min(times[1:]) for said, times in spent.items()}
    best["ratio"] = best["copies in one batch"] / best["a loop over draws"]
    rows = [{"EOT-20 step of PGD, 4 images, 5 reverse steps": k, "seconds": round(v, 4)} for k, v in best.items()]
    print(rows, flush=True)
    return rows


def seconds(call: Callable[[], Any], where: torch.device) -> float:
    """How long it takes, to its end on the device."""
    start = time.perf_counter()
    call()
    if where.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--width", type=int, help="channels of the UNet, if not those of CIFAR-10's")
    asked = parser.parse_args()
    where = torch.device(asked.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    fields: dict[str, Any] = {"width": asked.width} if asked.width else {}
    name = torch.cuda.get_device_name() if where.type == "cuda" else "a processor"
    found: dict[str, Any] = {"device": name, "torch": torch.__version__}
    found["parameters"] = sum(p.numel() for p in purifier(where, 5, **fields).score.parameters())
    for part, measure in (("together", steps_of_pgd), ("memory", memory)):
        found[part] = measure(where, fields)
        asked.file.parent.mkdir(parents=True, exist_ok=True)
        asked.file.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
