"""`benchbox compare`: two defences on the same images. Never imports torch."""

from __future__ import annotations

from typing import Annotated

import typer

from benchbox import api
from benchbox.cli import options
from benchbox.cli.command import command
from benchbox.cli.words import names

Side = Annotated[str, typer.Argument(help="A defence, or the first characters of the digest of its weights.")]


@command(
    "benchbox compare pssr trades --dataset mnist",
    "benchbox compare pssr 3fa9c1d2 --attacks pgd,square --format json",
)
def compare(
    a: Side,
    b: Side,
    *,
    dataset: options.Datasets = None,
    attacks: Annotated[
        list[str] | None,
        typer.Option("--attacks", "-a", metavar="NAMES", help="Attacks.  (default: all that both have)"),
    ] = None,
    shown: options.Shown,
    records: options.Records,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            help="Which weights of a file.py:FACTORY are meant; repeatable, those of the first defence first.",
        ),
    ] = None,
) -> None:
    """Compare two defences image by image: differences, intervals, tests, and what could have been found.

    They are compared on the list of images that both were scored on, else on the images that both of their lists
    have. Several training seeds of a defence are taken together.
    """
    asked = {
        "dataset": names(dataset, "--dataset"),
        "attacks": names(attacks, "--attacks"),
        "weights": tuple(weights or ()),
    }
    found = api.compare(a, b, **asked, store=records.place)
    shown.present(found.document())
