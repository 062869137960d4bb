"""The options that several commands share, and what their words mean."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchbox.cli.console import notice
from benchbox.errors import RequestError

if TYPE_CHECKING:
    from benchbox.contract.attack import Attack
    from benchbox.contract.defense import Defense
    from benchbox.contract.registry import Registry
    from benchbox.engine.session import Session

DEFAULT_STORE = "results/benchbox.sqlite"

Defenses = Annotated[
    list[str] | None,
    typer.Option(
        "--defense",
        "-d",
        metavar="NAMES",
        help="Defences, repeated or with commas; also file.py:Class or file.py:FACTORY.",
    ),
]
Datasets = Annotated[
    list[str] | None,
    typer.Option("--dataset", metavar="NAMES", help="Data sets, repeated or with commas.  (default: digits)"),
]
Seeds = Annotated[
    str | None, typer.Option(metavar="0,1,2", help="Training seeds; each is a row of its own.  (default: 0)")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PLUG-IN.FIELD=VALUE", help="Change a setting of a defence or an attack; repeatable."
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.safetensors",
        help="The weights of --defense file.py:FACTORY, a function or class that makes a torch module.",
    ),
]
GridFile = Annotated[
    Path | None,
    typer.Option(
        "--grid", metavar="FILE.toml", help="Read the request from a file; options given beside it go first."
    ),
]
Store = Annotated[
    str,
    typer.Option(
        metavar="PATH|URL",
        help="The results: an SQLite file or a database URL. Trained weights lie beside it.",
    ),
]
Records = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="PATH|URL|NAME.json",
        help="The results: a store, or a file that `benchbox publish` wrote.",
    ),
]
IsPublished = Annotated[
    bool,
    typer.Option(
        "--published",
        help="In place of a store: every published file of results/published and of benchbox itself.",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Where data sets lie.  (default: $BENCHBOX_DATA, else ~/.cache/benchbox/data)"
    ),
]
NoDownload = Annotated[
    bool, typer.Option("--no-download", help="Use what is on the disk: fetch no data set and no weights.")
]
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, mps.  (default: a GPU if there is one)")
]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Of training: float32, bfloat16.  (default: bfloat16 on a GPU that has it, else float32)",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


class Interrupted(Exception):  # noqa: N818 - not an error
    """The user stopped a command; the message says what is stored."""


def examples(*commands: str) -> str:
    """The lines below a command's options."""
    return "\n\n".join(["Examples:", *(f"  {command}" for command in commands)])


def names(values: Sequence[str] | None) -> tuple[str, ...]:
    """Repeated options and comma lists as one tuple, each name once."""
    parts = [part.strip() for value in values or () for part in value.split(",")]
    return tuple(dict.fromkeys(filter(None, parts)))


def settings(texts: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """`["pssr.epochs=5"]` as `{"pssr": {"epochs": 5}}`.

    Raises:
        RequestError: A text is not of that form.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts or ():
        target, equals, value = text.partition("=")
        # The last stop: the name of a plug-in may be the path of a file.
        plugin, _, field = target.strip().rpartition(".")
        if not (plugin and field and equals):
            raise RequestError(f"--set {text!r} has no plug-in, field or value; write --set pssr.epochs=5")
        found.setdefault(plugin, {})[field] = scalar(value.strip())
    return found


def scalar(text: str) -> Any:
    """A number, a truth value, a list or null as TOML or JSON writes them; any other text as it stands."""
    try:
        read = tomllib.loads(f"value = {text}")
        if read.keys() == {"value"} and isinstance(read["value"], bool | int | float | str | list):
            return read["value"]
    except tomllib.TOMLDecodeError:
        pass
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def artifacts_folder(store: str) -> Path:
    """Where trained weights lie: beside an SQLite file, else in `results/`."""
    path = store.removeprefix("sqlite:///")
    return Path("results" if "://" in path else Path(path).parent) / "artifacts"


def plugins() -> tuple[Registry[Defense], Registry[Attack]]:
    """The defences and attacks of this workspace."""
    from benchbox.contract import registry

    return registry.defenses(announce=notice), registry.attacks(announce=notice)


def session(
    store: str,
    data_dir: Path | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    *,
    download: bool = True,
) -> Session:
    """The engine with the settings of the command line.

    Raises:
        RequestError: The device is not there, or the precision is unknown.
    """
    from benchbox.engine import device as devices
    from benchbox.engine.session import Session, Settings
    from benchbox.training import precision as precisions

    # Now, not after the data has been read.
    precisions.choose(precision, devices.choose(device))
    chosen = Settings(store, artifacts_folder(store), data_dir, device, batch_size, precision, download)
    return Session(*plugins(), chosen, announce=notice)


def is_absent(store: str) -> bool:
    """Whether a store is an SQLite file that is not there."""
    path = store.removeprefix("sqlite:///")
    return "://" not in path and not Path(path).exists()


def data_folder(data_dir: Path | None) -> Path:
    """Where data sets lie; as `benchbox.data.dataset.data_folder`, which loads torch."""
    if data_dir is not None:
        return data_dir.expanduser()
    named = os.environ.get("BENCHBOX_DATA")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "benchbox" / "data"
