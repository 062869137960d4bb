"""The probes that attack: each model an attacker may be given, each loss, each radius.

The searches are plain on purpose. They are here to show that an evaluation is wrong, which a short attack
can; the published number comes from the attacks of `benchbox run`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchbox.audit.evidence import Kind, Run
from benchbox.audit.probes.climb import Climb, climb
from benchbox.audit.probes.measurements import Effort, Flags
from benchbox.contract.ascent import Loss, ascend, cross_entropy, margin
from benchbox.contract.border import is_without_gradient
from benchbox.contract.defense import Defense
from benchbox.contract.view import Forward, View
from benchbox.domain import ThreatModel
from benchbox.draws import Draws
from benchbox.engine.judge import Judge

#: PGD's step length: 2.5 epsilon over the number of steps (Madry et al. 2018).
REACH = 2.5
#: Both are run everywhere: where the cross-entropy underflows the margin does not.
LOSSES: Mapping[str, Loss] = {"cross-entropy": cross_entropy, "margin": margin}
#: Starts of the attack on the whole box; each attacks only what is left.
UNBOUNDED_STARTS = 5


class Late(Exception):  # noqa: N818 - no error: what was asked for is left out
    """The time of an audit is up within a probe that it can do without."""


@dataclass
class Target:
    """A trained defence, the images it is probed with, and everything to attack it by.

    Attributes:
        judge: The only way to ask the defence, which is in evaluation mode.
        x: (N, C, H, W) images.
        y: (N,) classes.
        draws: One row a sample.
        threat: The ball.
        effort: How hard to try.
        steady: Whether one answer is as good as another: the defence is deterministic and looks at no batch mate.
            Then a sample is decided once the defence errs on it.
        is_over: Whether the time of the audit is up.
        spared: Whether what is being done is left as a whole then.
    """

    judge: Judge
    x: Tensor
    y: Tensor
    draws: Draws
    threat: ThreatModel
    effort: Effort
    steady: bool = True
    is_over: Callable[[], bool] = lambda: False
    spared: bool = False

    @property
    def defense(self) -> Defense:
        """What is probed."""
        return self.judge.defense

    def ask(self, x: Tensor, draws: Draws) -> Tensor:
        """Logits (n, K) of the deployed defence, asked as an attack or a scoring asks."""
        self.keep_time()
        return self.judge.ask(x, draws)

    def keep_time(self) -> None:
        """Asked before each pass.

        Raises:
            Late: The time is up, and the audit can do without what is being done.
        """
        if self.spared and self.is_over():
            raise Late

    def rows(self, keep: Tensor) -> Target:
        """The same defence with some of the images."""
        return replace(self, x=self.x[keep], y=self.y[keep], draws=self.draws.rows(keep))

    def models(self) -> dict[str, Forward]:
        """What a white-box attacker may differentiate: the deployed defence and each stand-in."""
        names = [name for name in self.defense.surrogates() if name != self.defense.exact]
        return {"deployed": self.judge.through(None), **{name: self.judge.through(name) for name in names}}

    def view(self, forward: Forward, purpose: str, *, eot: int | None = None) -> View:
        """A model under attack, with a stream of its own."""
        randomized = self.defense.randomized
        eot = self.effort.eot if eot is None else eot

        def in_time(x: Tensor, draws: Draws) -> Tensor:
            self.keep_time()
            return forward(x, draws)

        return View(in_time, self.y, self.draws.at("audit", purpose), randomized=randomized, eot=eot)

    def right(self, x: Tensor, purpose: str = "score") -> Flags:
        """(N, R) whether the deployed defence is right in each fresh draw; R is 1 for a deterministic one."""
        repeats = self.effort.scoring_draws if self.defense.randomized else 1
        source = self.draws.at("audit", purpose)
        with torch.no_grad():
            found = [self.ask(x, source.at(r)).argmax(1) == self.y for r in range(repeats)]
        flags: Flags = torch.stack(found, 1).cpu().numpy()
        return flags

    def wrong(self, x: Tensor, purpose: str = "score") -> Flags:
        """(N,) whether the deployed defence errs; a randomised one in at least half of its fresh draws."""
        return errs(self.right(x, purpose))


def errs(right: Flags) -> Flags:
    """(N,) whether at least half of some draws (N, R) are wrong."""
    flags: Flags = right.mean(axis=1) <= 0.5
    return flags


@dataclass(frozen=True)
class Found:
    """A run and the images it found."""

    run: Run
    x: Tensor
    trace: Tensor


def gradient(
    target: Target,
    forward: Forward,
    name: str,
    loss: str,
    *,
    through: str,
    threat: ThreatModel | None = None,
    steps: int | None = None,
    one_step: bool = False,
    eot: int | None = None,
    on: Flags | None = None,
    let_go: bool = True,
) -> Found:
    """PGD, or FGSM, on one model with one loss.

    Args:
        target: The defence and its images.
        forward: The model to differentiate.
        name: Of the run; also names its random stream.
        loss: A name in `LOSSES`, or "target 3": towards the third class after the true one.
        through: What the model is called.
        threat: Another ball than the target's.
        steps: Another number of steps than the effort's.
        one_step: FGSM from the image itself.
        eot: Other than the effort's.
        on: (N,) the samples to attack, all by default; the others stay where they are, and count as unbroken.
        let_go: Whether a sample is left alone once the deployed defence errs on it.
    """
    kind: Kind = "one-step" if one_step else "iterative"
    if on is not None and not on.any():
        return _idle(target, kind, name, through)
    if on is not None and not on.all():
        rows = torch.from_numpy(np.flatnonzero(on)).to(target.y.device)
        part = target.rows(rows)
        settings = {
            "through": through,
            "threat": threat,
            "steps": steps,
            "one_step": one_step,
            "eot": eot,
            "let_go": let_go,
        }
        return _spread(gradient(part, forward, name, loss, **settings), target.x, rows)  # type: ignore[arg-type]
    threat = threat or target.threat
    steps = 1 if one_step else steps or target.effort.steps
    view = target.view(forward, name, eot=eot)
    start = target.x if one_step else threat.random_start(target.x, target.draws.at("audit", name))
    length = threat.epsilon * (1.0 if one_step else min(REACH / steps, 1.0))
    try:
        if one_step or target.defense.randomized or not (let_go and target.steady):
            reached = _ascend(view, target, threat, start, steps, length, _objective(loss), keep_last=one_step)
        else:
            deployed = None if through == "deployed" else target.ask
            reached = climb(
                view,
                target.x,
                threat,
                start=start,
                steps=steps,
                step_size=length,
                loss=_objective(loss),
                deployed=deployed,
            )
    except RuntimeError as error:
        if not is_without_gradient(error):
            raise
        # No gradient, no step: the attack leaves the images where they were.
        # Where it started is not kept, so what it saw there is no second answer to anything.
        reached = Climb(target.x, torch.zeros_like(target.y, dtype=torch.bool), torch.zeros(0, len(target.y)))
    return Found(_run(target, kind, name, reached, through), reached.x, reached.trace.cpu())


def _objective(name: str) -> Loss:
    if name in LOSSES:
        return LOSSES[name]
    offset = int(name.removeprefix("target "))

    def towards(logits: Tensor, y: Tensor) -> Tensor:
        other = (y + offset) % logits.shape[1]
        chosen: Tensor = logits.gather(1, other[:, None])[:, 0] - logits.gather(1, y[:, None])[:, 0]
        return chosen

    return towards


def _idle(target: Target, kind: Kind, name: str, through: str) -> Found:
    """An attack with nothing left to do: no defence has to answer for no images."""
    n = len(target.y)
    run = Run(kind, name, np.zeros(n, bool), np.zeros(n), np.zeros(n, bool), through)
    return Found(run, target.x, torch.zeros(0, n))


def _spread(found: Found, x: Tensor, rows: Tensor) -> Found:
    """What was found on some rows, on all of them."""
    run, at, n = found.run, rows.cpu().numpy(), len(x)
    images = x.clone()
    images[rows] = found.x
    trace = torch.zeros(len(found.trace), n)
    trace[:, rows.cpu()] = found.trace

    def all_rows(values: NDArray[Any]) -> NDArray[Any]:
        spread = np.zeros(n, values.dtype)
        spread[at] = values
        return spread

    right = None if run.right is None else spread_draws(run.right, at, n)
    twice = None if run.twice is None else all_rows(run.twice)
    spread = replace(
        run,
        broken=all_rows(run.broken),
        moved=all_rows(run.moved),
        seen=all_rows(run.seen),
        right=right,
        twice=twice,
    )
    return Found(spread, images, trace)


def spread_draws(right: Flags, rows: NDArray[np.int64], n: int) -> Flags:
    """Draws (rows, R) as those of n samples: what was not attacked counts as right."""
    spread: Flags = np.ones((n, right.shape[1]), bool)
    spread[rows] = right
    return spread


def _ascend(
    view: View,
    target: Target,
    threat: ThreatModel,
    start: Tensor,
    steps: int,
    length: float,
    loss: Loss,
    *,
    keep_last: bool,
) -> Climb:
    """The loop of the published attacks, with a trace of the mean loss over the draws of each step."""
    trace: list[Tensor] = []

    def recorded(logits: Tensor, y: Tensor) -> Tensor:
        losses = loss(logits, y)
        trace.append(losses.detach())
        return losses

    keep: Literal["last", "best"] = "last" if keep_last else "best"
    x = ascend(
        view, target.x, target.y, threat, start=start, steps=steps, step_size=length, loss=recorded, keep=keep
    )
    drawn = torch.stack(trace[: steps * view.eot]).view(-1, view.eot, len(target.y)).mean(1)
    return Climb(x, view.first_success >= 0, drawn)


def _run(target: Target, kind: Kind, name: str, reached: Climb, through: str) -> Run:
    moved = (reached.x - target.x).flatten(1).abs().amax(1).double().cpu().numpy()
    right = target.right(reached.x)
    run = Run(kind, name, errs(right), moved, reached.seen.cpu().numpy(), through)
    if target.defense.randomized:
        return replace(run, right=right)
    return replace(run, twice=(right != target.right(reached.x))[:, 0])


def transfer(target: Target) -> Run | None:
    """Adversarial images of the bare classifier; None when it is the defence itself."""
    with torch.no_grad():
        bare, whole = target.judge.bare(target.x, target.draws), target.ask(target.x, target.draws)
    if torch.equal(bare.argmax(1), whole.argmax(1)) and torch.allclose(bare.float(), whole.float()):
        return None
    first, second = on_classifier(target, "transfer")
    broken, seen = first.broken | second.broken, first.seen | second.seen
    # Of the two, that of the cross-entropy speaks for each draw: only whole runs can be told apart by draws.
    right = first.right
    return Run("transfer", "PGD on the bare classifier", broken, first.moved, seen, "bare classifier", right=right)


def on_classifier(target: Target, name: str) -> tuple[Run, Run]:
    """PGD on the bare classifier by both losses, scored on the defence.

    Who transfers does not see what the defence says, so it cannot stop when the defence errs.
    """
    first, second = (
        gradient(
            target,
            target.judge.bare,
            f"{name} {loss}",
            loss,
            through="bare classifier",
            eot=1,
            let_go=False,
        ).run
        for loss in LOSSES
    )
    return first, second


def unbounded(target: Target, forward: Forward, through: str, radius: float) -> Flags:
    """(N,) broken inside an L-infinity ball of this radius, by both losses from several starts."""
    threat = ThreatModel("linf", radius)
    broken = target.wrong(target.x, "clean")
    for start in range(UNBOUNDED_STARTS):
        for loss in LOSSES:
            left = np.flatnonzero(~broken)
            if not len(left):
                return broken
            part = target.rows(torch.from_numpy(left).to(target.y.device))
            name = f"unbounded {radius} {start} {loss}"
            found = gradient(part, forward, name, loss, through=through, threat=threat)
            broken[left] |= found.run.broken
    return broken
