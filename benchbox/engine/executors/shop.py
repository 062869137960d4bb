"""What another process needs to become a worker: plain words that can be sent, and no open file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchbox.contract import registry
from benchbox.engine import device, pupil
from benchbox.engine.bench import Bench
from benchbox.engine.executors.task import Executor
from benchbox.engine.executors.worker import Worker
from benchbox.engine.isolation import apart, strangers
from benchbox.training import precision
from benchbox.training.artifacts import Artifacts, Training
from benchbox.training.loop import Progress
from benchbox.training.workshop import Workshop

if TYPE_CHECKING:
    from benchbox.data.dataset import Dataset
    from benchbox.engine.session import Settings


@dataclass(frozen=True)
class Shop:
    """How workers are made.

    Attributes:
        workspace: Whose plug-ins count.
        local: Whether the files in its folders are plug-ins.
        settings: As the session's.
        provenance: Recorded in the card of everything trained.
    """

    workspace: Path
    local: bool
    settings: Settings
    provenance: Mapping[str, object]

    def worker(
        self,
        dataset: Dataset,
        place: str,
        report: Callable[[Training, Progress], None],
        artifacts: Path | None = None,
    ) -> Worker:
        """A worker for a data set.

        Args:
            dataset: The images.
            place: The device, as torch names it.
            report: Hears of a training.
            artifacts: Where weights lie, if not where the settings say.
        """
        where = device.choose(place)
        attacks = registry.attacks(self.workspace, local=self.local)
        kept = Artifacts(artifacts or self.settings.artifacts.absolute())
        defenses = strangers.defenses(self.workspace, local=self.local, isolate=self.settings.isolate)
        workshop = Workshop(
            kept,
            defenses,
            dataset,
            where,
            precision.choose(self.settings.precision, where),
            self.provenance,
            report,
            apart=apart.Apart(dataset.spec, kept, defenses, where) if self.settings.isolate else None,
            teach=pupil.learn,
        )
        return Worker(Bench(workshop, None, dataset, where, self.settings.batch_size), attacks, dataset, where)


def elsewhere(shop: Shop, images: Callable[[str], Dataset]) -> Executor:
    """The executor that the settings ask for, if it is not this process.

    Raises:
        RequestError: Ray is not installed, or its cluster is not there.
    """
    if shop.settings.ray is not None:
        from benchbox.engine.executors.cluster import Cluster

        return Cluster(shop, images, shop.settings.workers)
    from benchbox.engine.executors.processes import Processes

    return Processes(shop, images, shop.settings.workers or 1)
