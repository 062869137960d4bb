"""Our minimum-norm attacks against foolbox's: same network and digits, distances as small."""

from __future__ import annotations

from typing import Any

import digits
import pytest
import torch
from benchbox.plugins.attacks.cw_l2 import CWL2
from benchbox.plugins.attacks.fab import FABT
from benchbox.plugins.attacks.fmn import FMN

from benchbox import Attack, ThreatModel

pytestmark = pytest.mark.slow
foolbox = pytest.importorskip("foolbox")

N = 40
#: Balls that hold every image: nothing is brought back to a surface.
WHOLE = {"l2": ThreatModel("l2", 8.0), "linf": ThreatModel("linf", 1.0)}


@pytest.mark.parametrize(
    ("norm", "ours", "theirs"),
    [
        ("l2", FMN(steps=200), lambda: foolbox.attacks.L2FMNAttack(steps=200)),
        ("linf", FMN(steps=200), lambda: foolbox.attacks.LInfFMNAttack(steps=200)),
        ("l2", FABT(), lambda: foolbox.attacks.DDNAttack(steps=200)),
        ("l2", CWL2(), lambda: foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=5, steps=200)),
    ],
    ids=["fmn-l2", "fmn-linf", "fab-t against ddn", "cw-l2"],
)
def test_the_median_distance_is_no_larger(norm: str, ours: Attack, theirs: Any) -> None:
    x, y, rows = digits.held_out(N)
    net = digits.classifier()
    right = net(x).argmax(1) == y
    x, y, rows = x[right], y[right], rows[right]
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found, _, broken = theirs()(model, x, foolbox.criteria.Misclassification(y), epsilons=None)
    ball = WHOLE[norm]
    reference = torch.where(broken, ball.norms(found - x), torch.inf)
    view, draws = digits.view(net, y, rows)
    mine = ours(view, x, y, ball, draws).x
    reached = torch.where(net(mine).argmax(1) != y, ball.norms(mine - x), torch.inf)
    # FMN gets stuck before the boundary on a few: 16 % here in L2, whatever the number of steps.
    assert float(reached.isfinite().float().mean()) >= 0.8
    assert float(reached.median()) <= 1.05 * float(reference.median())
