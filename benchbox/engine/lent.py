"""Defences that are handed over as objects: any torch module on images in [0, 1], or a defence of one's own.

Nothing of them lies on a disk, so their identity is what they are and what they do: the SHA-256 of their state, of
the code of their classes, and their logits on images that are the same for everybody.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchbox.contract import border, seeded
from benchbox.contract.defense import Batch, Defense, Losses, Recipe
from benchbox.contract.registry import Plugin
from benchbox.domain import Card, ImageSpec, Spec, ThreatModel
from benchbox.draws import Draws, sample_draws
from benchbox.engine import code
from benchbox.errors import DefenseError, RequestError
from benchbox.training.artifacts import Training

if TYPE_CHECKING:
    from benchbox.data.dataset import Dataset

#: Images that a defence is told apart by.
PROBES = 8
#: Named as the source of weights that lie in no file.
IN_MEMORY = Path("memory")


class Brought(Defense):
    """A torch module as a defence. It is its own target classifier, and nobody can train its like."""

    card = Card("module", "a module of your own", kind="module")

    def __init__(self, module: nn.Module, images: ImageSpec) -> None:
        super().__init__(Recipe(), images, module)

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        """Logits (N, K), asked for in the module's own precision and given in float32."""
        first = next((p for p in self.classifier.parameters() if p.is_floating_point()), None)
        x = x if first is None else x.to(first.dtype)
        if self.randomized:
            draws = draws or sample_draws(len(x), device=x.device)
            return seeded.one_by_one(self.classifier, x, draws, f"defence {self.card.name}").float()
        logits = self.classifier(x)
        return logits.float() if isinstance(logits, Tensor) else logits

    @classmethod
    def how_to_randomize(cls) -> str:
        """Where the module is handed over."""
        return "hand it over with randomized=True"

    def losses(self, batch: Batch) -> Losses:
        """None: it is not trained here."""
        return {}


class BroughtRandom(Brought):
    """One whose maker says that two calls on one image may differ: asked about each image alone (`seeded`)."""

    randomized = True


@dataclass(frozen=True, kw_only=True)
class Lent(Plugin[Defense]):
    """A plug-in whose defence is there as an object.

    Attributes:
        defense: The object.
        identity: What stands in the place of a recipe.
        base: Its target classifier, where that is another model.
    """

    defense: Defense
    identity: dict[str, Any] = field(default_factory=dict)
    base: Lent | None = None

    def training(self, dataset: Dataset) -> Training:
        """What identifies it among trained defences."""
        return Training(
            Spec(self.name, self.identity, self.code),
            dataset.name,
            "",
            0,
            ThreatModel(dataset.norm, dataset.epsilon),
            self.base.training(dataset) if self.base else None,
            IN_MEMORY,
        )

    def chain(self) -> list[Lent]:
        """It and what it builds on."""
        return [*(self.base.chain() if self.base else []), self]


def lent(model: nn.Module, images: ImageSpec, name: str | None = None, *, randomized: bool = False) -> Lent:
    """A plug-in of a module or of a defence, in evaluation mode as it is when this is called.

    Args:
        model: Images (N, C, H, W) float32 in [0, 1] -> logits (N, K).
        images: What it is asked about.
        name: In tables; the name of its class by default.
        randomized: Of a plain module: two calls on one image may differ. So may those of one that says
            `randomized = True` itself.

    Raises:
        DefenseError: It does not take such images, or returns no logits of them.
    """
    base = None
    if isinstance(model, Defense):
        defense, name = model, name or model.card.name
        if type(model).base is not None:
            base = lent(model.classifier, images, f"{name}.classifier")
    else:
        randomized = randomized or getattr(model, "randomized", False) is True
        defense = (BroughtRandom if randomized else Brought)(model, images)
        name = name or type(model).__name__
    identity = {"weights": _state(model)}
    seen = _logits(defense, images, name)
    if not defense.randomized:
        identity["logits"] = hashlib.sha256(seen.encode()).hexdigest()
    return Lent(
        name, type(defense), "Python", f"sha256:{_code(model)}", defense=defense, identity=identity, base=base
    )


def _state(model: nn.Module) -> str:
    total = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            total.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
            total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _code(model: nn.Module) -> str:
    """Of its classes and those of its parts, as far as they are not torch's own."""
    classes = {type(part) for part in model.modules()}
    found = sorted(f"{cls.__module__}.{cls.__qualname__}\n{_text(cls)}" for cls in classes)
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


def _text(cls: type) -> str:
    """The text of a class; of one in a script or a notebook, or that no text is known of, all that it reaches."""
    if cls.__module__.partition(".")[0] in ("torch", "torchvision"):
        return ""
    if cls.__module__ != "__main__":
        with suppress(OSError, TypeError):
            return inspect.getsource(cls)
    return "\n".join(code.reached(cls))


def _logits(defense: Defense, images: ImageSpec, name: str) -> str:
    """Its logits on noise, to four digits: what its state does not hold shows here."""
    place = next((p.device for p in defense.parameters()), torch.device("cpu"))
    draws = sample_draws(PROBES, 0, place)
    x = draws.uniform(*images.shape)
    try:
        with torch.no_grad():
            logits = defense(x, draws)
    except Exception as error:
        shape = "×".join(map(str, x.shape[1:]))
        raise DefenseError(
            f"{name} does not take images of {shape} ({border.reason(error)}); name the data set it was trained on"
        ) from error
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != (PROBES, images.classes):
        raise DefenseError(
            f"{name} returns {found} for {PROBES} images, expected logits ({PROBES}, {images.classes}); "
            "name the data set it was trained on, or return the logits alone"
        )
    return " ".join(f"{value:.3e}" for value in logits.flatten().tolist())


def require_module(item: object) -> nn.Module:
    """What can be attacked as it is.

    Raises:
        RequestError: It is no module, or one whose parameters have no numbers yet.
    """
    if not isinstance(item, nn.Module):
        remedy = (
            "wrap it in a torch.nn.Module" if callable(item) else "give a name, a torch.nn.Module or a Defense"
        )
        raise RequestError(f"a {type(item).__name__} is no defence; {remedy}")
    for key, parameter in item.named_parameters():
        if nn.parameter.is_lazy(parameter) or parameter.is_meta:
            raise RequestError(
                f"{type(item).__name__} has no numbers in {key} yet (lazy, or on the device meta); call it once "
                "or load its weights before it is attacked"
            )
    return item


@contextmanager
def borrowed(model: nn.Module, device: torch.device | None = None) -> Iterator[None]:
    """A module frozen and in evaluation mode, on a device if one is named; afterwards it is as it was.

    Modes, gradient flags, gradients, devices and the very tensors of its state come back.
    """
    modes = [(part, part.training) for part in model.modules()]
    parameters = [(p, p.data, p.requires_grad, p.grad) for p in model.parameters()]
    buffers = [(part, key, value) for part in model.modules() for key, value in part._buffers.items()]
    try:
        model.eval()
        for parameter in model.parameters():  # a script lets itself be frozen in no other way
            parameter.requires_grad_(False)
        if device is not None:
            model.to(device)
        yield
    finally:
        for part, mode in modes:
            part.training = mode
        for parameter, data, flag, gradient in parameters:
            parameter.data, parameter.grad = data, gradient
            parameter.requires_grad_(flag)
        for part, key, value in buffers:
            part._buffers[key] = value


def of_class(cls: type[Defense]) -> Plugin[Defense]:
    """A plug-in of a defence class; it is trained here like any other.

    Raises:
        RequestError: It has no card.
    """
    if not hasattr(cls, "card"):
        raise RequestError(f"{cls.__name__} has no card; give it card = benchbox.Card(name, summary)")
    return Plugin(cls.card.name, cls, "Python", code.digest_of(cls))
