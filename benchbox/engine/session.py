"""One request, from its words to its cells in the store: the function behind `benchbox run`."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchbox import provenance
from benchbox.contract.pretrained import Shelf
from benchbox.data.dataset import data_folder, load, sample_list
from benchbox.engine import answers, device, pupil
from benchbox.engine.bench import Bench
from benchbox.engine.executors import Executor
from benchbox.engine.executors.inside import Inside
from benchbox.engine.executors.worker import Worker
from benchbox.engine.isolation import apart
from benchbox.engine.lent import Lent
from benchbox.engine.observer import Observer, Report
from benchbox.engine.plan import Plan, Planner, Request, kind
from benchbox.engine.runner import Runner
from benchbox.errors import ArtifactError, RequestError, StoreError
from benchbox.store import Store
from benchbox.training import precision
from benchbox.training.artifacts import Artifacts, Training
from benchbox.training.workshop import Workshop

if TYPE_CHECKING:
    import torch

    from benchbox.contract.attack import Attack
    from benchbox.contract.defense import Defense
    from benchbox.contract.registry import Registry
    from benchbox.data.dataset import Dataset
    from benchbox.domain import SampleList

#: Where results lie unless another place is named.
STORE = "results/benchbox.sqlite"


def artifacts_folder(store: str) -> Path:
    """Where trained weights lie: beside an SQLite file, else in `results/`."""
    path = store.removeprefix("sqlite:///")
    return Path("results" if "://" in path else Path(path).parent) / "artifacts"


@dataclass(frozen=True)
class Settings:
    """Where things are and where they run; of it `precision` changes a training, `secret` a randomised row.

    Attributes:
        store: URL or path of the results.
        artifacts: Folder of trained weights.
        data_dir: Folder of data sets, if given.
        device: As torch names it; None for the best there is.
        batch_size: Images a call; None for what is measured to be fastest.
        precision: What is trained is trained in it; None for the device's usual.
        download: Whether data sets and the weights of model zoos may be fetched.
        secret: What the draws of randomised defences are named under; None for the store's own.
        workers: Processes that the work is shared by; None for this one alone, or for all that a cluster has.
        ray: Address of a Ray cluster; `local` for one of this machine.
        isolate: Whether each defence is asked in a process of its own.
    """

    store: str = STORE
    artifacts: Path = Path("results/artifacts")
    data_dir: Path | None = None
    device: str | None = None
    batch_size: int | None = None
    precision: str | None = None
    download: bool = True
    secret: str | None = None
    workers: int | None = None
    ray: str | None = None
    isolate: bool = False


def oddities(dataset: Dataset, samples: SampleList) -> Iterator[str]:
    """What a user should know of the images before believing a number about them."""
    x, y = dataset.test.x, dataset.test.y[list(samples.indices)]
    if len(samples) > 1 and bool((y == y[0]).all()):
        yield f"all {len(samples)} images of {dataset.name} are of class {int(y[0])}; take more: these say little"
    if int(x.max()) <= 1:
        yield f"every pixel of {dataset.name} is 0 or 1 of 255; images are 0..255: multiply them by 255"
    elif bool(((x == 0) | (x == 255)).all()):
        yield f"every pixel of {dataset.name} is black or white: rounding undoes any attack below ε = 0.5"


class Session:
    """Plug-ins, settings and the data sets read so far."""

    def __init__(
        self,
        defenses: Registry[Defense],
        attacks: Registry[Attack],
        settings: Settings,
        announce: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.defenses = defenses
        self.attacks = attacks
        self.settings = settings
        self.announce = functools.cache(announce)  # every radius of a curve would say the same
        self._datasets: dict[str, Dataset] = {}
        self._lent: list[Lent] = []
        self._elsewhere: Executor | None = None

    def close(self) -> None:
        """Stop the workers that a run has started."""
        if self._elsewhere:
            self._elsewhere.close()
            self._elsewhere = None

    def _warn_of(self, name: str | None, where: torch.device) -> None:
        if precision.is_emulated(name, where):
            self.announce(f"this {where.type} only emulates {name}, which may take many times as long as float32")

    def _warn_of_others(self, trainings: Iterable[Training], store: Store) -> None:
        """Say what was trained in another precision than is asked for: what it is known by holds none."""
        asked, artifacts = self.settings.precision, Artifacts(self.settings.artifacts)
        for step in (step for training in trainings for step in training.chain if asked):
            if step.source is not None or step.teacher is not None:
                continue
            with contextlib.suppress(ArtifactError):  # whoever needs damaged weights says so
                card = artifacts.card_of(step) or store.artifact(step.digest) or {}
                if (made := card.get("precision", asked)) != asked:
                    self.announce(
                        f"{step.defense.name} on {step.dataset}, seed {step.seed}, was trained in {made}, not in "
                        f"{asked}, and is taken as it is; for one in {asked} name another --store"
                    )

    def lend(self, plugin: Lent) -> None:
        """Take a defence that exists as an object, so that requests may name it."""
        for part in plugin.chain():
            self.defenses.lend(part)
            self._lent.append(part)

    def dataset(self, name: str) -> Dataset:
        """A data set, read once."""
        if name not in self._datasets:
            found = load(name, self.settings.data_dir, download=self.settings.download, progress=self.announce)
            # What was asked for by a path goes by its name in the cells.
            self._datasets[name] = self._datasets[found.name] = found
        return self._datasets[name]

    def samples(self, request: Request) -> SampleList:
        """The images a request scores."""
        return sample_list(self.dataset(request.dataset), request.samples, seed=request.sample_seed)

    def plan(self, request: Request) -> Plan:
        """The cells of a request."""
        dataset, samples = self.dataset(request.dataset), self.samples(request)
        for sentence in oddities(dataset, samples):
            self.announce(sentence)
        return self.planner().plan(request, dataset, samples)

    def trainings(self, request: Request) -> dict[str, Training]:
        """What the defences of a request have to be trained with, the lowest first, by digest."""
        return self.planner().trainings(request, self.dataset(request.dataset))

    def planner(self) -> Planner:
        """What turns requests into cells here."""
        folder = data_folder(self.settings.data_dir)
        return Planner(self.defenses, self.attacks, Shelf(folder, self.settings.download, self.announce))

    def run(
        self,
        plan: Plan,
        store: Store,
        observer: Observer,
        how: Callable[[Runner, Plan, int], Report] = Runner.run,
    ) -> Report:
        """Fill the cells of a plan, or do with them what is said; what is in the store is not run again."""
        where = device.choose(self.settings.device)
        record = self.provenance(where)
        self._warn_of(plan.request.search_precision, where)
        # Without a claim: the runner holds it.
        workshop = self.workshop(plan.request.dataset, observer.training, record)
        runner = self._runner(plan, store, observer, workshop)
        self._warn_of_others(plan.trainings.values(), store)
        answers.check(workshop, store, plan)
        run = store.begin_run(plan.request.as_dict(), record)
        self._note_kinds(plan, store)
        try:
            report = how(runner, plan, run)
        except (KeyboardInterrupt, StoreError) as error:
            # A store that is full cannot be told of it either; the first error is the one to see.
            with contextlib.suppress(StoreError):
                self._note_weights(plan, store)
                store.finish_run(run, "interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
            raise
        self._note_weights(plan, store)
        store.finish_run(run, "failed" if report.failed else "done")
        return report

    def provenance(self, where: torch.device) -> dict[str, object]:
        """What is recorded with everything that is made here."""
        record = provenance.collect(device.describe(where))
        return record | {"isolated": True} if self.settings.isolate else record

    def _note_kinds(self, plan: Plan, store: Store) -> None:
        for cell in {cell.defense.name: cell for cell in plan.cells}.values():
            name = cell.defense.name
            store.remember(f"defense {name}", kind(self.defenses.get(name).cls, plan.trainings[cell.artifact]))

    def _note_weights(self, plan: Plan, store: Store) -> None:
        """Keep how the weights were trained: they lie outside the store, and numbers travel without them."""
        artifacts = Artifacts(self.settings.artifacts)
        for name, training in plan.trainings.items():
            # Whoever needs damaged weights says so; a table whose cells are all stored needs none.
            with contextlib.suppress(ArtifactError):
                if card := artifacts.card_of(training):
                    # The last epoch says whether it converged; what led there stays with the weights.
                    store.put_artifact(name, card | {"losses": card["losses"][-1:]})

    def train(self, trainings: Sequence[Training], store: Store, observer: Observer) -> None:
        """Train what is missing of some defences; processes with one store train each of them once."""
        record = provenance.collect(device.describe(device.choose(self.settings.device)))
        for wanted in trainings:
            workshop = self.workshop(wanted.dataset, observer.training, record, store)
            self._warn_of_others([wanted], store)
            workshop.obtain(wanted)

    def workshop(
        self,
        dataset: str,
        report: Callable[..., None],
        record: dict[str, object] | None = None,
        store: Store | None = None,
    ) -> Workshop:
        """Where trained defences for a data set come from; processes with one store train each of them once."""
        where, images = device.choose(self.settings.device), self.dataset(dataset)
        self._warn_of(self.settings.precision, where)
        workshop = Workshop(
            Artifacts(self.settings.artifacts),
            self.defenses,
            images,
            where,
            precision.choose(self.settings.precision, where),
            record or {},
            report,
            partial(store.claim, wait=math.inf) if store else contextlib.nullcontext,
            apart.Apart(images.spec, Artifacts(self.settings.artifacts), self.defenses, where)
            if self.settings.isolate
            else None,
            pupil.learn,
        )
        if self.settings.isolate and self._lent:
            raise RequestError(
                f"{self._lent[-1].name} exists in this process alone and cannot be isolated; put it "
                "into a file, as in model.py:net"
            )
        for plugin in self._lent:
            workshop.lend(plugin.training(images).digest, plugin.defense)
        return workshop

    def bench(
        self, dataset: str, store: Store, report: Callable[..., None], record: dict[str, object], images: int
    ) -> Bench:
        """Where defences that are ready to be asked come from.

        Args:
            dataset: What they classify.
            store: Where a measured layout is remembered.
            report: Hears of a training.
            record: Provenance of what is trained.
            images: How many will be attacked, for how long measuring may take.
        """
        return Bench(
            self.workshop(dataset, report, record, store),
            store,
            self.dataset(dataset),
            device.choose(self.settings.device),
            self.settings.batch_size,
            images,
            self.settings.secret,
        )

    def _runner(self, plan: Plan, store: Store, observer: Observer, workshop: Workshop) -> Runner:
        dataset = self.dataset(plan.request.dataset)
        return Runner(
            store,
            self._executor(workshop),
            Artifacts(self.settings.artifacts),
            self.attacks,
            dataset,
            observer,
            self.defenses,
            self.settings.batch_size,
            self.settings.secret,
        )

    def _executor(self, workshop: Workshop) -> Executor:
        """Where work is done; workers elsewhere are kept from one plan to the next.

        Raises:
            RequestError: A defence exists in this process alone.
        """
        if (self.settings.workers or 1) == 1 and self.settings.ray is None:
            dataset, where = workshop.dataset, workshop.device
            bench = Bench(workshop, None, dataset, where, self.settings.batch_size)
            return Inside(Worker(bench, self.attacks, dataset, where))
        if self._lent:
            raise RequestError(
                f"{self._lent[-1].name} exists in this process alone; leave out workers, or let them build it: "
                "name a function, as in model.py:net, and its weights"
            )
        if self._elsewhere is None:
            from benchbox.engine.executors.shop import Shop, elsewhere

            shop = Shop(self.defenses.workspace, self.defenses.local, self.settings, workshop.provenance)
            self._elsewhere = elsewhere(shop, self.dataset)
        return self._elsewhere
