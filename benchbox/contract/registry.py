"""One door for every plug-in: built-ins, workspace files, single files, and installed packages.

A name maps to a claim, and a claim is loaded only when it is asked for, so `benchbox --help` and `list`
of names never import torch. A name claimed twice is an error that names both claimants.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from benchbox.contract import border, declaration, home, reading
from benchbox.contract.misnamed import misnamed
from benchbox.contract.source import Source, of, ours
from benchbox.contract.written import Unreadable, Written
from benchbox.errors import RequestError, unknown

if TYPE_CHECKING:
    from benchbox.contract.attack import Attack
    from benchbox.contract.defense import Defense

T = TypeVar("T")


@dataclass(frozen=True)
class Plugin(Generic[T]):
    """A loaded plug-in.

    Attributes:
        name: What it is asked for by.
        cls: The class itself.
        origin: Who claims the name, in words.
        code: Which code stands behind the name; part of the identity of every result.
        preset: Arguments that belong to the name (`torchattacks:PGD` sets `attack`).
    """

    name: str
    cls: type[T]
    origin: str
    code: str
    preset: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim(Generic[T]):
    """A name, who claims it, and how to load it."""

    origin: str
    load: Callable[[], tuple[type[T], str]]


@dataclass(eq=False)
class Registry(Generic[T]):
    """The plug-ins of one kind.

    Attributes:
        kind: In the user's words: `defence`, `attack`.
        folder: Name of the workspace folder; also of the built-in package below `benchbox.plugins`.
        base: "module:Class" that every plug-in derives from.
        workspace: The folder benchbox is used in.
        announce: Called with a sentence before a workspace file is executed.
        adapter: "module:function" that makes a plug-in of anything callable in a file, given its name.
        local: Whether the files of the workspace folder are plug-ins.
    """

    kind: str
    folder: str
    base: str
    workspace: Path
    announce: Callable[[str], None] = lambda sentence: None
    adapter: str | None = None
    local: bool = True
    _lent: dict[str, Plugin[T]] = field(default_factory=dict, init=False)

    def lend(self, plugin: Plugin[T]) -> None:
        """Take a plug-in that is there already, under its name.

        Raises:
            RequestError: The name is claimed.
        """
        if plugin.name in self._claims:
            raise RequestError(
                f"{self.kind} {plugin.name!r} is claimed by {self._claims[plugin.name].origin}; name it otherwise"
            )
        self._lent[plugin.name] = plugin

    def names(self) -> list[str]:
        """Every claimed name, in order."""
        return sorted({*self._claims, *self._lent})

    @property
    def is_built_in(self) -> bool:
        """Whether benchbox's own plug-ins are all there is; told without loading any."""
        return not self._lent and not self._entry_points() and not self._files()

    def folders(self) -> list[str]:
        """Where the built-in plug-ins lie."""
        return list(importlib.import_module(f"benchbox.plugins.{self.folder}").__path__)

    def get(self, name: str) -> Plugin[T]:
        """Load a plug-in by name, by `family:member`, or by `path/to/file.py:Class`.

        Raises:
            RequestError: Nobody claims the name, two do, or its code cannot be loaded.
        """
        if name in self._lent:
            return self._lent[name]
        path, _, attribute = name.rpartition(":")
        if path.endswith(".py"):
            cls, code = self._in_file(self._at(path, name), attribute, name)
            return Plugin(name, cls, path, code)
        if name in self._claims:
            cls, code = self._claims[name].load()
            return Plugin(name, cls, self._claims[name].origin, code)
        family, _, member = name.partition(":")
        if member and family in self._claims:
            cls, code = self._claims[family].load()
            preset = getattr(cls, "family_field", None)
            if preset:
                return Plugin(name, cls, self._claims[family].origin, code, {preset: member})
        raise misnamed(self.kind, name, self.names())

    def of_file(self, file: Path) -> list[Plugin[T]]:
        """The plug-ins in a file of the workspace, which is executed."""
        found, origin = home.at(file), f"./{file.relative_to(self.workspace)}"
        plugins = []
        for cls in self._members(found.module):
            declaration.check(cls, self.kind, f"{file}:{cls.__name__}")
            plugins.append(Plugin(cls.card.name, _settled(cls, found), origin, found.code))
        return plugins

    def read(self, name: str) -> Written | None:
        """The class behind a name as its file has it, which is not executed; None where that cannot be told.

        Raises:
            RequestError: There is no such file, it is no Python, or no such class is in it.
        """
        path, _, attribute = name.rpartition(":")
        if path.endswith(".py"):
            source = of(self._at(path, name).resolve())
            if not source.binds(attribute):
                raise self._absent(source, attribute, [m.name for m in reading.members(source, self._base_name)])
            found = _written(source, attribute)
            if found and found.derives(ours("benchbox", self._base_name)):
                reading.check(found, self.kind, f"{source.file}:{attribute}")
            return found
        declared = self._declared()
        target = declared.get(name) or declared.get(name.partition(":")[0])
        if target is not None:
            module, _, attribute = target.partition(":")
            return _written(of(Path(self.folders()[0]) / f"{module}.py"), attribute)
        own = (one for file in self._files() for one in reading.members(of(file.resolve()), self._base_name))
        return next((one for one in own if _named(one) == name), None)

    def says(self, name: str, *fields: str) -> tuple[Any, ...]:
        """Attributes of a plug-in's class; of a built-in as its file has them, so that torch stays unloaded.

        Raises:
            RequestError: As `get`.
        """
        written = self.read(name) if name in self._declared() else None
        with suppress(Unreadable):
            if written is not None:
                return tuple(
                    reading.stand_ins(written) if field == "stand_ins" else written.get(field) for field in fields
                )
        cls = self.get(name).cls
        return tuple(getattr(cls, field) for field in fields)

    def origin(self, name: str) -> str:
        """Who claims a name, in words."""
        return self._lent[name].origin if name in self._lent else self._claims[name].origin

    def read_files(self) -> None:
        """Look through the files of the workspace, none of which is executed.

        Raises:
            RequestError: One is no Python, or a plug-in in it does not say what it has to.
        """
        for file in self._files():
            source = of(file.resolve())
            for one in reading.members(source, self._base_name):
                reading.check(one, self.kind, f"{file}:{one.name}")

    def _absent(self, source: Source, attribute: str, plugins: list[str]) -> RequestError:
        """The error for a name that a file has not; where anything may be adapted, it says what it has."""
        names = plugins or (source.makers() if self.adapter else [])
        shown = ", ".join(names[:8]) + ", …" * (len(names) > 8)
        remedy = f"it has {shown}" if names else f"it defines no {self.kind}"
        return unknown(f"name in {source.file}", attribute, names, remedy)

    @property
    def _base_name(self) -> str:
        return self.base.rpartition(":")[2]

    def _at(self, path: str, name: str) -> Path:
        file = Path(path) if Path(path).is_absolute() else self.workspace / path
        if not file.is_file():
            raise RequestError(f"no such plug-in file: {path}; give the path of a file as {name!r}")
        declaration.check_path(name)
        return file

    @cached_property
    def _claims(self) -> dict[str, Claim[T]]:
        claims: dict[str, Claim[T]] = {}
        for source in (self._built_in(), self._installed(), self._local()):
            for name, claim in source:
                if name in claims:
                    raise RequestError(
                        f"{self.kind} {name!r} is claimed twice: by {claims[name].origin} and by {claim.origin}; "
                        "rename one of them"
                    )
                claims[name] = claim
        return claims

    def _built_in(self) -> list[tuple[str, Claim[T]]]:
        package = f"benchbox.plugins.{self.folder}"
        declared = self._declared()
        return [(name, self._claim("benchbox", f"{package}.{target}")) for name, target in declared.items()]

    def _declared(self) -> Mapping[str, str]:
        """The built-in plug-ins: `module:Class` by name."""
        declared: Mapping[str, str] = importlib.import_module(f"benchbox.plugins.{self.folder}").DECLARED
        return declared

    def _installed(self) -> list[tuple[str, Claim[T]]]:
        return [(e.name, self._claim(origin_of(e), e.value)) for e in self._entry_points()]

    def _entry_points(self) -> importlib.metadata.EntryPoints:
        return importlib.metadata.entry_points(group=f"benchbox.{self.folder}")

    def _claim(self, origin: str, target: str) -> Claim[T]:
        def load() -> tuple[type[T], str]:
            module, _, attribute = target.partition(":")
            try:
                cls = self._member(importlib.import_module(module), attribute)
            except BaseException as error:
                ours = module.startswith("benchbox.") and not isinstance(error, ImportError)
                if ours or isinstance(error, KeyboardInterrupt):
                    raise
                raise RequestError(
                    f"{self.kind} {target} of {origin} cannot be imported: {border.reason(error)}; "
                    "mend or uninstall the package"
                ) from error
            return cls, f"{origin}/{getattr(cls, 'version', 1)}"

        return Claim(origin, load)

    def _local(self) -> list[tuple[str, Claim[T]]]:
        claims: list[tuple[str, Claim[T]]] = []
        for file in self._files():
            self.announce(f"loading workspace file {file.relative_to(self.workspace)}")
            claims += [(one.name, Claim(one.origin, _loaded(one.cls, one.code))) for one in self.of_file(file)]
        return claims

    def _files(self) -> list[Path]:
        """The plug-in files of the workspace."""
        found = sorted((self.workspace / self.folder).glob("*.py")) if self.local else []
        return [file for file in found if not file.name.startswith("_") and not self._is_built_in(file)]

    def _is_built_in(self, file: Path) -> bool:
        """Whether this is the file of a built-in: in the project's own checkout the workspace holds them all."""
        found = importlib.util.find_spec(f"benchbox.plugins.{self.folder}.{file.stem}")
        origin = Path(found.origin) if found and found.origin else None
        return origin is not None and (origin.samefile(file) or origin.read_bytes() == file.read_bytes())

    def _members(self, module: ModuleType) -> list[Any]:
        base = self._base_class()
        own = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
        derived = [c for c in own if issubclass(c, base)]
        # What others in the file derive from, and what is named like the inside of it, is no plug-in itself.
        return [
            c
            for c in derived
            if (hasattr(c, "card") and not inspect.isabstract(c))
            or not (c.__name__.startswith("_") or any(d is not c and issubclass(d, c) for d in derived))
        ]

    def _in_file(self, file: Path, attribute: str, name: str) -> tuple[type[T], str]:
        """A plug-in of a file that is named, and its code."""
        found = home.at(file)
        return _settled(self._of_file(found.module, attribute, name), found), found.code

    def _of_file(self, module: ModuleType, attribute: str, name: str) -> type[T]:
        member = getattr(module, attribute, None)
        derived = hasattr(member, "card") or (isinstance(member, type) and issubclass(member, self._base_class()))
        if self.adapter and callable(member) and not derived:
            adapted: type[T] = _imported(self.adapter)(member, name)
            return adapted
        return self._member(module, attribute)

    def _member(self, module: ModuleType, attribute: str) -> type[T]:
        cls = getattr(module, attribute, None)
        if cls is None:
            source = of(Path(str(module.__file__)))
            raise self._absent(source, attribute, [c.__name__ for c in self._members(module)])
        base = self._base_class()
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise RequestError(
                f"{module.__file__}:{attribute} is no {self.kind}; derive it from benchbox.{base.__name__}, as "
                f"`benchbox new {self.folder[:-1]} NAME` does"
            )
        declaration.check(cls, self.kind, f"{module.__file__}:{attribute}")
        return cls

    def _base_class(self) -> type[Any]:
        cls: type[Any] = _imported(self.base)
        return cls


def _written(source: Source, name: str) -> Written | None:
    with suppress(Unreadable):
        found = source.value(name)
        return found if isinstance(found, Written) else None
    return None


def _named(written: Written) -> str | None:
    with suppress(Unreadable):
        return str(written.get("card").name)
    return None


def origin_of(entry: importlib.metadata.EntryPoint) -> str:
    """Which package claims a name."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def undefended() -> str:
    """Name of the classifier without a defence, as the folder of the built-in defences declares it."""
    name: str = importlib.import_module("benchbox.plugins.defenses").UNDEFENDED
    return name


def _imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _loaded(cls: type[T], code: str) -> Callable[[], tuple[type[T], str]]:
    return lambda: (cls, code)


def _settled(cls: type[T], place: home.Home) -> type[T]:
    """The class, which now knows where its file lives."""
    border.HOMES[cls] = place
    return cls


def defenses(
    workspace: Path | None = None,
    announce: Callable[[str], None] = lambda sentence: None,
    *,
    local: bool = True,
) -> Registry[Defense]:
    """The registry of defences."""
    base, adapter = "benchbox.contract.defense:Defense", "benchbox.contract.pretrained:from_factory"
    return Registry("defence", "defenses", base, workspace or Path.cwd(), announce, adapter, local)


def attacks(
    workspace: Path | None = None,
    announce: Callable[[str], None] = lambda sentence: None,
    *,
    local: bool = True,
) -> Registry[Attack]:
    """The registry of attacks."""
    base = "benchbox.contract.attack:Attack"
    return Registry("attack", "attacks", base, workspace or Path.cwd(), announce, local=local)
