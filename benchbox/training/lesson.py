"""What a substitute is taught by: another model's answers, in the place of labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Lesson:
    """How a substitute learns from what a target answers (Papernot et al. 2017, arXiv 1602.02697, section 4).

    Attributes:
        answers: What the target tells: its class, or its scores.
        queries: Images it is asked about, once each; the paper's 6,400 on MNIST.
        first: Images of the attacker's own, with which it begins; each round doubles them.
        step: Length of a step to a new image, along the sign of the substitute's Jacobian; the paper's λ.
        epochs: Of the training after each round; the paper's 10.
    """

    answers: Literal["labels", "scores"]
    queries: int = 6400
    first: int = 100
    step: float = 0.1
    epochs: int = 10


#: Lessons by the name of a source of transfer attacks.
LESSONS = {f"query-{answers}": Lesson(answers) for answers in ("labels", "scores")}
