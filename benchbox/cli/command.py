"""A command as its module writes it: a function that says what it does, the options it takes, and examples.

Options that several commands share are the fields of a group, a frozen dataclass (`options.Work`). A parameter
that is a group is the options of the group on the command line and one object in the function; so is one that is a
`Grid`, with the options of a request, of which it may name some, and say what they mean to this command. So an
option is written once.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from benchbox.cli import options, words
from benchbox.cli.menu import epilog, flowing
from benchbox.engine.request import Grid, says
from benchbox.errors import RequestError

#: The options of a request: its fields, and the file that they may be read from.
REQUEST = (*(name for name, field in Grid.model_fields.items() if says(field)["flags"]), "grid")


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        call: What it does; its docstring is the help, its parameters are the arguments and options.
        examples: Lines below the options.
    """

    call: Callable[..., Any]
    examples: tuple[str, ...]

    def register(self, app: typer.Typer) -> None:
        """Add it under the name of its function."""
        app.command(cls=_Once, help=flowing(self.call.__doc__ or ""), epilog=epilog(self.examples))(self.call)

    def made(self) -> Any:
        """The command of typer."""
        app = typer.Typer(rich_markup_mode="rich", add_completion=False)
        self.register(app)
        return typer.main.get_command(app)


class _Once(TyperCommand):
    """A command that refuses an option of one value given twice: the last would win, and nobody would be told."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As ever, after a look at how often each option was given."""
        if not ctx.resilient_parsing:
            given = Counter(param.name for param in self._in_order(ctx, args) if not _may_repeat(param))
            for name, times in given.items():
                if times > 1:
                    option = next(param for param in self.params if param.name == name)
                    raise RequestError(
                        f"{option.opts[0]} is given {times} times and takes one value; give it once"
                    )
        return super().parse_args(ctx, args)

    def _in_order(self, ctx: Any, args: list[str]) -> list[Any]:
        """The options and arguments as they were written, each as often."""
        return list(self.make_parser(ctx).parse_args(args=list(args))[2])


def _may_repeat(param: Any) -> bool:
    return getattr(param, "multiple", False) or getattr(param, "is_flag", False) or param.nargs != 1


@dataclass(frozen=True)
class Family:
    """Commands under one word, as `list cells` and `list runs` are.

    Attributes:
        name: The word.
        help: What it stands for.
        commands: What may follow it.
        examples: Lines below the commands.
    """

    name: str
    help: str
    commands: tuple[Command, ...]
    examples: tuple[str, ...]

    def made(self) -> Any:
        """The group of typer."""
        group = typer.Typer(name=self.name, help=self.help, epilog=epilog(self.examples), rich_markup_mode="rich")
        for command in self.commands:
            command.register(group)
        return typer.main.get_group(group)


def command(*examples: str) -> Callable[[Callable[..., Any]], Command]:
    """Make a command of a function.

    Args:
        examples: Lines that show it.
    """
    return lambda call: Command(_with_groups(call), examples)


class _Group(NamedTuple):
    """The options that one parameter of a function stands for, and what makes its value of theirs."""

    options: Sequence[inspect.Parameter]
    make: Callable[[Mapping[str, Any]], Any]


def _with_groups(call: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with the options of each group in the place of the group."""
    groups: dict[str, _Group] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(call, eval_str=True).parameters.values():
        group = _group(parameter.annotation)
        if group:
            groups[parameter.name] = group
        parameters += group.options if group else [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]

    def called(**given: Any) -> Any:
        made = {
            name: group.make({option.name: given.pop(option.name) for option in group.options})
            for name, group in groups.items()
        }
        return call(**made, **given)

    called.__name__, called.__doc__ = call.__name__, call.__doc__
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called


def _group(annotation: Any) -> _Group | None:
    """What a parameter of this type stands for; None if it is an option or an argument itself."""
    kind, chosen, *own = get_args(annotation) if get_origin(annotation) is Annotated else (annotation, REQUEST)
    if kind is Grid:
        said = own[0] if own else {}
        return _Group([_option(name, _of_request(name, *said.get(name, ()))) for name in chosen], _request)
    if isinstance(kind, type) and is_dataclass(kind):
        return _Group(list(_fields(kind)), lambda given: kind(**given))
    return None


def _request(given: Mapping[str, Any]) -> Grid:
    said = dict(given)
    return words.request(said.pop("grid", None), said)


def _of_request(name: str, *said: str) -> Any:
    return options.GridFile if name == "grid" else Annotated[words.Words, options.of(name, *said)]


def _fields(group: type[Any]) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return (_option(field.name, hints[field.name], field.default) for field in fields(group))


def _option(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
