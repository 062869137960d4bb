"""The other side: a process that trains or loads one defence, and answers about it. `python -m …cell FD`."""

from __future__ import annotations

import copy
import os
import signal
import sys
from collections.abc import Callable, Mapping, Set
from dataclasses import asdict
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchbox.contract import border, overheard, registry
from benchbox.contract.deciding import DecidingPurifier
from benchbox.contract.defense import Defense, bare
from benchbox.contract.features import penultimate
from benchbox.contract.stepwise import StepwisePurifier
from benchbox.contract.view import Trail
from benchbox.data.dataset import Dataset, Images
from benchbox.draws import Draws
from benchbox.engine import device, dynamic
from benchbox.engine.booth import let_differentiate_again, slope
from benchbox.engine.isolation import wire
from benchbox.engine.isolation.order import Order
from benchbox.engine.isolation.wire import Message
from benchbox.engine.vetting import require_evaluation
from benchbox.errors import DefenseError
from benchbox.training.artifacts import Artifacts, Training
from benchbox.training.layout import hand_over, is_out_of_memory, lay
from benchbox.training.loop import Progress
from benchbox.training.precision import Precision, reduced
from benchbox.training.workshop import Workshop

Answer = tuple[Mapping[str, Any], Mapping[str, Tensor]]


class Cell:
    """Holds a defence, copies of it, and the graphs of what it said."""

    def __init__(self, order: Order, heard: Set[str], pipe: Connection) -> None:
        torch.set_num_threads(order.threads)
        self.heard = heard
        self.pipe = pipe
        self.device = device.choose(order.device)
        none = Images(torch.zeros(0, *order.images.shape, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
        train = Images(**load_file(order.lessons)) if order.lessons else none
        dataset = Dataset(
            order.training.dataset, "mnist", train, none, order.images, order.training.threat.epsilon
        )
        defenses = registry.defenses(order.workspace, local=order.local)
        workshop = Workshop(
            Artifacts(order.artifacts), defenses, dataset, self.device, order.precision, report=self._tell
        )
        self.copies: list[Defense] = [workshop.obtain(order.training)]
        require_evaluation(self.copies[0], self.copies[0].card.name)
        self.graphs: dict[int, tuple[Tensor, tuple[Tensor, ...]]] = {}
        self._said = 0

    def _tell(self, training: Training, progress: Progress) -> None:
        """Where the training stands."""
        wire.send(self.pipe, {"progress": asdict(progress)})

    def facts(self) -> dict[str, Any]:
        """What the other side has to know of the defence as it is built."""
        defense = self.copies[0]
        return {
            "randomized": bool(defense.randomized),
            "deployable": bool(defense.deployable),
            "cost": list(defense.cost()),
            "advice": type(defense).how_to_randomize(),
            "forks": hasattr(os, "fork") and self.device.type == "cpu" and not torch.cuda.is_initialized(),
        }

    def answer(self, asked: Message) -> Answer:
        """Do what is asked."""
        for number in asked.words.get("forget", ()):
            self.graphs.pop(number, None)
        defense = self.copies[asked.words["copy"]]
        do: Callable[[Defense, Message], Answer] = getattr(self, f"_{asked.words['do']}")
        with border.crossing(type(defense), DefenseError, alone=True):
            words, tensors = do(defense, asked)
        return {**words, "training": any(part.training for part in defense.modules())}, tensors

    def _logits(self, defense: Defense, asked: Message) -> Answer:
        """Logits or features of the defence, of a stand-in or of its target classifier; the graph is kept."""
        words = asked.words
        leaf = asked.tensors["x"].to(self.device).requires_grad_(words["leaf"])
        precision: Precision = "bfloat16" if words["reduced"] else "float32"
        let_differentiate_again()
        with torch.set_grad_enabled(words["grad"]), reduced(self.device, precision):
            images = hand_over(leaf, words["channels_last"])
            forward = self._forward(defense, words["of"], features=words["features"])
            logits = forward(images, wire.draws_of(asked, self.device))
        return {"graph": self._kept(leaf, (logits,))}, {"logits": logits}

    def _trail(self, defense: Defense, asked: Message) -> Answer:
        """The logits of a purifier with its way to them; the graph is kept."""
        assert isinstance(defense, StepwisePurifier | DecidingPurifier)
        leaf = asked.tensors["x"].to(self.device).requires_grad_(asked.words["leaf"])
        with torch.set_grad_enabled(asked.words["grad"]):
            images = hand_over(leaf, asked.words["channels_last"])
            trail = border.guarded(defense.trail, type(defense), f"defence {defense.card.name}", _as_it_is)
            found = trail(images, wire.draws_of(asked, self.device))
        return {"graph": self._kept(leaf, found.parts)}, dict(zip(wire.TRAIL, found.parts, strict=True))

    def _kept(self, leaf: Tensor, answers: tuple[Tensor, ...]) -> int | None:
        """The number of a graph that is kept; None if there is none."""
        if not any(answer.requires_grad for answer in answers):
            return None
        self._said += 1
        self.graphs[self._said] = leaf, answers
        return self._said

    def _forward(self, defense: Defense, of: str | None, *, features: bool) -> Callable[[Tensor, Draws], Tensor]:
        named = f"defence {defense.card.name}"
        if of == "classifier":
            return border.guarded(bare(defense), type(defense), named)
        forward = defense.surrogates()[of] if of else defense
        return border.guarded(penultimate(defense, forward) if features else forward, type(defense), named)

    def _gradient(self, defense: Defense, asked: Message) -> Answer:
        leaf, answers = self.graphs[asked.words["graph"]]
        pairs = [
            (answer, asked.tensors[f"gradient {i}"].to(self.device))
            for i, answer in enumerate(answers)
            if answer.requires_grad
        ]
        outputs, gradients = zip(*pairs, strict=True)
        return {}, {"gradient": slope(outputs, leaf, gradients)}

    def _lay(self, defense: Defense, asked: Message) -> Answer:
        lay(defense, asked.words["channels_last"])
        return {}, {}

    def _twin(self, defense: Defense, asked: Message) -> Answer:
        self.copies.append(copy.deepcopy(defense))
        return {"twin": len(self.copies) - 1}, {}

    def _fork(self, defense: Defense, asked: Message) -> Answer:
        """Go on as two: the other one is asked through a pipe of its own, and remembers what this one does."""
        there = reduction.recv_handle(self.pipe)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for it
        if os.fork() == 0:
            self.pipe = Connection(there)
            torch.set_num_threads(1)  # no other thread is in a fork
            try:
                _serve(self)
            finally:
                os._exit(0)
        os.close(there)
        return {}, {}

    def _threads(self, defense: Defense, asked: Message) -> Answer:
        before = torch.get_num_threads()
        torch.set_num_threads(asked.words["threads"])
        return {"threads": before}, {}

    def _state(self, defense: Defense, asked: Message) -> Answer:
        return {}, defense.state_dict()

    def _reveal(self, defense: Defense, asked: Message) -> Answer:
        defense.reveal(asked.tensors["x"].to(self.device), wire.draws_of(asked, self.device))
        return {}, {}

    def _heard(self, defense: Defense, asked: Message) -> Answer:
        return {"heard": sorted(self.heard | overheard.written(type(defense)))}, {}

    def _dynamic(self, defense: Defense, asked: Message) -> Answer:
        x, draws = asked.tensors["x"].to(self.device), wire.draws_of(asked, self.device)
        return {"dynamic": dynamic.computes_gradients(defense, x, draws)}, {}


def _as_it_is(trail: Trail, what: str) -> Trail:
    return trail


def serve(pipe: Connection) -> None:
    """Answer until the other side is gone."""
    with overheard.listening() as heard:
        cell = Cell(Order.from_dict(wire.receive(pipe).words), heard, pipe)
        wire.send(pipe, cell.facts())
        _serve(cell)


def _serve(cell: Cell) -> None:
    while True:
        asked = wire.receive(cell.pipe)
        try:
            words, tensors = cell.answer(asked)
        except Exception as error:
            wire.send(cell.pipe, _told(error))
            continue
        wire.send(cell.pipe, words, tensors)


def _told(error: Exception) -> dict[str, Any]:
    kind = "memory" if is_out_of_memory(error) else "defence" if isinstance(error, DefenseError) else "runtime"
    # Autograd's refusals are told apart by their words; anything else is one line.
    return {
        "error": str(error) if kind != "runtime" or isinstance(error, RuntimeError) else border.reason(error),
        "kind": kind,
    }


def main() -> None:
    """Serve on the file descriptor that is named."""
    pipe = Connection(int(sys.argv[1]))
    sys.argv[1:] = []
    try:
        serve(pipe)
    except (EOFError, OSError):
        os._exit(0)
    except Exception as error:  # before there is a defence
        wire.send(pipe, {**_told(error), "kind": "defence"})


if __name__ == "__main__":
    main()
