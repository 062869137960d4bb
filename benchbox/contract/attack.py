"""The interface of an attack: a plug-in writes the search, the engine checks what comes back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import Any, ClassVar, Literal, Self, final, get_type_hints

import torch
from torch import Tensor

from benchbox.contract import border, ranges
from benchbox.contract.deformation import BALL, DEFORMATIONS
from benchbox.contract.view import View
from benchbox.domain import TOLERANCE, Access, Card, Nature, Norm, ThreatModel
from benchbox.draws import Draws
from benchbox.errors import AttackError, RequestError, unknown


@dataclass(frozen=True)
class Crafted:
    """Adversarial images and what they cost; row i is one sample.

    Attributes:
        x: (N, C, H, W) float32 in [0, 1], inside the ball.
        first_success: (N,) int64, see `View.first_success`.
        forwards: (N,) float64 forward passes.
        backwards: (N,) float64 backward passes.
        broken: (2, N) float64 gradients with a NaN or an infinity, see `View.broken`; None of images that were not
            made here.
        distance: (N,) float64 length of the change, see `Outcome.distance`; None likewise.
        left: (N,) bool who left the search before its last step, see `View.leave`; None likewise.
    """

    x: Tensor
    first_success: Tensor
    forwards: Tensor
    backwards: Tensor
    broken: Tensor | None = None
    distance: Tensor | None = None
    left: Tensor | None = None

    @property
    def blind(self) -> bool:
        """Whether it asked for gradients, and none had a finite number but zeros: there was nothing to climb."""
        asked = float(self.backwards.sum())
        return self.broken is not None and asked > 0 and float(self.broken[1].sum()) >= asked * (1 - 1e-9)

    def with_rows(self, at: Tensor, again: Crafted) -> Crafted:
        """The same where some samples (n,) were attacked once more: their new images, and what both cost."""
        here = at.to(self.forwards.device)
        broken, distance = self.broken, self.distance
        if broken is not None and again.broken is not None:
            broken = broken.index_add(1, here, again.broken)
        if distance is not None and again.distance is not None:
            distance = distance.index_copy(0, here, again.distance)
        return Crafted(
            self.x.index_copy(0, at, again.x),
            self.first_success.index_copy(0, at, again.first_success),
            self.forwards.index_add(0, here, again.forwards),
            self.backwards.index_add(0, here, again.backwards),
            broken,
            distance,
        )


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """Searches a threat model's ball for images that a model gets wrong.

    The fields of a subclass are its hyper-parameters; model, data and ball come at the call, so one object
    serves a whole grid. An attack never grades itself: the harness scores what it returns.

    Attributes:
        card: Name, paper, year.
        needs: What it asks of the model: `gradient`, `scores`, `labels`, or `nothing`.
        standard: The accesses under which `--attacks all` runs it.
        settings: Departures from the field defaults, by data set or by family (`mnist`, `cifar`).
        nature: What it is: its kind, what it climbs. The audit asks this and no name; without it, it says that it
            cannot tell.
        drawing: What it is on a view that draws at random, where that is another search; None: the same.
        averaging: What it averages over the draws of a randomised view (Expectation over Transformation), for the
            record; empty if it takes one draw at a time. With `View.gradient` it is `MEAN_GRADIENT`.
        balls: The norms of the balls it searches. It is run in no other; what searches L∞ balls searches
            those of a deformation's parameters too.
        pooled: Whether it is given the images of many batches at once (and `View.batch`, into which it splits what
            it asks the model), because samples leave it early and batches would run half empty.
        version: Raised when a change to the code changes its results.
        unsaid: Fields that are no part of its identity while they have their default, see `Recipe`.
    """

    card: ClassVar[Card]
    needs: ClassVar[Literal["gradient", "scores", "labels", "nothing"]] = "gradient"
    standard: ClassVar[tuple[Access, ...]] = ()
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    nature: ClassVar[Nature | None] = None
    drawing: ClassVar[Nature | None] = None
    averaging: ClassVar[str] = ""
    balls: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    pooled: ClassVar[bool] = False
    version: ClassVar[int] = 1
    unsaid: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def configure(cls, *scopes: str, **overrides: Any) -> Self:
        """The attack as it is run on a data set: defaults, then the settings of each scope, then the overrides.

        Raises:
            RequestError: An override names no field, or its value does not fit.
        """
        known = [f.name for f in fields(cls)]
        for name in overrides:
            if name not in known:
                raise unknown(f"setting of attack {cls.card.name}", name, known)
        settings: dict[str, Any] = {}
        for scope in scopes:
            settings |= cls.settings.get(scope, {})
        return cls(**settings | overrides)

    def __post_init__(self) -> None:
        """Take every value as the type of its field, inside its range; a subclass with its own calls this first.

        Raises:
            RequestError: One does not fit. A dataclass would take anything, and fail in the search or do nothing.
        """
        for name, hint in _hints(type(self)).items():
            value = ranges.fit(f"{self.card.name}.{name}", hint, getattr(self, name))
            object.__setattr__(self, name, value)

    def identity(self) -> dict[str, Any]:
        """What makes two settings one or two: its fields."""
        usual = {field.name: field.default for field in fields(self)}
        return {k: v for k, v in asdict(self).items() if k not in self.unsaid or v != usual[k]}

    def declare(self) -> Nature | None:
        """What this attack is, with the effort it is set to; None if it does not say.

        Fields named `steps`, `step` (its length as a share of epsilon), `restarts`, `targets` and `queries` are
        taken for what they say; an attack whose effort has other names, or none, says it in `nature` or here.
        """
        if self.nature is None:
            return None
        own = {field.name for field in fields(self)} & {"steps", "step", "restarts", "targets", "queries"}
        return replace(self.nature, **{name: getattr(self, name) for name in own})

    @classmethod
    def require(cls, threat: ThreatModel) -> None:
        """Refuse a ball it does not search.

        Raises:
            RequestError: It does not.
        """
        if threat.searched not in cls.balls:
            raise RequestError(
                f"attack {cls.card.name} searches {' and '.join(cls.balls)} balls, not {threat.norm}; "
                "`benchbox list attacks` says which do"
            )

    @abstractmethod
    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """Return an image for each sample, as bad for the model as it can find inside the ball.

        Args:
            model: Images (n, C, H, W) -> logits (n, K); counts its passes, averages gradients when randomised.
            x: (N, C, H, W) float32 in [0, 1], images or the parameters of a deformation. Not to be modified.
            y: (N,) int64, true classes. Not to be modified.
            threat: The ball. `threat.project` returns to it.
            draws: The only source of randomness; row i belongs to sample i.
        """

    @final
    def __call__(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Crafted:
        """Run the search and check that it kept to its contract.

        Raises:
            RequestError: It does not search such a ball.
            AttackError: The search failed, its images are outside the ball or the box, not finite, of another
                shape, or it changed the batch it was given.
        """
        self.require(threat)
        if threat.deforms:
            deformation = DEFORMATIONS[threat.norm](x, threat.epsilon)
            made = self(model.deformed(deformation), deformation.still(), y, BALL, draws)
            return replace(made, x=deformation(made.x), distance=deformation.length(made.x))
        before, classes = x.clone(), y.clone()
        with border.crossing(type(self), AttackError):
            found = self.search(model, x, y, threat, draws.at("attack"))
        found = border.tensor(found, f"attack {self.card.name}", AttackError).detach()
        if not (torch.equal(before, x) and torch.equal(classes, y)):
            raise AttackError(f"attack {self.card.name} changed the batch it was given; work on a copy")
        self._check(found, x, threat)
        forwards, backwards = model.spent()
        inside = model.settle(threat.project(found, x)).contiguous()
        distance = measured(inside, x, threat)
        return Crafted(inside, model.first_success, forwards, backwards, model.broken(), distance, model.left)

    def _check(self, found: Tensor, x: Tensor, threat: ThreatModel) -> None:
        name = self.card.name
        if found.shape != x.shape or found.dtype != x.dtype:
            raise AttackError(
                f"attack {name} returned {found.dtype} {tuple(found.shape)} for {x.dtype} {tuple(x.shape)}; "
                "return one image per sample, of the same type"
            )
        if not bool(found.isfinite().all()):
            raise AttackError(f"attack {name} returned NaN or infinity; guard its divisions")
        if not len(x):
            return
        excess = float((threat.norms(found.double() - x) - threat.epsilon).max())
        if excess > threat.tolerance(math.prod(x.shape[1:])):
            raise AttackError(
                f"attack {name} left the ball {threat} by {excess:.2g}; finish with threat.project(x_adv, x)"
            )
        low, high = float(found.min()), float(found.max())
        if low < -TOLERANCE or high > 1 + TOLERANCE:
            raise AttackError(
                f"attack {name} returned pixels in [{low:.4g}, {high:.4g}]; finish with threat.project(x_adv, x)"
            )


def measured(x_adv: Tensor, x: Tensor, threat: ThreatModel) -> Tensor | None:
    """(N,) float64 lengths of changes (N, C, H, W), as `Outcome.distance` has them."""
    return None if threat.norm in ("linf", "l2") else threat.norms(x_adv - x).double().cpu()


@cache
def _hints(cls: type[Attack]) -> Mapping[str, Any]:
    """The types of an attack's fields; of a plug-in that imports them for the type checker alone, none."""
    try:
        hints = get_type_hints(cls, include_extras=True)
    except NameError:
        return {}
    return {field.name: hints[field.name] for field in fields(cls)}
