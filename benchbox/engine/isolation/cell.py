"""The other side: a process that trains or loads one defence, and answers about it."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Set
from dataclasses import asdict
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
from benchbox.data.dataset import Dataset, Images
from benchbox.domain import ThreatModel
from benchbox.draws import Draws
from benchbox.engine import device, dynamic
from benchbox.engine.booth import let_differentiate_again, slope
from benchbox.engine.isolation import wire
from benchbox.engine.isolation.order import Order
from benchbox.engine.isolation.server import Answer, Server
from benchbox.engine.isolation.wire import Message
from benchbox.engine.vetting import require_evaluation
from benchbox.errors import DefenseError
from benchbox.training.artifacts import Artifacts, Training
from benchbox.training.layout import hand_over, lay
from benchbox.training.loop import Progress
from benchbox.training.precision import Precision, reduced
from benchbox.training.workshop import Workshop


class Cell(Server):
    """Holds a defence, copies of it, and the graphs of what it said."""

    def __init__(self, order: Order, heard: Set[str], pipe: Connection) -> None:
        super().__init__(pipe)
        torch.set_num_threads(order.threads)
        self.heard = heard
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
        get = workshop.obtain if order.trained else workshop.untrained
        self.copies: list[Defense] = [get(order.training)]
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
            "walks": isinstance(defense, StepwisePurifier | DecidingPurifier),
            "advice": type(defense).how_to_randomize(),
            "forks": hasattr(os, "fork") and self.device.type == "cpu" and not torch.cuda.is_initialized(),
        }

    def answer(self, asked: Message) -> Answer:
        """Do what is asked."""
        for number in asked.words.get("forget", ()):
            self.graphs.pop(number, None)
        defense = self.copies[asked.words["copy"]]
        if asked.words["do"] == "fork":
            return self.fork()
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

    def _certified(self, defense: Defense, asked: Message) -> Answer:
        """What it proves, as it says it; whoever asked checks that it is a proof."""
        words, x, y = asked.words, asked.tensors["x"].to(self.device), asked.tensors["y"].to(self.device)
        threat = ThreatModel(words["norm"], words["epsilon"])
        prove = border.guarded(defense.certified, type(defense), f"defence {defense.card.name}", _as_it_is)
        found = prove(hand_over(x, words["channels_last"]), y, threat)
        return {}, {"certified": found} if isinstance(found, Tensor) else {}

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


def _as_it_is(found: Any, what: str) -> Any:
    return found
