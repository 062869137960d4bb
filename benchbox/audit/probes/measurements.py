"""What each probe measures of a defence, as plain numbers, and how hard it tries. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

#: One truth value a sample.
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Effort:
    """How hard the probes try. The defaults are what the checks ask for; less is recorded as INCOMPLETE.

    Attributes:
        samples: Images, the first n of the test set.
        steps: Of a gradient attack.
        restarts: Starting points for each loss and each model.
        random_points: Points of the ball tried on each sample that gradients did not break.
        queries: Of the score-based search on each such sample.
        doubled: Samples on which steps and restarts are doubled, and the draws of a randomised defence; 0 leaves
            these out.
        radii: Other radii at which the attack is repeated: all of them, or 0.
        elsewhere: Images from elsewhere, of each source at most; 0 leaves them out.
        pursued: Samples that PGD is tried on again with many more starts, at most; 0 leaves it out.
        binarisation: Samples of the binarisation test; 0 leaves it out.
        directions: Random directions of the finite differences.
        noise: Draws of small noise under which the margin is watched.
        eot: Draws a gradient is averaged over for a randomised defence.
        scoring_draws: Fresh draws a randomised defence is asked in.
        batch: Images asked at once.
    """

    samples: int = 100
    steps: int = 100
    restarts: int = 2
    random_points: int = 10_000
    queries: int = 1000
    doubled: int = 50
    radii: int = 7
    elsewhere: int = 50
    pursued: int = 50
    binarisation: int = 64
    directions: int = 8
    noise: int = 100
    eot: int = 20
    scoring_draws: int = 10
    batch: int = 125


@dataclass(frozen=True)
class Behaviour:
    """How the defence answers when it is merely asked; rows are samples.

    Attributes:
        relabelled: (N,) whether five calls on the same image, with the same draws, gave different classes.
        repeat_gap: (N,) largest L2 distance between their normalised logits, or change over the largest logit.
        first_differs: Whether the later calls agree with one another and not with the first.
        state_changed: Whether parameters or buffers changed by being asked.
        training: Whether a module is in training mode.
        batch_gap: (N,) largest change of a logit when batches are cut and ordered otherwise, over the largest.
        batch_relabelled: (N,) whether the class changed then.
        jump: (N,) largest change of a logit under one grey level of noise, over the spread of the logits.
        saturated: (N,) whether the softmax is exactly 1 in float32.
        probabilities: Whether the logits are probabilities by AutoAttack's rule.
        log_probabilities: Whether the logarithm of the summed exponentials is 0 everywhere.
        dynamic: Whether the forward pass computes gradients of its own.
        classes: K.
        logits: (N, K) of the last of those calls.
        beside: (N,) as `jump`, between two images with such noise, none of which is in any data set.
        dimmed: (N,) as `jump`, when every pixel is dimmed alike by as much, so that equal pixels stay equal.
        growth: (N, 5) largest change of a logit under ever less faint noise, over that under a grey level of it.
        shifted: (N,) as `jump`, of the images shifted by a pixel: in no data set, and of the same grey levels.
        constant: (N,) whether the logits are equal to the last bit at random points of the ball.
        refuses: (N,) whether at one of them all logits are equal, so that none is the answer.
        mode_gap: (N,) largest change of a logit where no gradient is asked for, over the largest.
        name_gap: (N,) likewise under other names of the samples and another seed, of a deterministic defence.
        history: (N,) likewise when something else was asked before; None if it could not be tried.
        late_history: (N,) likewise at the end of the audit, of the images turned and shifted.
        process_gap: (N,) likewise in a fork of the process, which has met nothing.
        late_process_gap: (N,) likewise at the end of the audit, of the images turned and shifted.
        later: (N,) likewise at the end of the audit.
    """

    relabelled: Flags
    repeat_gap: NDArray[np.float64]
    first_differs: bool
    state_changed: bool
    training: bool
    batch_gap: NDArray[np.float64]
    batch_relabelled: Flags
    jump: NDArray[np.float64]
    saturated: Flags
    probabilities: bool
    log_probabilities: bool
    dynamic: bool
    classes: int
    logits: NDArray[np.float32]
    beside: NDArray[np.float64]
    dimmed: NDArray[np.float64]
    growth: NDArray[np.float64]
    shifted: NDArray[np.float64]
    constant: Flags
    refuses: Flags
    mode_gap: NDArray[np.float64]
    name_gap: NDArray[np.float64]
    history: NDArray[np.float64] | None = None
    late_history: NDArray[np.float64] | None = None
    process_gap: NDArray[np.float64] | None = None
    late_process_gap: NDArray[np.float64] | None = None
    later: NDArray[np.float64] | None = None

    @property
    def steady(self) -> bool:
        """Whether no class changed, neither when asked again nor in other batches."""
        return not (self.relabelled.any() or self.batch_relabelled.any() or self.state_changed)


@dataclass(frozen=True)
class Differences:
    """Finite differences beside what the gradient promises, at the distance where they are nearest to it.

    Attributes:
        error: Median distance of the two over the median of the differences; None if both are 0.
        seen: That median of the differences.
        promised: Median of what the gradient promises in the same directions.
        afar: `error` with the shortest distance left aside, at which hardly any jump is crossed.
    """

    error: float | None = None
    seen: float = 0.0
    promised: float = 0.0
    afar: float | None = None


@dataclass(frozen=True)
class Gradients:
    """What autograd makes of the defence; rows are samples.

    Attributes:
        zero: By model, (N,) whether every gradient of both losses is exactly 0; all true if autograd refused. NaN
            and infinity count as 0, for they lead nowhere either.
        broken: By model, (N,) whether a gradient had a NaN or an infinity.
        refused: By model, what autograd said.
        zero_pixels: Share of pixels without gradient, through the deployed defence.
        unstable: (N,) mean relative change of the margin under noise, clipped at 1.
        differences: How its gradient compares with finite differences.
        forward_gap: By stand-in, largest distance of its logits from the defence's, over the largest logit.
        exact_gap: Median distance of the gradient of the stand-in that is called exact from that of plain
            autograd, over the longer of the two; None without one.
        bent: By model, how far its backward pass is from linear in the loss, over the gradient.
    """

    zero: Mapping[str, Flags]
    refused: Mapping[str, str]
    zero_pixels: float
    unstable: NDArray[np.float64]
    differences: Differences
    broken: Mapping[str, Flags] = field(default_factory=dict)
    forward_gap: Mapping[str, float] = field(default_factory=dict)
    exact_gap: float | None = None
    bent: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Elsewhere:
    """Images that are in no test set, further than epsilon from each image that was probed.

    Attributes:
        correct: How many the defence, or the bare classifier in it, gets right.
        robust: How many of these withstand the probes.
        constant: How many of them have the same logits at random points of their ball.
    """

    correct: int
    robust: int
    constant: int


@dataclass(frozen=True)
class Randomness:
    """What a randomised defence's own draws do to the attack.

    Attributes:
        cosine: Mean cosine of two independent EOT gradients.
        doubled: Accuracy with twice the EOT draws, on the subset.
        single: Accuracy with the usual EOT draws on the same subset.
        frozen: Accuracy when the draws are known and fixed.
        fresh: Accuracy under EOT on the same samples.
    """

    cosine: float
    doubled: float
    single: float
    frozen: float
    fresh: float


@dataclass(frozen=True)
class Binarisation:
    """The binarisation test of Zimmermann et al. 2022.

    Attributes:
        success: Share of planted adversarial examples that the attack finds.
        random: Share that random points find.
        samples: Tests that could be set up.
        failed: Tests whose points no linear readout separates.
        points: Inner points of each.
        missed: Positions in the data set of the tests that the attack failed.
    """

    success: float
    random: float
    samples: int
    failed: int
    points: int
    missed: tuple[int, ...] = ()
