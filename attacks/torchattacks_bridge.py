"""Any attack of torchattacks, by its own name: `torchattacks:PGD`, `torchattacks:VMIFGSM`, …

H. Kim. Torchattacks: A PyTorch Repository for Adversarial Attacks. arXiv 2010.01950 (2020). Each attack's own
paper stands in the library's documentation.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import inspect
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from benchbox import (
    Attack,
    AttackError,
    Card,
    Draws,
    Nature,
    RequestError,
    ThreatModel,
    View,
    uninstalled,
    unknown,
)

from ._fence import fenced
from ._torchattacks_natures import nature

#: What the ball, the draws and the data decide, and nobody else.
_OURS = ("eps", "max_epsilon", "norm", "seed", "n_classes", "model")
#: Of anything, as `benchbox.Count`: more is a slip, and would not end.
_MOST = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Torchattacks(Attack):
    """Runs an attack of the library on the view and returns to the ball what it leaves outside.

    The radius comes from the threat model. A step size `alpha` that is not given keeps its proportion to the
    radius: the library's defaults belong to one epsilon and reach a fraction of a larger ball. A randomised
    view is passed as it is, a fresh draw a call; the library's attacks average over draws only if they say so
    (EOTPGD). The library draws from the global generators, seeded here by the batch: its randomised attacks
    repeat exactly on the same batch, but not when the batch size changes.

    Attributes:
        attack: The library's name of the attack.
        arguments: Its hyper-parameters, by the library's names; its defaults otherwise.
        library: The version of the library and its defaults of this attack. Not to be set: a stored result says
            it, and is computed again by the same library alone.

    Raises:
        RequestError: The library is not installed or not the one that is named, does not know the name or an
            argument, or the name is `AutoAttack`.
    """

    card = Card(
        "torchattacks", "any attack of torchattacks", paper="Kim, arXiv 2010.01950", year=2020, kind="library"
    )
    family_field: ClassVar[str] = "attack"

    attack: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    library: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        known = _parameters(_constructor(self.attack))
        for name in self.arguments:
            if name in _OURS:
                raise RequestError(
                    f"{name!r} of torchattacks:{self.attack} follows from the threat model and the data"
                )
            if name not in known:
                raise unknown(f"argument of torchattacks:{self.attack}", name, set(known) - set(_OURS))
            if wanted := _misfit(name, self.arguments[name], known[name]):
                said = f"torchattacks:{self.attack}.{name} = {self.arguments[name]!r}"
                raise RequestError(f"{said} does not fit: it has to be {wanted}")
        if self.library and self.library != (here := _library(self.attack)):
            raise RequestError(
                f"torchattacks:{self.attack} was run by {dict(self.library)}, and {here} is installed; "
                "install that version of torchattacks, or leave `library` out"
            )

    def identity(self) -> dict[str, Any]:
        """Its fields, and what the library does where they say nothing; its defaults have changed before."""
        return {**super().identity(), "library": _library(self.attack)}

    def declare(self) -> Nature | None:
        """As read off the library's code; None for an attack of another version."""
        return nature(self.attack, _parameters(_constructor(self.attack)) | dict(self.arguments))

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """As many passes as the library makes.

        Raises:
            RequestError: The attack works in a ball of another norm.
            AttackError: The library failed. What the model itself raises passes through.
        """
        draws = draws.at("torchattacks", *draws.indices.tolist())
        construct = _constructor(self.attack)
        arguments = self._arguments(model, x, threat, draws.seed)
        with fenced(draws.seed), contextlib.redirect_stdout(io.StringIO()):
            module = _Module(model, x.device)
            attack = construct(module, **arguments)
            # Its own targets are classes modulo ten, whether there are as many or not.
            if self.attack == "JSMA" and (classes := self._classes(model, x[:1])) < 10:
                attack.set_mode_targeted_by_function(lambda images, labels: (labels + 1) % classes)
            try:
                # The library reshapes with `view`, which takes no other layout.
                found: Tensor = attack(x.clone(memory_format=torch.contiguous_format), y.clone())
            except Exception as error:
                if error is module.raised:
                    raise
                raise AttackError(f"torchattacks:{self.attack} failed: {_line(error)}") from error
        return threat.project(found.detach().to(x), x)

    def _arguments(self, model: View, x: Tensor, threat: ThreatModel, seed: int) -> dict[str, Any]:
        defaults = _parameters(_constructor(self.attack))
        radius = next((name for name in ("eps", "max_epsilon") if name in defaults), None)
        arguments: dict[str, Any] = {}
        if "norm" in defaults:
            arguments["norm"] = {"linf": "Linf", "l2": "L2"}[threat.norm]
        elif radius and threat.norm != ("l2" if self.attack.endswith("L2") else "linf"):
            raise RequestError(
                f"torchattacks:{self.attack} does not work in the ball {threat}; choose another norm"
            )
        if radius:
            arguments[radius] = threat.epsilon
            if "alpha" in defaults:
                arguments["alpha"] = defaults["alpha"] * threat.epsilon / defaults[radius]
        if "seed" in defaults:
            arguments["seed"] = seed
        if "n_classes" in defaults:
            arguments["n_classes"] = self._classes(model, x)
        return arguments | dict(self.arguments)

    @staticmethod
    def _classes(model: View, x: Tensor) -> int:
        with torch.no_grad():
            return model(x).shape[1]


def _misfit(name: str, value: Any, default: Any) -> str:
    """What an argument has to be, by the library's default, if it is not that; no number there is negative."""
    if isinstance(default, bool) or not isinstance(default, int | float):
        return ""
    if isinstance(default, int):
        least = min(default, 1)
        fits = isinstance(value, int) and not isinstance(value, bool) and least <= value <= _MOST
        return "" if fits else f"a whole number ≥ {least} and ≤ {_MOST:,}"
    above = name in ("alpha", "lr")  # a step of no length goes nowhere
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    fits = number and (value > 0 if above else value >= 0)
    return "" if fits else f"a finite number {'>' if above else '≥'} 0"


class _Module(nn.Module):
    """The view as the library wants to see it: a module whose parameters tell the device."""

    def __init__(self, view: View, device: torch.device) -> None:
        super().__init__()
        self.view = view
        self.anchor = nn.Parameter(torch.zeros((), device=device), requires_grad=False)
        self.raised: Exception | None = None
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            x = x.view_as(x)
            x.register_hook(lambda gradient: gradient.contiguous())
        try:
            return self.view(x).float().clone()  # Square writes into the logits
        except Exception as error:
            self.raised = error
            raise


def _line(error: Exception) -> str:
    """What an error says, on one line; some print whole images."""
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return said if len(said) <= 160 else f"{said[:160]} …"


def _constructor(name: str) -> Callable[..., Any]:
    if name == "AutoAttack":
        raise RequestError(
            "torchattacks:AutoAttack is not AutoAttack: it runs 10 iterations instead of 100; use aa"
        )
    try:
        import torchattacks
    except ImportError:
        raise uninstalled(f"torchattacks:{name} needs the library", "torchattacks") from None
    known = {
        n: c
        for n, c in vars(torchattacks).items()
        if isinstance(c, type) and c.__module__.startswith("torchattacks.attacks.") and n != "AutoAttack"
    }
    if name not in known:
        raise unknown("attack of torchattacks", name, known, "write it as torchattacks:PGD")
    return known[name]


def _library(attack: str) -> dict[str, Any]:
    """The version that is installed, and its defaults of an attack, JSON."""
    defaults = _parameters(_constructor(attack))
    said = {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}
    return {"version": importlib.metadata.version("torchattacks"), **said}


def _parameters(construct: Callable[..., Any]) -> dict[str, Any]:
    """Its parameters and their defaults, the model left out."""
    return {name: p.default for name, p in list(inspect.signature(construct).parameters.items())[1:]}
