"""The defences of strangers as their own processes tell of them: no line of theirs is executed in this one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchbox.contract import home, registry
from benchbox.contract.registry import Claim, Registry, origin_of
from benchbox.contract.written import Written
from benchbox.errors import RequestError

if TYPE_CHECKING:
    from benchbox.contract.defense import Defense
    from benchbox.engine.isolation.apart import Process
    from benchbox.engine.isolation.declaration import Declaration


class Strangers(Registry["Defense"]):
    """A registry whose plug-ins, but for those of benchbox, are proxies of classes in other processes.

    Each file, and each package that is installed, has one of its own: a fork of one that has executed none.
    """

    def read(self, name: str) -> Written | None:
        """The class behind a built-in's name; of a stranger's nothing is evaluated."""
        known = self._declared()
        return super().read(name) if name in known or name.partition(":")[0] in known else None

    def read_files(self) -> None:
        """Nothing: what is wrong with a file is told by who executes it."""

    def _installed(self) -> list[tuple[str, Claim[Defense]]]:
        found = [(entry.name, origin_of(entry)) for entry in self._entry_points()]
        return [(name, Claim(origin, partial(self._of_package, name, origin))) for name, origin in found]

    def _local(self) -> list[tuple[str, Claim[Defense]]]:
        claims: list[tuple[str, Claim[Defense]]] = []
        for file in self._files():
            self.announce(f"loading workspace file {file.relative_to(self.workspace)} in a process of its own")
            said = self._ask(str(file), "workspace", file=str(file.absolute()))["declared"]
            if not isinstance(said, list):
                raise RequestError(f"{file} declares {said!r}, no list; mend it")
            for one in said:
                declared = self._heard(one, str(file))
                load = partial(self._of_file_alone, file, declared)
                claims.append((declared.name, Claim(f"./{file.relative_to(self.workspace)}", load)))
        return claims

    def _of_package(self, name: str, origin: str) -> tuple[type[Defense], str]:
        declared = self._heard(self._ask(name, "declare", name=name)["declared"], name)
        return self._proxy(declared, name, name), f"{origin}/{declared.version}"

    def _of_file_alone(self, file: Path, declared: Declaration) -> tuple[type[Defense], str]:
        return self._proxy(declared, str(file), declared.name), _code(file, declared)

    def _in_file(self, file: Path, attribute: str, name: str) -> tuple[type[Defense], str]:
        declared = self._heard(self._ask(str(file), "declare", name=name)["declared"], name)
        return self._proxy(declared, str(file), name), _code(file, declared)

    def _heard(self, words: Any, where: str) -> Declaration:
        from benchbox.engine.isolation import declaration

        return declaration.heard(words, where)

    def _proxy(self, declared: Declaration, process: str, name: str) -> type[Defense]:
        from benchbox.engine.isolation.proxy import proxy

        def ask(do: str, **words: Any) -> Any:
            return self._ask(process, do, name=name, **words)["said"]

        return proxy(declared, ask)

    def _ask(self, process: str, do: str, **words: Any) -> Mapping[str, Any]:
        """What the process of a plug-in answers."""
        if process not in self._forks:
            self._forks[process] = self._bare.fork()
            self._forks[process].name = process
        try:
            return self._forks[process].ask({"do": do, **words}, None).words
        except TypeError as error:  # a value of Python's that is no JSON
            raise RequestError(f"{process}: {error}; give numbers, texts, and lists of them") from error

    @cached_property
    def _forks(self) -> dict[str, Process]:
        return {}

    @cached_property
    def _bare(self) -> Process:
        """One that has executed nobody's code."""
        from benchbox.engine.isolation.apart import Process

        folder = Path(tempfile.mkdtemp(prefix="benchbox-apart-"))
        return Process("", {"tell": str(self.workspace.absolute())}, folder)


def _code(file: Path, declared: Declaration) -> str:
    """Which code it is; computed here, for a stranger might say that it is another's."""
    own = file.resolve()
    return home.digest(own, home.files(own, declared.paths))


def defenses(
    workspace: Path | None = None,
    announce: Callable[[str], None] = lambda sentence: None,
    *,
    local: bool = True,
    isolate: bool = False,
) -> Registry[Defense]:
    """The registry of defences.

    Args:
        workspace: The folder benchbox is used in.
        announce: Told of the files of the workspace that are executed.
        local: Whether the files of the workspace folder are plug-ins.
        isolate: Whether those of strangers are executed in processes of their own.
    """
    plain = registry.defenses(workspace, announce, local=local)
    if not isolate:
        return plain
    return Strangers(plain.kind, plain.folder, plain.base, plain.workspace, announce, plain.adapter, local)
