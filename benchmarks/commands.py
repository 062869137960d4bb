"""Seconds of CPU until a command has answered, with all imports: what is finished, what is wrong, and help.

    python benchmarks/commands.py --rounds 5

Each in a process of its own, in a folder made for it. Mistakes end with status 2 and one line, which is asserted.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, text in FILES.items():
            Path(name).write_text(text)
        measure(FINISHED.split())  # fills the store
        for words, goal in COMMANDS.items():
            found = [measure(words.split()) for _ in range(asked.rounds)]
            assert {status for *_, status in found} == {0 if words in ("--help", FINISHED) else 2}, words
            seconds = [cpu for cpu, *_ in found]
            middle = statistics.median(seconds)
            between = f"{min(seconds):.2f} to {max(seconds):.2f}"
            met = "met" if middle <= goal else "missed"
            print(f"{middle:.2f} s ({between}), goal {goal:g}: {met}   benchbox {words}", flush=True)


if __name__ == "__main__":
    main()
