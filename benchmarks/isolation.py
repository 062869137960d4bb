"""What `--isolate` costs, here and apart: a gradient of LeNet-5 on a batch of digits and of MNIST-sized images,
and a short training on digits.

python benchmarks/isolation.py [asking|training]
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchbox.contract import registry
from benchbox.contract.ascent import margin
from benchbox.data.dataset import load
from benchbox.domain import ImageSpec, Spec, ThreatModel
from benchbox.draws import sample_draws
from benchbox.engine.isolation import apart
from benchbox.engine.isolation.stranger import Stranger
from benchbox.engine.judge import Judge
from benchbox.training.artifacts import Artifacts, Training
from benchbox.training.layout import Layout
from benchbox.training.workshop import Workshop

IMAGES, REPEATS = 125, 60
#: Passes over the 1,437 training images of digits.
EPOCHS = 10


def main() -> None:
    asked = sys.argv[1:] or ["asking", "training"]
    if "asking" in asked:
        asking()
    if "training" in asked:
        training()


def asking() -> None:
    defenses = registry.defenses()
    cls = defenses.get("none").cls
    for size in (8, 28):
        spec = ImageSpec(1, size, 10, (0.5,), (0.3,))
        recipe = cls.configure("mnist", network="lenet5")
        wanted = Training(Spec("none", recipe.identity(), "benchbox/1"), "any", "", 0, ThreatModel("linf", 0.3))
        with tempfile.TemporaryDirectory() as folder:
            kept = Artifacts(Path(folder))
            here = cls(recipe, spec).eval().requires_grad_(False)
            kept.save(wanted, here, {})
            begin = time.perf_counter()
            there = apart.Apart(spec, kept, defenses, torch.device("cpu")).load(wanted)
            print(f"{size}×{size}: the process is there after {time.perf_counter() - begin:.1f} s")
            for name, defense in (("here", here), ("apart", there), ("here", here), ("apart", there)):
                print(f"  {name}: {1000 * _seconds(defense, spec):.2f} ms of a processor for a gradient")


def training() -> None:
    defenses, dataset, where = registry.defenses(), load("digits"), torch.device("cpu")
    recipe = defenses.get("none").cls.configure("digits", network="lenet5", epochs=EPOCHS)
    wanted = Training(Spec("none", recipe.identity(), "benchbox/1"), "digits", "", 0, ThreatModel("linf", 0.1))
    for name in ("here", "apart") * 2:
        with tempfile.TemporaryDirectory() as folder:
            kept = Artifacts(Path(folder))
            other = apart.Apart(dataset.spec, kept, defenses, where) if name == "apart" else None
            begin, spent = time.perf_counter(), _of_all()
            shop = Workshop(kept, defenses, dataset, where, apart=other)
            if other is None:
                shop.obtain(wanted)
            else:
                other.train(wanted, shop)
            took, used = time.perf_counter() - begin, _of_all() - spent
            print(f"{EPOCHS} epochs of digits {name}: {used:.1f} s of a processor, {took:.1f} s")


def _of_all() -> float:
    """Processor time of this process and of those that ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def _seconds(defense: object, spec: ImageSpec) -> float:
    """Processor time of a gradient, of both processes: a busy machine changes it little."""
    x, y = sample_draws(IMAGES).uniform(*spec.shape), torch.arange(IMAGES) % 10
    view = Judge(defense, Layout(batch=IMAGES)).view(y, sample_draws(IMAGES))  # type: ignore[arg-type]
    begin = _spent(defense)
    for _ in range(REPEATS):
        view.gradient(x, lambda logits: margin(logits, y))
    return (_spent(defense) - begin) / REPEATS


def _spent(defense: object) -> float:
    spent = time.process_time()
    if isinstance(defense, Stranger):
        fields = Path(f"/proc/{defense.process.pid}/stat").read_text().rpartition(")")[2].split()
        spent += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return spent


if __name__ == "__main__":
    main()
