"""Every way in which some defences were attacked as a document: attacks down, defences across, and the cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from benchbox.analysis.by_attack import Board, Way, boards, images
from benchbox.analysis.certificate import REFUTED
from benchbox.analysis.score import WITHHELD, Entry, Measurement, Score
from benchbox.analysis.table import Table
from benchbox.domain import SampleList
from benchbox.report.document import Column, Document, Grid, Number, Section, Text, grid
from benchbox.report.remarks import of_certificate

#: Columns of the long form.
FIELDS = (
    *("dataset", "samples_digest", "norm", "epsilon", "n", "defense", "attack", "access", "stand_in", "eot"),
    *("attack_seed", "key", "percent", "low", "high", "majority_vote"),
    *("forwards", "backwards", "seconds", "device"),
)
NOT_RUN = Text("n/r", tone="faint")


class Notes:
    """What numbers refer to, each said once.

    Attributes:
        said: The notes so far; the first is number 1.
    """

    def __init__(self) -> None:
        self.said: list[str] = []

    def number(self, *said: str) -> tuple[int, ...]:
        """The numbers of some notes; of empty ones there are none."""
        for note in said:
            if note and note not in self.said:
                self.said.append(note)
        return tuple(sorted(self.said.index(note) + 1 for note in said if note))


def document(tables: Iterable[Table]) -> Document:
    """A section for each data set and ball.

    Args:
        tables: As `Result.tables` has them.
    """
    found = boards(tables)
    return Document(
        "benchbox attacks",
        [section for board in found if board.found for section in _sections(board)] or [_nothing()],
        lambda: {"attacks": [line for board in found for line in _lines(board)]},
        FIELDS,
        lambda: (line for board in found for line in _lines(board)),
    )


def _nothing() -> Section:
    return Section("No attack", sentences=["No attack has finished."])


def _sections(board: Board) -> Iterator[Section]:
    """All that is known, and where some attacks saw fewer images, what each did to these."""
    yield _section(board)
    if shared := board.on_shared_images():
        said = "The same attacks on the images that all of them saw, so that numbers can be set side by side."
        yield Section(_title(shared), [_accuracies(shared, Notes())], caption=said)


def _title(board: Board) -> str:
    return f"{board.samples.dataset}, {board.threat}, {board.samples.said}"


def _section(board: Board) -> Section:
    notes = Notes()
    devices = sorted({device for entry in board.found.values() for device in _devices(entry)})
    remarks = [
        "Percent right, expected over fresh draws where a defence has any; in brackets, 95 % intervals.",
        "forward, backward: passes of the model under attack, an image. A pass counts once however many steps a "
        "purifier works in; a gradient of N draws is N of each.",
        f"minutes: of all images, crafting and scoring{f', on {devices[0]}' if len(devices) == 1 else ''}.",
        "n/r: not run, or not to the end.",
    ]
    return Section(
        _title(board),
        [_accuracies(board, notes), _minutes(board, notes, len(devices) > 1)],
        notes.said,
        remarks=remarks,
    )


def _accuracies(board: Board, notes: Notes) -> Grid:
    """The images as they are, every attack on them, and the lowest majority vote."""
    ways = board.ways
    columns: list[Column[Way]] = [
        Column("attack", "attack", lambda way: Text(str(way)), "left", heads=True),
        *(Column(label, label, _accuracy(board, label, notes), names=True) for label in board.clean),
        Column("forwards", "forward", lambda way: _passes(board.of(way), 0)),
        Column("backwards", "backward", lambda way: _passes(board.of(way), 1)),
    ]
    found = grid(columns, ways)
    none = [Text("")] * 2
    clean = [_number(score, notes, board, samples) for score, samples in board.clean.values()]
    rows = [[Text("no attack"), *clean, *none], *found.rows]
    blocks = {at + 1: heading for at, heading in _blocks(ways).items()}
    votes = {label: board.vote(label) for label in board.clean}
    if draws := {vote[1].evidence.cell.scoring_draws for vote in votes.values() if vote}:
        blocks[len(rows)] = "another defence: the majority vote"
        said = f"of {'–'.join(map(str, sorted(draws)))}, under the attack that leaves least"
        rows.append([Text(said), *(_vote(vote, notes, board) for vote in votes.values()), *none])
    if board.certified:
        blocks[len(rows)] = "no attack inside the ball: what is proven"
        rows.append([Text("certified"), *(_certified(board, label, notes) for label in board.clean), *none])
    return Grid(columns, rows, blocks=blocks)


def _certified(board: Board, label: str, notes: Notes) -> Text:
    if label not in board.certified:
        return Text("–", tone="faint")
    found, samples = board.certified[label]
    if found.refuted:
        return Number(REFUTED, tone="bad", notes=notes.number(f"{label}: {of_certificate(found)}"))
    return _number(found.bound, notes, board, samples)


def _accuracy(board: Board, label: str, notes: Notes) -> Callable[[Way], Text]:
    def value(way: Way) -> Text:
        entry = board.found.get((way, label))
        if entry is None:
            return NOT_RUN
        if entry.score is None:
            return Text(WITHHELD, tone="bad")
        several = len(entry.measurements)
        together = f"{several} runs together, worst for each image" if several > 1 else ""
        return _number(entry.score, notes, board, images(entry), together)

    return value


def _vote(vote: tuple[Score, Measurement] | None, notes: Notes, board: Board) -> Text:
    return NOT_RUN if vote is None else _number(vote[0], notes, board, vote[1].evidence.cell.samples)


def _number(score: Score | None, notes: Notes, board: Board, samples: SampleList, said: str = "") -> Text:
    if score is None:
        return NOT_RUN
    return Number(
        str(score),
        interval=score.interval,
        ends=(score.low, score.high),
        exact=score.percent,
        notes=notes.number(_fewer(board, samples), said),
    )


def _fewer(board: Board, samples: SampleList) -> str:
    """Which images a number is about, where they are not those of the heading."""
    return "" if samples == board.samples else f"on {samples.said}"


def _passes(found: Sequence[Entry], direction: int) -> Text:
    """Of an image, from the least of the defences to the most."""
    counted = [[m.passes[direction] for m in entry.measurements if m.passes] for entry in found]
    passes = [round(sum(runs)) for runs in counted if runs]
    return Text("–".join(map(str, sorted({min(passes), max(passes)})))) if passes else Text("–")


def _minutes(board: Board, notes: Notes, several: bool) -> Grid:
    """What each attack took; with the device, where there are several."""

    def spent(label: str) -> Callable[[Way], Text]:
        def value(way: Way) -> Text:
            entry = board.found.get((way, label))
            if entry is None:
                return NOT_RUN
            on = " and ".join(_devices(entry))
            said = f"on {on}" if several and on else "", _fewer(board, images(entry))
            minutes = sum(m.evidence.seconds for m in entry.measurements) / 60
            return Number(f"{minutes:.2f}", exact=minutes, notes=notes.number(*said))

        return value

    columns: list[Column[Way]] = [
        Column("attack", "minutes", lambda way: Text(str(way)), "left", heads=True),
        *(Column(label, label, spent(label), names=True) for label in board.clean),
    ]
    return grid(columns, board.ways, blocks=_blocks(board.ways))


def _device(measurement: Measurement) -> str:
    return str(measurement.evidence.provenance.get("device", ""))


def _devices(entry: Entry) -> list[str]:
    """Those that are known, each once."""
    return sorted({device for m in entry.measurements if (device := _device(m))})


def _blocks(ways: Sequence[Way]) -> dict[int, str]:
    """The access above the first of its rows."""
    numbered = groupby(enumerate(ways), key=lambda one: one[1].access)
    return {next(group)[0]: str(access) for access, group in numbered}


def _lines(board: Board) -> Iterator[dict[str, Any]]:
    for label, (found, samples) in board.certified.items():
        yield {**_about(board, samples, label), "attack": "certified", **_score(found.bound)}
    cells = [(way, label, m) for (way, label), entry in board.found.items() for m in entry.measurements]
    for way, label, m in cells:
        cell, score, passes = m.evidence.cell, m.score, m.passes or ("", "")
        yield {
            **_about(board, cell.samples, label),
            "attack": way.attack,
            "access": str(way.access),
            "stand_in": way.stand_in,
            "eot": way.eot,
            "attack_seed": cell.attack_seed,
            "key": cell.key,
            **_score(score),
            "majority_vote": m.extra.get("majority_vote", ""),
            "forwards": passes[0],
            "backwards": passes[1],
            "seconds": m.evidence.seconds,
            "device": _device(m),
        }


def _about(board: Board, samples: SampleList, label: str) -> dict[str, Any]:
    return {
        "dataset": samples.dataset,
        "samples_digest": samples.digest,
        "norm": board.threat.norm,
        "epsilon": board.threat.epsilon,
        "n": len(samples),
        "defense": label,
    }


def _score(score: Score | None) -> dict[str, Any]:
    return {name: getattr(score, name) if score else "" for name in ("percent", "low", "high")}
