"""`benchbox export` and `benchbox import-adversarials`: evidence out, and other people's images in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchbox.cli import options
from benchbox.cli.command import command
from benchbox.cli.listing import found_by
from benchbox.engine.request import Grid
from benchbox.errors import RequestError
from benchbox.text import check_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from benchbox.domain import Evidence


@command(
    "benchbox export 3fa9c1d2",
    "benchbox export 3fa9c1d2 --output pssr-pgd.safetensors",
)
def export(
    cell: Annotated[
        str, typer.Argument(metavar="CELL", help="The first characters of the key of a finished cell.")
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to write it.  (default: adversarials-KEY.safetensors)"
        ),
    ] = None,
    store: options.Store = options.DEFAULT_STORE,
) -> None:
    """Write the adversarial images of a cell, its predictions and its record to one safetensors file.

    Keys of cells stand in `benchbox report --format json`.
    """
    from benchbox.engine import exchange

    evidence, x = _stored(cell, store)
    content = exchange.export(evidence, x)
    to = to or Path(f"adversarials-{evidence.cell.key[:12]}.safetensors")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(content)
    except OSError as error:
        raise RequestError(f"cannot write {to}: {error.strerror}; name another file with --output") from None
    typer.echo(str(to))


@command(
    "benchbox import-adversarials theirs.npz --defense pssr --dataset mnist --samples 1000",
    "benchbox import-adversarials theirs.safetensors --defense none --dataset digits --origin 'Lee 2024'",
)
def import_adversarials(
    *,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A .safetensors or .npz file: x_adv (N, C, H, W) or (N, H, W, C), floats in [0, 1] or uint8; "
            "indices in the test split (default: the first N).",
        ),
    ],
    defense: Annotated[str, typer.Option("--defense", "-d", metavar="NAME", help="The defence to score.")],
    dataset: Annotated[str, typer.Option(metavar="NAME", help="The data set the images belong to.")],
    asked: Annotated[
        Grid,
        ("samples", "epsilon", "norm", "seeds", "overrides", "weights"),
        {"epsilon": options.ONE["epsilon"]},
    ],
    origin: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Where the images come from, for the tables.  (default: FILE's name)"),
    ] = None,
    work: options.Work,
) -> None:
    """Score adversarial images that were made elsewhere, and let them count in the worst case.

    Every image of the sample list has to be there, inside the ball. The defence has to be trained already.
    What the attacker knew cannot be checked, so the tables show the access as imported.
    """
    from benchbox.engine import exchange
    from benchbox.result import known_of

    request = asked.with_options({"defenses": (defense,), "datasets": (dataset,)}).only()
    origin = check_words("origin of images", file.name if origin is None else origin)
    found = exchange.read(file)
    from benchbox import report
    from benchbox.cli.console import present
    from benchbox.engine.imported import score_file
    from benchbox.store import Store

    session = work.session()
    with Store.open(work.store) as opened:
        cells, cost = score_file(session, opened, found, request, origin)
        evidence = opened.evidence(keys=[cell.key for cell in cells])
        present(report.tabulate(evidence, known_of(evidence, opened)))
    for cell in cells:
        typer.echo(f"stored as cell {cell.key}")
    # Last, where a long table cannot hide it.
    for line in cost:
        typer.echo(line)


def _stored(prefix: str, store: str) -> tuple[Evidence, NDArray[np.float32]]:
    """A cell and its adversarial images.

    Raises:
        StoreError: There is no store.
        RequestError: No cell or several are meant, or its images are not there.
    """
    import numpy as np

    from benchbox.store import Store

    with Store.open(store, must_exist=True) as opened:
        keys = [record.cell.key for record in found_by(prefix, opened, store)]
        if len(keys) != 1:
            raise RequestError(f"{len(keys)} cells of {store} are {prefix}; `benchbox list cells` has their keys")
        found = opened.evidence(keys=keys)
        cell = found[0].cell
        crafted = opened.crafted(cell.craft_key, np.arange(len(cell.samples)))
    if crafted is None:
        raise RequestError(
            f"cell {cell.key[:12]} ({found[0].status}) lacks adversarial images; finish it with `benchbox run`"
        )
    return found[0], crafted.x
