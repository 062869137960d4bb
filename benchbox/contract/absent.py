"""Modules that a library imports and does not install, supplied while code of others is imported.

robustbench 1.1.1 imports `autoattack`, which is on PyPI as `pyautoattack` alone, and `pkg_resources`, which left
setuptools with version 81. Neither is needed to build a network.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType

#: What is asked for -> what is given in its place; nothing for an empty module.
STAND_INS = {"autoattack": "pyautoattack", "autoattack.state": "pyautoattack.state", "pkg_resources": ""}


@contextlib.contextmanager
def supplied() -> Iterator[None]:
    """Have the absent modules at hand; afterwards nobody finds them."""
    finder = _Finder()
    # The last to be asked: where the real module is installed, that one is taken.
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in finder.given:
            sys.modules.pop(name, None)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self) -> None:
        self.given: list[str] = []

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self) if name in STAND_INS else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        self.given.append(spec.name)
        found = STAND_INS[spec.name]
        made = ModuleType(spec.name)
        if found:
            made.__dict__.update(vars(importlib.import_module(found)))
        return made

    def exec_module(self, module: ModuleType) -> None:
        module.__path__ = []
