"""Seconds until a command has answered, with all imports.

    python benchmarks/commands.py --rounds 5        # CPU time: what is finished, what is wrong, and help
    python benchmarks/commands.py --whole digits    # on the clock: README's first run, and a verdict; minutes
    python benchmarks/commands.py --whole mnist     # on the clock: the same on MNIST's 1,000 images; half an hour

Each in a process of its own, in a folder made for it. Mistakes end with status 2 and one line, which is asserted.
Whole runs are waited for, so they want idle cores; the load that was found is said.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from store import measure

#: A plug-in file with a syntax error, one that declares nothing, and one that imports what is not installed.
FILES = {
    "broken.py": "def f(:\n",
    "bare.py": "import benchbox\n\nclass Mine(benchbox.Classifier):\n    def losses(self, batch): return {}\n",
    "astray.py": "import torch\nimport no_such_module\n",
}
FINISHED = (
    "run -d none --dataset digits -a fgsm,noise --access white-box --set none.epochs=1 --samples 100 --quiet"
)
#: What is typed, and the seconds that it may take.
COMMANDS = {
    "--help": 0.4,
    FINISHED: 2.0,
    "run -d psssr": 1.0,
    "run -d none --set none.epochss=3": 1.0,
    "run -d none -a pgd --set pgd.steps=10000000000000": 1.0,
    "run -d pssr --set pssr.condition=maks": 1.0,
    "run -d nowhere.py:Mine": 1.0,
    "run -d broken.py:Mine": 1.0,
    "run -d bare.py:Mine": 1.0,
    "run -d astray.py:Mine": 1.0,
}
#: Settings of the verdict, what is run before it is timed, what is timed, and the seconds that it may take.
FEW = "pssr --dataset digits --set pssr.epochs=3 --set none.epochs=6"
WHOLE = {
    "digits": (
        ("", "run --defense pssr --dataset digits --attacks all --quiet", 120.0),
        (f"train --defense {FEW} --quiet", f"verdict {FEW} --budget 300s", 15.0),
    ),
    "mnist": (("", "run --defense pssr --dataset mnist --attacks all --quiet", 1200.0),),
}


def answered(folder: str, rounds: int) -> None:
    """CPU time of what is answered at once."""
    for name, text in FILES.items():
        Path(name).write_text(text)
    measure(FINISHED.split(), folder)  # fills the store
    for words, goal in COMMANDS.items():
        found = [measure(words.split(), folder) for _ in range(rounds)]
        assert {status for *_, status in found} == {0 if words in ("--help", FINISHED) else 2}, words
        seconds = [cpu for cpu, *_ in found]
        middle, spread = statistics.median(seconds), f"{min(seconds):.2f} to {max(seconds):.2f}"
        print(f"{middle:.2f} s ({spread}), {_goal(middle, goal)}   benchbox {words}", flush=True)


def waited(dataset: str, folder: str) -> None:
    """Seconds on the clock of what is waited for, trainings included where nothing was run before."""
    for before, words, goal in WHOLE[dataset]:
        if before:
            measure(before.split(), folder)
        load = os.getloadavg()[0]
        cpu, _, clock, status = measure(words.split(), folder)
        assert status == 0, words
        print(
            f"{clock:.1f} s, {cpu:.1f} s of CPU, load before {load:.1f}, {_goal(clock, goal)}   benchbox {words}",
            flush=True,
        )


def _goal(seconds: float, goal: float) -> str:
    return f"goal {goal:g}: {'met' if seconds <= goal else 'missed'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--whole", choices=WHOLE, help="whole runs, on the clock")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        if asked.whole:
            waited(asked.whole, folder)
        else:
            answered(folder, asked.rounds)


if __name__ == "__main__":
    main()
