"""Small faults in Python code, by the syntax tree: one place is changed, the rest of the module stays as it is.

Comparisons, arithmetic, `and` and `or`, conditions turned round, numbers and words changed, arguments left out or
None, one function for its neighbour, statements left out. Inside classes and decorated functions too. What is not
touched: type annotations, decorators, docstrings, assertions (`zip(…, strict=True)` is one), what is raised, and
sentences (text with spaces).
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
#: Functions and methods, and what stands in their place.
NEIGHBOURS = {
    "min": "max", "any": "all", "argmin": "argmax", "amin": "amax", "minimum": "maximum", "floor": "ceil",
    "clamp_min": "clamp_max", "sum": "mean", "sin": "cos", "log": "exp",
    "union": "intersection", "zeros": "ones", "zeros_like": "ones_like",
}  # fmt: skip
NEIGHBOURS |= {there: here for here, there in NEIGHBOURS.items()}
#: Methods without arguments that are left out.
DROPPED = ("abs", "sign", "sqrt", "clone", "round", "lower", "strip", "copy")
#: Fields of a node that no fault touches, and nodes.
LEFT = ("annotation", "returns", "decorator_list", "type_params")
UNTOUCHED = (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom)


class Fault(NamedTuple):
    """A place of a module, and what stands there instead.

    Attributes:
        index: Which of the faults of the module.
        line: First line of the statement.
        last: Last line of the place.
        was: The code.
        became: The faulty code.
    """

    index: int
    line: int
    last: int
    was: str
    became: str


class Place(NamedTuple):
    """Where in the tree: a field of a node, or an element of it."""

    parent: ast.AST
    name: str
    index: int | None
    node: ast.AST

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.name, node)
        else:
            getattr(self.parent, self.name)[self.index] = node


def faults(source: str) -> list[Fault]:
    """Every fault of a module, in the order of its places."""
    found: list[Fault] = []
    for place, statement in _places(ast.parse(source), None):
        for other in _others(place):
            was, became = _text(place.node), _text(other)
            if was != became:
                line, last = statement.lineno, getattr(place.node, "end_lineno", None) or statement.lineno
                found.append(Fault(len(found), line, last, was, became))
    return found


def planted(source: str, fault: Fault) -> str:
    """The module with one fault in it."""
    tree, count = ast.parse(source), 0
    for place, _ in _places(tree, None):
        for other in _others(place):
            if _text(place.node) != _text(other):
                if count == fault.index:
                    place.put(other)
                    return ast.unparse(ast.fix_missing_locations(tree))
                count += 1
    raise ValueError(f"there is no fault {fault.index}")


def _text(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(copy.deepcopy(node)))


def _places(node: ast.AST, statement: Any) -> Iterator[tuple[Place, Any]]:
    """Every place below a node that a fault may touch, with the statement it is in."""
    for name, value in ast.iter_fields(node):
        if name in LEFT:
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or _is_left(child):
                continue
            inside = child if isinstance(child, ast.stmt) else statement
            if inside is not None:
                yield Place(node, name, index, child), inside
            yield from _places(child, inside)


def _is_left(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Constant()):
            return True  # documentation
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Subscript(value=ast.Name(id="Literal" | "Callable" | "Annotated")):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
        case ast.keyword(arg="strict"):
            return True
        case ast.JoinedStr(values=parts):
            words = [part.value for part in parts if isinstance(part, ast.Constant)]
            return any(" " in str(word) for word in words)
    return isinstance(node, UNTOUCHED)


def _others(place: Place) -> Iterator[ast.AST]:
    """What may stand in a place instead."""
    node = place.node
    match node:
        case ast.Compare(ops=[*_, _]):
            for i, op in enumerate(node.ops):
                yield _with(node, ops=[*node.ops[:i], COMPARISONS[type(op)](), *node.ops[i + 1 :]])
        case ast.BinOp() | ast.AugAssign() if type(node.op) in BINARY:
            yield _with(node, op=BINARY[type(node.op)]())
        case ast.BoolOp():
            yield _with(node, op=ast.And() if isinstance(node.op, ast.Or) else ast.Or())
        case ast.UnaryOp():
            yield node.operand
        case ast.Constant():
            yield from _constants(node.value)
        case ast.Call():
            yield from _calls(node)
        case ast.Return(value=ast.expr()):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()
        case ast.Attribute(attr=name) if name in NEIGHBOURS and isinstance(node.ctx, ast.Load):
            yield _with(node, attr=NEIGHBOURS[name])
        case ast.Name(id=name) if name in NEIGHBOURS and place.name == "func":
            yield ast.Name(NEIGHBOURS[name], ast.Load())
    is_condition = place.name == "test" or place.name == "ifs"
    if is_condition and not isinstance(node, ast.UnaryOp) and not _is_equality(node):
        yield ast.UnaryOp(ast.Not(), node)


def _is_equality(node: ast.AST) -> bool:
    """Whether the other comparison says `not` already."""
    return isinstance(node, ast.Compare) and not isinstance(node.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE)


def _constants(value: object) -> Iterator[ast.AST]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
        yield ast.Constant(value - 1)
    elif isinstance(value, float):
        yield ast.Constant(value * 10 if 0 < abs(value) < 0.01 else value * 2 or 1.0)
    elif isinstance(value, str) and " " not in value:
        yield ast.Constant(f"X{value}")


def _calls(node: ast.Call) -> Iterator[ast.AST]:
    for i, argument in enumerate(node.args):
        if not isinstance(argument, ast.Constant | ast.Starred):
            yield _with(node, args=[*node.args[:i], ast.Constant(None), *node.args[i + 1 :]])
    for i, keyword in enumerate(node.keywords):
        if keyword.arg == "strict":
            continue
        yield _with(node, keywords=node.keywords[:i] + node.keywords[i + 1 :])
    if isinstance(node.func, ast.Attribute) and node.func.attr in DROPPED and not node.args:
        yield node.func.value


def _with(node: ast.AST, **fields: Any) -> ast.AST:
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other
