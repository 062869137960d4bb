"""Whether a defence keeps to its contract, asked once before it is attacked: a broken one yields no number.

A look, not an audit: a few training images, in the layout and mode the defence will run in.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from benchbox.contract import border
from benchbox.contract.ascent import ascend, margin
from benchbox.contract.defense import Defense, bare
from benchbox.contract.view import View
from benchbox.domain import ThreatModel
from benchbox.draws import Draws, sample_draws
from benchbox.engine.judge import Judge, check_logits
from benchbox.errors import DefenseError, RequestError
from benchbox.training.layout import ROUNDING, answer

#: Images that are also asked about alone.
ALONE = 4
#: How often a batch is asked about again before its images are said to look at one another.
AGAIN = 4


def vet(judge: Judge, x: Tensor, draws: Draws) -> dict[str, str]:
    """Ask about the same images twice, with a gradient and without, in company and alone.

    Args:
        judge: The defence, on the device of `x`.
        x: (N, C, H, W) images.
        draws: One row an image.

    Returns:
        What is no breach but has to be known, by what it is about.

    Raises:
        DefenseError: The defence broke its contract; says what was seen and what to do.
    """
    defense, name = judge.defense, judge.defense.card.name
    require_evaluation(defense, name)
    # Of different contrast, so that who scales by the brightest of the batch is seen.
    x = x * torch.linspace(1.0, 0.5, len(x), device=x.device).view(-1, 1, 1, 1)
    first = answer(judge.ask, x, draws)
    check_logits(first.logits, len(x), defense.images.classes, name)
    if defense.base is not None:
        require_classifier(defense, x)
    _require_repeatable(judge, x, draws, first.logits)
    _require_alone(judge, x, draws, first.logits)
    return _gradient(name, first.gradient)


def require_classifier(defense: Defense, x: Tensor) -> None:
    """Refuse a target classifier that cannot be attacked as one: whoever transfers from it asks it alone.

    Args:
        defense: In evaluation mode.
        x: (N, C, H, W) images.

    Raises:
        DefenseError: There is none, it fails, or it returns something else than one logit for each class.
    """
    name, shape = f"defence {defense.card.name}", (len(x), defense.images.classes)
    remedy = f"let self.classifier return logits of shape {shape}, and name what is no classifier otherwise"
    if not isinstance(getattr(defense, "classifier", None), nn.Module):
        raise DefenseError(f"{name} has no classifier, which gray-box attackers know; {remedy}")
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            said = bare(defense)(x.clone(), sample_draws(len(x)))
    except Exception as error:  # whatever code of others makes of being asked
        raise DefenseError(
            f"the classifier of {name} fails on images ({border.reason(error)}); {remedy}"
        ) from error
    if not isinstance(said, Tensor) or said.shape != shape:
        seen = f"shape {tuple(said.shape)}" if isinstance(said, Tensor) else type(said).__name__
        raise DefenseError(
            f"the classifier of {name} returned {seen} for {shape[0]} images and {shape[1]} classes; {remedy}"
        )


def require_certificate(defense: Defense, x: Tensor, threat: ThreatModel) -> None:
    """Refuse what proves something that is not so; a defence that proves nothing in the ball passes.

    Args:
        defense: In evaluation mode.
        x: (N, C, H, W) images.
        threat: The ball.

    Raises:
        DefenseError: Its answer is no proof, it proves another class than an image gets, or a short search finds
            an image of the ball that gets another class than it has proven.
    """
    name, draws = f"defence {defense.card.name}", sample_draws(len(x))
    y = defense(x, draws).argmax(1)
    try:
        proven = defense.certified(x.clone(), y.clone(), threat)
    except RequestError:
        return
    if not isinstance(proven, Tensor) or proven.dtype is not torch.bool or proven.shape != y.shape:
        raise DefenseError(f"{name} certifies {len(x)} images by {proven!r:.80}; return a bool for each")
    other = (y + 1) % defense.images.classes
    if wrong := int(defense.certified(x.clone(), other, threat).sum()):
        raise DefenseError(f"{name} proves another class than it gives the image itself, of {wrong} images")
    view = View(lambda x, draws: defense(x, draws), y, draws)
    start, step = threat.random_start(x, draws), 0.25 * threat.epsilon
    found = ascend(view, x, y, threat, start=start, steps=10, step_size=step, loss=margin, keep="best")
    broken = proven & ((defense(start, draws).argmax(1) != y) | (defense(found, draws).argmax(1) != y))
    if broken.any():
        raise DefenseError(f"{name} proves {int(broken.sum())} of {len(x)} images that ten steps of PGD break")


def require_evaluation(module: nn.Module, name: str) -> None:
    """Refuse what stays in training mode.

    Raises:
        DefenseError: A part that behaves otherwise there is in it.
    """
    for part, kind in _training(module):
        raise DefenseError(
            f"defence {name} keeps {part} ({kind}) in training mode after eval(), so its answers depend on the "
            "batch; let eval() and train(False) reach every module"
        )


def _training(defense: nn.Module) -> Iterator[tuple[str, str]]:
    """Modules that behave otherwise in training, and are in it."""
    for name, module in defense.named_modules():
        if module.training and isinstance(module, _BatchNorm | _DropoutNd) and _matters(module):
            yield name, type(module).__name__


def _matters(module: nn.Module) -> bool:
    return not isinstance(module, _DropoutNd) or module.p > 0


def _require_repeatable(judge: Judge, x: Tensor, draws: Draws, first: Tensor) -> None:
    again = judge.without_gradient(x, draws)
    if not (_differ(first, again) or _differ(first, judge.ask(x, draws).detach())):
        return
    steady = not _differ(again, judge.without_gradient(x, draws))
    name = judge.defense.card.name
    if steady:
        remedy = "make gradients change no answer"
        raise DefenseError(
            f"defence {name} answers otherwise where a gradient is asked for ({_said(first, again)}); {remedy}"
        )
    raise _restless(judge, first, again)


def _restless(judge: Judge, first: Tensor, again: Tensor) -> DefenseError:
    """The error for a defence that answers otherwise though nothing else was asked."""
    name = judge.defense.card.name
    if judge.defense.randomized:
        seen, remedy = "answers otherwise when asked again in the same draws", "take all randomness from `draws`"
    else:
        seen = "answers otherwise when asked again"
        remedy = "switch off dropout and noise in eval(), keep nothing from call to call, or "
        remedy += judge.defense.how_to_randomize()
    return DefenseError(f"defence {name} {seen} ({_said(first, again)}); {remedy}")


def _require_alone(judge: Judge, x: Tensor, draws: Draws, company: Tensor) -> None:
    name, last = judge.defense.card.name, company[-ALONE:]
    rows = [slice(i, i + 1) for i in range(len(x) - len(last), len(x))]
    with torch.no_grad():
        try:
            alone = torch.cat([judge.ask(x[row], draws.rows(row)) for row in rows])
        except Exception as error:  # whatever code of others makes of a batch of one
            raise DefenseError(
                f"defence {name} fails on an image alone ({border.reason(error)}); let it take any number"
            ) from error
    if len(x) > 1 and _differ(last, alone):
        # Who counts how often it was asked would have answered otherwise in company, too.
        for _ in range(AGAIN):
            if _differ(company, again := judge.ask(x, draws).detach()):
                raise _restless(judge, company, again)
        raise DefenseError(
            f"defence {name} answers otherwise for an image alone than in a batch ({_said(last, alone)}); use no "
            "statistics of the batch, and no memory: an image's logits may depend on the image and its draws alone"
        )


def _differ(first: Tensor, second: Tensor) -> bool:
    """Whether at least half of the images have other logits (N, K), by more than rounding.

    A single one may owe it to a threshold that rounding crossed.
    """
    return bool(_moved(first, second).float().mean() >= 0.5)


def _moved(first: Tensor, second: Tensor) -> Tensor:
    scale = first.abs().amax().clamp_min(1e-6)
    moved: Tensor = (first - second).abs().amax(1) > ROUNDING * scale
    return moved | ~second.isfinite().all(1)


def _said(first: Tensor, second: Tensor) -> str:
    moved, classes = int(_moved(first, second).sum()), int((first.argmax(1) != second.argmax(1)).sum())
    return f"other logits for {moved} of {len(first)} images, another class for {classes}"


def _gradient(name: str, gradient: Tensor | None) -> dict[str, str]:
    if gradient is None:
        return {"gradient": "there is none: the logits do not depend on the image for autograd"}
    finite = gradient.flatten(1).isfinite()
    spoiled = int((~finite.all(1)).sum())
    if spoiled:
        share = float((~finite).float().mean())
        return {"gradient": f"not finite at {share:.0%} of the pixels, in {spoiled} of {len(gradient)} images"}
    return {}
