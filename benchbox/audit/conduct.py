"""An audit from its request to its record: obtain the defence, probe it, read the store, judge."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from benchbox.analysis.probed import probed
from benchbox.analysis.worst_case import finished
from benchbox.analysis.worth import worth
from benchbox.audit import audit, summary, toll
from benchbox.audit.course import Course
from benchbox.audit.evidence import WHITE_BOX, Probes, Rescored, Stored, Subject, from_store
from benchbox.audit.probes.measurements import Effort
from benchbox.audit.probes.probe import probe, pursue
from benchbox.audit.probes.search import Target
from benchbox.audit.verdict import Finding
from benchbox.contract import border
from benchbox.contract.attack import Attack
from benchbox.contract.defense import Defense
from benchbox.contract.registry import Registry
from benchbox.data.dataset import Dataset
from benchbox.domain import TOLERANCE, Access, Evidence, SampleList, ThreatModel
from benchbox.draws import Draws, sample_draws
from benchbox.engine import device, secret
from benchbox.engine.bench import fastest, remembered
from benchbox.engine.judge import Judge, Streams
from benchbox.engine.plan import Request, ball
from benchbox.engine.session import Session
from benchbox.engine.vetting import require_classifier
from benchbox.errors import DefenseError, RequestError
from benchbox.store import Records, Store
from benchbox.training.artifacts import Training

#: What an audit is attached to its artifact as.
KIND = "audit"


@dataclass(frozen=True)
class Ready:
    """A trained defence and what it is audited with; of what is left out, by the field of the effort, why.

    `trained` is what its training took just now, in seconds; 0 if there were weights.
    """

    judge: Judge
    training: Training
    dataset: Dataset
    samples: SampleList
    threat: ThreatModel
    effort: Effort
    device: torch.device
    attacks: Registry[Attack]
    provenance: Mapping[str, object]
    left_out: Mapping[str, str] = field(default_factory=dict)
    trained: float = 0.0

    @property
    def defense(self) -> Defense:
        """What the probes ask."""
        return self.judge.defense

    @property
    def subject(self) -> Subject:
        """What the checks have to know of the defence."""
        cls = type(self.defense)
        return Subject(
            self.training.defense.name,
            self.training.digest,
            self.defense.randomized,
            self.training.base is not None,
            tuple(cls.stand_ins),
            cls.exact,
            self.training.defense.arguments,
            cls.ablations,
        )


def prepare(
    session: Session, request: Request, effort: Effort, report: Callable[..., None], store: Store | None = None
) -> Ready:
    """Obtain the defence, trained now if need be.

    Args:
        session: Plug-ins, data and settings.
        request: One defence, one data set, one seed.
        effort: How hard the probes try; its samples are those of the request.
        report: Hears of a training.
        store: Where it is remembered how the defence runs fastest; found out anew without.

    Raises:
        BenchboxError: A name or a setting does not fit, the weights are damaged, the ball is none of a norm, or
            its target classifier cannot be asked.
    """
    dataset = session.dataset(request.dataset)
    threat = ball(request, dataset)
    threat.require_norm()
    samples = session.samples(request)
    # The lowest first: the last one is the defence itself.
    training = list(session.trainings(request).values())[-1]
    where = device.choose(session.settings.device)
    record = session.provenance(where)
    workshop = session.workshop(request.dataset, report, record)
    there = all(step.source is not None or step.weights in workshop.artifacts for step in training.chain)
    begun = time.perf_counter()
    defense = workshop.obtain(training)
    trained = 0.0 if there else time.perf_counter() - begun
    with border.crossing(type(defense), DefenseError):
        # Of random images: the probes are the first to show it those of the test set.
        require_classifier(defense, sample_draws(2, device=where).uniform(*dataset.spec.shape))
    # A secret of its own: the audit scores in draws that no run has scored in.
    known = remembered(store, training.digest, where) if store else None
    judge = Judge(defense, fastest(defense, dataset, where, len(samples), effort.batch, known), secret.new())
    effort = replace(effort, samples=len(samples))
    return Ready(
        judge, training, dataset, samples, threat, effort, where, session.attacks, record, trained=trained
    )


def conduct(
    ready: Ready,
    store: Store,
    report: Callable[[str], None] = lambda what: None,
    known: Records | None = None,
    course: Course | None = None,
) -> tuple[list[Finding], dict[str, Any]]:
    """Probe, judge, and attach the record to the artifact.

    Args:
        ready: From `prepare`.
        store: Where the record is kept, and the stored images lie.
        report: Told what begins.
        known: Where evidence is read, as from the store and published files together; the store by default.
        course: Keeps the probes to their time; without one nothing more is left out.

    Returns:
        The findings, and the record as it was stored.
    """
    # On as many threads as it was seen to be fastest on: those of small operations wait for one another.
    with ready.judge.layout.on_threads():
        return _conducted(ready, store, report, known, course)


def _conducted(
    ready: Ready, store: Store, report: Callable[[str], None], known: Records | None, course: Course | None
) -> tuple[list[Finding], dict[str, Any]]:
    indices = torch.tensor(ready.samples.indices)
    x, y = (t.to(ready.device) for t in ready.dataset.test.batch(indices))
    with border.crossing(type(ready.defense), DefenseError):
        probes = probe(
            ready.judge, x, y, indices, ready.threat, ready.effort, held=_held(ready), report=report,
            plan=course,
        )  # fmt: skip
    # What was left out on the way is left out from here on.
    left_out = {**ready.left_out, **(course.left_out if course else {})}
    ready = replace(ready, effort=probes.effort, left_out=left_out)
    report("stored images")
    stored = _stored(ready, known or store)
    # What was scored elsewhere has its images elsewhere. Those of the same key here, made for another defence on
    # the same classifier, are another making, and one at the border of two classes may fall otherwise.
    own = _stored(ready, store).finished if known else stored.finished
    stored = replace(stored, rescored=_rescore_all(ready, store, own), pursued=_pursue(ready, stored))
    probes = replace(probes, left_out=ready.left_out)
    findings = audit(stored, probes)
    record = _record(ready, findings, probes)
    record |= toll.with_earlier(toll.of(probes.panel), store.attached(ready.training.digest, KIND), record)
    found = probed(record, stored.finished[0].cell.samples) if stored.finished else None
    record["standing"] = worth(stored.finished, stored.bare, found)
    store.attach(ready.training.digest, KIND, record)
    return findings, record


def _held(ready: Ready) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Training images, for the probes that ask about what no test set has."""
    known = ready.dataset.train
    if not len(known):
        return None
    x, y = known.batch(slice(ready.effort.elsewhere))
    return x.to(ready.device), y.to(ready.device)


def _stored(ready: Ready, records: Records) -> Stored:
    """The cells inside the ball: of the artifact, of the classifier below it, and of the other defences."""
    training = ready.training

    inside = [e for e in records.evidence(dataset=ready.dataset.name) if e.cell.threat == ready.threat]
    every = [_declared(e, ready.attacks) for e in inside]
    names = sorted({e.cell.defense.name for e in every})
    spec = ready.dataset.spec
    return Stored(
        ready.subject,
        ready.threat,
        spec.shape,
        cells=tuple(e for e in every if e.cell.artifact == training.digest),
        static=tuple(e for e in every if training.base and e.cell.artifact == training.root.digest),
        others=tuple(e for e in every if e.cell.artifact != training.digest),
        purifiers=tuple(n for n in names if (records.recall(f"defense {n}") or {}).get("purifies")),
    )


def _declared(evidence: Evidence, attacks: Registry[Attack]) -> Evidence:
    """With what the attack says it is: for cells stored before that was recorded, asked of the plug-in now."""
    cell = evidence.cell
    if cell.nature is not None or cell.access is Access.IMPORTED:
        return evidence
    try:
        plugin = attacks.get(cell.attack.name)
        nature = plugin.cls(**cell.attack.arguments).declare()
    except (RequestError, TypeError):  # gone, or with other settings since
        return evidence
    # A built-in's number is its version; a file's digest says that it is the very same file.
    same = plugin.code == cell.attack.code or plugin.code.startswith(cell.attack.code.rpartition("/")[0] + "/")
    return replace(evidence, cell=replace(cell, nature=nature)) if same else evidence


def _pursue(ready: Ready, stored: Stored) -> dict[int, bool]:
    """PGD with many more starts on samples that only attacks without gradients broke in the store."""
    if not stored.finished:
        return {}
    panel = from_store(stored)
    # No more than the audit itself could have met; the others count as these come out.
    suspects = panel.indices[panel.suspects][: min(ready.effort.pursued, max(len(ready.samples) // 2, 5))]
    if not len(suspects) or not panel.of(*WHITE_BOX):
        return {}
    indices = torch.from_numpy(suspects)
    x, y = (t.to(ready.device) for t in ready.dataset.test.batch(indices))
    fell = pursue(Target(ready.judge, x, y, Draws(indices.to(ready.device)), ready.threat, ready.effort))
    return dict(zip(suspects.tolist(), fell.tolist(), strict=True))


def _rescore_all(ready: Ready, store: Store, cells: Sequence[Evidence]) -> tuple[Rescored, ...]:
    """Ask the defence again about the stored images of the audited samples."""
    wanted = set(ready.samples.indices)
    found = []
    for evidence in finished(cells):
        order = np.argsort(evidence.outcome.position)
        at = [p for p, index in enumerate(evidence.cell.samples.indices) if index in wanted]
        if not at:
            continue
        positions = np.array(at, np.int64)
        images = store.crafted(evidence.cell.craft_key, positions)
        if images is not None:
            found.append(_rescore(ready, evidence, order[positions], positions, images.x))
    return tuple(found)


def _rescore(
    ready: Ready, evidence: Evidence, rows: np.ndarray, positions: np.ndarray, images: np.ndarray
) -> Rescored:
    cell, outcome = evidence.cell, evidence.outcome
    indices = torch.tensor([cell.samples.indices[p] for p in positions])
    clean = ready.dataset.test.batch(indices)[0].to(ready.device)
    x_adv = torch.from_numpy(images).to(ready.device)
    streams = Streams(indices.tolist(), cell.attack_seed, ready.device)
    ready.judge.reveal(clean, streams)
    differ, clean_differ = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    if not ready.defense.randomized:  # others are in other draws now
        again = ready.judge.score(x_adv, streams.adversarial, cell.scoring_draws).cpu().numpy()
        first = ready.judge.score(clean, streams.clean, cell.scoring_draws).cpu().numpy()
        differ = (again != outcome.adversarial[rows]).any(1)
        clean_differ = (first != outcome.clean[rows]).any(1)
    excess = ready.threat.norms(x_adv - clean) - ready.threat.epsilon
    box = x_adv.flatten(1)
    inside = (
        (excess <= ready.threat.tolerance(box.shape[1]))
        & (box.amin(1) >= -TOLERANCE)
        & (box.amax(1) <= 1 + TOLERANCE)
    )

    def where(flags: np.ndarray) -> tuple[int, ...]:
        return tuple(int(indices[i]) for i in np.flatnonzero(flags))

    return Rescored(
        cell.key,
        cell.attack.name,
        len(positions),
        where(differ),
        where(clean_differ),
        # A comparison with NaN is false, so what is not finite counts as outside.
        where((~inside).cpu().numpy()),
        tuple(x_adv.shape[1:]),
    )


def _record(ready: Ready, findings: Sequence[Finding], probes: Probes) -> dict[str, Any]:
    return {
        "defense": ready.training.defense.name,
        "artifact": ready.training.digest,
        "summary": summary(findings),
        "findings": [finding.as_dict() for finding in findings],
        "effort": asdict(ready.effort),
        "samples": ready.samples.as_dict(),
        "threat": asdict(ready.threat),
        "seconds": round(probes.seconds, 1),
        "date": datetime.now(UTC).date().isoformat(),
        "provenance": dict(ready.provenance),
    }
