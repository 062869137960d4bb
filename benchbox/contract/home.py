"""Where a plug-in file lives: it is executed as if it were run from its own folder, and leaves no trace outside.

Files beside it can be imported; they are its own, so that two plug-ins may each have a `helper.py`. What it
imports from there is part of its identity.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from benchbox.contract import absent, border
from benchbox.errors import RequestError

#: How the names of executed files begin.
EXECUTED = "benchbox_workspace_"


class Home:
    """A plug-in file, its folder, and the modules it brought along.

    Attributes:
        file: The file.
        module: What executing it made.
        code: Which code it is: the SHA-256 of the file, or of it and every local file that it imports.
    """

    def __init__(self, file: Path) -> None:
        """Execute a file.

        Raises:
            RequestError: It fails, or ends the program; names the line.
        """
        self.file = file.resolve()
        self._paths = [str(self.file.parent)]
        self._modules: dict[str, ModuleType] = {}
        self.module = self._executed()
        self._stamps = _stamps(files := self._files())
        self.code = digest(self.file, files)

    @property
    def files(self) -> list[Path]:
        """Those that its code is in."""
        return list(self._stamps)

    def is_current(self) -> bool:
        """Whether no file has been edited since it was executed."""
        return _stamps(list(self._stamps)) == self._stamps

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Its folder first on the module path, and its own modules in the place of others of the same names."""
        before = list(sys.path)
        aside = {name: module for name, module in sys.modules.items() if self._hides(name, module)}
        for name in aside:
            del sys.modules[name]
        there = dict(sys.modules)
        sys.modules.update(self._modules)
        sys.path[:0] = self._paths
        try:
            with absent.supplied():
                yield
        finally:
            added = [entry for entry in sys.path if entry not in before and entry not in self._paths]
            self._paths += [entry for entry in added if os.path.isdir(entry) and not border.is_library(entry)]
            mine = {n: m for n, m in sys.modules.items() if there.get(n) is not m and self._is_local(m)}
            self._modules.update(mine)
            for name in mine:
                del sys.modules[name]
            sys.modules.update(aside)
            sys.path[:] = before

    def _executed(self) -> ModuleType:
        content = self.file.read_bytes()
        # One name a file and version; two plug-ins in two folders may be called alike.
        tag = hashlib.sha256(f"{self.file} ".encode() + content).hexdigest()[:12]
        name = f"{EXECUTED}{self.file.stem}_{tag}"
        found = importlib.util.spec_from_file_location(name, self.file)
        if found is None or found.loader is None:
            raise RequestError(f"plug-in file {self.file} is no Python file")
        module = importlib.util.module_from_spec(found)
        sys.modules[name] = module
        said = io.StringIO()
        from benchbox.contract.process import restored

        importlib.invalidate_caches()
        with restored(), self.entered(), border.sealed(f"plug-in file {self.file}", RequestError):
            sys.argv = [str(self.file)]
            sys.stdout = sys.stderr = said
            try:
                found.loader.exec_module(module)
            except BaseException as error:
                del sys.modules[name]
                if isinstance(error, KeyboardInterrupt) and not border.is_foreign(error, None):
                    raise
                raise _broken(file_and_line(error, self.file), error, said.getvalue()) from error
        sys.stderr.write(said.getvalue())
        return module

    def _hides(self, name: str, module: ModuleType) -> bool:
        """Whether a loaded module stands in the way of one of its own."""
        top = name.partition(".")[0]
        if name in self._modules:
            return True
        if top in sys.stdlib_module_names or top == "benchbox":
            return False
        file = getattr(module, "__file__", None)
        return bool(file) and not border.is_library(str(file)) and bool(resolved(top, self._paths))

    def _is_local(self, module: ModuleType | None) -> bool:
        # Whoever forbids an import puts None there.
        if module is None or module.__name__.partition(".")[0] == "benchbox":
            return False
        if module.__name__.startswith(EXECUTED):
            return False
        places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
        below = tuple(os.path.realpath(path) + os.sep for path in self._paths)
        return any(
            place and os.path.realpath(place).startswith(below) and not border.is_library(place)
            for place in places
        )

    def _files(self) -> list[Path]:
        loaded = [Path(m.__file__).resolve() for m in self._modules.values() if m.__file__]
        return files(self.file, loaded, self._paths)


def files(file: Path, loaded: Sequence[Path], folders: Sequence[str] = ()) -> list[Path]:
    """A file and every local one that it imported, or that a function will import when it is called.

    Args:
        file: The plug-in.
        loaded: What it is known to have imported.
        folders: Where it imports from, beside its own.
    """
    found: dict[Path, None] = {}
    todo = [file, *(one for one in loaded if one.suffix == ".py")]
    while todo:
        one = todo.pop()
        if one not in found:
            found[one] = None
            todo += [f for name in _imports(one) for f in resolved(name, [str(one.parent), *folders])]
    return sorted({*found, *loaded})


def file_and_line(error: BaseException, file: Path) -> str:
    """`model.py, line 3`, and the line of another file if that is where it failed."""
    if isinstance(error, SyntaxError) and error.filename:
        inner: tuple[str, int | None] = (error.filename, error.lineno)
    else:
        place = border.culprit(error.__traceback__)
        inner = (place.file, place.line) if place and not place.ours else (str(file), None)
    own = f"{file}, line {_line_in(error, file) or inner[1]}"
    same = os.path.realpath(inner[0]) == str(file)
    return own if same else f"{own} ({inner[0]}, line {inner[1]})"


def _line_in(error: BaseException, file: Path) -> int | None:
    line, trace = None, error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == str(file):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def parsed(file: Path) -> ast.Module:
    """The syntax tree of a plug-in file.

    Raises:
        RequestError: It is no Python, or imports at its top what is not installed.
    """
    try:
        content = file.read_bytes()
        compile(content, str(file), "exec", dont_inherit=True)
        tree = ast.parse(content, str(file))
    except (OSError, SyntaxError, ValueError) as error:
        raise _broken(file_and_line(error, file), error) from error
    for statement in tree.body:
        match statement:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), level=0):
                modules = [module]
            case ast.Expr(value=ast.Constant()) | ast.ImportFrom():
                continue
            case _:
                break  # from here on the path of modules may be another
        for top in (module.partition(".")[0] for module in modules):
            if not _is_installed(top, file):
                missing = ModuleNotFoundError(f"No module named {top!r}")
                raise _broken(f"{file}, line {statement.lineno}", missing)
    return tree


def _is_installed(top: str, file: Path) -> bool:
    if top in sys.stdlib_module_names or top in sys.modules or resolved(top, [str(file.parent)]):
        return True
    return top in absent.STAND_INS or importlib.util.find_spec(top) is not None


def _broken(where: str, error: BaseException, said: str = "") -> RequestError:
    """That a file cannot be executed, and what to do about it."""
    return RequestError(f"plug-in file {where}: {_why(error, said)}")


def _why(error: BaseException, said: str) -> str:
    """What was raised, and what to do about it."""
    if isinstance(error, SystemExit):
        last = " ".join(said.strip().splitlines()[-1:])
        told = f" ({last})" if last else ""
        return (
            f"it ends the program while it is imported, SystemExit: {error}{told}; put what runs it as a script "
            "below `if __name__ == '__main__':`"
        )
    remedy = "mend it or move it away"
    if "relative import" in border.reason(error):
        remedy = "files beside it are imported by their names, `from net import Net`"
    elif isinstance(error, ModuleNotFoundError):
        remedy = "install it, or lay it beside the file"
    return f"{border.reason(error)}; {remedy}"


def _imports(file: Path) -> Iterator[str]:
    """Every module that a file names in an import, in functions too; relative ones from its folder."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = f"{node.module}." if node.module else ""
            yield from (f"{base}{alias.name}" for alias in node.names)


def resolved(name: str, folders: list[str]) -> list[Path]:
    """The local files that importing a dotted name would execute."""
    parts = name.split(".")
    if parts[0] in sys.stdlib_module_names or parts[0] == "benchbox":
        return []
    for folder in folders:
        found = []
        for depth in range(1, len(parts) + 1):
            place = Path(folder).joinpath(*parts[:depth])
            found += [f for f in (place / "__init__.py", place.with_name(f"{place.name}.py")) if f.is_file()]
        if found:
            return [file.resolve() for file in found]
    return []


def located(name: str) -> list[Path]:
    """The local files of a dotted name along the module path, none of a library's."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("", "__main__", "benchbox"):
        return []
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):  # a module that somebody made, or forbade
        return []
    places = [*(found.submodule_search_locations or ()), found.origin] if found else []
    local = [place for place in places if place and os.path.isabs(place) and not border.is_library(place)]
    return resolved(name, [os.path.dirname(place) for place in local])


def _stamps(files: list[Path]) -> dict[Path, tuple[int, int] | None]:
    """When each was written, and its size."""
    return {f: (f.stat().st_mtime_ns, f.stat().st_size) if f.is_file() else None for f in files}


def digest(file: Path, files: list[Path]) -> str:
    """SHA-256 of a file, or of it and every local file that it imports."""
    digests = {f: hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()}
    if set(digests) == {file}:
        return f"sha256:{digests[file]}"
    # Relative to the file, so that the folder may lie anywhere.
    named = sorted((Path(os.path.relpath(f, file.parent)).as_posix(), digest) for f, digest in digests.items())
    return f"sha256:{hashlib.sha256(json.dumps(named).encode()).hexdigest()}"


_OPENED: dict[Path, Home] = {}


def at(file: Path) -> Home:
    """The home of a plug-in file, executed once for each version of its code.

    Raises:
        RequestError: It fails, or ends the program; names the line.
    """
    key = file.resolve()
    if key not in _OPENED or not _OPENED[key].is_current():
        _OPENED[key] = Home(key)
    return _OPENED[key]
