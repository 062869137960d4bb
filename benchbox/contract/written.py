"""A class as its file has it, not executed: its bases, the values of its attributes, and its methods."""

from __future__ import annotations

import ast
from dataclasses import MISSING
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchbox.contract.source import Source


class Unreadable(Exception):  # noqa: N818 - no error: somebody else finds out
    """What cannot be told without executing the file."""


class Written:
    """A class that is not built, for its bases need torch.

    Attributes:
        name: Its name.
        source: Its file.
        bases: Those that are written in Python files of benchbox or of its author.
        brackets: What stands in the brackets of its bases.
        blank: Whether something is inherited, or done to it, that cannot be read.
    """

    def __init__(
        self, node: ast.ClassDef, source: Source, bases: list[Written], brackets: list[Any], blank: bool
    ) -> None:
        self.name, self.source, self.bases, self.brackets = node.name, source, bases, brackets
        decorators = [getattr(d.func if isinstance(d, ast.Call) else d, "id", "") for d in node.decorator_list]
        self.blank = blank or any(name != "dataclass" for name in decorators) or not source.is_plain
        self.is_dataclass = "dataclass" in decorators
        self._values: dict[str, ast.expr | None] = {}
        self.hints: dict[str, ast.expr] = {}
        self.methods: dict[str, list[ast.expr]] = {}  # with what stands above each
        for statement in node.body:
            self._note(statement)
        # A class of Python's own, for the order in which attributes are looked up.
        self._shadow: type = type(self.name, tuple(base._shadow for base in bases), {})
        _WRITTEN[self._shadow] = self

    @property
    def order(self) -> list[Written]:
        """Itself and what it is derived from, in the order in which attributes are looked up."""
        return [_WRITTEN[shadow] for shadow in self._shadow.__mro__ if shadow in _WRITTEN]

    @property
    def is_whole(self) -> bool:
        """Whether all that it inherits can be read."""
        return not any(one.blank for one in self.order)

    def get(self, name: str, otherwise: Any = None) -> Any:
        """The value of an attribute of the class.

        Raises:
            Unreadable: It is not known without executing the file.
        """
        for one in self.order:
            if name in one._values:
                value = one._values[name]
                if value is None:
                    raise Unreadable(name)
                return one.source.evaluate(value)
            if one.blank or name in one.methods:
                raise Unreadable(name)
        return otherwise

    def says(self, name: str) -> bool:
        """Whether the class itself gives an attribute a value."""
        return name in self._values

    def above(self, method: str) -> list[tuple[Source, ast.expr]]:
        """What stands above a method, its own or one that is borrowed (`identity = Purifier.identity`).

        Raises:
            Unreadable: It is not known whose it is.
        """
        one = next(one for one in self.order if method in one.methods or one.says(method))
        if method in one.methods:
            return [(one.source, mark) for mark in one.methods[method]]
        match one._values[method]:
            case ast.Attribute(value=ast.Name(owner), attr=name) if isinstance(
                found := one.source.value(owner), Written
            ):
                return found.above(name)
        raise Unreadable(method)

    def derives(self, other: Written) -> bool:
        """Whether it is derived from another, or is it."""
        return other in self.order

    def missing(self) -> list[str]:
        """Abstract methods that nobody has written."""
        names = dict.fromkeys(name for one in self.order for name in one.methods)
        first = {
            name: next(one for one in self.order if name in one.methods or name in one._values) for name in names
        }
        return [name for name, one in first.items() if "abstractmethod" in map(_called, one.methods.get(name, []))]

    def _note(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets=targets, value=value):
                self._values |= {target.id: value for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name), annotation=hint, value=value):
                self.hints[name] = hint
                if value is not None:
                    self._values[name] = value
            case ast.FunctionDef(name=name, decorator_list=decorators):
                self.methods[name] = decorators
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case _:
                self.blank = True


def _called(mark: ast.expr) -> str:
    """The last name of what stands above a method."""
    mark = mark.func if isinstance(mark, ast.Call) else mark
    return str(getattr(mark, "attr", getattr(mark, "id", "")))


#: Written classes by their shadows.
_WRITTEN: dict[type, Written] = {}


class Attributes:
    """What an expression sees of a class that is not built."""

    def __init__(self, written: Written) -> None:
        self._written = written

    def __getattr__(self, name: str) -> Any:
        found = self._written.get(name, MISSING)
        if found is MISSING:
            raise AttributeError(name)
        return found
