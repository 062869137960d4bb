"""The runner on real images: what is shared, what is skipped, what fails and how."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchbox.analysis import leaderboard
from benchbox.contract import registry
from benchbox.contract.view import MEAN_GRADIENT
from benchbox.domain import NULL_ATTACK, Access
from benchbox.engine import secret, transfer
from benchbox.engine.plan import Request
from benchbox.engine.session import Session, Settings
from benchbox.errors import StoreError
from benchbox.store import Store

PLUGINS = '''
from dataclasses import dataclass
import torch
from benchbox import Access, Attack, Batch, Card, Draws, Losses, Purifier

class Blur(Purifier):
    """Averages an image with its shifted self."""
    card = Card("blur", "averages neighbours")
    def purify(self, x, draws):
        return (x + x.roll(1, 3)) / 2
    def losses(self, batch):
        return {}

class Probabilities(Blur):
    card = Card("probabilities", "returns probabilities")
    def forward(self, x, draws=None):
        return super().forward(x, draws).softmax(1)

class NotANumber(Blur):
    card = Card("not-a-number", "returns NaN")
    def forward(self, x, draws=None):
        return super().forward(x, draws) * float("nan")

class ElevenClasses(Blur):
    card = Card("eleven-classes", "returns a class too many")
    def forward(self, x, draws=None):
        logits = super().forward(x, draws)
        return torch.cat([logits, logits[:, :1]], 1)

class Buggy(Blur):
    card = Card("buggy", "has a bug")
    def purify(self, x, draws):
        return x[:, :, :7]

class Noisy(Blur):
    """Adds normal noise: two calls on one image differ."""
    card = Card("noisy", "adds noise")
    randomized = True
    def purify(self, x, draws):
        return (x + 0.4 * draws.at("noise").normal(*x.shape[1:])).clamp(0, 1)

class Rooted(Blur):
    """Its derivative is infinite wherever a pixel is black."""
    card = Card("rooted", "a root of a square")
    def purify(self, x, draws):
        return x.square().sqrt()

class Alarmed(Noisy):
    """Once it was asked often it adds more noise: scored is another defence than the one deployed."""
    card = Card("alarmed", "reacts to attacks")
    asked = 0
    def purify(self, x, draws):
        self.asked += len(x)
        self.level = 0.2 if self.asked < 1200 else 1.0
        return (x + self.level * draws.at("noise").normal(*x.shape[1:])).clamp(0, 1)
'''
ATTACKS = """
from dataclasses import dataclass
from benchbox import Access, Attack, Card

class _Bad(Attack):
    needs = "nothing"

@dataclass(frozen=True, kw_only=True)
class Leaves(_Bad):
    card = Card("leaves", "leaves the ball")
    def search(self, model, x, y, threat, draws):
        return (x + 2 * threat.epsilon).clamp(0, 1)

@dataclass(frozen=True, kw_only=True)
class Changes(_Bad):
    card = Card("changes", "changes the batch")
    def search(self, model, x, y, threat, draws):
        return x.add_(0.01).clamp_(0, 1)

@dataclass(frozen=True, kw_only=True)
class NoNumber(_Bad):
    card = Card("no-number", "returns NaN")
    def search(self, model, x, y, threat, draws):
        return x / 0 * 0
"""


class Heard:
    """Remembers the trainings and the failures."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.errors: list[str] = []

    def training(self, wanted, progress) -> None:
        if wanted.digest not in self.trained:
            self.trained.append(wanted.digest)

    def cell(self, cell, done, total) -> None:
        pass

    def failed(self, cell, error) -> None:
        self.errors.append(error)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    for kind, text in (("defenses", PLUGINS), ("attacks", ATTACKS)):
        (folder / kind).mkdir()
        (folder / kind / "mine.py").write_text(text)
    return folder


@pytest.fixture
def session(workspace: Path) -> Session:
    settings = Settings(artifacts=workspace / "artifacts", device="cpu", batch_size=50, secret="5ec2e7")
    return Session(registry.defenses(workspace), registry.attacks(workspace), settings)


def request(*defenses: str, attacks=("pgd",), samples=60, **rest) -> Request:
    quick = {"none": {"epochs": 3}, "pgd": {"steps": 5}, "noise": {"draws": 5}}
    overrides = {name: fields for name, fields in quick.items() if name == "none" or name in attacks}
    return Request(
        defenses=defenses, dataset="digits", attacks=attacks, samples=samples, overrides=overrides, **rest
    )


def run(session: Session, store: Store, wanted: Request):
    heard, plan = Heard(), session.plan(wanted)
    report = session.run(plan, store, heard)
    return report, heard, {(e.cell.defense.name, e.cell.access, e.cell.attack.name): e for e in store.evidence()}


def test_a_crafting_serves_every_defense_that_shares_its_view(session, store):
    report, _, evidence = run(session, store, request("none", "blur"))
    assert not report.failed
    own = evidence["none", Access.WHITE_BOX, "pgd"].cell
    gray = evidence["blur", Access.GRAY_BOX, "pgd"].cell
    assert own.craft_key == gray.craft_key
    by_transfer = [evidence[name, Access.TRANSFER, "pgd"].cell.craft_key for name in ("none", "blur")]
    assert by_transfer[0] == by_transfer[1]
    images = evidence["none", Access.WHITE_BOX, "pgd"].outcome, evidence["blur", Access.GRAY_BOX, "pgd"].outcome
    assert (images[0].linf == images[1].linf).all()
    # Without a purifier three accesses are one model, and it runs once.
    assert ("none", Access.GRAY_BOX, "pgd") not in evidence
    assert ("none", Access.BPDA, "pgd") not in evidence


def test_what_is_stored_is_not_run_again(session, store):
    first, _, _ = run(session, store, request("none"))
    again, heard, _ = run(session, store, request("none"))
    assert (first.done, first.reused) == (2, 0)
    assert (again.done, again.reused) == (0, 2)
    assert heard.trained == []


def test_more_samples_continue_in_a_cell_of_their_own(session, store):
    run(session, store, request("none", samples=30))
    report, _, _ = run(session, store, request("none", samples=60))
    assert report.done == 2
    by_size = {len(e.cell.samples): e for e in store.evidence() if e.cell.access is Access.WHITE_BOX}
    # Random starts belong to the image: the first 30 fare as they did.
    assert (by_size[60].outcome.adversarial[:30] == by_size[30].outcome.adversarial).all()


def test_the_batch_size_changes_no_outcome(session, store, workspace, tmp_path):
    _, _, expected = run(session, store, request("none", "blur"))
    settings = Settings(artifacts=workspace / "artifacts", device="cpu", batch_size=17, secret="5ec2e7")
    other = Session(session.defenses, session.attacks, settings)
    with Store.open(tmp_path / "other.sqlite") as another:
        _, _, got = run(other, another, request("none", "blur"))
    flags = [(expected[k].outcome.adversarial != got[k].outcome.adversarial) for k in expected]
    assert np.mean(np.concatenate(flags)) <= 0.005
    assert all((expected[k].outcome.position == got[k].outcome.position).all() for k in expected)


@pytest.mark.parametrize(
    ("defense", "message"),
    [
        ("probabilities", "defence probabilities returned probabilities; return the logits before the softmax"),
        ("not-a-number", "defence not-a-number returned NaN or infinity"),
        ("eleven-classes", "defence eleven-classes returned shape (8, 11) for 8 images and 10 classes"),
    ],
)
def test_a_defense_that_breaks_its_contract_fails_its_cells_with_one_line(session, store, defense, message):
    report, heard, evidence = run(session, store, request("none", defense))
    assert all(error.startswith(message) and "\n" not in error for error in heard.errors)
    assert len(report.failed) == 4  # gray-box, white-box, bpda, transfer
    assert report.done == 2
    assert evidence["none", Access.WHITE_BOX, "pgd"].status == "done"
    assert evidence[defense, Access.WHITE_BOX, "pgd"].status == "failed"


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        ("leaves", "attack leaves left the ball L∞ ε = 0.3 by 0.3"),
        ("changes", "attack changes changed the batch it was given; work on a copy"),
        ("no-number", "attack no-number returned NaN or infinity"),
    ],
)
def test_an_attack_that_breaks_its_contract_fails_its_cell(session, store, attack, message):
    _, heard, evidence = run(session, store, request("none", attacks=(attack, "noise")))
    assert heard.errors[0].startswith(message)
    assert evidence["none", Access.WHITE_BOX, "noise"].status == "done"


def test_a_bug_in_a_plug_in_is_a_failed_cell_that_says_where(session, store):
    _, heard, evidence = run(session, store, request("buggy", "none"))
    assert "RuntimeError" in heard.errors[0]
    assert evidence["none", Access.WHITE_BOX, "pgd"].status == "done"


def test_a_failed_cell_is_tried_again(session, store, monkeypatch):
    run(session, store, request("probabilities"))
    cls = session.defenses.get("probabilities").cls
    monkeypatch.setattr(cls, "forward", cls.__mro__[1].__mro__[1].forward)
    report, _, evidence = run(session, store, request("probabilities"))
    assert not report.failed
    assert evidence["probabilities", Access.WHITE_BOX, "pgd"].status == "done"


def test_the_null_attack_returns_the_clean_accuracy_of_a_randomized_defense(session, store):
    _, _, evidence = run(session, store, request("noisy", attacks=("null",), samples=200))
    outcome = evidence["noisy", Access.WHITE_BOX, "null"].outcome
    assert outcome.adversarial.shape == (200, 10)
    assert (outcome.adversarial != outcome.clean).any(), "scoring drew the same numbers twice"
    assert 0 < outcome.clean_correct.mean() < 1
    assert abs(outcome.robust.mean() - outcome.clean_correct.mean()) < 0.03


def test_every_randomised_defence_is_controlled_whatever_was_asked(session):
    for attacks, accesses in (("all",), ()), (("pgd",), ()), (("pgd",), (Access.TRANSFER,)), (("null",), ()):
        cells = session.plan(request("none", "noisy", attacks=attacks, accesses=accesses)).cells
        controls = [cell for cell in cells if cell.attack.name == NULL_ATTACK]
        if attacks != ("null",):
            assert cells[-1] is controls[-1]  # after every attack
        assert [c.access for c in controls if c.defense.name == "noisy"] == [Access.WHITE_BOX]
        assert len([c for c in controls if c.defense.name == "none"]) == (attacks == ("null",))


def rows(evidence):
    (found,) = leaderboard.build(list(evidence.values()))
    return {row.label: row for row in found.rows}


def test_one_that_notices_attacks_is_withheld_and_an_honest_defence_is_not(session, store):
    _, _, evidence = run(session, store, request("noisy", "alarmed", attacks=("pgd",), scoring_draws=5, eot=2))
    found = rows(evidence)
    assert found["noisy"].control.verdict == "agrees"
    assert not found["noisy"].withheld
    assert "a score-based attack" in found["noisy"].lacking  # why it has no rank: pgd alone was asked for
    assert found["alarmed"].withheld
    assert found["alarmed"].rank is None
    assert found["alarmed"].control.difference < -10


def test_the_averaging_over_draws_is_stored_with_the_cell(session, store):
    _, _, evidence = run(session, store, request("noisy", "none", attacks=("pgd",), scoring_draws=2, eot=2))
    stored = {key[:2]: (e.cell.eot, e.cell.averaging) for key, e in evidence.items() if key[2] == "pgd"}
    assert stored["noisy", Access.WHITE_BOX] == (2, MEAN_GRADIENT)
    assert stored["noisy", Access.GRAY_BOX] == (1, "")  # the bare classifier draws nothing
    assert stored["none", Access.WHITE_BOX] == (1, "")


def test_a_transfer_result_says_what_its_substitute_is_worth(session, store):
    _, _, evidence = run(session, store, request("none"))
    record = store.attached(evidence["none", Access.TRANSFER, "pgd"].cell.key, "transfer")
    assert record is not None
    assert set(record) == {"source_accuracy", "source_success", "agreement"}
    assert all(0 <= value <= 1 for value in record.values())
    assert record["source_accuracy"] > 0.5


def test_a_run_that_ended_before_a_substitute_was_described_describes_it_next_time(session, store, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    asked = request("none", accesses=(Access.TRANSFER,))
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "describe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(session, store, asked)
    assert store.runs()[-1].status == "interrupted"
    report, _, evidence = run(session, store, asked)
    assert report.done == 1
    assert store.attached(evidence["none", Access.TRANSFER, "pgd"].cell.key, "transfer")
    assert run(session, store, asked)[0].reused == 1


def test_a_run_that_the_store_ends_is_not_left_running(session, store, monkeypatch):
    def full(*_, **__):
        raise StoreError("the disk is full; free some space")

    monkeypatch.setattr(store, "exchange", full)
    with pytest.raises(StoreError, match="disk is full"):
        run(session, store, request("none"))
    assert store.runs()[-1].status == "failed"


def test_passes_are_counted(session, store):
    _, _, evidence = run(session, store, request("none"))
    outcome = evidence["none", Access.WHITE_BOX, "pgd"].outcome
    assert set(outcome.forwards) == {6.0}  # five steps, and one look at the last iterate
    assert set(outcome.backwards) == {5.0}


def test_a_damaged_artifact_is_named_and_spoils_only_its_defense(session, store, workspace):
    plan = session.plan(request("none", seeds=(7,)))
    run(session, store, request("none", seeds=(7,)))
    path = workspace / "artifacts" / f"{plan.cells[0].artifact}.safetensors"
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)
    fresh = Session(session.defenses, session.attacks, session.settings)
    with Store.open(":memory:") as empty:
        report, heard, _ = run(fresh, empty, request("none", seeds=(7,)))
    path.unlink()
    assert len(report.failed) == 2
    assert set(heard.errors) == {f"{path} is corrupt: its SHA-256 does not match; delete it to train again"}


def test_gradients_that_were_not_finite_are_kept_with_the_images_they_were_taken_for(session, store):
    report, _, evidence = run(session, store, request("rooted", accesses=(Access.WHITE_BOX,)))
    found = evidence["rooted", Access.WHITE_BOX, "pgd"]
    record = store.attached(found.cell.craft_key, "gradients")
    assert record is not None
    assert record["samples"] == 60  # every digit has a black pixel
    assert 60 < record["asked"] == found.outcome.backwards.sum() < 60 * 5  # some are wrong before, and stop
    assert 60 <= record["gradients"] <= 300
    assert (report.done, report.batches) == (1, 2)
    assert min(report.crafting, report.scoring, report.training) > 0
    assert report.total >= report.crafting + report.scoring


def test_a_cell_begun_under_one_secret_is_not_gone_on_with_under_another(session, store):
    asked = request("noisy", attacks=("noise",), samples=20, accesses=(Access.WHITE_BOX,), scoring_draws=2)
    noise, control = session.plan(asked).cells
    store.add_cell(noise, store.begin_run({}, {}))
    secret.note(store, noise, "cd")
    report, heard, evidence = run(session, store, asked)
    assert heard.errors == [
        f"cell {noise.key[:12]} was begun under another secret; give --secret cd to go on with it"
    ]
    assert list(report.failed) == [noise.key]
    assert evidence["noisy", Access.WHITE_BOX, "null"].status == "done"
    assert store.attached(control.key, "secret") == {"secret": "5ec2e7", "before": 0}
