"""Whether a network from a file still answers as it did when its results were stored.

Its identity is its code and its weights. What else it reads while it is built, a table of means or a second
checkpoint, stands in neither: edited, it would let an old number pass for the number of another network.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchbox.contract import border
from benchbox.contract.defense import Defense
from benchbox.contract.pretrained import Checkpoint
from benchbox.domain import ImageSpec
from benchbox.draws import sample_draws
from benchbox.engine.plan import Plan
from benchbox.errors import BenchboxError, DefenseError, RequestError
from benchbox.store import Store
from benchbox.training.layout import ROUNDING
from benchbox.training.workshop import Workshop

#: Images of noise, the same for everybody, that a network is told by.
IMAGES = 8


def check(workshop: Workshop, store: Store, plan: Plan) -> None:
    """Compare what every factory's network says with what it said, and keep it where nothing is stored yet.

    Args:
        workshop: Where they come from.
        store: Where the results lie.
        plan: What was asked for.

    Raises:
        RequestError: One answers otherwise, and results of it are stored.
    """
    for key, training in plan.trainings.items():
        cls = workshop.defenses.get(training.defense.name).cls
        if training.source is None or not issubclass(cls, Checkpoint):
            continue
        try:
            said = _said(workshop.obtain(training), workshop.dataset.spec, workshop.device)
        except BenchboxError:
            continue  # its cells will say that it cannot be had
        before = store.recall(f"answers {key}")
        moved = 0 if before is None else _moved(torch.tensor(before), said)
        if before is None or (moved and not _has_results(store, key)):
            store.remember(f"answers {key}", said.tolist())
        elif moved:
            name = training.defense.name
            raise RequestError(
                f"{name} answers otherwise than when its results were stored, on {moved} of {IMAGES} images, "
                "though its code and weights are the same: it reads another file that did change; put that into "
                f"the weights or the code, or drop the results with `benchbox remove defenses {name}`"
            )


def _has_results(store: Store, key: str) -> bool:
    """Whether an outcome of any request, this one or an earlier, hangs on an artifact: scored, or attacked."""
    return any(one.committed and key in (one.cell.artifact, one.cell.view.artifact) for one in store.cells())


def _said(defense: Defense, spec: ImageSpec, device: torch.device) -> Tensor:
    draws = sample_draws(IMAGES, 0, device)
    x = draws.uniform(*spec.shape)
    with border.crossing(type(defense), DefenseError), torch.no_grad():
        return defense(x, draws).double().cpu()  # type: ignore[no-any-return]


def _moved(before: Tensor, now: Tensor) -> int:
    """Of how many images the logits (N, K) are others, by more than another device rounds."""
    if before.shape != now.shape:
        return IMAGES
    scale = before.abs().amax().clamp_min(1e-6)
    return int(((before - now).abs().amax(1) > ROUNDING * scale).sum())
