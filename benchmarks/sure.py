"""What AutoAttack saves on a defence that draws by letting go of who errs in many draws, all of them.

    python benchmarks/sure.py --defense carso --dataset digits --samples 40
    python benchmarks/sure.py --defense atop --dataset mnist --samples 16 --seed 1 --artifacts results/artifacts

Both searches are of the same images of one trained defence, on one thread, and scored in the same fresh draws.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import benchbox
from benchbox.domain import Evidence

DRAWS, SURE = 20, 100


@dataclass(frozen=True)
class Attacked:
    """A search of all images.

    Attributes:
        seconds: CPU time, scoring included.
        cell: What came of it.
    """

    seconds: float
    cell: Evidence

    @property
    def gradients(self) -> float:
        """An image, on average."""
        return float(self.cell.outcome.backwards.mean())

    @property
    def percent(self) -> float:
        """Expected accuracy."""
        return 100 * float(self.cell.outcome.robust.mean())


def attacked(asked: argparse.Namespace, store: Path, **settings: int) -> Attacked:
    """AutoAttack on the whole defence; trains it where that is not done."""
    begun = time.process_time()
    result = benchbox.evaluate(
        asked.defense,
        dataset=asked.dataset,
        attacks=["aa"] if settings else ["null"],
        access=["white-box"],
        samples=asked.samples,
        sample_seed=0,
        seeds=[asked.seed],
        eot=DRAWS,
        set=asked.set | ({"aa": settings} if settings else {}),
        store=store,
        progress=False,
    )
    cells = {item.cell.attack.name: item for item in result.evidence}
    return Attacked(time.process_time() - begun, cells["aa" if settings else "null"])


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--defense", default="carso")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of its training")
    parser.add_argument("--epochs", type=int, help="of its training")
    parser.add_argument("--artifacts", type=Path, help="a folder of trained weights")
    asked = parser.parse_args()
    asked.set: dict[str, Any] = {asked.defense: {"epochs": asked.epochs}} if asked.epochs else {}
    return asked


def main() -> None:
    asked = parsed()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "benchbox.sqlite"
        if asked.artifacts:
            shutil.copytree(asked.artifacts, Path(folder) / "artifacts")
        attacked(asked, store)  # trains, loads, warms up
        sure, whole = attacked(asked, store, sure=SURE), attacked(asked, store, sure=0)
    print(f"{asked.defense} on {asked.samples} images of {asked.dataset}, {DRAWS} draws a gradient")
    for name, found in (("to the end", whole), (f"sure after {SURE} draws", sure)):
        numbers = f"{found.percent:5.1f} % right, {found.gradients:6.0f} gradients an image"
        print(f"{name:22} {numbers}, {found.seconds:.0f} s")
    print(f"ratio                  {sure.gradients / whole.gradients:.2f} of the gradients, ", end="")
    print(f"{sure.seconds / whole.seconds:.2f} of the time")


if __name__ == "__main__":
    main()
