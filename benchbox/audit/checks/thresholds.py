"""Every threshold of the checks, in one place, each with where it comes from.

[P] marks what benchbox proposes; the rest is what the cited work or its code uses.
"""

from __future__ import annotations

from benchbox.analysis import intervals


class Threshold(float):
    """A number with the reason for it.

    Attributes:
        reason: Where it comes from; begins with "[P]" if nobody but benchbox proposed it.
    """

    reason: str

    def __new__(cls, value: float, reason: str) -> Threshold:
        """A float that knows its reason."""
        number = super().__new__(cls, value)
        number.reason = reason
        return number


# A: integrity
RANGE_SLACK = Threshold(1e-6, "float32 rounding exceeds 8/255 by 2.6e-8; a tenfold margin above any such rounding")
REPEATS = Threshold(5, "AutoAttack, check_randomized: five runs")
REPEAT_GAP = Threshold(1e-4, "AutoAttack, check_randomized: L2 distance of normalised logits")
BATCH_GAP = Threshold(
    1e-4, "[P] of the largest logit: batched kernels differ by 1e-6, a batch statistic by far more"
)
STILL = Threshold(0.01, "[P] of epsilon: a step of any attack is longer")
STILL_SHARE = Threshold(0.005, "[P] one sample in 200 may sit at a true stationary point")
CLEAN_GAP = Threshold(0.0005, "RobustBench's reproduction test: 0.05 percentage points")
BEYOND_CHANCE = Threshold(0.001, "[P] as of the null attack: one honest defence in a thousand")
JUMP = Threshold(0.1, "[P] of the spread of a sample's logits: a network changes by less under one grey level")
JUMP_WARN = Threshold(0.05, "[P] hard thresholds jump on a few images, a look-up on all it knows")
JUMP_FAIL = Threshold(0.5, "[P] more than half of the images change as if they had been recognised")
GROWTH_LEAST = Threshold(0.05, "[P] of a jump, under fainter noise: a hash of whole grey levels hears nothing")
GROWTH_MOST = Threshold(0.5, "[P] likewise: a hash of bytes hears all of it")
REFUSES = Threshold(0.05, "[P] of the samples: no honest classifier has all its logits equal")
TWO_ANSWERS = Threshold(0.01, "[P] of the samples: rounding decides one at the very border of two classes")
UNSEEN_WARN = Threshold(0.5, "[P] images from elsewhere are harder by less")
UNSEEN_FAIL = Threshold(0.75, "[P] no honest defence loses three quarters by a shift of one pixel")
UNSEEN_MIXED = Threshold(0.05, "[P] 28 % withstood on an honest network that is 93 % robust, none on a look-up")
UNSEEN_SAMPLES = Threshold(20, "[P] of each source, to see a drop by half")
AA_FORWARDS = Threshold(7857, "AutoAttack standard, forward passes of a sample that never breaks (K >= 10)")
AA_BACKWARDS = Threshold(1910, "AutoAttack standard, backward passes likewise")

# B: masking and attack failure
UNIQUE_WARN = Threshold(0.002, "AutoAttack, check_square_sr: 0.2 % of the samples")
UNIQUE_FAIL = Threshold(0.01, "[P] five times AutoAttack's own tolerance")
RANDOM_FAIL = Threshold(0.01, "[P] random points never beat a working gradient on 1 % of the samples")
FEW = Threshold(2, "[P] a FAIL needs two samples: one in a hundred may be chance")
RANDOM_POINTS = Threshold(10_000, "Carlini et al. 2019: 10,000 or more draws per example")
TARGETS = Threshold(9, "AutoAttack: APGD-T aims at nine classes")
OUT_OF_REACH = Threshold(
    8, "[P] standard deviations: a sample whose margins are that far off after 1,000 points gets no more"
)
PROBED = Threshold(20, "[P] images, before probes acquit: a share of 5 % is one of twenty")
NOISE_DRAWS = Threshold(100, "Pintor et al. 2022, code of I2: one hundred draws of noise")
EOT_DRAWS = Threshold(20, "Athalye et al. 2018; Lee & Kim 2023: twenty draws a gradient, or more")
QUERIES = Threshold(1000, "[P] enough to show masking; the published number needs Square with 5,000")
ONE_STEP_WARN = Threshold(0.01, "[P] per-sample; Athalye et al. 2018 compare the averages")
MONOTONE_WARN = Threshold(0.005, "[P] restarts differ on a sample in 200")
MONOTONE_FAIL = Threshold(0.02, "[P] beyond what a random start explains")
TAIL = Threshold(10, "Pintor et al. 2022, I4: the last ten steps")
TAIL_RANGE = Threshold(0.05, "Pintor et al. 2022, code of I4 (the paper says 1 %)")
TAIL_SHARE = Threshold(0.10, "[P] of the survivors")
DOUBLING_WARN = Threshold(0.005, "[P] half a percentage point")
DOUBLING_FAIL = Threshold(0.02, "[P] two percentage points")
DOUBLING_SAMPLES = Threshold(1000, "[P] below, a drop of half a point is half a sample")
SIGNIFICANT = Threshold(0.05, "exact McNemar test, the usual level")
ZERO_FAIL = Threshold(0.05, "[P] AutoAttack warns from the first sample on")
UNSTABLE = Threshold(0.1, "Pintor et al. 2022, I2: tau = 10 %")
UNSTABLE_RADIUS = Threshold(4 / 255, "Pintor et al. 2022, code of I2: a box of +-4/255")
FIDELITY_WARN = Threshold(0.05, "[P] finite differences agreed to 0.00 with exact gradients on small networks")
FIDELITY_FAIL = Threshold(0.5, "[P] wrong gradients are off by 0.5 to 3; less may be kinks of a wide network")
FIDELITY_STANDING = Threshold(0.05, "[P] of the samples, after a search along a gradient: then it masks nothing")
FIDELITY_LONGEST = Threshold(10, "[P] times as long as the differences: such a gradient is another")
FIDELITY_SHORTEST = Threshold(0.001, "[P] of their length: a shorter one vanishes; differences may span jumps")
TRANSFER_FAILURE = Threshold(0.2, "[P] Pintor et al. 2022 flag each sample (I5)")
BINARISATION = Threshold(0.95, "Zimmermann et al. 2022: attack success rate to pass")
BINARISATION_EASY = Threshold(0.05, "[P] random points must not solve it")
BINARISATION_SAMPLES = Threshold(64, "[P] 512 in the paper; 64 tell .95 from .85")
SATURATED = Threshold(0.05, "[P] share of samples whose softmax is exactly 1 in float32")
EOT_COSINE = Threshold(0.5, "[P] two independent EOT gradients should point the same way")
FROZEN_GAP = Threshold(0.02, "[P] two percentage points; Carlini et al. 2019 ask for the comparison")

# C: completeness
FAMILIES = Threshold(4, "[P] of seven families of attacks")
COMPLEMENTARY = Threshold(0.01, "[P] one percentage point")
PROBES_WARN = Threshold(0.0, "[P] every sample that the short probes break and the stored attacks do not")
PROBES_FAIL = Threshold(0.01, "[P] of the samples, two at least: the probes are short, the stored attacks are not")
EXACT_GAP = Threshold(0.05, "[P] in the median: the same gradient, computed twice, differs by rounding")
FORWARD_GAP = Threshold(1e-3, "[P] of the largest logit: kernels differ by 1e-6, another model by far more")
STEPS = Threshold(100, "Carlini et al. 2019: 100 to 1,000 iterations")
RESTARTS = Threshold(10, "Carlini et al. 2019: at least 10 random starting points")
SQUARE_QUERIES = Threshold(5000, "AutoAttack's Square")

# D: statistics
HALF_WIDTH_WARN = Threshold(intervals.PLACE, "[P] one percentage point")
HALF_WIDTH_FAIL = Threshold(0.03, "[P] three percentage points")
SEEDS = Threshold(3, "[P] fewer show no range")
SEED_RANGE = Threshold(0.01, "[P] one percentage point")
SCORING_DRAWS = Threshold(10, "[P] fewer cannot tell the expected accuracy from one lucky draw")


def table() -> dict[str, Threshold]:
    """Every threshold by its name."""
    return {name: value for name, value in globals().items() if isinstance(value, Threshold)}
