"""The commands that make a row again: as somebody typed them, else those that ask for its very cells."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from benchbox.analysis import substitutes
from benchbox.domain import Access, Cell, Spec
from benchbox.text import harmless

if TYPE_CHECKING:
    from benchbox.analysis.score import Measurement
    from benchbox.analysis.table import Row, Table

#: What the recorded first word of a command is where it was ours.
OURS = ("benchbox", "__main__.py")


def commands(table: Table, row: Row, measured: Sequence[Measurement]) -> Iterator[str]:
    """What to type, and after a # what no command asks for.

    Args:
        table: Where the row stands.
        row: One trained defence.
        measured: Its attacks.
    """
    typed: dict[str, None] = {}
    untyped: list[Cell] = []
    for cell, words in ((m.evidence.cell, list(m.evidence.provenance.get("command") or ())) for m in measured):
        if words and words[0] in OURS:
            typed[shlex.join(["benchbox", *words[1:]])] = None
        else:
            untyped.append(cell)
    yield from typed
    if typed and not untyped:
        return
    if table.samples.seed is None and table.samples.indices != tuple(range(len(table.samples))):
        yield "# these images are a choice of somebody's: the first as many are others"
    for asked, attacks, accesses in _asked(table, row, [c for c in untyped if c.access is not Access.IMPORTED]):
        yield shlex.join(_words(table, row, asked, attacks, accesses))
    if imported := sorted({cell.attack.name for cell in untyped if cell.access is Access.IMPORTED}):
        # On one line: behind a name that breaks it, a shell would read on.
        yield harmless(
            f"# made elsewhere, so `benchbox import-adversarials` brings them in: {', '.join(imported)}"
        )


class _Asked(NamedTuple):
    """What a command says of all its attacks alike.

    Attributes:
        draws: That score an image, and that a gradient is averaged over; None for a defence that draws nothing.
        source: What transfer attacks are crafted on; "" where that is the usual.
        substitute: Digest of its weights; "" likewise.
        variant: Of several settings of one attack, which: a command has one.
    """

    attack_seed: int
    draws: tuple[int, int] | None
    precision: str
    source: str
    substitute: str
    variant: int


def _asked(
    table: Table, row: Row, cells: Sequence[Cell]
) -> Iterator[tuple[_Asked, Sequence[Spec], Sequence[Access]]]:
    """The fewest products of attacks and accesses that are these cells and no others."""
    control = row.control.measurement if row.control else None
    usual = max([cell.eot for cell in cells] + ([control.evidence.cell.eot] if control else []), default=1)
    drawn = row.control is not None or usual > 1 or any(cell.scoring_draws > 1 for cell in cells)
    settings: dict[str, list[str]] = {}
    under: dict[tuple[_Asked, Access], dict[str, Spec]] = {}
    for cell in cells:
        known = settings.setdefault(cell.attack.name, [])
        known += [cell.attack.identity] if cell.attack.identity not in known else []
        source = _source(table, row, cell)
        # A classifier that draws nothing is averaged over nothing, whatever was asked.
        eot = cell.eot if cell.view.artifact == row.artifact else max(cell.eot, usual)
        asked = _Asked(
            cell.attack_seed,
            (cell.scoring_draws, eot) if drawn else None,
            cell.search_precision,
            source,
            cell.view.artifact if source else "",
            known.index(cell.attack.identity),
        )
        under.setdefault((asked, cell.access), {})[cell.attack.name] = cell.attack
    products: dict[tuple[_Asked, tuple[str, ...]], list[Access]] = {}
    for (asked, access), attacks in under.items():
        products.setdefault((asked, tuple(sorted(attacks))), []).append(access)
    for (asked, _), accesses in products.items():
        yield asked, list(under[asked, accesses[0]].values()), accesses


def _source(table: Table, row: Row, cell: Cell) -> str:
    """What `--source` calls the substitute of a cell; "" for another training of the target's classifier."""
    if cell.access is not Access.TRANSFER:
        return ""
    trained = next(substitutes.chain(table.cards.get(cell.view.artifact, {})), None)
    if trained is None:
        return ""  # nobody knows
    if "teacher" in trained:
        return f"query-{trained['lesson']['answers']}"
    name: str = trained["defense"]["name"]
    lowest = [row.defense.name, *_recipes(table, row.artifact)][-1]
    return "" if name == lowest else "defense" if name == row.defense.name else name


def _recipes(table: Table, artifact: str) -> Mapping[str, Mapping[str, Any]]:
    """How weights were trained and the classifiers below them, as far as it is known; by name, the lowest last."""
    trained = substitutes.chain(table.cards.get(artifact, {}))
    return {one["defense"]["name"]: one["defense"]["arguments"] for one in trained}


def _words(
    table: Table, row: Row, asked: _Asked, attacks: Sequence[Spec], accesses: Sequence[Access]
) -> Iterator[str]:
    samples, threat = table.samples, table.threat
    options: dict[str, object] = {"defense": row.defense.name, "dataset": samples.dataset}
    options |= {"attacks": ",".join(one.name for one in attacks), "access": ",".join(map(str, accesses))}
    options |= {"source": asked.source} if asked.source else {}
    options |= {"samples": len(samples), "seeds": row.training_seed}
    options |= {"sample-seed": samples.seed} if samples.seed is not None else {}
    options |= {"norm": threat.norm, "epsilon": threat.epsilon}
    options |= {"attack-seed": asked.attack_seed} if asked.attack_seed else {}
    options |= dict(zip(("scoring-draws", "eot"), asked.draws, strict=True)) if asked.draws else {}
    options |= {"search-precision": asked.precision} if asked.precision != "float32" else {}
    yield from ("benchbox", "run")
    yield from chain.from_iterable((f"--{name}", str(value)) for name, value in options.items())
    settings = {**_recipes(table, asked.substitute), **_recipes(table, row.artifact)}
    settings |= {one.name: one.arguments for one in (row.defense, *attacks)}
    for plugin, own in settings.items():
        for name, value in own.items():
            yield from ("--set", f"{plugin}.{name}={json.dumps(value)}")
