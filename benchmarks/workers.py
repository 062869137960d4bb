"""What sharing the work gains: the same command in one process, with workers beside it, and on Ray.

    python benchmarks/workers.py                                          # digits, some minutes
    python benchmarks/workers.py --dataset mnist --samples 1000 --rounds 3

Every cell anew, with weights that are there; one program after the other, in alternating order. What counts are
seconds of the whole command on the clock, with all imports and the start of all workers, as one waits for it: so
it wants idle cores, and says what load it found. Printed are ratios of speeds (above 1 the first is faster), their
medians and their range.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

#: Options and threads of each program: N threads in one process, or N workers of one thread.
PROGRAMS = {"one process": [], "workers": ["--workers", "{n}"], "Ray": ["--workers", "{n}", "--ray", "local"]}


def run(words: list[str], folder: Path, more: list[str], threads: int) -> float:
    """Seconds of one command, whose results are thrown away."""
    store = folder / "run.sqlite"
    command = [sys.executable, "-m", "benchbox", *words, "--store", str(store), *more]
    start = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    spent = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    for left in folder.glob("run.sqlite*"):
        left.unlink()
    return spent


def say(seconds: dict[str, list[float]], one: str, other: str, goal: float) -> str:
    """`workers against one process: 1.25 times as fast (1.21 to 1.30), goal 1.20: met`."""
    ratios = [b / a for a, b in zip(seconds[one], seconds[other], strict=True)]
    middle, met = statistics.median(ratios), "met" if statistics.median(ratios) >= goal else "missed"
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return f"{one} against {other}: {middle:.2f} times as fast ({spread}), goal {goal:.2f}: {met}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--defense", default="none")
    parser.add_argument("--attacks", default="pgd,cw,square")
    parser.add_argument("--samples", default="360", help="all test images of digits")
    parser.add_argument("--epsilon", default="0.01", help="so small that images withstand: those cost time")
    parser.add_argument("--set", action="append", default=[], help="as of benchbox run")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--programs", nargs="+", choices=list(PROGRAMS), default=list(PROGRAMS))
    parser.add_argument("--folder", type=Path, help="keep weights here")
    asked = parser.parse_args()
    shared = ["--defense", asked.defense, "--dataset", asked.dataset, *(f"--set={one}" for one in asked.set)]
    words = ["run", *shared, "--attacks", asked.attacks, "--access", "white-box", "--samples", asked.samples]
    words += ["--epsilon", asked.epsilon]
    seconds: dict[str, list[float]] = {name: [] for name in asked.programs}
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        run(["train", *shared], folder, [], asked.workers)
        print(f"benchbox {' '.join(words)}, {asked.workers} workers or threads", flush=True)
        for number in range(asked.rounds):
            for name in asked.programs[:: -1 if number % 2 else 1]:
                load = os.getloadavg()[0]
                options = [word.format(n=asked.workers) for word in PROGRAMS[name]]
                seconds[name].append(run(words, folder, options, asked.workers))
                print(f"{name}: {seconds[name][-1]:.1f} s, load before {load:.1f}", flush=True)
    for one, other, goal in (("workers", "one process", 1.2), ("Ray", "workers", 0.95)):
        if {one, other} <= set(seconds):
            print(say(seconds, one, other, goal))


if __name__ == "__main__":
    main()
