"""Published files: what a store holds, small, the same on every machine, and read as a store is."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evidence import CELL, RANDOM, outcome

from benchbox import report
from benchbox.cli import main
from benchbox.domain import Access, Cell, Outcome
from benchbox.engine.publish import publish
from benchbox.errors import StoreError
from benchbox.result import known_of
from benchbox.store import Published, Store, United, open_records
from benchbox.store import published as format_
from benchbox.store.merge import merge
from benchbox.store.packing import pack, pack_predictions, unpack, unpack_predictions

REPORTS = ("json", "csv", "markdown", "latex", "html")
N = 30
SUMMARY = {
    "integrity": [],
    "masking": [],
    "attack": [],
    "counts": {"PASS": 1, "WARN": 0, "FAIL": 0, "INCOMPLETE": 0},
}


def cell(like: Cell, **changes: object) -> Cell:
    samples = replace(like.samples, indices=tuple(range(3, 3 + N)), digest="f" * 64)
    return replace(like, samples=samples, **changes)  # type: ignore[arg-type]


def happened(of: Cell, positions: range | np.ndarray, seed: int) -> Outcome:
    """Any predictions under the labels that the list has, whole passes."""
    made = outcome(of, positions, seed)
    label = (np.arange(N) % 7)[np.array(positions)]
    counts = np.arange(len(label)) % 3 + 40.0
    return replace(made, label=label, forwards=counts, backwards=counts * 2)


@pytest.fixture
def store() -> Store:
    """Four cells: whole, through a stand-in, randomised and half done, failed before its first image."""
    opened = Store.open(":memory:")
    run = opened.begin_run({"dataset": "digits"}, {"torch": "2.6", "command": ["benchbox", "run"]})
    cells = [
        cell(CELL),
        cell(CELL, access=Access.BPDA, view=replace(CELL.view, artifact="a", stand_in="identity")),
        cell(RANDOM, artifact="r", access=Access.WHITE_BOX),
        cell(RANDOM, artifact="r", attack=replace(CELL.attack, name="aa")),
    ]
    for one in cells:
        opened.add_cell(one, run)
    for seed, (one, positions) in enumerate(zip(cells[:3], (range(N), range(N), np.arange(1, N, 2)), strict=True)):
        opened.commit_batch(one, happened(one, positions, seed), seconds=0.123456789)
    opened.fail(cells[3], "out of memory")
    training = {"defense": {"name": "pssr"}, "base": None}
    opened.put_artifact("a", {"training": training, "seconds": 3.5, "provenance": {"torch": "2.6"}})
    opened.remember("defense pssr", {"purifies": True, "deployable": True, "randomized": False})
    opened.attach("a", "audit", {"threat": {"norm": "linf", "epsilon": 0.3}, "summary": SUMMARY, "findings": []})
    opened.attach(cells[0].key, "transfer", {"share": 0.25})
    opened.attach("somebody else's", "audit", {"findings": []})
    return opened


@pytest.fixture
def file(store: Store, tmp_path: Path) -> Path:
    path = tmp_path / "mine.json"
    path.write_text(publish(store.evidence(), store), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", REPORTS)
def test_reports_of_the_file_are_those_of_the_store(store: Store, file: Path, kind: str) -> None:
    with Published.open(file) as published:
        texts = [
            report.render(report.tabulate(found, known_of(found, source)), kind)
            for source in (store, published)
            for found in [source.evidence()]
        ]
    assert texts[0] == texts[1]


def test_each_image_is_kept(store: Store, file: Path) -> None:
    for kept, read in zip(store.evidence(), Published.open(file).evidence(), strict=True):
        assert (kept.cell, kept.status, kept.error, kept.seconds) == (
            read.cell,
            read.status,
            read.error,
            read.seconds,
        )
        for field in ("position", "label", "clean", "adversarial"):
            np.testing.assert_array_equal(getattr(kept.outcome, field), getattr(read.outcome, field))
        assert kept.outcome.mean_passes == read.outcome.mean_passes
        assert kept.outcome.linf.max(initial=0) == read.outcome.linf.max(initial=0)


def test_what_is_known_of_defences_and_weights_comes_along(store: Store, file: Path) -> None:
    published = Published.open(file)
    assert published.artifacts() == store.artifacts()
    assert published.artifact("a") == store.artifact("a")
    assert published.recall("defense pssr") == store.recall("defense pssr")
    assert published.recall("defense nobody") is None
    assert published.attached("a", "audit") == store.attached("a", "audit")
    assert set(published.attachments()) == {key for key in store.attachments() if "else" not in key[0]}
    assert [e.cell for e in published.evidence(defenses=["carso"])] == [
        e.cell for e in store.evidence(defenses=["carso"])
    ]


def test_publishing_twice_gives_the_same_bytes(store: Store, file: Path) -> None:
    published = Published.open(file)
    assert publish(store.evidence(), store) == publish(published.evidence(), published) == file.read_text("utf-8")


def test_a_cell_of_a_thousand_images_takes_less_than_a_kilobyte_and_a_half() -> None:
    sizes = []
    for cells in (1, 21):
        opened = Store.open(":memory:")
        run = opened.begin_run({}, {})
        for seed in range(cells):
            samples = replace(CELL.samples, indices=tuple(range(1000)))
            one = replace(CELL, samples=samples, attack_seed=seed)
            opened.add_cell(one, run)
            made = outcome(one, range(1000), seed)
            label = np.arange(1000) % 10
            hits = np.random.default_rng(seed).random(1000) < 0.5
            made = replace(made, label=label, clean=label[:, None], adversarial=((label + ~hits) % 10)[:, None])
            opened.commit_batch(one, made, seconds=1)
        sizes.append(len(publish(opened.evidence(), opened)))
    assert (sizes[1] - sizes[0]) / 20 < 1500


def test_the_committed_schema_is_that_of_the_format(file: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    path = Path(format_.__file__).with_name("published.schema.json")
    assert path.read_text("utf-8") == format_.schema()
    record = json.loads(file.read_text("utf-8"))
    jsonschema.validate(record, json.loads(format_.schema()))
    record["cells"][0]["clean"] = "all"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record, json.loads(format_.schema()))


def test_every_committed_file_is_of_the_format() -> None:
    folder = Path(__file__).parent.parent / "results" / "published"
    for path in folder.glob("*.json"):
        if "format" not in json.loads(path.read_text("utf-8")):
            continue  # written before there was a format; it is measured anew
        assert Published.open(path).evidence()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('"attack_seed":0', '"attack_seed":1', "its key is not that of what it says"),
        ('"right":"', '"right":"AAAA', "values of 1 bits are announced"),
        ('"right":"', '"right":"!', "cannot be read"),
        ('"clean":0', '"clean":99', "cannot be read"),
        ('"clean":0', '"clean":-1', "cells.0.clean does not fit"),
        ("benchbox-published/1", "benchbox-published/9", "format 'benchbox-published/9'"),
        ('"cells"', '"cell"', "does not fit"),
        ("{", "", "is no JSON"),
    ],
)
def test_a_damaged_file_is_refused(file: Path, before: str, after: str, said: str) -> None:
    text = file.read_text("utf-8")
    assert before in text
    file.write_text(text.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(StoreError, match=said):
        Published.open(file).evidence()


def test_a_cell_published_twice_counts_once(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = tmp_path / "results" / "published"
    shelf.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(format_, "files", lambda package: tmp_path / "nowhere")
    with pytest.raises(StoreError, match="nothing is published"):
        open_records("published")
    for name in ("one", "two"):
        (shelf / f"{name}.json").write_bytes(file.read_bytes())
    assert len(open_records("published").evidence()) == len(open_records("published:two").evidence()) == 4
    with pytest.raises(StoreError, match="did you mean two"):
        open_records("published:tow")


@pytest.fixture
def later(store: Store) -> Store:
    """Goes on with the half done cell, has another answer for a whole one, adds a row, and audits."""
    opened = Store.open(":memory:")
    run = opened.begin_run({"dataset": "digits"}, {"torch": "2.7", "commit": None})
    whole, half = store.evidence()[0].cell, store.evidence()[2].cell
    new = replace(whole, defense=replace(whole.defense, name="rice"), artifact="n")
    for seed, one in enumerate((whole, half, new)):
        opened.add_cell(one, run)
        opened.commit_batch(one, happened(one, range(N), 10 + seed), seconds=1)
    opened.attach("n", "audit", {"threat": {"norm": "linf", "epsilon": 0.3}, "summary": SUMMARY, "findings": []})
    opened.attach("a", "audit", {"findings": ["later"]})
    opened.attach(new.craft_key, "gradients", {"zero": 0.5})
    opened.remember("defense rice", {"purifies": False})
    return opened


def test_what_is_published_can_be_extended(store: Store, file: Path, later: Store) -> None:
    both = United({"mine.json": Published.open(file), "later": later})
    of_file, of_later = Published.open(file).evidence(), later.evidence()
    found = {item.cell.key: item for item in both.evidence()}
    assert list(found) == [*(item.cell.key for item in of_file), of_later[2].cell.key]
    # The half done cell is heard from whoever finished it; of two that finished, from the one named first.
    for key, heard in ((of_file[0].cell.key, of_file[0]), (of_file[2].cell.key, of_later[1])):
        np.testing.assert_array_equal(found[key].outcome.adversarial, heard.outcome.adversarial)
        assert found[key].status == "done"
    assert both.disputed() == {"later": [of_file[0].cell.key]}
    assert both.attached("a", "audit") == store.attached("a", "audit")

    read = Published(format_.Publication.model_validate_json(publish(both.evidence(), both)), "joined")
    assert [item.cell for item in read.evidence()] == [item.cell for item in both.evidence()]
    assert read.artifacts() == store.artifacts()
    assert read.recall("defense rice") == {"purifies": False}
    assert read.attached("n", "audit") == later.attached("n", "audit")
    assert read.attached(of_later[2].cell.craft_key, "gradients") == {"zero": 0.5}


@pytest.mark.parametrize(("losses", "is_same"), [([{"ce": 0.25}], True), ([{"ce": 0.5}], False), ([], True)])
def test_two_trainings_of_one_recipe_are_no_one_row(
    store: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    losses: list[object],
    is_same: bool,
) -> None:
    card = {"training": {"defense": {"name": "pssr"}, "base": None}, "seconds": 3.5, "provenance": {}}
    store.put_artifact("a", {**card, "losses": [{"ce": 0.125}, {"ce": 0.25}]})
    first = tmp_path / "first.json"
    first.write_text(publish(store.evidence(), store))
    new = replace(cell(CELL), attack=replace(CELL.attack, name="mim"))
    with Store.open(tmp_path / "second.sqlite") as opened:
        opened.add_cell(new, opened.begin_run({}, {}))
        opened.commit_batch(new, happened(new, range(N), 7), seconds=1)
        opened.put_artifact("a", {**card, "seconds": 4.5, "losses": losses})
        opened.attach("a", "rank", {"of": "the second"})
    places = (first, tmp_path / "second.sqlite")

    with open_records(*places) as both:
        assert (new.key in {item.cell.key for item in both.evidence()}) == is_same
        assert (both.attached("a", "rank") is not None) == (("a", "rank") in both.attachments()) == is_same
        assert isinstance(both, United)
        assert both.disputed() == {}
        unheard = {item.cell.key for items in both.unheard().values() for item in items}
        assert unheard == (set() if is_same else {new.key})
    with open_records(*places, retrained=True) as both:
        assert new.key in {item.cell.key for item in both.evidence()}

    words = ["publish", str(tmp_path / "both.json"), *(f"--store={place}" for place in places)]
    assert main(words) == 0
    assert ("whose weights are of another training" in capsys.readouterr().err) != is_same
    assert (new.key in (tmp_path / "both.json").read_text()) == is_same
    monkeypatch.chdir(tmp_path)
    for name, place in zip(("a", "b"), places, strict=True):
        assert main(["publish", name, f"--store={place}"]) == 0
    for words, is_said in ((["-d", CELL.defense.name], not is_same), (["-d", "another"], False)):
        main(["report", "--published", "--format", "csv", *words])
        assert ("left out: cells of" in capsys.readouterr().err) == is_said
    if is_same:
        merge(tmp_path / "second.sqlite", tmp_path / "into.sqlite")
        return
    with Store.open(tmp_path / "into.sqlite") as into:
        into.put_artifact("a", {**card, "losses": [{"ce": 0.25}]})
    with pytest.raises(StoreError, match="of another training than what is there"):
        merge(tmp_path / "second.sqlite", tmp_path / "into.sqlite")
    with Store.open(tmp_path / "into.sqlite") as into:
        assert into.evidence() == []


def test_who_has_only_trained_a_recipe_does_not_speak_for_who_has_scored_it(store: Store, tmp_path: Path) -> None:
    """As of a purifier's classifier: its own training is beside the store, and no row of it."""
    store.put_artifact("a", {"seconds": 3.5, "losses": [{"ce": 0.25}]})
    with Store.open(tmp_path / "trained.sqlite") as opened:
        opened.put_artifact("a", {"seconds": 9.0, "losses": [{"ce": 0.5}]})
        opened.attach("a", "audit", {"findings": ["of other weights"]})
    with open_records(tmp_path / "trained.sqlite") as trained:
        both = United({"trained": trained, "store": store})
        assert [item.cell for item in both.evidence()] == [item.cell for item in store.evidence()]
        assert both.artifacts() == store.artifacts()
        assert both.attached("a", "audit") == store.attached("a", "audit") == both.attachments()["a", "audit"]


def test_of_two_that_have_finished_a_cell_the_one_that_knows_what_is_proven_is_heard(tmp_path: Path) -> None:
    flags = np.arange(N) % 2 == 0
    for name, proven in (("plain", None), ("proving", flags)):
        with Store.open(tmp_path / f"{name}.sqlite") as opened:
            opened.add_cell(cell(CELL), opened.begin_run({}, {"code": name}))
            made = replace(happened(cell(CELL), range(N), 0), certified=proven)
            opened.commit_batch(cell(CELL), made, seconds=1)
    for first, second in (("plain", "proving"), ("proving", "plain")):
        with open_records(tmp_path / f"{first}.sqlite", tmp_path / f"{second}.sqlite") as opened:
            (heard,) = opened.evidence()
            assert heard.provenance["code"] == "proving"
            assert heard.outcome.certificate is not None
            assert heard.outcome.certificate.tolist() == flags.tolist()


def test_a_commit_that_the_run_could_not_tell_is_said_by_the_publisher(later: Store) -> None:
    read = Published(format_.Publication.model_validate_json(publish(later.evidence(), later, "ab12")), "said")
    assert read.evidence()[0].provenance == {"torch": "2.7", "commit": "ab12", "commit_said_by_publisher": True}


def test_no_folder_of_ones_machine_is_published(later: Store) -> None:
    words = [
        "benchbox",
        "run",
        "--data-dir=/home/me/data",
        "--store",
        "/home/me/s.sqlite",
        "-d",
        "models/mine.py:Mine",
    ]
    subject = later.evidence()[0].cell.artifact
    later.attach(subject, "audit", {"provenance": {"command": words}})
    told = Published(format_.Publication.model_validate_json(publish(later.evidence(), later)), "told")
    record = told.attached(subject, "audit")
    assert record is not None
    assert record["provenance"]["command"] == [*words[:2], "--data-dir=data", "--store", "s.sqlite", *words[5:]]


def test_packing_is_exact() -> None:
    rng = np.random.default_rng(0)
    for width in (1, 4, 7, 9):
        values = rng.integers(0, 2**width, 101)
        np.testing.assert_array_equal(unpack(pack(values, width), width, 101), values)
    label, predicted = rng.integers(0, 100, 50), rng.integers(0, 100, (50, 3))
    right, wrong = pack_predictions(predicted, label, 7)
    np.testing.assert_array_equal(unpack_predictions(right, wrong, label, 3, 7), predicted)
    assert pack(np.array([True, False, True]), 1) == "oA=="


def test_the_commands_take_a_file_for_a_store(
    store: Store, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    assert main(["publish", "again", "--store", "mine.json"]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == "results/published/again.json"
    assert "carso is published without an audit" in said.err
    assert "4 cells, 2 of them unfinished or failed" in said.err
    assert Path("results/published/again.json").read_bytes() == file.read_bytes()
    assert main(["report", "--format", "markdown", "--store", "mine.json"]) == 0
    assert "pssr" in capsys.readouterr().out
    monkeypatch.setattr(format_, "files", lambda package: file.parent / "nowhere")
    assert main(["report", "--format", "csv", "--published", "--defense", "carso"]) == 0
    assert "carso" in capsys.readouterr().out
    assert main(["publish", "none", "--store", "mine.json", "--defense", "jpeg"]) == 2
    assert main(["report", "--store", "nowhere.json"]) == 2
    assert "cannot read nowhere.json" in capsys.readouterr().err


def test_the_command_extends_a_file_and_says_what_it_leaves_out(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    with Store.open("new.sqlite") as opened:
        run = opened.begin_run({}, {})
        new = cell(CELL, artifact="n", defense=replace(CELL.defense, name="rice"))
        opened.add_cell(new, run)
        opened.commit_batch(new, happened(new, range(N), 10), seconds=1)
    words = ["publish", "both", "--store", "mine.json", "--store", "new.sqlite", "--finished"]
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "left out: 2 cells unfinished or failed, of carso" in said
    assert "3 cells, 0 of them" in said
    assert {e.cell.defense.name for e in open_records("results/published/both.json").evidence()} == {
        "pssr",
        "rice",
    }
    # What it has published is the first of its own sources: nothing is lost, nothing is doubled.
    before = Path("results/published/both.json").read_bytes()
    words = ["publish", "both", "--store", "results/published/both.json", "--store", "new.sqlite"]
    assert main(words) == 0
    assert Path("results/published/both.json").read_bytes() == before
    assert main([*words, "--store", "nowhere.json"]) == 2
    assert main([*words, "--commit", "yesterday"]) == 2
    assert main([*words[:2], "--store", "mine.json", "--finished", "--defense", "carso"]) == 2
    assert "mine.json holds nothing finished of carso" in capsys.readouterr().err


def test_reading_loads_no_torch(file: Path) -> None:
    words = f"['report', '--store', {str(file)!r}]"
    code = f"import sys; from benchbox.cli import main; main({words}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("False")
