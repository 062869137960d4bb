"""`benchbox figures`: pictures of what is stored, and of what a trained defence does to an image."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchbox.cli import options
from benchbox.errors import RequestError, unknown
from benchbox.result import known_of

if TYPE_CHECKING:
    from benchbox.domain import Evidence
    from benchbox.figures.style import Drawing
    from benchbox.store import Records

#: Made of results alone; with what each shows.
STORED = {
    "survives": "accuracy of each defence by access and attack, and its paper's claim",
    "epsilon": "accuracy against the radius of the ball, of every defence run in several",
    "alpha": "Fig. 7 of the PSSR paper: accuracy against the threshold of the surgery",
    "passes": "Fig. 10b: accuracy against k, the draws of Adversarial R-Drop",
}
EXAMPLES = options.examples(
    "benchbox figures",
    "benchbox figures survives --published --defense pssr",
    "benchbox figures epsilon --dataset mnist --attacks pgd,aa --access white-box",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(figures)


def figures(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAMES", help=f"{', '.join(STORED)}.  (default: survives)"),
    ] = None,
    dataset: options.Datasets = None,
    defense: options.Defenses = None,
    attacks: Annotated[
        list[str] | None,
        typer.Option("--attacks", "-a", metavar="NAMES", help="Attacks.  (default: all that are finished)"),
    ] = None,
    access: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="Accesses, for curves.  (default: all)")
    ] = None,
    folder: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the files go.")] = Path(
        "reports/figures"
    ),
    formats: Annotated[
        list[str] | None, typer.Option("--formats", metavar="NAMES", help="pdf, svg, png.  (default: all three)")
    ] = None,
    store: options.Records = options.DEFAULT_STORE,
    published: options.IsPublished = False,
) -> None:
    """Draw figures as PDF, SVG and PNG, each with its caption and command in a text file beside it.

    Equal results give equal files, byte for byte.
    """
    from benchbox.figures import style
    from benchbox.store import open_records

    wanted, kinds = options.names(names) or ("survives",), options.names(formats) or style.FORMATS
    for name in wanted:
        if name not in STORED:
            raise unknown("figure", name, STORED)
    for kind in kinds:
        if kind not in style.FORMATS:
            raise unknown("format", kind, style.FORMATS)
    store = "published" if published else store
    chosen = {"dataset": options.names(dataset), "defense": options.names(defense)}
    chosen |= {"attacks": options.names(attacks), "access": options.names(access)}
    with open_records(store) as opened, style.style():
        evidence = _evidence(opened, store, chosen["dataset"], chosen["defense"])
        for name in wanted:
            command = _command(name, store, chosen)
            drawn = 0
            for drawing in _drawings(name, evidence, opened, chosen["attacks"], chosen["access"]):
                drawn += 1
                for path in style.save(drawing, folder, command, kinds):
                    typer.echo(str(path))
            if not drawn:
                raise RequestError(f"nothing is finished that {name!r} could show; finish it with `benchbox run`")


def _evidence(opened: Records, store: str, datasets: tuple[str, ...], defenses: tuple[str, ...]) -> list[Evidence]:
    every = opened.evidence(defenses=defenses or None)
    found = [item for item in every if not datasets or item.cell.samples.dataset in datasets]
    if not found:
        asked = ", ".join(datasets + defenses)
        raise RequestError(f"{store} holds nothing{f' of {asked}' if asked else ''}; fill it with `benchbox run`")
    return found


def _drawings(
    name: str, evidence: list[Evidence], opened: Records, attacks: tuple[str, ...], accesses: tuple[str, ...]
) -> Iterator[Drawing]:
    from benchbox.analysis import curves, leaderboard
    from benchbox.analysis.survival import survivals
    from benchbox.domain import NULL_ATTACK
    from benchbox.figures import curve, survival

    if name == "survives":
        kept = [item for item in evidence if not attacks or item.cell.attack.name in (*attacks, NULL_ATTACK)]
        yield from map(survival.draw, survivals(leaderboard.build(kept, known_of(kept, opened))))
    elif name == "epsilon":
        yield from (curve.draw(found, name) for found in curves.over_epsilon(evidence, attacks, accesses))
    else:
        yield from (curve.draw(found, name) for found in curves.over_field(evidence, name, attacks, accesses))


def _command(name: str, store: str, chosen: dict[str, tuple[str, ...]]) -> str:
    """The command that makes a figure again, wherever its files go."""
    words = ["benchbox", "figures", name]
    for option, values in chosen.items():
        words += [f"--{option}", ",".join(values)] if values else []
    if store == "published":
        words.append("--published")
    elif store != options.DEFAULT_STORE:
        words += ["--store", store]
    return shlex.join(words)
