"""`benchbox figures`: pictures of what is stored, and of what a trained defence does to an image."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchbox.cli import options, words
from benchbox.cli.command import command
from benchbox.domain import NULL_ATTACK
from benchbox.errors import RequestError, unknown
from benchbox.result import known_of

if TYPE_CHECKING:
    from benchbox.domain import Evidence
    from benchbox.engine.session import Session
    from benchbox.figures.style import Drawing
    from benchbox.store import Records

#: Made of results alone; with what each shows.
STORED = {
    "survives": "accuracy of each defence by access and attack, and its paper's claim",
    "epsilon": "accuracy against the radius of the ball, of every defence run in several",
    "alpha": "Fig. 7 of the PSSR paper: accuracy against the threshold of the surgery",
    "passes": "Fig. 10b: accuracy against k, the draws of Adversarial R-Drop",
}
#: Made with a trained defence, which is trained first if its weights are not beside the store.
TRAINED = {
    "decomposition": "Fig. 1: full, salient and trivial attack",
    "surgery": "Fig. 2 and 8: image, attacked, mask, trivial component, regenerated",
    "features": "Fig. 9: t-SNE of the penultimate features, clean and attacked",
    "attention": "Fig. 10a: Grad-CAM of image, attacked and purified",
}


@command(
    "benchbox figures",
    "benchbox figures survives --published --defense pssr",
    "benchbox figures epsilon --dataset mnist --attacks pgd,aa --access white-box",
    "benchbox figures decomposition surgery features attention --dataset mnist --defense pssr",
)
def figures(
    *,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAMES", help=f"{', '.join([*STORED, *TRAINED])}.  (default: survives)"),
    ] = None,
    chosen: options.Chosen,
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
    samples: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Images in a figure of a trained defence.  (default: the figure's)"),
    ] = None,
    records: options.Records,
    data_dir: options.DataDir = None,
    no_download: options.NoDownload = False,
    no_workspace: options.NoWorkspace = False,
) -> None:
    """Draw figures as PDF, SVG and PNG, each with its caption and command in a text file beside it.

    Equal results give equal files, byte for byte.
    """
    from benchbox.figures import style
    from benchbox.store import open_records

    wanted = words.names(names, "the argument NAMES") or ("survives",)
    kinds = words.names(formats, "--formats") or style.FORMATS
    for name in wanted:
        if name not in STORED | TRAINED:
            raise unknown("figure", name, STORED | TRAINED)
    for kind in kinds:
        if kind not in style.FORMATS:
            raise unknown("format", kind, style.FORMATS)
    given = {"dataset": chosen.datasets, "defense": chosen.defenses, "attacks": words.names(attacks, "--attacks")}
    given |= {"access": words.names(access, "--access"), "samples": (str(samples),) if samples else ()}
    with open_records(records.place) as opened, style.style():
        evidence = chosen.of(opened)
        if not evidence:
            raise chosen.missing(records.place)
        for name in wanted:
            again = _command(name, records.place, given)
            drawn = 0
            if name in TRAINED:
                work = options.Work(_beside(records.place), data_dir, no_download, no_workspace, "cpu")
                drawings = _trained(name, evidence, opened, work.session(), given)
            else:
                drawings = _stored(name, evidence, opened, given)
            for drawing in style.apart(drawings):
                drawn += 1
                for path in style.save(drawing, folder, again, kinds):
                    typer.echo(str(path))
            if not drawn:
                raise RequestError(f"nothing is finished that {name!r} could show; finish it with `benchbox run`")


def _stored(
    name: str, evidence: list[Evidence], opened: Records, chosen: Mapping[str, tuple[str, ...]]
) -> Iterator[Drawing]:
    from benchbox.analysis import curves, leaderboard
    from benchbox.analysis.survival import survivals
    from benchbox.figures import curve, survival

    attacks, accesses = chosen["attacks"], chosen["access"]
    if name == "survives":
        kept = [item for item in evidence if not attacks or item.cell.attack.name in (*attacks, NULL_ATTACK)]
        yield from map(survival.draw, survivals(leaderboard.build(kept, known_of(kept, opened))))
    elif name == "epsilon":
        yield from (curve.draw(found, name) for found in curves.over_epsilon(evidence, attacks, accesses))
    else:
        found = curves.over_field(evidence, name, attacks, accesses, opened.artifacts())
        yield from (curve.draw(one, name) for one in found)


def _beside(place: str) -> str:
    """The store that weights lie beside: those of published results lie in the workspace's own place."""
    return options.DEFAULT_STORE if place.startswith("published") or place.endswith(".json") else place


def _trained(
    name: str, evidence: list[Evidence], opened: Records, session: Session, chosen: Mapping[str, tuple[str, ...]]
) -> Iterator[Drawing]:
    """One drawing for each defence, data set and ball: of its first training.

    Raises:
        RequestError: No defence is named, or its weights came from a file.
    """
    from benchbox.engine.reproduce import training_of
    from benchbox.figures.models import FIGURES, Subject

    if not chosen["defense"]:
        raise RequestError(f"{name} shows one trained defence; name it with --defense pssr")
    cards = opened.artifacts()
    cells = {(e.cell.defense.name, e.cell.samples.dataset, e.cell.threat): e.cell for e in reversed(evidence)}
    for cell in reversed(cells.values()):
        if cell.artifact not in cards:
            raise RequestError(f"the weights of {cell.defense.name} came from a file; no figure is made of them")
        training = training_of(cards[cell.artifact]["training"])
        defense = session.workshop(training.dataset, lambda *progress: None).obtain(training)
        count = int(chosen["samples"][0]) if chosen["samples"] else None
        subject = Subject(
            session,
            cell.defense.name,
            defense,
            training.seed,
            session.dataset(training.dataset),
            cell.threat,
            chosen["attacks"],
            count,
        )
        yield FIGURES[name](subject)


def _command(name: str, store: str, chosen: Mapping[str, tuple[str, ...]]) -> str:
    """The command that makes a figure again, wherever its files go."""
    said = ["benchbox", "figures", name]
    for option, values in chosen.items():
        said += [f"--{option}", ",".join(values)] if values else []
    if store == "published":
        said.append("--published")
    elif store != options.DEFAULT_STORE:
        said += ["--store", store]
    return shlex.join(said)
