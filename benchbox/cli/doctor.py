"""`benchbox doctor`: what is installed, found and reachable."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from benchbox.cli import options
from benchbox.cli.command import command
from benchbox.cli.console import one_line, output
from benchbox.errors import BenchboxError
from benchbox.text import counted, masked

REQUIRED = ("torch", "torchvision", "pyautoattack")
OPTIONAL = ("torchattacks", "robustbench")


class Finding(NamedTuple):
    """One line of the diagnosis; `broken` if benchbox cannot work like this."""

    what: str
    found: str
    broken: bool = False


@command(
    "benchbox doctor",
    "benchbox doctor --data-dir ~/data --device cuda",
    "benchbox doctor --repair",
)
def doctor(
    store: options.Store = options.DEFAULT_STORE,
    data_dir: options.DataDir = None,
    device: options.Device = None,
    no_workspace: options.NoWorkspace = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Drop from the store what is damaged, to be run again; seal what older versions stored.",
        ),
    ] = False,
) -> None:
    """Say what is installed, which device is used, which data sets are found, and whether the store is whole.

    The exit status is 1 if something that benchbox needs is broken, or anything in the store is damaged.
    """
    findings = [*_findings(data_dir, device, not no_workspace), *_store(store, repair)]
    console = output()
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        mark = "BROKEN  " if finding.broken else ""
        console.print(f"{finding.what:<{width}}  {mark}{finding.found}", soft_wrap=True)
    if any(finding.broken for finding in findings):
        raise typer.Exit(1)


def _findings(data_dir: Path | None, device: str | None, workspace: bool) -> Iterator[Finding]:
    yield Finding("python", platform.python_version())
    for package in REQUIRED:
        yield _checked(package, partial(_version, package))
    for package in OPTIONAL:
        yield Finding(package, _installed(package) or "not installed (optional)")
    yield _checked("device", partial(_device, device))
    yield _checked("plug-ins", partial(_plugins, workspace))
    yield Finding("data folder", str(options.data_folder(data_dir)))
    yield from _data(data_dir)


def _checked(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what, check())
    except Exception as error:  # a diagnosis does not break down over what it finds
        return Finding(what, one_line(error) or type(error).__name__, broken=True)


def _version(package: str) -> str:
    importlib.import_module(package)
    return _installed(package) or "installed"


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device(name: str | None) -> str:
    from benchbox.engine import device

    chosen = device.choose(name)
    return f"{chosen} ({device.describe(chosen)})"


def _plugins(workspace: bool) -> str:
    defenses, attacks = options.plugins(workspace=workspace)
    return f"{len(defenses.names())} defences, {len(attacks.names())} attacks"


def _data(data_dir: Path | None) -> Iterator[Finding]:
    """By the files that are there; they are read and checked when they are used."""
    from benchbox.data.catalogue import KNOWN

    folder = options.data_folder(data_dir)
    own = [file.stem for file in sorted(folder.glob("*.npz"))]
    for name in KNOWN:
        if name in own:
            found = f"found, {folder / f'{name}.npz'}"
        elif name == "digits":
            found = "comes with scikit-learn"
        else:
            found = _published(name, folder)
        yield Finding(f"data set {name}", found)
    for name in own:
        if name not in KNOWN:
            yield Finding(f"data set {name}", f"found, {folder / f'{name}.npz'}")


def _published(name: str, folder: Path) -> str:
    from benchbox.data.sources import SOURCES

    # Also "train_32x32.mat and test_32x32.mat": all of them have to be there.
    patterns = [pattern.rstrip("/") for pattern in SOURCES[name].layout.split(" and ")]
    there = all(any(folder.glob(pattern)) for pattern in patterns)
    return "found" if there else "not there; it is downloaded when it is first used"


def _store(store: str, repair: bool) -> Iterator[Finding]:
    """Whether it opens, and whether everything in it is what was stored."""
    if options.is_absent(store):
        yield Finding("store", f"{masked(store)} is not there yet; `benchbox run` makes it")
        return
    from benchbox.store import Store

    try:
        with Store.open(store, must_exist=True) as opened:
            found = opened.examine(repair=repair)
    except BenchboxError as error:
        yield Finding("store", one_line(error), broken=True)
        return
    yield Finding("store", f"{masked(store)}: {counted(found.cells, 'cell')}")
    for damage in found.damaged:
        done = "dropped; run its command again" if repair else "`benchbox doctor --repair` drops it"
        yield Finding("store", f"damaged: {damage}; {done}", broken=not repair)
    if found.unsealed:
        done = "sealed as they are" if repair else "believed as they are; `benchbox doctor --repair` seals them"
        yield Finding(
            "store", f"{found.unsealed} rows of an earlier benchbox, whose damage would not show: {done}"
        )
