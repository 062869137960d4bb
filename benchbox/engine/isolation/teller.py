"""The other side: a process that executes the files of plug-ins, and tells what their classes declare."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchbox.contract import border, registry
from benchbox.contract.declaration import plain
from benchbox.contract.defense import Defense
from benchbox.contract.pretrained import Checkpoint, Pretrained, PretrainedRecipe, Shelf
from benchbox.contract.registry import Plugin
from benchbox.engine.isolation.server import Answer, Server
from benchbox.engine.isolation.wire import Message
from benchbox.errors import DefenseError


class Teller(Server):
    """Loads plug-ins, and does what their classes do before there is a defence.

    Args:
        workspace: Where their files are looked for.
        pipe: To who asks.
    """

    def __init__(self, workspace: Path, pipe: Connection) -> None:
        super().__init__(pipe)
        self.defenses = registry.defenses(workspace, local=False)
        self._known: dict[str, Plugin[Defense]] = {}

    def answer(self, asked: Message) -> Answer:
        """Tell what is asked."""
        words = asked.words
        if words["do"] == "fork":
            return self.fork()
        if words["do"] == "workspace":
            found = self.defenses.of_file(Path(words["file"]))
            self._known |= {plugin.name: plugin for plugin in found}
            return {"declared": [_declared(plugin) for plugin in found]}, {}
        plugin = self._known.get(words["name"]) or self.defenses.get(words["name"])
        if words["do"] == "declare":
            return {"declared": _declared(plugin)}, {}
        do: Callable[[type[Any], Mapping[str, Any]], Any] = getattr(self, f"_{words['do']}")
        with border.crossing(plugin.cls, DefenseError, alone=True):
            return {"said": json.loads(json.dumps(do(plugin.cls, words), default=plain))}, {}

    def _configure(self, cls: type[Defense], words: Mapping[str, Any]) -> object:
        return cls.configure(*words["scopes"], **words["overrides"]).model_dump(mode="json")

    def _identity(self, cls: type[Defense], words: Mapping[str, Any]) -> object:
        return cls.recipe_type(**words["values"]).identity()

    def _is_randomized(self, cls: type[Defense], words: Mapping[str, Any]) -> object:
        return bool(cls.is_randomized(words["arguments"]))

    def _file(self, cls: type[Pretrained], words: Mapping[str, Any]) -> object:
        said: list[str] = []
        shelf = Shelf(Path(words["folder"]), words["download"], said.append)
        return {"file": str(cls.file(_given(cls, words), shelf)), "announced": said}

    def _weights(self, cls: type[Pretrained], words: Mapping[str, Any]) -> object:
        return cls.identity(_given(cls, words), Path(words["file"]))


def _given(cls: type[Pretrained], words: Mapping[str, Any]) -> PretrainedRecipe:
    recipe = cls.recipe_type(**words["values"])
    assert isinstance(recipe, PretrainedRecipe)
    return recipe


def _declared(plugin: Plugin[Defense]) -> dict[str, Any]:
    """What a class says of itself, as `Declaration` reads it."""
    cls = plugin.cls
    home = border.HOMES.get(cls)
    held = "held" if issubclass(cls, Checkpoint) else "given" if issubclass(cls, Pretrained) else "trained"
    return {
        **vars(cls.card),
        "doc": cls.__doc__ or "",
        "randomized": cls.randomized,
        "base": cls.base,
        "stand_ins": dict(cls.stand_ins),
        "exact": cls.exact,
        "ablations": list(cls.ablations),
        "version": cls.version,
        "deployable": cls.deployable,
        "learns": cls.learns,
        "square": cls.square,
        "family_field": getattr(cls, "family_field", None),
        "advice": cls.how_to_randomize(),
        "defaults": cls.recipe_type.model_construct().model_dump(mode="json", warnings=False),
        "forward_only": list(cls.recipe_type.forward_only),
        "weights": held,
        "files": [str(file) for file in home.files] if home else [],
    }
