"""The state of an unfinished training on disk, so that a killed one goes on and ends in the same weights.

It is written after every epoch, and inside an epoch whenever some seconds have passed since: who is killed every
minute still gets on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchbox.training.artifacts import load_tensors, save_tensors

#: Seconds of training that a kill may cost.
SECONDS = 30.0


@dataclass(frozen=True)
class Midway:
    """A place inside an epoch.

    Attributes:
        steps: Done of it.
        sums: Of every loss term over them.
        generators: States of torch's generators, by the kind of their device.
    """

    steps: int
    sums: Mapping[str, Tensor]
    generators: Mapping[str, Tensor]

    @classmethod
    def now(cls, steps: int, sums: Mapping[str, Tensor], device: torch.device) -> Midway:
        """The place a training has come to."""
        states = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(device)
        return cls(steps, sums, states)

    def throw_on(self, device: torch.device) -> None:
        """Let torch's generators go on from here."""
        torch.set_rng_state(self.generators["cpu"])
        if device.type == "cuda" and "cuda" in self.generators:
            torch.cuda.set_rng_state(self.generators["cuda"], device)


@dataclass(frozen=True)
class State:
    """How far a training has come.

    Attributes:
        history: Of the finished epochs.
        best: Weights of the best of them, where epochs are validated.
        midway: The place inside the next one; None at its beginning.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    midway: Midway | None = None


class Checkpoint:
    """The file of one training.

    Args:
        path: Where; None for nowhere.
        module: What is trained.
        optimizers: By player.
    """

    def __init__(self, path: Path | None, module: nn.Module, optimizers: Mapping[str, Optimizer]) -> None:
        self.path = path
        self.module = module
        self.optimizers = optimizers
        self._written = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether there is more to lose than `SECONDS`."""
        return self.path is not None and time.monotonic() - self._written >= SECONDS

    def write(self, state: State) -> None:
        """Keep a state, with the weights and the optimisers as they are now.

        Raises:
            ArtifactError: The folder cannot be written, or the disk is full.
        """
        if self.path is None:
            return
        tensors = {f"model/{k}": v for k, v in self.module.state_dict().items()}
        tensors |= {f"best/{k}": v for k, v in state.best.items()}
        for player, key, value in _states(self.optimizers):
            tensors[f"optimizer/{player}/{key}"] = value
        card: dict[str, Any] = {"history": state.history}
        if state.midway:
            card["steps"] = state.midway.steps
            tensors |= {f"sum/{k}": v for k, v in state.midway.sums.items()}
            tensors |= {f"generator/{k}": v for k, v in state.midway.generators.items()}
        save_tensors(self.path, tensors, card)
        self._written = time.monotonic()

    def read(self) -> State:
        """The state that was kept last; its weights go into the module and the optimisers.

        Raises:
            ArtifactError: The file is damaged.
        """
        if self.path is None or not self.path.exists():
            return State()
        tensors, card = load_tensors(self.path)
        self.module.load_state_dict(_below("model/", tensors))
        for player, optimizer in self.optimizers.items():
            state: dict[int, dict[str, Any]] = {}
            for key, value in tensors.items():
                if key.startswith(f"optimizer/{player}/"):
                    i, name = key.split("/")[-2:]
                    state.setdefault(int(i), {})[name] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        midway = None
        if "steps" in card:
            midway = Midway(card["steps"], _below("sum/", tensors), _below("generator/", tensors))
        return State(card["history"], _below("best/", tensors), midway)


def _states(optimizers: Mapping[str, Optimizer]) -> Iterator[tuple[str, str, Tensor]]:
    for player, optimizer in optimizers.items():
        for i, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if value is not None:
                    yield player, f"{i}/{key}", torch.as_tensor(value)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
