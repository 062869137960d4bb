"""The options that several commands share, and what their words mean."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_origin

import typer

from benchbox import api
from benchbox.cli.console import notice
from benchbox.data.catalogue import KNOWN
from benchbox.domain import Access
from benchbox.engine import request as requests
from benchbox.engine.request import Grid, says
from benchbox.errors import RequestError
from benchbox.report import FORMATS, known_format

if TYPE_CHECKING:
    from benchbox.contract.attack import Attack
    from benchbox.contract.defense import Defense
    from benchbox.contract.registry import Registry
    from benchbox.engine.session import Session

DEFAULT_STORE = api.STORE


def of(field: str) -> Any:
    """The option that says a field of a request: its flags, its metavar and its help are the field's own."""
    found = Grid.model_fields[field]
    return typer.Option(
        *says(found)["flags"],
        metavar=says(found)["metavar"],
        help=found.description,
        autocompletion=completing(field) if field in _known_names() else None,
    )


def _known_names() -> dict[str, Callable[[], Iterable[str]]]:
    """Where the names of a field are known without executing anybody's file and without torch."""
    return {
        "defenses": lambda: _built_in("defenses"),
        "attacks": lambda: ["all", *_built_in("attacks")],
        "datasets": lambda: KNOWN,
        "accesses": lambda: [str(access) for access in Access if access is not Access.IMPORTED],
        "norm": lambda: ("linf", "l2"),
    }


def _built_in(folder: str) -> Iterable[str]:
    declared: Mapping[str, str] = importlib.import_module(f"benchbox.plugins.{folder}").DECLARED
    return declared


def completing(field: str) -> Callable[[str], list[str]]:
    """What the shell offers for a field; after a comma, for its last name."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in sorted(_known_names()[field]()) if name.startswith(last)]

    return complete


#: Every word is read by the request itself, so that a mistake is refused in the same words wherever it is made.
Words = list[str] | None
Defenses = Annotated[Words, of("defenses")]
Datasets = Annotated[Words, of("datasets")]
Epsilon = Annotated[Words, of("epsilon")]
NormName = Annotated[str | None, of("norm")]
Attacks = Annotated[Words, of("attacks")]
Accesses = Annotated[Words, of("accesses")]
Samples = Annotated[str | None, of("samples")]
Seeds = Annotated[Words, of("seeds")]
Settings = Annotated[Words, of("overrides")]
Weights = Annotated[Words, of("weights")]
Format = Annotated[
    str,
    typer.Option("--format", "-f", metavar="FORMAT", callback=known_format, help=f"One of {', '.join(FORMATS)}."),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Where to write it.  (default: the standard output)"),
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
Secret = Annotated[
    str | None,
    typer.Option(
        metavar="HEX",
        help="What the draws of randomised defences are named under, to repeat a run.  (default: the store's own)",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Of training: float32, bfloat16.  (default: bfloat16 on a GPU that has it, else float32)",
    ),
]
NoWorkspace = Annotated[
    bool, typer.Option("--no-workspace", help="Leave out the plug-ins in ./defenses and ./attacks.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Processes that share the work, each with its share of the threads; with GPUs, one or more a card.  "
        "(default: this process alone)",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Share the work with a Ray cluster: auto, HOST:PORT; local starts one on this machine.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


class Interrupted(Exception):  # noqa: N818 - not an error
    """The user stopped a command; the message says what is stored."""


def asking(*fields: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put the options of a request, and `--grid`, before a command's own; the command gets a `Grid` first.

    Args:
        fields: Those that the command has; all by default.
    """
    chosen = fields or tuple(name for name, field in Grid.model_fields.items() if says(field)["flags"])

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        asked = [_parameter(name, Annotated[Words, of(name)]) for name in chosen]
        parameters = [*asked, _parameter("grid", GridFile), *own]

        def asks(**given: Any) -> Any:
            said = {name: given.pop(name) for name in chosen}
            return command(request(given.pop("grid"), said), **given)

        asks.__name__, asks.__doc__ = command.__name__, command.__doc__
        asks.__annotations__ = {p.name: p.annotation for p in parameters}
        asks.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return asks

    return decorate


def request(file: Path | None, given: Mapping[str, Any]) -> Grid:
    """The grid file, if any, with what was given beside it; None means not given.

    Raises:
        RequestError: A value does not fit.
    """
    base = requests.read(file) if file else Grid()
    return base.with_options(words(given))


def words(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given of the options of a request, by field; None means not given.

    Raises:
        RequestError: An option that stands for one value is repeated.
    """
    return {field: _word(field, value) for field, value in given.items() if value is not None}


def _word(field: str, value: Any) -> Any:
    """What an option that may be repeated says.

    Raises:
        RequestError: It is one that may not.
    """
    if field == "overrides":
        return settings(value)
    if not isinstance(value, list | tuple):
        return value
    if get_origin(Grid.model_fields[field].annotation) is tuple:
        return names(value)
    if len(value) > 1:
        flag = says(Grid.model_fields[field])["flags"][0]
        raise RequestError(f"{flag} is given {len(value)} times: {', '.join(value)}; give it once")
    return value[0]


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


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


def plugins(*, workspace: bool = True) -> tuple[Registry[Defense], Registry[Attack]]:
    """The defences and attacks: built-in, installed and, unless they are left out, of this workspace."""
    from benchbox.contract import registry

    return (
        registry.defenses(announce=notice, local=workspace),
        registry.attacks(announce=notice, local=workspace),
    )


def session(
    store: str,
    data_dir: Path | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    secret: str | None = None,
    *,
    download: bool = True,
    workspace: bool = True,
    asked: Grid | None = None,
    workers: int | None = None,
    ray: str | None = None,
) -> Session:
    """The engine with the settings of the command line.

    Raises:
        RequestError: A name of the request is unknown, the device is not there, or the precision is unknown.
    """
    found = plugins(workspace=workspace)
    if asked:
        # A typing mistake is answered before torch is loaded, which takes seconds.
        requests.check_names(asked, *found, _datasets(data_dir))
    from benchbox.engine import device as devices
    from benchbox.engine import secret as secrets
    from benchbox.engine.session import Session, Settings, artifacts_folder
    from benchbox.training import precision as precisions

    # Now, not after the data has been read.
    precisions.choose(precision, devices.choose(device))
    if secret is not None:
        secrets.check(secret)
    chosen = Settings(
        store, artifacts_folder(store), data_dir, device, batch_size, precision, download, secret, workers, ray
    )
    return Session(*found, chosen, announce=notice)


def _datasets(data_dir: Path | None) -> set[str]:
    return {*KNOWN, *(file.stem for file in data_folder(data_dir).glob("*.npz"))}


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
