"""PGD, projected gradient descent (on the negative loss) from a random start.

A. Madry, A. Makelov, L. Schmidt, D. Tsipras, A. Vladu. Towards Deep Learning Models Resistant to
Adversarial Attacks. ICLR 2018 (arXiv 1706.06083), section 2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from benchbox import (
    MEAN_GRADIENT,
    Access,
    Attack,
    Card,
    Count,
    Draws,
    Nature,
    Positive,
    ThreatModel,
    Trail,
    View,
    ascend,
    cross_entropy,
)

from .noise import worst


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient ascent on the cross-entropy, from a random point of the ball.

    Attributes:
        steps: Number of steps of one run.
        step: Length of a step as a share of epsilon, so that the whole ball stays in reach whatever its size.
        restarts: Runs, each from a point of its own; every run attacks every sample, and the end point with
            the highest margin is kept.
        keep: Return the `best` iterate of a run (one more forward pass), or the `last` as the paper does.
    """

    card = Card("pgd", "iterated FGSM, random start", paper="Madry et al., ICLR 2018", year=2018, kind="gradient")
    nature = Nature("iterative", climbs=("cross-entropy",))
    standard: ClassVar[tuple[Access, ...]] = (Access.GRAY_BOX, Access.TRANSFER, Access.WHITE_BOX, Access.BPDA)
    averaging = MEAN_GRADIENT
    balls = ("linf", "l2", "l1")
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar": {
            "steps": 20,
            "step": 1 / 4,
        },  # 20 × 2/255 at 8/255: PGD-20 of cifar10_challenge's leaderboard
    }

    steps: Count = 40  # 40 × 0.01 at 0.3: config.json of mnist_challenge
    step: Positive = 1 / 30
    restarts: Count = 1
    keep: Literal["last", "best"] = "best"

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """`steps` passes each way a run, and a forward pass a run for `best` and for choosing among runs."""
        runs = (self._run(model, x, y, threat, draws.at("restart", r)) for r in range(self.restarts))
        return next(runs) if self.restarts == 1 else worst(model, y, runs)

    def _run(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        along = self.along(model, x)
        # Of several runs each attacks every sample; and what climbs along the model's way may know the samples.
        early_stop = model.early_stop and self.restarts == 1 and along is None
        return ascend(
            model,
            x,
            y,
            threat,
            start=self.start(x, threat, draws),
            steps=self.steps,
            step_size=self.step * threat.epsilon,
            loss=self.loss,
            keep=self.keep,
            along=along,
            early_stop=early_stop,
        )

    def along(self, model: View, x: Tensor) -> Callable[[Trail, Tensor], Tensor] | None:
        """What is climbed in the place of the loss, of a model that shows its way; x are the clean images."""
        return None

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """What is ascended: losses (N,)."""
        return cross_entropy(logits, y)

    def start(self, x: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """The first iterate of a run; a subclass may start elsewhere in the ball."""
        return threat.random_start(x, draws)


@dataclass(frozen=True, kw_only=True)
class PGD200(PGD):
    """PGD as Lee & Kim (ICCV 2023, arXiv 2303.09051) run it on diffusion purifiers: 200 steps from the image.

    With `--eot 20` it is their protocol. A step is 0.007 at their ε of 8/255; the last iterate is returned.
    """

    card = Card(
        "pgd-200", "PGD for purifiers; use --eot 20", paper="Lee & Kim, ICCV 2023", year=2023, kind="gradient"
    )
    standard: ClassVar[tuple[Access, ...]] = ()
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    steps: Count = 200
    step: Positive = 0.007 / (8 / 255)
    keep: Literal["last", "best"] = "last"

    def start(self, x: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """The image itself."""
        return x
