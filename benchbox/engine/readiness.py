"""Which defences are trained, how each is run, and which cannot be had: what a runner knows before it attacks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from benchbox.contract.defense import Defense
from benchbox.contract.registry import Registry
from benchbox.engine import secret as secrets
from benchbox.engine.agenda import Job, Known, Trained
from benchbox.engine.bench import CONTRACT, layout_key
from benchbox.engine.executors import Executor, Failure, Prepared
from benchbox.engine.lent import Lent
from benchbox.store import Store
from benchbox.training.artifacts import Artifacts, Training
from benchbox.training.layout import Layout


@dataclass(eq=False)
class Readiness:
    """What is known of defences.

    Attributes:
        store: Where layouts are remembered.
        executor: Where they are measured.
        artifacts: Where trained weights lie.
        defenses: The plug-ins.
        batch_size: Images a call, where it was asked for.
        given: What the draws of randomised defences are named under; None for the store's own.
        layouts: How defences are run, by digest.
        spoiled: Those that cannot be had, by digest: twenty cells may want one, and it fails once.
    """

    store: Store
    executor: Executor
    artifacts: Artifacts
    defenses: Registry[Defense]
    batch_size: int | None
    given: str | None
    layouts: dict[str, Layout] = field(default_factory=dict, init=False)
    spoiled: dict[str, Failure] = field(default_factory=dict, init=False)
    _made: set[str] = field(default_factory=set, init=False)
    _device: str | None = field(default=None, init=False)
    _randomized: dict[str, bool] = field(default_factory=dict, init=False)  # it is asked for every unit

    def is_made(self, training: Training) -> bool:
        """Whether the weights of a defence are there."""
        digest = training.digest
        if digest not in self._made and (training.source is not None or training.weights in self.artifacts):
            self._made.add(digest)
        return digest in self._made

    def layout(self, training: Training) -> Layout | None:
        """How a defence is run, if that is known: from this run, or remembered."""
        digest = training.digest
        if digest not in self.layouts:
            found = Layout.from_dict(self.store.recall(self._key(digest)))
            if found is not None:
                self.layouts[digest] = replace(found, batch=self.batch_size or found.batch)
        return self.layouts.get(digest)

    def keep(self, item: Trained | Known, value: object) -> None:
        """Take note of what came of a training, or of a measurement."""
        digest = item.training.digest
        if isinstance(value, Failure):
            self.spoiled[digest] = value
        elif isinstance(value, Prepared):
            # What was asked for once is not what was found to be fastest.
            if digest not in self.layouts and self.batch_size is None:
                self.store.remember(self._key(digest), value.layout.as_dict())
            self.layouts[digest] = value.layout
            if value.remarks:
                self.store.attach(digest, CONTRACT, value.remarks)
        else:
            self._made.add(digest)

    def is_randomized(self, job: Job) -> bool:
        """Whether a cell hangs on a secret."""
        return any(map(self._is_randomized, (job.deployed, job.attacked)))

    def secret(self) -> str:
        """What the draws of randomised defences are named under."""
        if self.given is None:
            self.given = secrets.of(self.store)
        return self.given

    def _is_randomized(self, training: Training) -> bool:
        digest = training.digest
        if digest not in self._randomized:
            plugin = self.defenses.get(training.defense.name)
            self._randomized[digest] = (
                plugin.defense.randomized
                if isinstance(plugin, Lent)
                else plugin.cls.is_randomized(training.defense.arguments)
            )
        return self._randomized[digest]

    def _key(self, digest: str) -> str:
        self._device = self._device or self.executor.describe()
        return layout_key(digest, self._device)
