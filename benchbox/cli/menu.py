"""The commands by their words; each is imported when it is asked for.

What a command imports takes longer than many a command does. `benchbox --help` prints one sentence of each, which
is read from the command's file.
"""

from __future__ import annotations

import ast
import copy
import importlib
import importlib.resources
from collections import UserDict
from collections.abc import Sequence
from inspect import cleandoc
from typing import Any

from typer.core import TyperCommand, TyperGroup

#: Where the command of each word is, in the order of `benchbox --help`.
COMMANDS = {
    "run": "run.run",
    "verdict": "verdict.verdict",
    "train": "train.train",
    "audit": "audit.audit",
    "report": "report.report",
    "compare": "compare.compare",
    "publish": "publish.publish",
    "reproduce": "reproduce.reproduce",
    "track": "track.track",
    "figures": "figures.figures",
    "diff": "diff.diff",
    "export": "exchange.export",
    "import-adversarials": "exchange.import_adversarials",
    "merge": "merge.merge",
    "render": "render.render",
    "show": "show.show",
    "init": "new.init",
    "doctor": "doctor.doctor",
    "list": "listing.LIST",
    "remove": "remove.REMOVE",
    "new": "new.NEW",
}


def epilog(examples: Sequence[str]) -> str | None:
    """The lines below the options."""
    return "\n\n".join(["Examples:", *(f"  {example}" for example in examples)]) if examples else None


def flowing(text: str) -> str:
    """A docstring with each paragraph on one line, so that it is wrapped once: where the window ends."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in cleandoc(text).split("\n\n"))


class Menu(TyperGroup):
    """`benchbox`, the word before every command."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given | {"commands": _Imported(COMMANDS)})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """As ever; a `KeyError` of a command's own file is a bug, and not the absence of the command."""
        if cmd_name not in COMMANDS:
            return None
        return self.commands[cmd_name]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """As ever, with a sentence in the place of each command."""
        brief = copy.copy(self)
        brief.commands = {word: TyperCommand(word, help=sentence(place)) for word, place in COMMANDS.items()}
        super(Menu, brief).format_help(ctx, formatter)


class _Imported(UserDict[str, Any]):
    """Commands by their words: kept as places, given as commands."""

    def __getitem__(self, word: str) -> Any:
        module, _, name = self.data[word].partition(".")
        return getattr(importlib.import_module(f"benchbox.cli.{module}"), name).made()


def sentence(place: str) -> str:
    """What a command says of itself: the docstring of its function, or the second word of a family."""
    module, _, name = place.partition(".")
    source = importlib.resources.files("benchbox.cli") / f"{module}.py"
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef(name=found) if found == name:
                return flowing(ast.get_docstring(node) or "")
            case ast.Assign([ast.Name(found)], ast.Call(args=[_, ast.Constant(str(said)), *_])) if found == name:
                return said
    raise AssertionError(f"benchbox/cli/{module}.py has no {name}")
