"""A substitute that is trained on queries: an attacker who sees nothing but answers makes a model of its own.

N. Papernot, P. McDaniel, I. Goodfellow, S. Jha, Z. B. Celik, A. Swami. Practical Black-Box Attacks against Machine
Learning. AsiaCCS 2017 (arXiv 1602.02697). It begins with a few images of its own, has the target name their
classes, trains on them, and goes from each a step along the sign of its own Jacobian, to where its answer changes
most; these images are asked about next. Where doubling would go beyond the queries, some are drawn at random.

The target is asked like any other question about it (`booth`), in batches, and each image once.
"""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor

from benchbox.contract import border
from benchbox.contract.defense import Defense
from benchbox.draws import Draws
from benchbox.engine.judge import Judge, Streams, slices
from benchbox.errors import DefenseError
from benchbox.training.artifacts import Training
from benchbox.training.layout import Layout
from benchbox.training.lesson import Lesson
from benchbox.training.loop import Progress
from benchbox.training.workshop import Workshop

BATCH = 64
LEARNING_RATE = 1e-3


def learn(workshop: Workshop, wanted: Training, student: Defense) -> list[dict[str, float]]:
    """Train a substitute in place, on what its teacher answers.

    Args:
        workshop: Where the teacher comes from; of its training images some are the attacker's own.
        wanted: The substitute, with its teacher and its lesson.
        student: Built, untrained.

    Returns:
        For each round the `queries` so far, and the mean `loss` of its last epoch.

    Raises:
        DefenseError: The teacher failed.
    """
    assert wanted.teacher is not None
    assert wanted.lesson is not None
    lesson, student = wanted.lesson, student.to(workshop.device)
    teacher = workshop.obtain(wanted.teacher)
    # Nobody who was loaded before knows it, and another training finds the same.
    judge = Judge(teacher, Layout(), hashlib.sha256(wanted.digest.encode()).hexdigest()[:32])
    x = _own(workshop, lesson, wanted.seed)
    answers = _asked(judge, x, 0, wanted.seed)
    optimizer = torch.optim.Adam(student.parameters(), LEARNING_RATE)
    history = []
    while True:
        loss = _fit(student, optimizer, x, answers, lesson, wanted.seed)
        history.append({"queries": float(len(x)), "loss": loss})
        workshop.report(wanted, Progress("queries", len(x), lesson.queries, len(history), {"loss": loss}))
        more = min(len(x), lesson.queries - len(x))
        if more <= 0:
            return history
        chosen = Draws(torch.arange(len(x), device=x.device), wanted.seed).at("chosen", len(x)).bits(1)[:, 0]
        rows = chosen.argsort()[:more].sort().values
        found = _stepped(student, x[rows], answers[rows].argmax(1), lesson.step)
        answers = torch.cat([answers, _asked(judge, found, len(x), wanted.seed)])
        x = torch.cat([x, found])


def _own(workshop: Workshop, lesson: Lesson, seed: int) -> Tensor:
    """The attacker's own images: training images, whose labels it does not know."""
    images = workshop.dataset.train
    order = Draws(torch.arange(len(images)), seed).at("own").bits(1)[:, 0].argsort()
    return images.batch(order[: min(lesson.first, lesson.queries)])[0].to(workshop.device)


def _asked(judge: Judge, x: Tensor, before: int, seed: int) -> Tensor:
    """Scores (n, K) of the teacher about images, in one draw each; so many were asked about before."""
    found = []
    with border.crossing(type(judge.defense), DefenseError), torch.no_grad():
        for rows in slices(len(x), judge.layout.batch):
            streams = Streams(range(before, before + len(x))[rows], seed, x.device)
            judge.reveal(x[rows], streams)
            found.append(judge.ask(x[rows], streams.samples.at("query")).detach())
    return torch.cat(found)


def _fit(
    student: Defense, optimizer: torch.optim.Optimizer, x: Tensor, answers: Tensor, lesson: Lesson, seed: int
) -> float:
    """Go on with a training; the mean loss of the last epoch."""
    wanted = answers.softmax(1) if lesson.answers == "scores" else F.one_hot(answers.argmax(1), answers.shape[1])
    student.train()
    losses: list[Tensor] = []
    with torch.enable_grad():
        for epoch in range(lesson.epochs):
            order = Draws(torch.arange(len(x), device=x.device), seed).at("order", len(x), epoch).bits(1)[:, 0]
            losses = []
            for rows in order.argsort().split(BATCH):
                optimizer.zero_grad()
                loss = F.cross_entropy(student(x[rows]), wanted[rows].float())
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
    student.eval()
    return float(torch.stack(losses).mean())


def _stepped(student: Defense, x: Tensor, classes: Tensor, step: float) -> Tensor:
    """New images (n, C, H, W): a step along the sign of the Jacobian's row of the class that was answered."""
    found = []
    with torch.enable_grad():
        for rows in slices(len(x), BATCH):
            leaf = x[rows].clone().requires_grad_()
            score = student(leaf).gather(1, classes[rows, None]).sum()
            (slope,) = torch.autograd.grad(score, leaf)
            found.append((x[rows] + step * slope.sign()).clamp(0, 1))
    return torch.cat(found)
