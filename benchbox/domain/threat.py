"""What an attacker may do: the images that he may put in the place of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from benchbox.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

    from benchbox.draws import Draws

#: Room for float32 rounding when a distance is compared with epsilon (exact arithmetic exceeds 8/255 by 2.6e-8).
TOLERANCE = 1e-6
#: By how much float32 rounds a change and the changed pixel together, at most. In L1 the roundings add up.
ROUNDING = 2.0**-24

Norm = Literal["linf", "l2", "l1", "flow", "recolor"]

#: Norms in whose balls alone every attack came to compute otherwise than at first, and how often.
REVISIONS: Mapping[Norm, int] = {"l2": 1}  # a step's length where gradients are tiny; projected is inside exactly

#: As people write them.
SIGNS: Mapping[Norm, str] = {"linf": "L∞", "l2": "L2", "l1": "L1", "flow": "flow", "recolor": "recolouring"}
NAMED = f"{', '.join([*SIGNS][:-1])} or {[*SIGNS][-1]}"


@dataclass(frozen=True)
class ThreatModel:
    """The set of images an attacker may replace `x` by: a ball around it, cut with the box [0, 1].

    Or the deformations of `x` whose parameters are bounded (`benchbox.contract.deformation`). No image says that
    it came of one: these have no `project`, no `norms` and no `random_start`.

    Attributes:
        norm: `linf`, `l2` or `l1`, over all channels and pixels of one image; `flow` or `recolor`.
        epsilon: The radius, in the units of images in [0, 1]; of `flow` in pixels.
    """

    norm: Norm
    epsilon: float

    def __post_init__(self) -> None:
        if self.norm not in SIGNS:
            raise RequestError(f"unknown norm {self.norm!r}; use {NAMED}")
        if not 0 <= self.epsilon < float("inf"):
            raise RequestError(f"epsilon must be a finite number of at least 0, got {self.epsilon}")

    @property
    def deforms(self) -> bool:
        """Whether it bounds a deformation of the image instead of the change of its pixels."""
        return self.norm in ("flow", "recolor")

    @property
    def searched(self) -> Norm:
        """The norm of the ball that an attack is handed: of a deformation's parameters, L∞."""
        return "linf" if self.deforms else self.norm

    def require_norm(self) -> None:
        """Refuse a deformation where images are to be measured, imported or probed.

        Raises:
            RequestError: It is one.
        """
        if self.deforms:
            raise RequestError(f"no image says whether it is inside {self}, as of a norm; use linf, l2 or l1")

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """A permitted image for each of `x_adv`, shapes (N, C, H, W).

        In L∞ and L1 the closest one. In L2 the change is shortened and then cut with the box, as everywhere. What
        comes out is inside in exact arithmetic in L2 and L1; what was inside comes out as it is in L∞ and L2.
        """
        self.require_norm()
        if self.norm == "linf":
            return x_adv.clamp(x - self.epsilon, x + self.epsilon).clamp(0, 1)
        delta = x_adv - x
        if self.norm == "l1":
            return (x + _onto_l1(delta, x, self.epsilon)).clamp(0, 1)
        # Below epsilon by what float32 may round up: the change, its scale and their product, and each sum with x.
        goal = self.epsilon - ROUNDING * (3 * self.epsilon + x.shape[1:].numel() ** 0.5 / 2)
        length = self.norms(x_adv.double() - x)
        scale = (max(goal, 0.0) / length.clamp_min(1e-12)).to(delta.dtype)
        inside = (length <= self.epsilon).view(-1, 1, 1, 1)
        # The box is convex and contains x, so clamping after the rescaling keeps the point in the ball.
        return x_adv.where(inside, x + delta * scale.view(-1, 1, 1, 1)).clamp(0, 1)

    def contains(self, other: ThreatModel) -> bool:
        """Whether whatever the other permits is permitted: a ball of the same norm that is no larger."""
        return self.norm == other.norm and other.epsilon <= self.epsilon

    def scaled(self, factor: float) -> ThreatModel:
        """The same norm with the radius times `factor`."""
        return ThreatModel(self.norm, self.epsilon * factor)

    def code(self, own: str) -> str:
        """The code behind an attack's results in such balls: its own, and the norm's revision if it has one.

        So what all attacks share may change in one norm, and results in the others keep their names.
        """
        return f"{own}+{self.norm}.{REVISIONS[self.norm]}" if self.norm in REVISIONS else own

    def random_start(self, x: Tensor, draws: Draws) -> Tensor:
        """A point of the ball for each sample: uniform in the L∞ box, L2 or L1 ball, then cut with [0, 1]."""
        self.require_norm()
        shape = x.shape[1:]
        if self.norm == "linf":
            noise = draws.at("start").uniform(*shape, low=-self.epsilon, high=self.epsilon)
            return self.project(x + noise, x)
        radius = self.epsilon * draws.at("radius").uniform(1)[:, 0] ** (1 / shape.numel())
        noise = draws.at("start").normal(*shape)
        if self.norm == "l1":
            # Exponential sizes with random signs: uniform on the sphere (Rademacher & Vempala, Lemma 2.1).
            sizes = -(1 - draws.at("size").uniform(*shape)).log()
            noise = noise.sign() * sizes
        noise = noise * (radius / self.norms(noise)).view(-1, 1, 1, 1)
        return self.project(x + noise, x)

    def norms(self, delta: Tensor) -> Tensor:
        """Norm of each row of `delta` (N, C, H, W): a tensor (N,)."""
        self.require_norm()
        flat = delta.flatten(1)
        if self.norm == "linf":
            return flat.abs().amax(1)
        length: Tensor = flat.double().norm(p=2 if self.norm == "l2" else 1, dim=1)
        return length.to(delta.dtype)

    def tolerance(self, pixels: int) -> float:
        """How far an image of so many values may lie outside the ball for rounding's sake."""
        return max(TOLERANCE, ROUNDING * pixels) if self.norm == "l1" else TOLERANCE

    def __str__(self) -> str:
        return f"{SIGNS[self.norm]} ε = {format_epsilon(self.epsilon)}"


def _onto_l1(delta: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """The change nearest to `delta` in L2 that is no longer than epsilon in L1 and leaves `x` in the box [0, 1].

    F. Croce, M. Hein. Mind the Box: l1-APGD for Sparse Adversarial Attacks on Image Classifiers. ICML 2021
    (arXiv 2103.01208), Proposition 2.1. Each change becomes min(max(|δ| - λ, 0), room), where room is its way to
    the wall. The length is piecewise linear in λ, with a kink where a pixel leaves its wall and one where its
    change ends: sorted, they say between which two of them it is epsilon.

    Args:
        delta: (N, C, H, W) changes.
        x: (N, C, H, W) images in [0, 1].
        epsilon: The radius.
    """
    sign, size = delta.flatten(1).sign(), delta.flatten(1).abs()
    pixels = size.shape[1]
    room = (1 - x).where(delta > 0, x).flatten(1)
    length = size.minimum(room).double().sum(1, keepdim=True)
    # Below epsilon by what adding to x may round each pixel up.
    goal = max(epsilon - ROUNDING * pixels, 0.0)
    # Pixels beyond their room stay at the wall until λ is what they are beyond it by; all have gone at their size.
    kinks = size.new_zeros(len(size), 2 * pixels)
    kinks[:, :pixels], kinks[:, pixels:] = (size - room).clamp_min(0), size
    kinks, order = kinks.sort(1)
    kinks = kinks.double()
    shrinking = ((order < pixels).double() * 2 - 1).cumsum(1)  # pixels on their way, beyond each kink
    lengths = length.expand(-1, 2 * pixels).clone()  # of the change, at each kink
    lengths[:, 1:] -= (shrinking[:, :-1] * kinks.diff(dim=1)).cumsum(1)
    last = ((lengths > goal).sum(1, keepdim=True) - 1).clamp_min(0)
    cut = kinks.gather(1, last) + (lengths.gather(1, last) - goal) / shrinking.gather(1, last).clamp_min(1)
    cut = cut.where(length > goal, cut.new_zeros(1))
    shrunk = (size.double() - cut).clamp_min(0).minimum(room.double())
    return (shrunk.to(delta.dtype) * sign).view_as(delta)


def format_epsilon(epsilon: float) -> str:
    """`0.3` as "0.3" and `0.03137` as "8/255", the way papers print them."""
    steps = epsilon * 255
    if round(steps) and abs(steps - round(steps)) < 1e-6 and abs(epsilon * 10 - round(epsilon * 10)) > 1e-9:
        return f"{round(steps)}/255"
    return f"{epsilon:g}"
