"""`benchbox new` and `benchbox init`: the files a new defence and a new workspace begin with."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from benchbox.cli.command import Family, command
from benchbox.cli.console import notice
from benchbox.errors import RequestError, unknown

KINDS = ("purifier", "classifier")
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
#: What a workspace holds: the plug-ins, what was measured, what was rendered.
FOLDERS = ("defenses", "attacks", "results", "reports")
#: Measured and rendered files are large, and the store can be filled again.
IGNORED = (
    "__pycache__/",
    "/results/benchbox.sqlite*",
    "/results/artifacts/",
    "/reports/",
)


Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Its name: small letters, digits, and hyphens between them.")
]


@command(
    "benchbox new defense my-purifier",
    "benchbox run --defense my-purifier --dataset digits --attacks pgd",
)
def defense(
    name: Name,
    kind: Annotated[
        str,
        typer.Option(
            metavar="KIND", help="purifier: rewrites the image. classifier: trains a network differently."
        ),
    ] = "purifier",
) -> None:
    """Write defenses/NAME.py, which runs as it stands, and tests/test_NAME.py."""
    if kind not in KINDS:
        raise unknown("kind of defence", kind, KINDS)
    _begin(name, "defence", {"defenses": kind, "tests": "test"})
    typer.echo(f"now: benchbox run --defense {name} --dataset digits --attacks pgd")


@command(
    "benchbox new attack my-attack",
    "benchbox run --defense none --dataset digits --attacks my-attack",
)
def attack(name: Name) -> None:
    """Write attacks/NAME.py, which runs as it stands, and tests/test_NAME.py."""
    _begin(name, "attack", {"attacks": "attack", "tests": "test_attack"})
    typer.echo(f"now: benchbox run --defense none --dataset digits --attacks {name}")


NEW = Family("new", "Write the files that a new plug-in begins with.", (defense, attack), defense.examples)


@command("mkdir robustness && cd robustness && benchbox init")
def init() -> None:
    """Make this folder a workspace: defenses, attacks, results, reports, and a .gitignore.

    What is there already is left as it is.
    """
    for folder in FOLDERS:
        try:
            Path(folder).mkdir(exist_ok=True)
        except OSError as error:
            raise RequestError(f"cannot make {folder}: {error.strerror}; is there a file of that name?") from None
    ignore = Path(".gitignore")
    if not ignore.exists():
        _write(ignore, "\n".join(IGNORED) + "\n")
    else:
        missing = [line for line in IGNORED if line not in ignore.read_text(encoding="utf-8").splitlines()]
        if missing:
            typer.echo(f".gitignore is left as it is; consider adding {' '.join(missing)}")
    typer.echo(f"{Path.cwd()} is a workspace; next: benchbox new defense my-defense")


def _begin(name: str, kind: str, templates: Mapping[str, str]) -> None:
    """Write a plug-in and its test: for each folder the template that is filled."""
    if not NAME.fullmatch(name) or len(name) > 80:
        raise RequestError(
            f"{name!r} is no name for {_article(kind)}; use up to 80 small letters, digits and hyphens: my-plugin"
        )
    _check_free(name)
    stem = name.replace("-", "_")
    wanted = {
        Path(folder, f"test_{stem}.py" if folder == "tests" else f"{stem}.py"): template
        for folder, template in templates.items()
    }
    for path in wanted:
        if path.exists():
            raise RequestError(f"{path} exists and is not overwritten; choose another name, or move it away")
    for path, template in wanted.items():
        _write(path, _filled(template, name))
        typer.echo(f"wrote {path}")


def _check_free(name: str) -> None:
    from benchbox.contract import registry

    for claimed in (registry.defenses(announce=notice), registry.attacks(announce=notice)):
        if name in claimed.names():
            raise RequestError(f"{name!r} is the name of {_article(claimed.kind)} already; choose another")


def _article(kind: str) -> str:
    return f"an {kind}" if kind.startswith("a") else f"a {kind}"


def _filled(template: str, name: str) -> str:
    source = importlib.resources.files("benchbox.cli") / "templates" / f"{template}.py.txt"
    class_name = "".join(part.capitalize() for part in name.split("-"))
    return source.read_text(encoding="utf-8").replace("@NAME@", name).replace("@CLASS@", class_name)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror}; is the folder writable?") from None
