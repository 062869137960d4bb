"""The options that several commands share, and what their words mean."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchbox import api
from benchbox.cli.console import notice, present
from benchbox.cli.words import Words, names, own_store, stored
from benchbox.data.catalogue import KNOWN
from benchbox.domain import NAMED, SIGNS, Access, known_precision
from benchbox.engine import device as devices
from benchbox.engine import foresight
from benchbox.engine import request as requests
from benchbox.engine.request import Grid, says
from benchbox.errors import RequestError
from benchbox.report import FORMATS, known_format
from benchbox.training.lesson import LESSONS

if TYPE_CHECKING:
    from benchbox import store as stores
    from benchbox.contract.attack import Attack
    from benchbox.contract.defense import Defense
    from benchbox.contract.registry import Registry
    from benchbox.domain import Evidence
    from benchbox.engine.session import Session
    from benchbox.report.document import Document

    Plugins = tuple[Registry[Defense], Registry[Attack]]

DEFAULT_STORE = api.STORE


#: Fields of a request, as commands say them that take one value of each: metavar and help.
ONE: Mapping[str, tuple[str, str]] = {
    "datasets": ("NAME", "Data set.  (default: digits)"),
    "seeds": ("N", "Training seed.  (default: 0)"),
    "epsilon": ("RADIUS", "0.3 or 8/255, for images in [0, 1].  (default: the data set's)"),
}


def of(field: str, metavar: str = "", help: str = "") -> Any:
    """The option that says a field of a request.

    Args:
        field: Its flags are the field's own.
        metavar: The field's own unless it is given.
        help: Likewise.
    """
    found = Grid.model_fields[field]
    return typer.Option(
        *says(found)["flags"],
        metavar=metavar or says(found)["metavar"],
        help=help or found.description,
        autocompletion=completing(field) if field in _known_names() else None,
    )


def _known_names() -> dict[str, Callable[[], Iterable[str]]]:
    """Where the names of a field are known without executing anybody's file and without torch."""
    return {
        "defenses": lambda: _built_in("defenses"),
        "attacks": lambda: ["all", *_built_in("attacks")],
        "datasets": lambda: KNOWN,
        "sources": lambda: ["classifier", "defense", *LESSONS, *_built_in("defenses")],
        "accesses": lambda: [str(access) for access in Access if access is not Access.IMPORTED],
        "norm": lambda: tuple(SIGNS),
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


def _only(field: str, help: str, metavar: str = "") -> Any:
    """The option that chooses among results by a field of a request: without it, they are all meant."""
    return of(field, metavar, f"Only those {help}.  (default: all that are stored)")


Defenses = Annotated[Words, _only("defenses", "of these defences, repeated or with commas")]
Epsilon = Annotated[Words, _only("epsilon", "of this radius, 0.3 or 8/255; several with commas")]
NormName = Annotated[str | None, _only("norm", f"of this norm: {NAMED}")]
Attacks = Annotated[Words, _only("attacks", "of these attacks")]
Accesses = Annotated[Words, _only("accesses", "under these: gray-box, white-box, bpda, transfer")]
Samples = Annotated[str | None, _only("samples", "of N test images")]
Datasets = Annotated[
    Words,
    typer.Option(
        "--dataset",
        "--datasets",
        metavar="NAMES",
        help="Data sets, repeated or with commas.  (default: all)",
        autocompletion=completing("datasets"),
    ),
]
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
        callback=own_store,
        help="The results: an SQLite file or a database URL. Trained weights lie beside it.",
    ),
]
RecordsAt = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="PATH|URL|NAME.json",
        callback=stored,
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
        help="Of training: float32, bfloat16.  (default: bfloat16 on a device that computes in it, else float32)",
    ),
]
NoWorkspace = Annotated[
    bool, typer.Option("--no-workspace", help="Leave out the plug-ins in ./defenses and ./attacks.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        metavar="N",
        help="Processes that share the work, each with its share of the threads; with GPUs, one or more a card.  "
        "(default: this process alone)",
    ),
]
Isolate = Annotated[
    bool,
    typer.Option(
        "--isolate",
        help="Ask each defence in a process of its own, for plug-ins of strangers; outcomes stay. docs/trust.md "
        "says what it costs.",
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


@dataclass(frozen=True)
class Chosen:
    """Which of the results are meant, by data set and defence; all where nothing is said."""

    dataset: Datasets = None
    defense: Defenses = None

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of data sets."""
        return names(self.dataset, "--dataset")

    @property
    def defenses(self) -> tuple[str, ...]:
        """Names of defences."""
        return names(self.defense, "--defense")

    def of(self, records: stores.Records) -> list[Evidence]:
        """Their cells."""
        return [item for item in records.evidence(defenses=self.defenses or None) if self.fits(item)]

    def fits(self, item: Evidence) -> bool:
        """Whether a cell is meant."""
        return item.is_of(self.datasets, self.defenses)

    def missing(self, *places: str, what: str = "nothing") -> RequestError:
        """That there is nothing, or nothing of a kind, of them in these places."""
        asked = ", ".join(self.datasets + self.defenses)
        held = f"{', '.join(places)} {'holds' if len(places) == 1 else 'hold'} {what}"
        return RequestError(f"{held}{f' of {asked}' if asked else ''}; fill it with `benchbox run`")


@dataclass(frozen=True)
class Records:
    """Where results are read from."""

    store: RecordsAt = DEFAULT_STORE
    published: IsPublished = False

    @property
    def place(self) -> str:
        """As `open_records` takes it."""
        return "published" if self.published else self.store


@dataclass(frozen=True)
class Shown:
    """The form in which a document is shown, and where."""

    format_: Format = "terminal"
    to: Output = None

    def present(self, document: Document) -> None:
        """Print it, or write it to the file."""
        present(document, self.format_, self.to)


@dataclass(frozen=True)
class Work:
    """What the engine works with: where things lie, what it may use, and the device."""

    store: Store = DEFAULT_STORE
    data_dir: DataDir = None
    no_download: NoDownload = False
    no_workspace: NoWorkspace = False
    device: Device = None

    def plugins(self, asked: Grid | None = None, *, isolate: bool = False) -> Plugins:
        """The defences and attacks, none of them loaded, with the names and settings of a request looked up.

        Raises:
            RequestError: One is unknown or does not fit.
        """
        found = plugins(workspace=not self.no_workspace, isolate=isolate)
        if asked:
            foresight.check(asked, *found)
            requests.check_names(asked, *found, _datasets(self.data_dir))
        return found

    def session(self, asked: Grid | None = None, found: Plugins | None = None, **settings: Any) -> Session:
        """The engine with these settings.

        Args:
            asked: The request whose names are looked up first, before torch is loaded, which takes seconds.
            found: The plug-ins, where they have been looked up already.
            settings: Others, of `engine.session.Settings`.

        Raises:
            RequestError: A name of the request is unknown, the device is not there, or the precision is unknown.
        """
        found = found or self.plugins(asked, isolate=bool(settings.get("isolate")))
        own = vars(self)
        if self.device is not None:
            devices.check(self.device)
        if own.get("precision") is not None:
            known_precision(own["precision"])
        if own.get("secret") is not None:
            from benchbox.engine import secret as secrets

            secrets.check(own["secret"])
        from benchbox.engine.session import Session, Settings, artifacts_folder

        own = {name: value for name, value in own.items() if name in Settings.__dataclass_fields__}
        own |= {"artifacts": artifacts_folder(self.store), "download": not self.no_download}
        chosen = Settings(**own | settings)
        # Now, not after the data has been read.
        devices.choose(chosen.device)
        return Session(*found, chosen, announce=notice)


@dataclass(frozen=True)
class Training(Work):
    """What the engine works with where defences are trained on purpose."""

    precision: Precision = None


@dataclass(frozen=True)
class Scoring(Training):
    """What the engine works with where randomised defences are scored for good."""

    secret: Secret = None


def plugins(*, workspace: bool = True, isolate: bool = False) -> Plugins:
    """The defences and attacks: built-in, installed and, unless they are left out, of this workspace."""
    from benchbox.contract import registry
    from benchbox.engine.isolation import strangers

    return (
        strangers.defenses(announce=notice, local=workspace, isolate=isolate),
        registry.attacks(announce=notice, local=workspace),
    )


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
