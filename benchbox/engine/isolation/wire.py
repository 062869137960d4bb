"""What passes between benchbox and an isolated defence: JSON and plain tensors, and nothing that could run.

A message is two frames: a JSON object, and a safetensors file of tensors, which may be empty. Neither side
unpickles what the other one says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from benchbox.draws import Draws, Stacked
from benchbox.training.artifacts import separate

#: Names of the parts of a `Trail`.
TRAIL = ("logits", "states", "faithful", "margins")


class Message(NamedTuple):
    """What one side says.

    Attributes:
        words: JSON.
        tensors: By name, on the CPU.
    """

    words: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def send(pipe: Connection, words: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
    """Say something.

    Raises:
        OSError: Nobody is there.
    """
    pipe.send_bytes(json.dumps(words).encode())
    pipe.send_bytes(save(separate(tensors)) if tensors else b"")


def receive(pipe: Connection) -> Message:
    """Hear what the other side says.

    Raises:
        EOFError: It is gone.
        ValueError: It says something that is no message.
    """
    words = json.loads(pipe.recv_bytes())
    content = pipe.recv_bytes()
    if not isinstance(words, dict):
        raise ValueError(f"{type(words).__name__} is no message")
    try:
        return Message(words, load(content) if content else {})
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def of_draws(draws: Draws) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Draws as words and tensors."""
    if isinstance(draws, Stacked):
        return {"seeds": list(draws.seeds)}, {"indices": draws.indices, "source": draws.source}
    return {"seed": draws.seed}, {"indices": draws.indices}


def draws_of(message: Message, device: torch.device) -> Draws:
    """Inverse of `of_draws`."""
    words, tensors = message
    indices = tensors["indices"].to(device)
    if "seeds" in words:
        seeds = tuple(words["seeds"])
        return Stacked(indices, seeds[0], seeds=seeds, source=tensors["source"].to(device))
    return Draws(indices, words["seed"])
