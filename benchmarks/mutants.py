"""Would the tests notice? Small faults are planted in the modules that numbers pass through, and the tests run.

    python benchmarks/mutants.py analysis --sample 40        # a random sample of one group
    python benchmarks/mutants.py                             # says which groups there are

The faults are mutmut's (`pip install mutmut`); each is tried in a fork of a process that has loaded torch, by
the tests of the group that reach it. docs/mutation.md says what survived, and why.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent


class Group(NamedTuple):
    """Modules below `benchbox/`, and the test files that are about them."""

    modules: Sequence[str]
    tests: Sequence[str]


GROUPS = {
    "statistics": Group(
        ["analysis/intervals", "analysis/pairs", "analysis/all_pairs", "analysis/welch", "analysis/anytime"],
        ["intervals", "paired", "compare", "anytime"],
    ),
    "worst case": Group(
        ["analysis/worst_case", "analysis/probed", "analysis/control", "analysis/panel", "analysis/ranking"],
        ["probed", "control", "panel", "report", "intervals"],
    ),
    "tables": Group(
        ["analysis/leaderboard", "analysis/score", "analysis/compare", "analysis/worth", "analysis/badge"],
        ["report", "compare", "worth", "badge", "probed"],
    ),
    "domain": Group(["domain", "canonical"], ["domain", "canonical"]),
    "draws": Group(["draws"], ["draws"]),
    "view": Group(["contract/view", "contract/ascent"], ["attacks", "gradients"]),
    "attack": Group(["contract/attack"], ["attacks", "interface"]),
    "judge": Group(["engine/judge", "engine/booth", "engine/secret"], ["booth", "secret", "runner"]),
    "plan": Group(["engine/plan", "engine/transfer", "engine/answers"], ["runner", "reuse", "checkpoint"]),
}
SETTINGS = """
[tool.mutmut]
source_paths = ["benchbox"]
only_mutate = {modules}
also_copy = ["attacks", "defenses", "results", "docs", "README.md", "CHANGELOG.md"]
pytest_add_cli_args = ["-p", "no:cacheprovider", "-x", "-k", "not about_a_second"]
pytest_add_cli_args_test_selection = {tests}
do_not_mutate_patterns = ["raise [A-Za-z]+Error\\\\("]
track_dependencies = false
use_git_change_detection = false
timeout_constant = 20.0
"""


def checkout(folder: Path, group: Group) -> None:
    """A copy of this tree, set up for mutmut."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    modules = [f"benchbox/{name}.py" for name in group.modules]
    tests = [f"tests/test_{name}.py" for name in group.tests]
    with (folder / "pyproject.toml").open("a") as file:
        file.write(SETTINGS.format(modules=json.dumps(modules), tests=json.dumps(tests)))


def tried(sample: int, seed: int) -> dict[str, str]:
    """What became of a random sample of the faults of the current folder."""
    from mutmut import __main__ as mutmut

    mutmut.set_mutant_under_test("mutant_generation")
    Path("mutants").mkdir()
    mutmut.copy_src_dir()
    mutmut.copy_also_copy_files()
    mutmut.setup_source_paths()
    mutmut.store_lines_covered_by_tests()
    mutmut.create_mutants(1)
    every = sorted(name for file in Path("mutants").rglob("*.meta") for name in _results(file))
    chosen = random.Random(seed).sample(every, min(sample, len(every)))
    print(f"{len(chosen)} of {len(every)} faults", flush=True)
    mutmut._run(chosen, 1)
    found = {name: code for file in Path("mutants").rglob("*.meta") for name, code in _results(file).items()}
    for name in chosen:
        if mutmut.status_by_exit_code[found[name]] not in ("killed", "timeout"):
            print(name, mutmut.status_by_exit_code[found[name]], flush=True)
            subprocess.run([sys.executable, "-m", "mutmut", "show", name], check=False)
    return {name: mutmut.status_by_exit_code[found[name]] for name in chosen}


def _results(meta: Path) -> dict[str, int]:
    results: dict[str, int] = json.loads(meta.read_text())["exit_code_by_key"]
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("groups", nargs="*", help=", ".join(GROUPS))
    parser.add_argument("--sample", type=int, default=40, help="faults of each group")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    asked = parser.parse_args()
    if not asked.groups:
        parser.print_help()
    for name in asked.groups:
        with tempfile.TemporaryDirectory(prefix="benchbox-mutants-") as folder:
            checkout(Path(folder), GROUPS[name])
            os.chdir(folder)
            found = tried(asked.sample, asked.seed)
            os.chdir(ROOT)
        noticed = sum(status in ("killed", "timeout") for status in found.values())
        print(f"{name}: {noticed} of {len(found)} faults noticed", flush=True)


if __name__ == "__main__":
    main()
