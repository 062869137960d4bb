"""A substitute that learns from a target's answers: what it asks, what it becomes, and what its images do."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from broken_defenses import SPEC, THREAT
from digits import classifier, held_out, images
from torch import nn

import benchbox
from benchbox import Card, Defense, ascend, cross_entropy
from benchbox.data.dataset import Dataset, Images
from benchbox.domain import Spec
from benchbox.engine import pupil
from benchbox.engine.judge import Judge, Streams
from benchbox.engine.reproduce import training_of
from benchbox.store import Store
from benchbox.training.artifacts import Artifacts, Training
from benchbox.training.layout import Layout
from benchbox.training.lesson import LESSONS, Lesson
from benchbox.training.workshop import Workshop


class Rounded(Defense):
    """Rounds the image, and so has no gradient; counts the images that it was asked about."""

    card = Card("rounded", "rounded input")
    asked = 0

    def forward(self, x, draws=None):
        Rounded.asked += len(x)
        return self.classifier((x * 4 + 0.01).round() / 4)

    def losses(self, batch):
        return {}


class Student(Defense):
    """A small network, untrained."""

    card = Card("student", "a network")

    def __init__(self):
        super().__init__(Defense.recipe_type(), SPEC, None)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def losses(self, batch):
        return {}


TARGET = Training(Spec("rounded", {}, "1"), "digits", "x", 0, THREAT)


def dataset() -> Dataset:
    x, y = (t[:1400] for t in images())
    pixels = Images((x * 255).round().to(torch.uint8), y)
    return Dataset("digits", "mnist", pixels, pixels, SPEC, 0.2)


@cache
def taught(answers: str, queries: int = 1600) -> tuple[Student, list[dict[str, float]], int]:
    target = Rounded(Defense.recipe_type(), SPEC, classifier()).eval().requires_grad_(False)
    workshop = Workshop(Artifacts(Path("nowhere")), None, dataset(), torch.device("cpu"), teach=pupil.learn)  # type: ignore[arg-type]
    workshop.lend(TARGET.digest, target)
    lesson = replace(LESSONS[f"query-{answers}"], queries=queries)
    student, Rounded.asked = Student(), 0
    history = pupil.learn(workshop, replace(TARGET, seed=1000, teacher=TARGET, lesson=lesson), student)
    return student.requires_grad_(False), history, Rounded.asked


@pytest.mark.parametrize("answers", ["labels", "scores"])
def test_its_images_break_what_white_box_gradients_do_not(answers: str) -> None:
    student, _, _ = taught(answers)
    x, y, rows = held_out(60)
    target = Rounded(Defense.recipe_type(), SPEC, classifier()).eval().requires_grad_(False)
    left = []
    for attacked in (target, student):
        judge, streams = Judge(attacked, Layout(), "5ec2e7"), Streams(rows.tolist(), 0, x.device)
        view = judge.view(y, streams.attacked("pgd"))
        x_adv = ascend(view, x, y, THREAT, start=x, steps=20, step_size=0.03, loss=cross_entropy)
        left.append(float((target(x_adv).argmax(1) == y).float().mean()))
    by_gradient, by_queries = left
    assert by_gradient > 0.85
    assert by_queries < 0.4


def test_each_image_is_asked_about_once_and_all_are_counted() -> None:
    _, history, asked = taught("labels")
    assert [round_["queries"] for round_ in history] == [100, 200, 400, 800, 1600]
    assert asked == 1600
    _, few, asked = taught("labels", 150)  # no doubling beyond what may be asked
    assert [round_["queries"] for round_ in few] == [100, 150]
    assert asked == 150


def test_it_is_the_same_again_and_of_labels_no_score_is_told() -> None:
    first, second = taught("labels", 200)[0], taught.__wrapped__("labels", 200)[0]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    other = taught("scores", 200)[0]
    assert not torch.equal(first.classifier[1].weight, other.classifier[1].weight)


def test_a_teacher_and_its_lesson_are_part_of_what_a_training_is() -> None:
    plain = replace(TARGET, seed=1000)
    lesson = Lesson("labels")
    taught_ = replace(plain, teacher=TARGET, lesson=lesson)
    assert plain.digest == replace(plain, base=None).digest
    others = {taught_.digest, replace(taught_, lesson=replace(lesson, queries=10)).digest, plain.digest}
    assert len(others | {replace(taught_, teacher=replace(TARGET, seed=7)).digest}) == 4
    assert taught_.chain == (TARGET, taught_)
    assert training_of(taught_.as_dict()) == taught_
    assert "teacher" not in plain.as_dict()
    assert "lesson" not in plain.as_dict()


def test_a_run_trains_it_after_its_target_and_counts_the_queries(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(LESSONS, "query-labels", Lesson("labels", queries=60, first=30, epochs=1))
    store = tmp_path / "found.sqlite"
    benchbox.evaluate(
        "none", dataset="digits", attacks="fgsm", access="transfer", source="query-labels", samples=8,
        set={"none": {"epochs": 0}}, store=str(store),
    )  # fmt: skip
    with Store.open(str(store)) as opened:
        (evidence,) = opened.evidence()
        assert evidence.status == "done"
        assert opened.attached(evidence.cell.key, "transfer")["queries"] == 60
        card = opened.artifacts()[evidence.cell.view.artifact]
    assert card["training"]["teacher"]["defense"]["name"] == "none"
    assert card["training"]["lesson"]["queries"] == 60
