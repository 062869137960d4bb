"""What others compute with cannot be replaced: not in torch's core, not below it, nor by what looks harmless."""

from __future__ import annotations

import functools
import operator
import sys
import types
import unittest.mock
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from broken_defenses import Wrapped

from benchbox import DefenseError
from benchbox.contract import border

#: What computes below the functions that an attack names: the loss, the engine of gradients, a context, dice.
PLACES = (
    "torch._C._nn.cross_entropy_loss", "torch._C._VariableFunctions", "torch.autograd.Variable._execution_engine",
    "torch.autograd.graph._engine_run_backward", "torch.autograd.grad_mode.enable_grad.__enter__",
    "torch.no_grad.__enter__", "torch.autograd.function.FunctionCtx.save_for_backward",
    "torch.overrides.handle_torch_function", "torch.functional.norm", "torch.nn.modules.linear.F",
    "numpy.random.default_rng", "numpy.linalg.norm",
)  # fmt: skip
#: What can take the place of a function, other than one that is written in a file.
IN_DISGUISE: dict[str, Callable[[], Any]] = {
    "a text that is executed": lambda: eval("lambda x: -x"),
    "a text that says it is torch's": lambda: eval(compile("lambda x: -x", torch.__file__, "eval")),
    "a mock": lambda: unittest.mock.Mock(side_effect=torch.cos),
    "a vectorized function": lambda: np.vectorize(lambda x: -x),
    "a caller of a method": lambda: operator.methodcaller("cos"),
    "a wrapper": lambda: functools.lru_cache(lambda x: -x),
    "a class that says it is torch's": lambda: type(
        "Sign", (), {"__module__": "torch", "__new__": lambda c, x: x}
    ),
    "a method": lambda: types.MethodType(lambda self, x: x, 3),
}


@pytest.mark.parametrize("path", PLACES)
def test_what_lies_below_is_put_back_and_refused(path: str) -> None:
    place, _, name = path.rpartition(".")
    there = eval(place, {"torch": torch, "numpy": np})
    before = getattr(there, name)
    try:
        with pytest.raises(DefenseError, match=rf"^defence honest replaces .*{name}"), _crossing():
            setattr(there, name, lambda *given, **named: before(*given, **named))
        assert getattr(there, name) is before
    finally:
        setattr(there, name, before)


@pytest.mark.parametrize("kind", IN_DISGUISE)
def test_what_looks_like_a_librarys_own_is_put_back_and_refused(kind: str) -> None:
    before = torch.sign
    try:
        with pytest.raises(DefenseError, match=r"^defence honest replaces torch\.sign"), _crossing():
            torch.sign = IN_DISGUISE[kind]()
        assert torch.sign is before
    finally:
        torch.sign = before


def test_a_listener_that_is_a_text_is_refused() -> None:
    finder = type("Finder", (), {"find_spec": eval("lambda *given: None")})()
    with pytest.raises(DefenseError, match="a finder of modules"), _crossing():
        sys.meta_path.append(finder)
    assert finder not in sys.meta_path


def test_a_library_that_wraps_torch_is_no_plug_in() -> None:
    before = torch.sign
    try:
        with _crossing():
            torch.sign = torch.nn.functional.softsign  # as a library that is imported late puts its own there
        assert torch.sign is torch.nn.functional.softsign
    finally:
        torch.sign = before


def _crossing() -> Any:
    return border.crossing(Wrapped, DefenseError)
