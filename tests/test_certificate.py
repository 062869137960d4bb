"""What a defence proves: asked as everybody is asked, kept with the outcome wherever that goes, never invented."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from certified_defenses import Boastful, Dithering, Linear, Lying, Margins, Shortened, Single
from evidence import CELL, begin, outcome
from torch import Tensor

import benchbox
from benchbox import Defense, DefenseError, ImageSpec, Recipe, ThreatModel
from benchbox.contract.attack import Crafted
from benchbox.domain import Cell, Outcome
from benchbox.draws import sample_draws
from benchbox.engine import exchange, vetting
from benchbox.engine.judge import Judge, Streams
from benchbox.engine.publish import publish
from benchbox.store import Published, Store, outcomes
from benchbox.store.merge import merge
from benchbox.training.layout import Layout

SPEC = ImageSpec(1, 10, 4)
BALL = ThreatModel("linf", 0.29)
N = 24
Y = torch.arange(N) % 4
ROWS = tuple(range(3, 3 + N))


def images() -> Tensor:
    """Bright rows on a noisy ground: some of them are out of reach of `BALL`, and some are not."""
    x = 0.2 * sample_draws(N).uniform(1, 10, 10)
    for image, label in zip(x, Y.tolist(), strict=True):
        image[:, 2 * label : 2 * label + 3] += 0.59
    return x


def built(cls: type[Defense]) -> Defense:
    return cls(Recipe(), SPEC).eval().requires_grad_(False)


def scored(defense: Defense, y: Tensor = Y, threat: ThreatModel = BALL, **cell) -> Outcome:
    """Clean images in the place of adversarial ones."""
    judge, nothing = Judge(defense, Layout(batch=7)), torch.zeros(N).double()
    streams, x = Streams(ROWS, 0, torch.device("cpu")), images()
    crafted = Crafted(x, -torch.ones(N), nothing, nothing)
    return judge.outcome(np.arange(N), x, y, crafted, streams, replace(CELL, threat=threat, **cell))


def test_what_is_proven_is_what_no_corner_of_the_ball_breaks() -> None:
    defense, x = built(Linear), images()
    proven = torch.tensor(scored(defense).certified)
    assert 0 < int(proven.sum()) < N
    over = defense.classifier.weight[Y][:, None] - defense.classifier.weight[None]
    corners = (x[:, None] - BALL.epsilon * over.sign().view(N, 4, 1, 10, 10)).clamp(0, 1)
    wrong = (defense(corners.flatten(0, 1)).argmax(1).view(N, 4) != Y[:, None]).any(1)
    assert torch.equal(proven, ~wrong)


def test_nothing_is_proven_of_an_image_that_is_misclassified_and_nobody_tells_a_label() -> None:
    asked = []

    class Curious(Lying):
        def certified(self, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
            asked.extend(y.tolist())
            return super().certified(x, y, threat)

    others = (Y + (torch.arange(N) < 5).long()) % 4
    found = scored(built(Curious), others)
    assert found.certified is not None
    assert found.certified.tolist() == [False] * 5 + [True] * (N - 5)
    assert asked == Y.tolist()  # what it says of the images, whatever their labels are


def test_each_image_is_asked_about_once_in_a_ball_and_never_where_nothing_is_proven() -> None:
    calls: list[tuple[int, ThreatModel]] = []

    class Counting(Linear):
        def certified(self, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
            calls.append((len(x), threat))
            return super().certified(x, y, threat)

    judge, x, streams = Judge(built(Counting), Layout(batch=10)), images(), Streams(ROWS, 0, torch.device("cpu"))
    first = judge.certified(x, Y, BALL, streams)
    assert calls == [(10, BALL), (10, BALL), (4, BALL)]
    again = judge.certified(x[[2, 1]], Y[[2, 1]], BALL, Streams((5, 4), 0, torch.device("cpu")))
    assert first is not None
    assert again is not None
    assert torch.equal(again, first[[2, 1]])
    assert len(calls) == 3
    for _ in range(2):
        assert judge.certified(x, Y, ThreatModel("l2", 1.0), streams) is None
    assert len(calls) == 4


def test_a_ball_that_it_cannot_do_and_a_defence_that_proves_nothing_have_no_certificate() -> None:
    assert scored(built(Linear), threat=ThreatModel("l2", 1.0)).certified is None

    class Plain(Linear):
        certified = Defense.certified

    assert scored(built(Plain)).certified is None


def test_of_a_randomised_defence_every_draw_is_meant() -> None:
    found = scored(built(Dithering), scoring_draws=6)
    assert found.certified is not None
    assert 0 < found.certified.sum() < scored(built(Linear)).certified.sum()  # type: ignore[union-attr]
    assert (found.clean == found.label[:, None])[found.certified].all()


@pytest.mark.parametrize(
    ("cls", "complaint"),
    [
        (Margins, "defence margins certifies by torch.float32; return a tensor of bool, one for each image"),
        (Single, r"defence single certifies 7 images by a tensor of shape \(\); return one of shape \(7,\)"),
        (Shortened, "defence shortened: TypeError: .*takes 3 positional .* 4 were given; mend its code"),
    ],
)
def test_what_is_no_proof_is_refused_in_one_line(cls: type[Defense], complaint: str) -> None:
    with pytest.raises(DefenseError, match=complaint) as caught:
        scored(built(cls))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cls", "complaint"),
    [
        (Lying, "proves another class than it gives the image itself, of 24 images"),
        (Boastful, "proves another class"),
        (Margins, "return a bool for each"),
        (Single, "return a bool for each"),
    ],
)
def test_the_kit_notices_what_a_proof_does_wrong(cls: type[Defense], complaint: str) -> None:
    with pytest.raises(DefenseError, match=complaint):
        vetting.require_certificate(built(cls), images(), BALL)


def test_the_kit_breaks_what_is_not_so_and_passes_what_is() -> None:
    class Hopeful(Linear):
        def certified(self, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
            return self(x).argmax(1) == y

    with pytest.raises(DefenseError, match=r"proves \d+ of 24 images that ten steps of PGD break"):
        vetting.require_certificate(built(Hopeful), images(), BALL)
    for cls in (Linear, Dithering):
        vetting.require_certificate(built(cls), images(), BALL)


def claimed(cell: Cell, positions, seed: int = 0) -> Outcome:
    """Any outcome, of whole passes, with a certificate."""
    passes, flags = np.full(len(positions), 40.0), np.arange(len(positions)) % 3 == 0
    return replace(outcome(cell, positions, seed), forwards=passes, backwards=passes, certified=flags)


def test_a_store_keeps_it_and_gives_it_in_the_order_of_the_list(store: Store) -> None:
    begin(store, CELL)
    store.commit_batch(CELL, claimed(CELL, [4, 1, 0]), seconds=1)
    store.commit_batch(CELL, claimed(CELL, [5, 2, 3]), seconds=1)
    (found,) = store.evidence()
    assert found.outcome.certified.dtype == np.bool_  # type: ignore[union-attr]
    assert found.outcome.certificate.tolist() == [False, False, False, False, True, True]  # type: ignore[union-attr]


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_a_cell_of_which_a_part_was_never_asked_for_has_none(store: Store, order: tuple[bool, bool]) -> None:
    """As one that an earlier benchbox began."""
    begin(store, CELL)
    for positions, asked in zip(([0, 1, 2], [3, 4, 5]), order, strict=True):
        made = claimed(CELL, positions) if asked else outcome(CELL, positions)
        store.commit_batch(CELL, made, seconds=1)
    (found,) = store.evidence()
    assert found.outcome.certificate is found.outcome.certified is None
    assert found.outcome.rows(slice(0, 2)).certified is None


def test_a_certificate_that_does_not_fit_its_cell_is_refused(store: Store) -> None:
    begin(store, CELL)
    made = replace(outcome(CELL, [0, 1]), certified=np.array([True]))
    with pytest.raises(benchbox.StoreError, match=r"certified of shape \(1,\); the cell needs \(2,\)"):
        outcomes.check(CELL, made)
    counted = replace(made, certified=np.array([1, 2]))
    with pytest.raises(benchbox.StoreError, match="certified of int64; only certified is of bool"):
        outcomes.check(CELL, counted)


def test_it_goes_where_the_outcome_goes(tmp_path: Path) -> None:
    whole = claimed(CELL, range(6))
    for name, rows in (("a", slice(0, 3)), ("b", slice(2, 6))):
        with Store.open(tmp_path / f"{name}.sqlite") as opened:
            begin(opened, CELL)
            opened.commit_batch(CELL, whole.rows(rows), seconds=1)
        merge(tmp_path / f"{name}.sqlite", tmp_path / "c.sqlite")
    longer = replace(CELL, samples=replace(CELL.samples, indices=(9, 7, 2), digest="other"))
    with Store.open(tmp_path / "c.sqlite") as opened:
        (found,) = opened.evidence()
        assert found.outcome.certificate.tolist() == whole.certified.tolist()  # type: ignore[union-attr]
        begin(opened, longer)
        opened.take_over(longer, CELL, np.array([4, 5]), np.array([0, 1]))
        taken = opened.evidence(keys=[longer.key])[0].outcome
        assert taken.certificate.tolist() == whole.certified[4:].tolist()  # type: ignore[index,union-attr]
        text = publish(opened.evidence(), opened)
        file = exchange.export(found, np.zeros((6, 1, 2, 2), np.float32))
    header = json.loads(file[8 : 8 + int.from_bytes(file[:8], "little")])
    assert json.loads(header["__metadata__"]["benchbox"])["certified"] == whole.certified.tolist()  # type: ignore[union-attr]
    (tmp_path / "mine.json").write_text(text)
    with Published.open(tmp_path / "mine.json") as published:
        kept = [item.outcome.certificate for item in published.evidence()]
        assert [flags.tolist() for flags in kept] == [whole.certified.tolist(), whole.certified[4:].tolist()]  # type: ignore[index,union-attr]
        assert publish(published.evidence(), published) == text


PLUGINS = Path(__file__).parent / "certified_defenses.py"


@pytest.fixture
def mine(workspace: Path) -> Path:
    """A workspace with somebody's own plug-ins."""
    shutil.copy(PLUGINS, workspace / "mine.py")
    return workspace


def ran(folder: Path, **more) -> dict[str, list[bool]]:
    """What is certified, by defence, after a run."""
    store = folder / f"{len(list(folder.glob('*.sqlite')))}.sqlite"
    words = {"dataset": "tiny", "access": "white-box", "attacks": "fgsm", "epsilon": 0.288, "scoring_draws": 2}
    words |= {"secret": "5ec2e7", "device": "cpu", "progress": False, "eot": 1}
    for name in ("mine.py:Linear", "mine.py:Dithering"):
        benchbox.evaluate(name, store=store, **words, **more)
    with Store.open(store) as opened:
        assert all(e.status == "done" for e in opened.evidence())
        found = opened.evidence()
        return {f"{e.cell.defense.name} {e.cell.attack.name}": e.outcome.certificate.tolist() for e in found}


def test_it_is_the_same_in_a_process_of_its_own_and_by_workers(mine: Path) -> None:
    here = ran(mine)
    assert len(here) == 3  # the randomised one has its control
    assert all(0 < sum(flags) < 20 for flags in here.values())
    assert ran(mine, isolate=True) == here
    assert ran(mine, workers=2) == here
