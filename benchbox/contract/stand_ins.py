"""Stand-ins: what an adaptive attacker may differentiate instead of the deployed defence (BPDA).

    @stand_in("identity", "the purifier's backward pass is the identity")
    def identity(self, x, draws):
        return self.classifier(straight_through(x, self.purify(x.detach(), draws)))

A subclass that writes such a method anew declares it anew, or leaves the line above out and does without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Method = TypeVar("Method", bound=Callable[..., Tensor])


@dataclass(frozen=True)
class StandIn:
    """A declared stand-in.

    Attributes:
        method: Name of the method that is it.
        name: What it is called.
        backward: What its backward pass does.
        exact: Whether it is plain autograd through the deployed defence.
    """

    method: str
    name: str
    backward: str
    exact: bool


def stand_in(name: str, backward: str, *, exact: bool = False) -> Callable[[Method], Method]:
    """Declare a method (x, draws) -> logits to be a stand-in. Its forward pass must be the deployed defence's.

    Args:
        name: What it is called; part of the identity of results.
        backward: What its backward pass does, in words.
        exact: Whether it is plain autograd through the deployed defence, which white-box attacks use anyway.
    """

    def declare(method: Method) -> Method:
        method.__stand_in__ = StandIn(method.__name__, name, backward, exact)  # type: ignore[attr-defined]
        return method

    return declare


def declared(cls: type) -> Mapping[str, StandIn]:
    """The stand-ins of a class by name: the exact one, then those it inherits, then its own."""
    names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
    found = [one for name in names if (one := getattr(getattr(cls, name, None), "__stand_in__", None)) is not None]
    return {one.name: one for one in sorted(found, key=lambda one: not one.exact)}


def straight_through(x: Tensor, value: Tensor) -> Tensor:
    """`value` in the forward pass, the identity on `x` in the backward pass (the core of BPDA).

    The forward value is exact: it is not computed as x + (value - x), which would round.
    """
    return _StraightThrough.apply(x, value)  # type: ignore[no-any-return]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value.detach().clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
