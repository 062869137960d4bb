"""Who tells scoring from attacking is found out, or gains nothing by it; who is merely unusual is not accused."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from broken_defenses import THREAT, Wrapped, _hash
from cheating_defenses import (
    CHEATS,
    PLAIN,
    BatchSize,
    CallCounting,
    CallStack,
    Decoy,
    FirstVisit,
    GradientMode,
    HashNoise,
    Indices,
    NearestNeighbour,
    OtherStandIn,
    Seeds,
    TestOracle,
)
from digits import held_out, images, withstanding
from honest_defenses import HONEST

from benchbox import Card
from benchbox.audit import Effort, Stored, Subject, audit, summary
from benchbox.audit.probes.probe import probe
from benchbox.engine.judge import Judge
from benchbox.training.layout import Layout

EFFORT = Effort(
    samples=40, steps=10, restarts=1, random_points=20, queries=30, doubled=24, elsewhere=24, binarisation=0,
    directions=3, eot=2, scoring_draws=4,
)  # fmt: skip

#: The check that has to fail, and what its sentence has to name.
EXPECTED = {
    GradientMode: ("A13", "no gradient is asked for"),
    BatchSize: ("A10", "depends on the images beside it"),
    CallCounting: ("A6", "does not answer the same twice"),
    Indices: ("A13", "other indices and seeds"),
    NearestNeighbour: ("A14", "it knows them"),
    TestOracle: ("A15", "it looks them up"),
    FirstVisit: ("A13", "by what was asked before it"),
    HashNoise: ("A11", "noise drawn from a hash of the image"),
    OtherStandIn: ("B21", "attack another model"),
}


@cache
def findings(cls):
    x, y = (t[:40] for t in images())
    probes = probe(Judge(cls(), Layout(), "5ec2e7"), *held_out(EFFORT.samples), THREAT, EFFORT, held=(x, y))
    subject = Subject(cls.card.name, "a", cls.randomized, cls.base is not None, tuple(cls.stand_ins), cls.exact)
    return {f.check: f for f in audit(Stored(subject, THREAT, (1, 8, 8)), probes)}


@pytest.mark.parametrize("cls", CHEATS, ids=lambda cls: cls.card.name)
def test_a_cheat_is_found_out_and_its_mechanism_named(cls) -> None:
    check, words = EXPECTED[cls]
    found = findings(cls)
    assert found[check].verdict == "FAIL", found[check].sentence
    assert words in found[check].sentence


def test_what_knows_the_test_images_falls_on_others() -> None:
    for cls in (NearestNeighbour, TestOracle, FirstVisit):
        assert findings(cls)["A14"].verdict == "FAIL", findings(cls)["A14"].sentence


class Darkest(Wrapped):
    """Greys the darkest third of the pixels; of equally dark ones, as of a background, their order decides."""

    card = Card("darkest", "a hard mask over ties")

    def forward(self, x, draws=None):
        flat = x.flatten(1)
        chosen = flat.argsort(dim=1, stable=True)[:, : flat.shape[1] // 3]
        return self.classifier(flat.scatter(1, chosen, 0.5).view_as(x))


def test_a_hard_decision_between_equal_pixels_is_no_memory() -> None:
    found = findings(Darkest)["A11"]
    assert found.verdict == "WARN", found.sentence
    assert "a hard decision between equal pixels" in found.sentence


class Comb(Wrapped):
    """Greys each pixel by a decision about it that a small change of it turns, and a smaller one less often."""

    card = Card("comb", "many hard decisions")

    def forward(self, x, draws=None):
        return self.classifier(torch.where((1500 * x + 1).sin() > 0, x, 0.5))


class RoundedHash(HashNoise):
    """Its noise hangs on whole grey levels: fainter noise than half a one changes nothing."""

    card = Card("rounded-hash", "noise seeded by a hash of whole grey levels")

    def forward(self, x, draws=None):
        noise = [
            torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(int(_hash(image)[:8], 16)))
            for image in (x.detach() * 255).round()
        ]
        return self.classifier((x + 0.3 * torch.stack(noise)).clamp(0, 1))


def test_many_hard_decisions_are_no_hash() -> None:
    found = findings(Comb)["A11"]
    assert found.verdict == "WARN", found.sentence
    assert "more noise turns more" in found.sentence
    for hashed in (HashNoise, RoundedHash):
        found = findings(hashed)["A11"]
        assert found.verdict == "FAIL", found.sentence
        assert "noise drawn from a hash" in found.sentence


@pytest.mark.parametrize("cls", [*PLAIN, *HONEST], ids=lambda cls: cls.card.name)
def test_what_is_merely_unusual_is_not_accused(cls) -> None:
    found = findings(cls)
    told = summary(list(found.values()))
    assert told["integrity"] == [], [found[id].sentence for id in told["integrity"]]
    assert told["masking"] == [], [found[id].sentence for id in told["masking"]]


class NoCheat(Decoy):
    """The honest one to compare with."""

    def attacked(self, x, draws):
        return False


@pytest.mark.parametrize("cls", [CallStack, GradientMode, Seeds, Indices], ids=lambda cls: cls.card.name)
def test_what_tells_attack_from_scoring_gains_nothing(cls) -> None:
    # One class for every image is right one time in ten.
    bare = withstanding(NoCheat(), THREAT, 60, 12)
    assert withstanding(cls(), THREAT, 60, 12) < bare + 0.2
