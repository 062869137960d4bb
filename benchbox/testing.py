"""The contract of defences and attacks, as checks for anybody's tests.

    from benchbox import testing

    def test_my_defense_keeps_its_contract():
        testing.check_defense(Mine, Mine.configure(epochs=1), images, spec, threat=ball, classifier=network)

    def test_my_attack_keeps_its_contract():
        testing.check_attack(MyAttack(), network, x, y, ball)

A broken contract is a `DefenseError` or an `AttackError` that says what was expected. The checks need no test
framework. They tell whether results mean what they say, not whether a defence is any good.
"""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchbox.contract.attack import Attack
from benchbox.contract.defense import Batch, Defense, Purifier, Recipe
from benchbox.contract.view import View
from benchbox.data.dataset import Images
from benchbox.domain import TOLERANCE, ImageSpec, Spec, ThreatModel
from benchbox.draws import Draws, sample_draws
from benchbox.engine.judge import check_logits
from benchbox.engine.vetting import require_certificate, require_classifier
from benchbox.errors import AttackError, DefenseError
from benchbox.training.artifacts import Artifacts, Training
from benchbox.training.layout import lay
from benchbox.training.loop import fit
from benchbox.training.precision import Precision

#: Images the checks look at.
PROBES = 24
#: Share of images, or of pixels, that a discontinuity or rounding may set apart without anything being wrong.
SLACK = 0.1


def check_defense(
    cls: type[Defense],
    recipe: Recipe,
    images: Images,
    spec: ImageSpec,
    *,
    threat: ThreatModel,
    classifier: nn.Module | None = None,
    seed: int = 0,
) -> Defense:
    """Train a defence shortly and hold it to everything its interface promises.

    Args:
        cls: The defence.
        recipe: Of its `recipe_type`; an epoch or two are enough.
        images: A few hundred training images.
        spec: What they look like.
        threat: The ball that training attacks keep to.
        classifier: For a defence with a base, a frozen network in evaluation mode.
        seed: Of initial weights and training.

    Returns:
        The trained defence, frozen, in evaluation mode.

    Raises:
        DefenseError: A promise is broken.
    """
    defense = check_training(cls, recipe, images, spec, threat=threat, classifier=classifier, seed=seed)
    x, _ = images.batch(slice(PROBES))
    check_forward(defense, x)
    check_stand_ins(defense, x)
    require_certificate(defense, x, threat)
    check_saving(defense, recipe, x, classifier=classifier)
    return defense


def check_training(
    cls: type[Defense],
    recipe: Recipe,
    images: Images,
    spec: ImageSpec,
    *,
    threat: ThreatModel,
    classifier: nn.Module | None = None,
    seed: int = 0,
    precision: Precision = "float32",
) -> Defense:
    """Training lowers the loss of the first player, stays finite, and leaves a frozen classifier as it was.

    The loss is compared on the first images, before and after, as it is at the start of the training.

    Raises:
        DefenseError: It does not.
    """
    name = cls.card.name
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        defense = cls(recipe, spec, classifier)
    _require(
        (cls.base is None) == (classifier is None),
        f"defence {name} has base {cls.base!r}: {'pass no' if cls.base is None else 'pass a'} classifier",
    )
    frozen = _copied(defense.classifier) if classifier is not None else {}
    before = _first_player(defense, images, threat)
    with _untouched_randomness(f"training defence {name}", DefenseError):
        history = fit(
            defense, recipe, images, threat=threat, seed=seed, device=torch.device("cpu"), precision=precision
        )
    defense.eval().requires_grad_(False)
    for term, value in (pair for epoch in history for pair in epoch.items()):
        _require(bool(np.isfinite(value)), f"the loss {term} of defence {name} became {value}; lower its rate")
    moved = [key for key, value in frozen.items() if not torch.equal(value, defense.classifier.state_dict()[key])]
    _require(not moved, f"training defence {name} changed {moved[:1]} of its frozen classifier")
    after = _first_player(defense, images, threat)
    _require(
        before is None or (after is not None and after < before),
        f"training defence {name} took the loss of its first player from {before} to {after}; it should fall",
    )
    return defense


def check_forward(defense: Defense, x: Tensor) -> None:
    """Logits of the right shape, row by row, from the image and its own draws alone, with gradients on or off.

    Its target classifier returns such logits, too. Runs in float64, so that rounding in batches of other sizes
    cannot look like a dependence on the batch.

    Args:
        defense: In evaluation mode.
        x: (N, C, H, W) float32 in [0, 1].

    Raises:
        DefenseError: A promise is broken.
    """
    name, draws = defense.card.name, sample_draws(len(x))
    defense.reveal(x, draws)
    with _untouched_randomness(f"a call of defence {name}", DefenseError):
        logits = defense(x, draws).detach()
    check_logits(logits, len(x), defense.images.classes, name)
    require_classifier(defense, x)
    _check_cost(defense, x, draws)
    _check_randomness(defense, x, draws, logits)
    _check_purified(defense, x, draws)
    exact, precise = copy.deepcopy(defense).double(), x.double()
    with torch.no_grad():
        whole = exact(precise, draws)
        order = torch.arange(len(x)).roll(1).flip(0)[: len(x) - 1]
        part = exact(precise[order], draws.rows(order))
    differing = (whole[order] - part).abs().amax(1) > 1e-6 * whole.abs().max()
    _require(
        not bool(differing.any()),
        f"defence {name}: {int(differing.sum())} of {len(order)} logits change with the batch an image is in; "
        "use no statistics of the batch in evaluation mode, and draw from `draws`",
    )


def _check_cost(defense: Defense, x: Tensor, draws: Draws) -> None:
    """A prediction takes no more passes of the classifier than it says."""
    taken = [0, 0]

    def forward(module: nn.Module, inputs: object, logits: Tensor) -> None:
        taken[0] += len(logits)
        if logits.requires_grad:
            logits.register_hook(backward)

    def backward(gradient: Tensor) -> None:
        taken[1] += len(gradient)

    handle = defense.classifier.register_forward_hook(forward)
    try:
        with torch.no_grad():
            defense(x, draws)
    finally:
        handle.remove()
    per_image = (taken[0] / len(x), taken[1] / len(x))
    _require(
        all(one <= most for one, most in zip(per_image, defense.cost(), strict=True)),
        f"a prediction of defence {defense.card.name} takes {per_image[0]:g} forward and {per_image[1]:g} "
        f"backward passes of the classifier, and its cost() says {defense.cost()}",
    )


def check_stand_ins(defense: Defense, x: Tensor) -> None:
    """Every stand-in is declared, has the deployed forward pass and a finite gradient; `exact` is what it says.

    Args:
        defense: In evaluation mode.
        x: (N, C, H, W) float32 in [0, 1].

    Raises:
        DefenseError: A promise is broken.
    """
    name, draws = defense.card.name, sample_draws(len(x))
    defense.reveal(x, draws)
    stand_ins = defense.surrogates()
    _require(
        set(stand_ins) == set(defense.stand_ins),
        f"defence {name} declares stand-ins {sorted(defense.stand_ins)} and offers {sorted(stand_ins)}",
    )
    deployed = defense(x, draws).detach()
    for stand_in, forward in stand_ins.items():
        leaf = x.clone().requires_grad_()
        logits = forward(leaf, draws)
        _require(
            torch.equal(logits.detach(), deployed),
            f"the forward pass of stand-in {stand_in} of defence {name} differs from the defence; only the "
            "backward pass may",
        )
        (gradient,) = torch.autograd.grad(logits.square().sum(), leaf)
        _require(
            bool(gradient.isfinite().all()) and bool(gradient.any()),
            f"the gradient of stand-in {stand_in} of defence {name} is zero or not finite",
        )
    _require(
        defense.exact is None or defense.exact in stand_ins,
        f"defence {name} calls {defense.exact!r} exact, which is none of its stand-ins {sorted(stand_ins)}",
    )
    if defense.exact or not stand_ins:
        _check_derivative(defense, x, draws)


def check_saving(defense: Defense, recipe: Recipe, x: Tensor, *, classifier: nn.Module | None = None) -> None:
    """Weights that are saved and loaded give the same logits, to the bit.

    Raises:
        DefenseError: They do not.
        ArtifactError: They do not fit.
    """
    name = defense.card.name
    base = None if classifier is None else _record("base", {})
    training = _record(name, recipe.identity(), base)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        artifacts = Artifacts(Path(folder))
        artifacts.save(training, defense, {})
        torch.manual_seed(1)  # other initial weights than those of the training
        loaded = type(defense)(recipe, defense.images, classifier)
        artifacts.load_into(training, loaded)
    draws = sample_draws(len(x))
    for one in (defense, loaded):
        one.reveal(x, draws)
    loaded.eval().requires_grad_(False)
    for one in (defense, loaded):
        lay(one, False)  # training may have laid the weights out anew, and another layout gives other last bits
    _require(
        torch.equal(loaded(x, draws), defense(x, draws)),
        f"defence {name} has other logits after loading; keep everything it needs in parameters and buffers",
    )


def check_attack(
    attack: Attack,
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    per_sample: bool = True,
) -> None:
    """Hold an attack on a deterministic model to everything its interface promises.

    Args:
        attack: With few steps.
        model: Images (N, C, H, W) -> logits (N, K).
        x: (N, C, H, W) float32 in [0, 1].
        y: (N,) int64.
        threat: A ball large enough for the images to move.
        per_sample: Whether a sample's result depends on its own draws alone. False for a library that draws
            for the whole batch.

    Raises:
        AttackError: A promise is broken.
    """
    name, everything = attack.card.name, torch.arange(len(y))

    def crafted(rows: Tensor, ball: ThreatModel = threat) -> Tensor:
        draws = Draws(rows)
        return attack(View(lambda x, _: model(x), y[rows], draws), x[rows], y[rows], ball, draws).x

    whole = crafted(everything)  # the call itself checks ball, box, shape and numbers
    with _untouched_randomness(f"attack {name}", AttackError):  # which the call puts back
        draws = Draws(everything)
        attack.search(View(lambda x, _: model(x), y, draws), x.clone(), y, threat, draws.at("attack"))
    _require(torch.equal(crafted(everything), whole), f"attack {name} has two results for one seed", AttackError)
    still = crafted(everything, ThreatModel(threat.norm, 0.0))
    _require(
        float((still - x).abs().max()) <= TOLERANCE,
        f"attack {name} moves images where epsilon is 0",
        AttackError,
    )
    if per_sample:
        order = everything.flip(0)
        moved = ((crafted(order) - whole[order]).abs() > 1e-4).float().mean().item()
        _require(
            moved <= SLACK,
            f"attack {name}: {moved:.0%} of the pixels change with the order of the batch; draw from `draws`",
            AttackError,
        )


def _check_randomness(defense: Defense, x: Tensor, draws: Draws, logits: Tensor) -> None:
    name = defense.card.name
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        again, other = defense(x, draws), defense(x, draws.at("other"))
    _require(
        torch.equal(again, logits),
        f"defence {name} gives one image two results in the same draws, or others where gradients are off; take "
        "all randomness from `draws` and enable the gradients it needs",
    )
    _require(
        torch.equal(other, logits) != defense.randomized,
        f"defence {name} says randomized = {defense.randomized}, but other draws give "
        f"{'the same' if defense.randomized else 'other'} logits",
    )


def _check_purified(defense: Defense, x: Tensor, draws: Draws) -> None:
    if not isinstance(defense, Purifier):
        return
    name, purified = defense.card.name, defense.purify(x, draws).detach()
    low, high = float(purified.min()), float(purified.max())
    _require(
        purified.shape == x.shape and low >= -TOLERANCE and high <= 1 + TOLERANCE,
        f"defence {name} purifies {tuple(x.shape)} to {tuple(purified.shape)} with pixels in [{low:.4g}, "
        f"{high:.4g}]; keep the shape and [0, 1]",
    )


def _check_derivative(defense: Defense, x: Tensor, draws: Draws) -> None:
    """Autograd through the deployed defence, or its exact stand-in, agrees with finite differences of it."""
    precise = copy.deepcopy(defense).double()
    forward = precise.surrogates()[defense.exact] if defense.exact else precise
    # Off the edge of the box and without equal pixels: at a clamp or a tie there is no derivative to agree with.
    x = (0.9 * x + draws.at("probe").uniform(*x.shape[1:], low=0.02, high=0.08)).double()
    weights = draws.at("weights").normal(defense.images.classes).double()
    direction, step = draws.at("direction").normal(*x.shape[1:]).double(), 1e-7
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((forward(leaf, draws) * weights).sum(), leaf)
    slope = (gradient * direction).flatten(1).sum(1)
    with torch.no_grad():
        ends = [(precise(x + sign * step * direction, draws) * weights).sum(1) for sign in (1, -1)]
    difference = (ends[0] - ends[1]) / (2 * step)
    wrong = (difference - slope).abs() > 1e-3 * torch.maximum(slope.abs(), slope.abs().median())
    _require(
        float(wrong.float().mean()) <= SLACK,
        f"{f'the exact stand-in {defense.exact}' if defense.exact else 'autograd'} of defence {defense.card.name} "
        f"disagrees with finite differences on {int(wrong.sum())} of {len(x)} images",
    )


def _first_player(defense: Defense, images: Images, threat: ThreatModel) -> float | None:
    """Its loss on the first images at the start of the training; None if nothing is trained."""
    trial = copy.deepcopy(defense)
    trial.requires_grad_(True)
    names = [name for name, parameters in trial.players().items() if parameters]
    if not names:
        return None
    x, y = images.batch(slice(2 * PROBES))
    batch = Batch(x, y, sample_draws(len(y)), 0.0, threat)
    prepared = trial.eval().prepare(batch)
    if prepared:
        trial.calibrate(prepared)
    trial.train()
    if trial.base is not None:
        trial.classifier.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        terms = trial.losses(Batch(x, y, batch.draws, 0.0, threat, prepared))[names[0]]
    return float(torch.stack([value.detach() for value in terms.values()]).sum())


@contextmanager
def _untouched_randomness(what: str, error: type[Exception]) -> Iterator[None]:
    before = (torch.get_rng_state(), np.random.get_state(), random.getstate())
    yield
    same = torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[2]
    same = same and all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))
    _require(same, f"{what} used a global random generator; draw from `draws`", error)


def _record(name: str, arguments: dict[str, object], base: Training | None = None) -> Training:
    return Training(Spec(name, arguments, "test"), "test", "", 0, ThreatModel("linf", 0.0), base)


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def _require(kept: bool, complaint: str, error: type[Exception] = DefenseError) -> None:
    if not kept:
        raise error(complaint)
