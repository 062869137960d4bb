"""An isolated defence on this side: a `Defense` like any other, whose every answer comes from its own process."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from benchbox.contract.defense import Batch, Defense, Losses, Recipe
from benchbox.contract.view import Trail
from benchbox.domain import ImageSpec, ThreatModel
from benchbox.draws import Draws, sample_draws
from benchbox.engine.isolation import wire
from benchbox.engine.isolation.apart import Process
from benchbox.engine.isolation.proxy import DECLARED
from benchbox.errors import DefenseError


class Stranger(Defense):
    """Stands for a defence in another process; `stranger` makes one."""

    process: Process
    number: int
    facts: Mapping[str, Any]
    channels_last: bool

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        """Logits (N, K), with a gradient where one is asked for."""
        return self._ask(None, x, draws)

    def surrogates(self) -> Mapping[str, Callable[[Tensor, Draws], Tensor]]:
        """One (x, draws) -> logits for each name in `stand_ins`."""
        return {name: partial(self._ask, name) for name in type(self).stand_ins}

    def features(self, stand_in: str | None) -> Callable[[Tensor, Draws], Tensor]:
        """(x, draws) -> penultimate features (n, D), with the gradient of the defence or of a stand-in."""
        return partial(self._ask, stand_in, features=True)

    def cost(self) -> tuple[int, int]:
        """As the defence says."""
        forwards, backwards = self.facts["cost"]
        return int(forwards), int(backwards)

    def certified(self, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
        """(N,) whether it proves that every image of the ball is of class y.

        Raises:
            RequestError: It proves nothing there.
        """
        words = {"norm": threat.norm, "epsilon": threat.epsilon, "channels_last": self.channels_last}
        found = self._do("certified", words, {"x": x, "y": y})
        return _tensor(found, "certified", self.card.name).to(x.device)

    def reveal(self, x: Tensor, draws: Draws) -> None:
        """Hand on what an oracle is shown."""
        words, tensors = wire.of_draws(draws)
        self._do("reveal", words, {**tensors, "x": x})

    def is_dynamic(self, x: Tensor, draws: Draws) -> bool:
        """Whether its forward pass computes gradients: its own process listens."""
        words, tensors = wire.of_draws(draws)
        return bool(self._do("dynamic", words, {**tensors, "x": x}).words.get("dynamic"))

    def heard(self) -> frozenset[str]:
        """What it asked its process for (`benchbox.contract.overheard`)."""
        return frozenset(str(one) for one in self._do("heard").words.get("heard", ()))

    def to(self, *args: Any, **kwargs: Any) -> Stranger:
        """Another memory format; it stays on its device."""
        if "memory_format" in kwargs:
            channels_last = kwargs["memory_format"] is torch.channels_last
            self._do("lay", {"channels_last": channels_last})
            self.channels_last = channels_last
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Its parameters and buffers as they are now."""
        return dict(self._do("state").tensors)

    def losses(self, batch: Batch) -> Losses:
        """None: it is trained already."""
        return {}

    def branched(self) -> Stranger | None:
        """The same in a fork of its process, which shares nothing but files with it; None where that cannot be."""
        if not self.facts["forks"]:
            return None
        return _standing_for(type(self), self.process.fork(), self.number, self.images, self.facts)

    def set_threads(self, threads: int) -> int:
        """Let its process compute on so many threads; how many it were before."""
        return int(self._do("threads", {"threads": threads}).words["threads"])

    def __deepcopy__(self, memo: dict[int, Any]) -> Stranger:
        """A copy in the same process, as `copy.deepcopy` there makes it."""
        twin = self._do("twin").words["twin"]
        return _standing_for(type(self), self.process, int(twin), self.images, self.facts)

    def _ask(self, of: str | None, x: Tensor, draws: Draws | None = None, *, features: bool = False) -> Tensor:
        words, tensors = wire.of_draws(sample_draws(len(x), device=x.device) if draws is None else draws)
        grad, leaf = torch.is_grad_enabled(), x.requires_grad
        how = {"of": of, "grad": grad, "leaf": leaf, "channels_last": self.channels_last}
        how["features"] = features
        how["reduced"] = torch.is_autocast_enabled(x.device.type)
        found = self._do("logits", {**words, **how}, {**tensors, "x": x})
        return self._heard_back(found, x, ("logits",))[0]

    def _heard_back(self, found: wire.Message, x: Tensor, names: tuple[str, ...]) -> tuple[Tensor, ...]:
        """Tensors of an answer, as functions of the image if the other process kept their graph."""
        parts = tuple(_tensor(found, name, self.card.name).to(x.device) for name in names)
        graph = found.words.get("graph")
        if graph is None:
            return parts
        return _Through.apply(x, _Graph(self, int(graph)), *parts)  # type: ignore[no-any-return]

    def _do(
        self, do: str, words: Mapping[str, Any] | None = None, tensors: Mapping[str, Tensor] | None = None
    ) -> wire.Message:
        found = self.process.ask({"do": do, "copy": self.number, **(words or {})}, tensors)
        # Read by whoever looks whether a module is in training mode.
        self.training = bool(found.words.get("training", False))
        return found


class Walker(Stranger):
    """Stands for a purifier that shows its way: the steps it works in, or what it decides."""

    def trail(self, x: Tensor, draws: Draws) -> Trail:
        """Logits (N, K) and the way to them."""
        words, tensors = wire.of_draws(draws)
        how = {"grad": torch.is_grad_enabled(), "leaf": x.requires_grad, "channels_last": self.channels_last}
        found = self._do("trail", {**words, **how}, {**tensors, "x": x})
        return Trail(*self._heard_back(found, x, wire.TRAIL))


class _Classifier(nn.Module):
    """The target classifier of an isolated defence."""

    def __init__(self, ask: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._ask = ask
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self._ask(x)


class _Graph:
    """A graph that the other process keeps for as long as somebody here may differentiate it."""

    def __init__(self, defense: Stranger, number: int) -> None:
        self.defense = defense
        self.number = number

    def gradient(self, gradients: tuple[Tensor, ...]) -> Tensor:
        named = {f"gradient {i}": gradient for i, gradient in enumerate(gradients)}
        found = self.defense._do("gradient", {"graph": self.number}, named)
        return _tensor(found, "gradient", self.defense.card.name)

    def __del__(self) -> None:
        self.defense.process.forget(self.number)


class _Through(torch.autograd.Function):
    """What the other process answered, as functions of the image."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: _Graph, *parts: Tensor) -> tuple[Tensor, ...]:
        ctx.graph, ctx.shape, ctx.dtype = graph, x.shape, x.dtype
        return tuple(part.clone() for part in parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        found = ctx.graph.gradient(gradients)
        if found.shape != ctx.shape:
            raise DefenseError(
                f"defence {ctx.graph.defense.card.name}: its gradient has another shape than its image"
            )
        return found.to(gradients[0].device, ctx.dtype), None, *(None for _ in gradients)


def stranger(cls: type[Defense], process: Process, images: ImageSpec, facts: Mapping[str, Any]) -> Stranger:
    """A defence that stands for the one in a process.

    Args:
        cls: Its class, for what it declares.
        process: Which holds it.
        images: What it is built for.
        facts: What it said of itself.
    """
    advice = classmethod(lambda _: str(facts["advice"]))
    said = {"card": cls.card, "__doc__": cls.__doc__, "__module__": __name__, "how_to_randomize": advice}
    base = Walker if facts["walks"] else Stranger
    made = type(cls.__name__, (base,), said)
    for name in DECLARED:
        setattr(made, name, facts.get(name, getattr(cls, name)))
    return _standing_for(made, process, 0, images, facts)


def _standing_for(
    made: type[Stranger], process: Process, number: int, images: ImageSpec, facts: Mapping[str, Any]
) -> Stranger:
    defense = made(Recipe(), images)
    defense.process, defense.number, defense.channels_last, defense.facts = process, number, False, facts
    defense.classifier = _Classifier(partial(defense._ask, "classifier"))
    defense.eval()
    return defense


def _tensor(found: wire.Message, name: str, said_by: str) -> Tensor:
    if name not in found.tensors:
        raise DefenseError(
            f"defence {said_by}: its process answered without {name}: {json.dumps(dict(found.words))[:80]}"
        )
    return found.tensors[name]
