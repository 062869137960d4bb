"""A big store: seconds of CPU and megabytes that its commands take.

    python benchmarks/store.py                        10,000 cells of 1,000 images
    python benchmarks/store.py --cells 1000 --keep big.sqlite

Outcomes are made up; what is measured are `list`, `show`, `compare` and `report` in processes of their own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchbox.domain import Access, Cell, Outcome, SampleList, Spec, ThreatModel, ViewSpec
from benchbox.store import Store
from benchbox.store.database import transaction

ATTACKS = ("null", "fgsm", "bim", "mim", "pgd", "cw", "aa", "square")
ACCESSES = (Access.GRAY_BOX, Access.WHITE_BOX, Access.BPDA, Access.TRANSFER)

MEASURE = """
import resource, sys
from benchbox.cli import main
status = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
print(f"{used.ru_utime + used.ru_stime} {used.ru_maxrss / 1024} {status}", file=sys.stderr)
"""


def cells(count: int, images: int) -> Iterator[Cell]:
    """Defences of 32 cells each: every attack under every access."""
    samples = SampleList("mnist", "test", tuple(range(images)), "d" * 64)
    for i in range(count):
        defense, rest = divmod(i, len(ATTACKS) * len(ACCESSES))
        access, attack = divmod(rest, len(ATTACKS))
        weights = f"{defense:064x}"
        yield Cell(
            Spec(f"defense-{defense:04d}", {"alpha": 1.5, "epochs": 30}, "benchbox/1"),
            weights,
            Spec(ATTACKS[attack], {"steps": 40, "step_size": 0.01}, "benchbox/1"),
            ACCESSES[access],
            ViewSpec(f"{access:064x}" if access in (0, 3) else weights, "identity" if access == 2 else None),
            ThreatModel("linf", 0.3),
            samples,
        )


def outcome(cell: Cell, seed: int) -> Outcome:
    """Half of the images fall; numbers as an attack leaves them."""
    rng = np.random.default_rng(seed)
    n = len(cell.samples)
    label = np.random.default_rng(0).integers(0, 10, n)
    fallen = rng.random(n) < 0.5
    wrong = (label + 1 + rng.integers(0, 9, n)) % 10
    return Outcome(
        np.arange(n),
        label,
        np.where(np.random.default_rng(1).random(n) < 0.01, wrong, label)[:, None],
        np.where(fallen, wrong, label)[:, None],
        np.where(fallen, rng.integers(1, 40, n), -1),
        rng.choice(np.array([0.3, 0.29999998, 0.30000004], np.float32), n).astype(np.float64),
        (4 + rng.random(n, np.float32)).astype(np.float64),
        np.full(n, 41.0),
        np.full(n, 40.0),
    )


def fill(path: Path, count: int, images: int) -> None:
    """Through the store itself, a thousand cells a transaction: one each would measure the disk."""
    from benchbox.store import batches
    from benchbox.store import cells as cells_of

    with Store.open(path) as store:
        request = {"defenses": ["defense"], "dataset": "mnist", "attacks": list(ATTACKS)}
        run = store.begin_run(
            request, {"commit": "abc", "packages": {"torch": "2.6"}, "command": ["benchbox", "run"]}
        )
        todo = list(cells(count, images))
        for start in range(0, count, 1000):
            with transaction(store._engine, write=True) as connection:
                some = todo[start : start + 1000]
                for cell in some:
                    cells_of.add(connection, cell, run)
                made = [batches.Batch(cell, outcome(cell, i), 2.5) for i, cell in enumerate(some, start)]
                batches.commit(connection, made, {})
        store.finish_run(run, "done")


def measure(words: list[str], folder: str) -> tuple[float, float, float, int]:
    """Seconds of CPU, megabytes, seconds on the clock, exit status; pages are written into the folder."""
    begun = time.perf_counter()
    command = [sys.executable, "-c", MEASURE, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    try:
        cpu, memory, status = done.stderr.strip().splitlines()[-1].split()
    except (IndexError, ValueError):
        raise SystemExit(f"{' '.join(words)}: {done.stderr}") from None
    return float(cpu), float(memory), time.perf_counter() - begun, int(status)


def main() -> None:
    """Make the store, run the commands, print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=1_000)
    parser.add_argument("--keep", type=Path, help="Make the store here, and use it if it is there.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = asked.keep or Path(folder) / "big.sqlite"
        begun = time.perf_counter()
        if not path.exists():
            fill(path, asked.cells, asked.images)
        print(f"{asked.cells:,} cells of {asked.images:,} images: {path.stat().st_size / 2**20:.0f} MB, ", end="")
        print(f"made in {time.perf_counter() - begun:.0f} s")
        key = next(cells(1, asked.images)).key[:12]
        commands = (
            ["list", "runs"],
            ["list", "cells"],
            ["list", "cells", "--defense", "defense-0007"],
            ["show", key],
            ["show", "defense-0007/white-box/pgd"],
            ["doctor"],
            ["compare", "defense-0001", "defense-0002"],
            *(["report", "--format", kind] for kind in ("csv", "json", "markdown", "html", "latex")),
            ["report"],
        )
        for words in commands:
            cpu, memory, clock, status = measure([*words, "--store", str(path.absolute())], folder)
            print(
                f"{cpu:7.2f} s CPU {clock:7.2f} s {memory:6.0f} MB  exit {status}  benchbox {' '.join(words)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
