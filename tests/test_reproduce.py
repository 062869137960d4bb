"""`benchbox reproduce`: a part of a published row, computed again and held against the file."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import WHITE, Said, refusal
from rows import evidence, first

from benchbox.analysis.agreement import Verdict, compare
from benchbox.engine.keeping import keep
from benchbox.engine.reproduce import cut
from benchbox.store.packing import pack, unpack

PUBLISHED = "results/published/mine.json"


@pytest.fixture
def published(workspace: Path, said: Said) -> Path:
    """A row of two cells, published."""
    assert said("run", "-d", "none", "--attacks", "fgsm,pgd", "--samples", "16", *WHITE)[0] == 0
    assert said("publish", "mine")[0] == 0
    return workspace / PUBLISHED


def test_a_part_agrees_image_by_image(published: Path, said: Said) -> None:
    status, out, _ = said("reproduce", PUBLISHED, "--row", "none", "--samples", "5", "--quiet")
    assert status == 0
    assert "weights found: none for tiny, seed 0" in out
    assert "white-box pgd, L∞ ε = 0.3: 5 of 5 images agree" in out
    assert out.splitlines()[-1].startswith("agrees: ")


def test_weights_that_are_not_here_are_trained_again(published: Path, said: Said) -> None:
    shutil.rmtree("results/artifacts")
    status, out, _ = said("reproduce", PUBLISHED, "--row", "none", "--quiet")
    assert status == 0
    assert "to be trained: none for tiny, seed 0" in out
    assert "16 of 16 images agree" in out


def test_weights_that_were_published_are_not_trained_again(published: Path, said: Said) -> None:
    status, _, err = said("publish", "mine", "--weights")
    assert status == 0
    assert "trained weights: 1, in results/published/artifacts" in err
    for place in (PUBLISHED, "published:mine"):
        shutil.rmtree("results/artifacts")
        status, out, _ = said("reproduce", place, "--row", "none", "--samples", "5", "--quiet")
        assert status == 0
        assert "weights found: none for tiny, seed 0" in out
    (kept,) = Path("results/published/artifacts").glob("*.safetensors")
    assert kept.read_bytes() == (Path("results/artifacts") / kept.name).read_bytes()


def test_weights_of_another_training_are_neither_published_nor_taken(published: Path, said: Said) -> None:
    """The file says how its weights ended: losses that are not theirs are another training's."""
    assert said("publish", "mine", "--weights")[0] == 0
    record = json.loads(published.read_text())
    (card,) = record["cards"].values()
    card["losses"] = [{"ce": 0.125}]
    published.write_text(json.dumps(record))
    shutil.rmtree("results/artifacts")
    assert "to be trained: none for tiny, seed 0" in said("reproduce", PUBLISHED, "--row", "none", "--quiet")[1]
    shutil.rmtree("results/published/artifacts")
    _, _, err = said("publish", "again", "--store", PUBLISHED, "--weights")
    assert "trained weights: 0, in results/published/artifacts" in err
    assert "without weights, which lie beside none of results/published/mine.json: none" in err


def test_a_card_that_does_not_say_what_it_is_of_has_no_weights(tmp_path: Path) -> None:
    assert keep({"a": {"seconds": 1.0}}, [tmp_path], tmp_path / "kept") == ("a",)


def test_a_row_that_was_made_up_is_found_out(published: Path, said: Said) -> None:
    """Every adversarial image is said to be classified correctly, as if the attacks had done nothing."""
    record = json.loads(published.read_text())
    for cell in record["cells"]:
        kept = record["predictions"][cell["adversarial"]]
        assert unpack(kept["right"], 1, 16).sum() <= 4, "the classifier of this test withstands an attack"
        record["predictions"].append({"draws": 1, "right": pack(np.ones(16), 1), "wrong": ""})
        cell["adversarial"] = len(record["predictions"]) - 1
    published.write_text(json.dumps(record))
    status, out, err = said("reproduce", PUBLISHED, "--row", "none", "--quiet")
    assert status == 1
    assert " lost, 0 won, p = " in out
    assert out.splitlines()[-1].startswith("does not agree: ")
    assert "commit, packages and device stand in the file" in err


def test_rows_that_are_not_there_and_images_that_are_others(published: Path, said: Said) -> None:
    assert refusal(said("reproduce", PUBLISHED, "--row", "non", "--quiet")).endswith("did you mean none?")
    text = published.read_text()
    published.write_text(text.replace('"seed":0', '"seed":5'))
    assert "the training on record is not the one" in refusal(said("reproduce", PUBLISHED, "--row", "none", "-q"))
    published.write_text(text)
    file = next(Path("data").glob("tiny.npz"), None) or next(Path().rglob("tiny.npz"))
    arrays = dict(np.load(file))
    np.savez(file, **{**arrays, "x_test": 255 - arrays["x_test"]})
    assert "are not those that were scored" in refusal(said("reproduce", PUBLISHED, "--row", "none", "--quiet"))


def test_chance_is_told_from_a_difference() -> None:
    one = evidence(right=50)
    assert compare([one], [one]).verdict is Verdict.SAME
    assert compare([one], [evidence(right=52)]).verdict is Verdict.WITHIN
    assert compare([one], [evidence(right=62)]).verdict is Verdict.DIFFERS
    assert compare([one], []).verdict is Verdict.DIFFERS


def test_a_cut_keeps_the_first_images() -> None:
    one = evidence(right=50)
    short = replace(one.cell.samples, indices=one.cell.samples.indices[:60])
    part = cut(one, short)
    assert (len(part.outcome), part.cell.samples, part.status) == (60, short, "done")
    np.testing.assert_array_equal(part.outcome.robust, first(50, 60)[:, 0])
