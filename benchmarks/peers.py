"""The attacks of the tables as a plain script makes them: torchattacks, pyautoattack, and one loop."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pyautoattack
import torch
import torchattacks
from torch import Tensor, nn

from benchbox.contract.attack import Attack
from benchbox.domain import ThreatModel

#: What papers write AutoAttack's norms as.
NORM = {"linf": "Linf", "l2": "L2", "l1": "L1"}
#: Images a call: the best of torchattacks' on a CPU here, and what AutoAttack's README has.
BATCH, AUTOATTACK_BATCH = 125, 250


def plain(name: str, settings: dict[str, Any], threat: ThreatModel, model: nn.Module) -> Callable[..., Tensor]:
    """(x, y) -> adversarial images, for the attacks of the tables but AutoAttack; L∞.

    Args:
        name: Of our attack.
        settings: Of ours.
        threat: The ball.
        model: What is attacked.
    """
    epsilon, steps = threat.epsilon, settings.get("steps", 1)
    alpha = settings.get("step", 1.0) * epsilon
    match name:
        case "fgsm":
            return torchattacks.FGSM(model, eps=epsilon)
        case "bim":
            return torchattacks.BIM(model, eps=epsilon, alpha=alpha, steps=steps)
        case "mim":
            return torchattacks.MIFGSM(model, eps=epsilon, alpha=alpha, steps=steps)
        case "pgd":
            return torchattacks.PGD(model, eps=epsilon, alpha=alpha, steps=steps, random_start=True)
        case "cw":
            return partial(_margin_ascent, model, epsilon, alpha, steps)
    raise SystemExit(f"{name}: there is no plain script for it here")


def _margin_ascent(model: nn.Module, epsilon: float, alpha: float, steps: int, x: Tensor, y: Tensor) -> Tensor:
    """PGD on the margin: torchattacks' CW works in L2."""
    there = (x + epsilon * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
    for _ in range(steps):
        leaf = there.detach().requires_grad_()
        logits = model(leaf)
        others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
        (gradient,) = torch.autograd.grad((others - logits.gather(1, y[:, None])[:, 0]).sum(), leaf)
        there = (leaf + alpha * gradient.sign()).clamp(x - epsilon, x + epsilon).clamp(0, 1).detach()
    return there


def autoattack(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, share: float = 1.0) -> Tensor:
    """The authors' program, at a share of its steps and queries."""
    suite = pyautoattack.AutoAttack(
        model, norm=NORM[threat.norm], eps=threat.epsilon, seed=0, device=str(x.device)
    )
    suite.verbose = False
    for member in (suite.apgd, suite.apgd_targeted, suite.fab):
        member.n_iter = max(1, round(share * member.n_iter))
    suite.square.n_queries = max(1, round(share * suite.square.n_queries))
    x_adv: Tensor = suite.run_standard_evaluation(x, y, batch_size=AUTOATTACK_BATCH)[0]
    return x_adv


def shorten(cls: type[Attack], share: float) -> None:
    """Have our AutoAttack make the same share of its steps and queries, from now on."""
    members = sys.modules[cls.__module__]
    for name, field, whole in (("apgd", "steps", 100), ("fab", "steps", 100), ("square", "queries", 5000)):
        setattr(members, name, partial(getattr(members, name), **{field: max(1, round(share * whole))}))
