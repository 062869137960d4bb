"""Would the tests notice? Small faults are planted in the modules that numbers pass through, and the tests run.

    python benchmarks/mutants.py                                      # says which groups there are
    python benchmarks/mutants.py draws --sample 30 --seed 1           # thirty faults of one group
    python benchmarks/mutants.py all --jobs 16 --minutes 8 --out found.json
    python benchmarks/mutants.py all --again found.json               # and the survivors, after tests were written

benchmarks/faults.py says what the faults are. Nothing is changed here: each process has a copy of the tree in the
system folder for temporary files. A fault is met by the tests of its group, file by file, the quick ones first,
and before all others those that ran through its line when nothing was broken; the first that fails is enough.
docs/mutation.md has what survived, and why.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import itertools
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from faults import Fault, faults
from trials import ROOT, Basis, basis, outcome, settle

#: Loaded once, before the processes part. Nothing of benchbox: each fault is met by a fresh one.
HEAVY = (
    "torch", "torchvision", "numpy", "scipy.stats", "pandas", "sqlalchemy", "alembic", "typer", "rich", "jinja2",
    "pydantic", "safetensors.torch", "sklearn.datasets", "pytest", "hypothesis", "greenlet", "matplotlib",
)  # fmt: skip


class Group(NamedTuple):
    """Modules below `benchbox/`, and the test files that are about them, the most direct first."""

    modules: Sequence[str]
    tests: Sequence[str]


GROUPS = {
    "domain": Group(
        ["domain/nouns", "domain/outcome", "domain/threat", "canonical"],
        ["threat", "outcome", "domain", "canonical", "l1"],
    ),
    "draws": Group(["draws"], ["draws"]),
    "view": Group(["contract/view", "contract/tally", "contract/confirmation"], ["view", "tally", "confirmation"]),
    "ascent": Group(["contract/ascent"], ["ascent", "l1"]),
    "attack": Group(["contract/attack"], ["crafted", "natures"]),
    "judge": Group(
        ["engine/judge", "engine/booth", "engine/secret", "engine/transfer"],
        ["judge", "asking", "booth", "secret"],
    ),
    "statistics": Group(
        ["analysis/intervals", "analysis/pairs", "analysis/all_pairs", "analysis/welch", "analysis/anytime"],
        ["formulas", "versus", "anytime", "intervals", "paired", "compare"],
    ),
    "worst case": Group(
        ["analysis/worst_case", "analysis/probed", "analysis/control", "analysis/panel", "analysis/ranking"],
        ["formulas", "versus", "leaderboard", "probed", "control", "panel", "report"],
    ),
    "tables": Group(
        ["analysis/leaderboard", "analysis/score", "analysis/compare", "analysis/worth", "analysis/badge"],
        ["leaderboard", "score", "versus", "formulas", "compare", "report", "worth", "badge", "probed"],
    ),
    "plan": Group(
        ["engine/plan", "engine/answers", "engine/reuse"],
        ["plan", "configuring", "answers", "reuse", "shared_weights"],
    ),
    "runner": Group(["engine/unit", "engine/runner"], ["unit", "driving", "bookkeeping"]),
    "training": Group(["training/loop", "training/precision"], ["loop", "loop_borders", "precision", "training"]),
}


def tried(end: float, known: dict[str, Basis], place: tuple[str, str, Fault]) -> dict[str, Any] | None:
    """What became of a fault of a group, for the record; None if there was no time."""
    group, module, fault = place
    start = time.monotonic()
    if start > end:
        return None
    said = outcome(known[group], module, fault)
    seconds = round(time.monotonic() - start, 1)
    return {"group": group, "module": module, **fault._asdict(), "outcome": said, "seconds": seconds}


def every_fault(name: str) -> list[tuple[str, str, Fault]]:
    """Of a group, with the names of the group and of the module."""
    sources = {module: (ROOT / f"benchbox/{module}.py").read_text("utf-8") for module in GROUPS[name].modules}
    return [(name, module, fault) for module, source in sources.items() for fault in faults(source)]


def sampled(names: Sequence[str], sample: int, seed: int) -> Iterator[tuple[str, str, Fault]]:
    """Faults of each group at random, the groups in turn."""
    columns = []
    for name in names:
        every = every_fault(name)
        columns.append(random.Random(f"{seed}/{name}").sample(every, min(sample, len(every))))
    return (place for row in itertools.zip_longest(*columns) for place in row if place)


def survivors(names: Sequence[str], file: Path) -> Iterator[tuple[str, str, Fault]]:
    """What survived in an earlier result, where the module still has it: the nearest of the same faults."""
    for record in json.loads(file.read_text("utf-8"))["faults"]:
        if record["group"] in names and record["outcome"].startswith("survived"):
            source = (ROOT / f"benchbox/{record['module']}.py").read_text("utf-8")
            same = [f for f in faults(source) if (f.was, f.became) == (record["was"], record["became"])]
            if same:
                yield record["group"], record["module"], min(same, key=lambda f: abs(f.line - record["line"]))


def asked_for() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("groups", nargs="*", help=f"all, or some of: {', '.join(GROUPS)}")
    parser.add_argument("--sample", type=int, default=30, help="faults of each group")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--again", type=Path, help="in place of a sample: what survived in this earlier result")
    parser.add_argument("--files", type=int, help="of tests, the first so many of each group; else all of them")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no fault is begun after so long")
    parser.add_argument("--out", type=Path, help="a file for what was found, in JSON")
    asked = parser.parse_args()
    asked.groups = [*GROUPS] if asked.groups == ["all"] else asked.groups
    if not asked.groups or not set(asked.groups) <= set(GROUPS):
        parser.print_help()
        sys.exit(2)
    return asked


def main() -> None:
    asked = asked_for()
    names = asked.groups
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONHASHSEED": "0"}
    # Each fault costs a start of pytest: without the plug-ins that are about, and with what was compiled.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.dont_write_bytecode = False
    end = time.monotonic() + 60 * asked.minutes
    for name in HEAVY:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()  # pytest collects garbage at its end, and need not look through all of torch
    # Before the tree is copied: it may move on meanwhile.
    chosen = [*(survivors(names, asked.again) if asked.again else sampled(names, asked.sample, asked.seed))]
    sizes = {name: len(every_fault(name)) for name in names}
    fork = multiprocessing.get_context("fork")
    with (
        tempfile.TemporaryDirectory(prefix="benchbox-mutants-") as folder,
        ProcessPoolExecutor(asked.jobs, fork, settle, (folder,)) as pool,
    ):
        known = {}
        pairs = ((GROUPS[name].modules, GROUPS[name].tests[: asked.files]) for name in names)
        found_first = pool.map(basis, *zip(*pairs, strict=True))
        for name, found in zip(names, found_first, strict=True):
            if isinstance(found, str):
                print(f"{name}: pytest could not run its tests:\n{found}", flush=True)
                continue
            known[name] = found
            took = sum(found.seconds.values())
            print(
                f"{name}: {len(found.seconds)} tests, {took:.0f} s; failed and left out: {found.failed}",
                flush=True,
            )
        done = []
        for record in pool.map(partial(tried, end, known), [place for place in chosen if place[0] in known]):
            if record:
                done.append(record)
                if asked.out:
                    asked.out.write_text(
                        json.dumps({"seed": asked.seed, "faults": done}, indent=1) + "\n", "utf-8"
                    )
                if record["outcome"].startswith("survived"):
                    print(said(record), flush=True)
    if done:
        print("\n".join(table(done, sizes)))


def table(done: Sequence[dict[str, Any]], sizes: Mapping[str, int]) -> Iterator[str]:
    """What was noticed, group by group, and what survived, for docs/mutation.md."""
    from benchbox.analysis.intervals import clopper_pearson

    yield "| group | faults | sampled | noticed |\n| :--- | ---: | ---: | ---: |"
    every, shares = [], []
    for name in dict.fromkeys(record["group"] for record in done):
        outcomes = [record["outcome"] for record in done if record["group"] == name]
        noticed = sum(not one.startswith("survived") for one in outcomes)
        every.append(sizes[name])
        shares.append(noticed / len(outcomes))
        yield f"| {name} | {every[-1]:,} | {len(outcomes)} | {noticed} |"
    noticed = sum(not record["outcome"].startswith("survived") for record in done)
    low, high = clopper_pearson(noticed, len(done))
    said = f"{noticed} ({100 * noticed / len(done):.1f} %, 95 % interval {100 * low:.1f} to {100 * high:.1f})"
    yield f"| all | {sum(every):,} | {len(done)} | {said} |\n"
    weighted = sum(n * share for n, share in zip(every, shares, strict=True)) / sum(every)
    slow = sum(record["outcome"] == "too slow" for record in done)
    yield f"Each group weighted with its faults: {100 * weighted:.1f} %. Noticed because too slow: {slow}.\n"
    yield "| module | was | became | |\n| :--- | :--- | :--- | :--- |"
    for record in done:
        if record["outcome"].startswith("survived"):
            yield "| `{module}:{line}` | `{was}` | `{became}` | {outcome} |".format(**record)


def said(record: dict[str, Any]) -> str:
    """One fault in a line."""
    return "{group}: {module}:{line} `{was}` -> `{became}`: {outcome} ({seconds} s)".format(**record)


if __name__ == "__main__":
    main()
