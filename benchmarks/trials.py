"""One faulty module and its tests: a copy of the tree, a fork for each fault, the quickest likely test first."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from faults import Fault, planted

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = (".git", "__pycache__", ".*_cache", "*.egg-info", ".venv", "site", "build", "dist", ".cache", "shared")
#: Tests by the clock, and tests that take long and are about something else.
LEFT_OUT = "not about_a_second and not autoattack and not every_defense_trains_in_bfloat16"
QUIET = (
    "-q", "-x", "-k", LEFT_OUT, "--basetemp=.temporary", "-p", "no:cacheprovider",
    "-p", "pytest_timeout", "-p", "_hypothesis_pytestplugin",
)  # fmt: skip
#: Address space of a run, for faults that ask for the whole memory.
MEMORY = 32 << 30


class Basis(NamedTuple):
    """What a group's tests did when nothing was broken.

    Attributes:
        seconds: Of each test that passed, file by file in the order of the group.
        reached: Tests by module and line.
        failed: Tests that failed, and are left out.
    """

    seconds: dict[str, float]
    reached: dict[str, dict[int, set[str]]]
    failed: list[str]


class Watch:
    """A plug-in of pytest: which test ran through which line of some files, and how long it took."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = frozenset(files)
        self.reached: dict[str, dict[int, set[str]]] = {file: defaultdict(set) for file in files}
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: set[str] = set()
        self.skipped: set[str] = set()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        def line(frame: Any, event: str, _: object) -> Any:
            self.reached[frame.f_code.co_filename][frame.f_lineno].add(nodeid)
            return line

        def call(frame: Any, event: str, _: object) -> Any:
            return line(frame, event, _) if frame.f_code.co_filename in self.files else None

        threading.settrace(call)
        sys.settrace(call)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] += report.duration
        if not report.passed:
            (self.skipped if report.skipped else self.failed).add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        sys.settrace(None)
        passed = {name: took for name, took in self.seconds.items() if name not in self.failed | self.skipped}
        reached = [(file, line, [*tests]) for file, lines in self.reached.items() for line, tests in lines.items()]
        Path(".basis.json").write_text(json.dumps([passed, reached, sorted(self.failed)]))


class Chosen:
    """A plug-in of pytest: these tests alone, in this order."""

    def __init__(self, names: Sequence[str]) -> None:
        self.place = {name: i for i, name in enumerate(names)}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self.place), key=lambda item: self.place[item.nodeid]
        )


def settle(folder: str) -> None:
    """A copy of the tree for this process, as its current folder."""
    here = Path(folder) / str(os.getpid())
    shutil.copytree(ROOT, here, ignore=shutil.ignore_patterns(*ELSEWHERE))
    for name, target in (("attacks", "attacks"), ("defenses", "defenses"), ("paper", "results/paper")):
        (here / "benchbox/plugins" / name).symlink_to(here / target)
    (here / "benchbox/plugins/published").symlink_to(here / "results/published")
    os.chdir(here)


def tested(words: Sequence[str], plugin: object, limit: float) -> int | None:
    """Exit status of pytest in a fork of this process.

    Args:
        words: For pytest.
        plugin: Likewise.
        limit: Seconds of processor time. Asleep, or beside other work, it is given five times as long.

    Returns:
        None if it took too long.
    """
    import pytest

    child = os.fork()
    if child == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit)))
        said = os.open(".said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.environ["PYTHONPATH"] = os.getcwd()
        sys.path.insert(0, os.getcwd())
        status = 70
        try:
            status = int(pytest.main([*words], plugins=[plugin]))
        finally:
            os._exit(status)
    end = time.monotonic() + 5 * limit
    while (done := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < end:
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if done[0] == 0:
        os.waitpid(child, 0)
        return None
    status = os.waitstatus_to_exitcode(done[1])
    return None if status == -signal.SIGXCPU or status == -signal.SIGKILL else status


def basis(modules: Sequence[str], tests: Sequence[str]) -> Basis | str:
    """What test files do with nothing broken; what pytest said if it could not run them."""
    files = [str(Path(f"benchbox/{module}.py").absolute()) for module in modules]
    words = [word for word in QUIET if word != "-x"]
    tested([*words, *(f"tests/test_{test}.py" for test in tests)], Watch(files), 300)
    if not Path(".basis.json").exists():
        return Path(".said").read_text()[-2000:]
    passed, lines, failed = json.loads(Path(".basis.json").read_text())
    Path(".basis.json").unlink()
    reached: dict[str, dict[int, set[str]]] = {module: {} for module in modules}
    for file, line, tests in lines:
        reached[modules[files.index(file)]][line] = {test for test in tests if test in passed}
    return Basis(passed, reached, failed)


def put(file: Path, source: str) -> None:
    """Write a module, and drop what was compiled of it: within a second, Python takes one for the other."""
    file.write_text(source, "utf-8")
    for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
        compiled.unlink()


def outcome(known: Basis, module: str, fault: Fault) -> str:
    """What became of a fault: `failed` tests, `too slow`, or it `survived`, having been reached or not.

    The tests that ran through it come first; but what is computed once for all of them was seen in one alone, so
    that the others follow.
    """
    lines = known.reached[module]
    near = set[str]().union(*(lines.get(line, set()) for line in range(fault.line, fault.last + 1)))
    by_file: dict[tuple[bool, str], list[str]] = defaultdict(list)
    for test in known.seconds:
        by_file[test not in near, test.partition("::")[0]].append(test)
    file = Path(f"benchbox/{module}.py")
    source = file.read_text("utf-8")
    put(file, planted(source, fault))
    try:
        for (_, tests), names in sorted(by_file.items(), key=lambda item: item[0][0]):
            order = sorted(names, key=known.seconds.__getitem__)
            limit = 20 + 5 * sum(known.seconds[test] for test in order)
            if (status := tested([*QUIET, tests], Chosen(order), limit)) != 0:
                return "too slow" if status is None else "failed"
    finally:
        put(file, source)
    return "survived" if near else "survived, not reached"
