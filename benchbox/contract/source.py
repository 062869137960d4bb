"""What the file of a plug-in says, read without executing it: its classes, their bases, the values of names.

Loading torch takes seconds, and a misspelt setting is to be answered before. So what can be told from the text is:
names are followed through imports of benchbox and of files beside the file, and expressions are evaluated that
hang on nothing but literals, on what `_PLAIN` modules export and on each other. Recipes are pydantic models that
need no torch: those are built for real. What cannot be told so is `Unreadable`, and left to who executes the file.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import copy
import importlib
import importlib.util
from abc import ABC
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Generic

import benchbox
from benchbox.contract import home
from benchbox.contract.written import Attributes, Unreadable, Written

#: Modules whose names are taken as they are: they load no torch, and calling what they export does nothing.
_PLAIN = frozenset(
    (
        *("abc", "collections.abc", "dataclasses", "enum", "fractions", "math"),
        *("pydantic", "typing", "typing_extensions"),
        *("benchbox.contract.ranges", "benchbox.contract.recipe", "benchbox.contract.registry"),
        *("benchbox.domain", "benchbox.errors"),
    )
)
#: Built-in functions that may be called.
_CALLED = frozenset({"dict", "float", "frozenset", "int", "len", "list", "max", "min", "range", "set", "tuple"})
#: Built-in functions that may bend a class.
_BENDING = frozenset({"eval", "exec", "globals", "setattr", "vars"})
#: Where no name of a plug-in's own comes from, whatever is derived.
_ELSEWHERE = ("torch", "abc", "typing", "typing_extensions")


class Source:
    """A file, and what its names stand for.

    Args:
        file: A Python file.

    Raises:
        RequestError: It is none; names the line.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.tree = home.parsed(file)
        self._known: dict[str, Any] = {}
        self._bound: dict[str, list[ast.stmt]] = {}
        for statement in self.tree.body:
            for name in _binds(statement):
                self._bound.setdefault(name, []).append(statement)

    @cached_property
    def is_plain(self) -> bool:
        """Whether its classes stay as they are written: no line sets anything of one, or hands one to somebody."""
        own = {statement.name for statement in self.tree.body if isinstance(statement, ast.ClassDef)}
        others = [one for one in self.tree.body if not isinstance(one, ast.ClassDef | ast.FunctionDef)]
        for node in (node for statement in others for node in ast.walk(statement)):
            if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
                return False
            if not isinstance(node, ast.Call) or self._root(node.func) in _ELSEWHERE:  # TypeVar("R", default=Mine)
                continue
            if any(isinstance(part, ast.Name) and part.id in (own | _BENDING) for part in ast.walk(node)):
                return False
        return True

    def binds(self, name: str) -> bool:
        """Whether some line may give a name a value."""
        return name in self._bound or "*" in self._bound

    def makers(self) -> list[str]:
        """The functions and classes that the file writes for others to call, in its order."""
        written = (one for one in self.tree.body if isinstance(one, ast.ClassDef | ast.FunctionDef))
        return [one.name for one in written if not one.name.startswith("_")]

    def classes(self) -> Iterator[Written]:
        """The classes that the file writes and that can be read."""
        for statement in self.tree.body:
            if isinstance(statement, ast.ClassDef):
                try:
                    found = self.value(statement.name)
                except Unreadable:
                    continue
                if isinstance(found, Written):
                    yield found

    def value(self, name: str) -> Any:
        """What a name stands for: a value, a class of pydantic or the like, or a class as it is written.

        Raises:
            Unreadable: It is not known without executing the file.
        """
        if name not in self._known:
            self._known[name] = Unreadable  # of what refers to itself
            self._known[name] = self._find(name)
        if self._known[name] is Unreadable:
            raise Unreadable(name)
        return self._known[name]

    def evaluate(self, expression: ast.expr) -> Any:
        """The value of an expression.

        Raises:
            Unreadable: It hangs on what is not known, or fails.
        """
        if isinstance(expression, ast.Name):
            return self._named(expression.id)
        self._require_harmless(expression)
        names = [node for node in ast.walk(expression) if isinstance(node, ast.Name)]
        inner = {name.id for name in names if not isinstance(name.ctx, ast.Load)}
        values = {name.id: self._named(name.id) for name in names if name.id not in inner}
        space = {name: Attributes(one) if isinstance(one, Written) else one for name, one in values.items()}
        code = compile(ast.Expression(expression), str(self.file), "eval", dont_inherit=True)
        try:
            return eval(code, {"__builtins__": {}, **space})  # its names are those of `_named`
        except Exception as error:
            raise Unreadable(str(error)) from error

    def _require_harmless(self, expression: ast.AST) -> None:
        for node in ast.walk(expression):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Name) and called.id not in _CALLED and not self.binds(called.id):
                raise Unreadable(called.id)

    def _named(self, name: str) -> Any:
        if self.binds(name):
            return self.value(name)
        if not hasattr(builtins, name):
            raise Unreadable(name)
        return getattr(builtins, name)

    def _find(self, name: str) -> Any:
        statements = self._bound.get(name, [])
        match statements:
            case [ast.Import() as node]:
                module = next((one.name for one in node.names if (one.asname or one.name) == name), "")
                return _Front() if module == "benchbox" else _plain(module)
            case [ast.ImportFrom() as node]:
                given = next(one.name for one in node.names if (one.asname or one.name) == name)
                return self._imported(node, given)
            case [ast.Assign(targets=[ast.Name()], value=value)] | [ast.AnnAssign(value=ast.expr() as value)]:
                return self.evaluate(value)
            case [ast.ClassDef() as node]:
                return self._class(node)
        raise Unreadable(name)

    def _imported(self, node: ast.ImportFrom, name: str) -> Any:
        if node.module == "__future__":
            raise Unreadable(name)
        if node.level == 0 and (node.module or "").partition(".")[0] == "benchbox":
            return ours(str(node.module), name)
        if node.level == 0 and node.module in _PLAIN:
            return vars(_plain(node.module)).get(name, Unreadable)
        folder = self.file.parent if node.level < 2 else self.file.parents[node.level - 1]
        found = home.resolved(str(node.module), [str(folder)]) if node.module else []
        if not found:
            raise Unreadable(name)
        return of(found[-1]).value(name)

    def _class(self, node: ast.ClassDef) -> Any:
        bases, blank, brackets = [], bool(node.keywords), []
        for base in node.bases:
            head, inside = (base.value, base.slice) if isinstance(base, ast.Subscript) else (base, None)
            try:
                bases.append(self.evaluate(head))
                brackets += [self.evaluate(inside)] if inside else []
            except Unreadable:
                blank = blank or self._root(head) not in _ELSEWHERE
        if any(isinstance(base, type) and base not in (ABC, Generic, object) for base in bases):
            return self._built(node)
        try:
            return Written(node, self, [base for base in bases if isinstance(base, Written)], brackets, blank)
        except TypeError as error:  # its bases have no order
            raise Unreadable(node.name) from error

    def _root(self, expression: ast.expr) -> str:
        """The package that the first name of `torch.nn.Module` comes from."""
        while isinstance(expression, ast.Attribute):
            expression = expression.value
        for statement in self._bound.get(expression.id, []) if isinstance(expression, ast.Name) else []:
            if isinstance(statement, ast.Import):
                return statement.names[0].name.partition(".")[0]
            if isinstance(statement, ast.ImportFrom) and statement.level == 0:
                return str(statement.module).partition(".")[0]
        return ""

    def _built(self, node: ast.ClassDef) -> type:
        """A class whose bases are real: pydantic's, say. Its methods may name what is not known until called."""
        node = copy.deepcopy(node)
        for part in node.body:
            if isinstance(part, ast.FunctionDef):
                part.returns = None
                for argument in (*part.args.posonlyargs, *part.args.args, *part.args.kwonlyargs):
                    argument.annotation = None
            elif isinstance(part, ast.Assign | ast.AnnAssign | ast.Expr | ast.Pass):
                self._require_harmless(part)
            else:
                raise Unreadable(node.name)
        space: dict[str, Any] = {"__name__": __name__}
        for name in {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and self.binds(part.id)}:
            with contextlib.suppress(Unreadable):
                space[name] = self.value(name)
        code = compile(ast.Module([node], []), str(self.file), "exec", dont_inherit=True)
        try:
            exec(code, space)  # the class of a recipe; who loads the file executes it as well
        except Exception as error:
            raise Unreadable(node.name) from error
        built: type = space[node.name]
        return built


class _Front:
    """`import benchbox`, whose names would load torch."""

    def __getattr__(self, name: str) -> Any:
        try:
            return ours("benchbox", name)
        except Unreadable as error:
            raise AttributeError(name) from error


def of(file: Path) -> Source:
    """A file that was read once for each version of it.

    Raises:
        RequestError: It is no Python file.
    """
    status = file.stat()
    key = file, status.st_mtime_ns, status.st_size
    if key not in _READ:
        _READ[key] = Source(file)
    return _READ[key]


_READ: dict[tuple[Path, int, int], Source] = {}


def ours(module: str, name: str) -> Any:
    """What benchbox exports under a name.

    Raises:
        Unreadable: Its module needs torch, and it is no class.
    """
    if module == "benchbox":
        module = f"benchbox.{benchbox.HOME.get(name, 'nowhere')}"
    if f"{module}.{name}" in _PLAIN:
        return _plain(f"{module}.{name}")
    if module in _PLAIN:
        return vars(_plain(module)).get(name, Unreadable)
    # Looking for a module imports the packages it is in, and this one loads torch.
    found = None if module.startswith("benchbox.nets") else importlib.util.find_spec(module)
    if found is None or not found.origin:
        raise Unreadable(module)
    return of(Path(found.origin)).value(name)


def _plain(module: str) -> ModuleType:
    if module not in _PLAIN:
        raise Unreadable(module)
    return importlib.import_module(module)


def _binds(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement at the top of a file gives a value."""
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.alias):
            yield node.asname or (node.name if isinstance(statement, ast.ImportFrom) else node.name.split(".")[0])
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
