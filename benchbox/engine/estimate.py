"""How long a plan will take: as long as the like took here before, else by one timed pass."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from benchbox.canonical import digest
from benchbox.contract import border
from benchbox.contract.defense import Defense
from benchbox.domain import Cell, Evidence
from benchbox.draws import sample_draws
from benchbox.engine import device as devices
from benchbox.engine.passes import crafting
from benchbox.errors import DefenseError
from benchbox.training.artifacts import Training

if TYPE_CHECKING:
    from benchbox.engine.plan import Plan
    from benchbox.engine.session import Session

#: Images of the timed pass.
BATCH = 32


@dataclass(frozen=True)
class Estimate:
    """Seconds, and where they come from.

    Attributes:
        seconds: What is known; 0 if nothing is.
        recorded: Cells and trainings whose like was run on this device.
        timed: Cells whose passes are known, and whose pass was timed now.
        unknown: What nobody can say, in words.
    """

    seconds: float = 0.0
    recorded: int = 0
    timed: int = 0
    unknown: tuple[str, ...] = ()


def estimate(
    session: Session,
    plan: Plan,
    cells: Sequence[Cell],
    untrained: Sequence[Training],
    evidence: Sequence[Evidence],
    cards: Mapping[str, Mapping[str, Any]],
) -> Estimate:
    """How long some cells of a plan will take, one after the other.

    Args:
        session: Plug-ins, data, device.
        plan: Says how the models of the cells are built.
        cells: Those to be run.
        untrained: What has to be trained for them.
        evidence: What is stored.
        cards: How stored weights were trained, by digest.
    """
    where = devices.choose(session.settings.device)
    here = [e for e in evidence if len(e.outcome) and e.provenance.get("device") == devices.describe(where)]
    recorded, passes, clock = _seconds_an_image(here), _passes(evidence), _Clock(session, plan, where)
    total, counts, unknown = 0.0, [0, 0], []
    for cell in {cell.craft_key: cell for cell in cells}.values():
        if (known := recorded.get(_like(cell))) is not None:
            total, counts[0] = total + known * len(cell.samples), counts[0] + 1
        elif (needed := passes.get(_attack(cell), _declared(cell))) is not None:
            # Scored on the clean image and on the adversarial one, in each draw.
            total += len(cell.samples) * (needed + 2 * cell.scoring_draws) * clock.seconds(cell)
            counts[1] += 1
        else:
            unknown.append(f"{cell.attack.name} on {cell.defense.name}")
    for training in untrained:
        if (spent := _training(training, cards)) is not None:
            total, counts[0] = total + spent, counts[0] + 1
        else:
            unknown.append(f"training {training.defense.name}")
    return Estimate(total, counts[0], counts[1], tuple(dict.fromkeys(unknown)))


def _like(cell: Cell) -> str:
    """What cells have in common that take equally long an image."""
    return digest(
        [cell.defense.name, cell.attack.name, dict(cell.attack.arguments), str(cell.access), cell.view.stand_in,
         cell.samples.dataset, cell.eot, cell.scoring_draws, cell.search_precision]
    )  # fmt: skip


def _attack(cell: Cell) -> str:
    return digest([asdict(cell.attack), cell.eot])


def _seconds_an_image(evidence: Sequence[Evidence]) -> dict[str, float]:
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for item in evidence:
        sums[_like(item.cell)][0] += item.seconds
        sums[_like(item.cell)][1] += len(item.outcome)
    return {key: seconds / images for key, (seconds, images) in sums.items()}


def _passes(evidence: Sequence[Evidence]) -> dict[str, float]:
    """Forward and backward passes an image by attack: about the same on every model."""
    spent = {_attack(e.cell): sum(e.outcome.mean_passes) for e in evidence}
    return {attack: passes for attack, passes in spent.items() if passes}


def _declared(cell: Cell) -> float | None:
    """What the attack says of itself."""
    nature = cell.nature
    if nature is None:
        return None
    return crafting(cell) or (0.0 if nature.kind in ("control", "random") else None)


def _training(training: Training, cards: Mapping[str, Mapping[str, Any]]) -> float | None:
    """What training the same defence for the same data set took, by its epochs."""
    for card in cards.values():
        record = card.get("training", {})
        same = record.get("defense", {}).get("name") == training.defense.name
        if same and record.get("dataset") == training.dataset and card.get("seconds") and not card.get("resumed"):
            then, now = record["defense"]["arguments"].get("epochs"), training.defense.arguments.get("epochs")
            return float(card["seconds"]) * (now / then if then and now else 1)
    return None


class _Clock:
    """Times one pass of each model once; untrained, since weights cost no time."""

    def __init__(self, session: Session, plan: Plan, where: torch.device) -> None:
        self.session = session
        self.plan = plan
        self.where = where
        self._known: dict[str, float] = {}

    def seconds(self, cell: Cell) -> float:
        """Of one pass over one image: half of a forward and a backward one."""
        key = cell.view.artifact
        if key not in self._known:
            self._known[key] = self._measured(self.plan.trainings[key])
        return self._known[key]

    def _measured(self, training: Training) -> float:
        shop = self.session.workshop(training.dataset, lambda training, progress: None)
        defense = shop.untrained(training)
        with border.crossing(type(defense), DefenseError):
            draws = sample_draws(BATCH, 0, self.where)
            x = draws.uniform(*shop.dataset.spec.shape)
            if not defense.deployable:
                defense.reveal(x, draws)
            return min(_timed(defense, x, draws, self.where) for _ in range(2)) / BATCH / 2


def _timed(defense: Defense, x: torch.Tensor, draws: Any, where: torch.device) -> float:
    wait: Callable[[], None] = (lambda: torch.cuda.synchronize(where)) if where.type == "cuda" else (lambda: None)
    leaf = x.detach().requires_grad_()
    wait()
    start = time.perf_counter()
    torch.autograd.grad(defense(leaf, draws).logsumexp(1).sum(), leaf)
    wait()
    return time.perf_counter() - start
