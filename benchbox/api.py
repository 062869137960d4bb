"""The front door: what the command line does, as functions.

    result = benchbox.evaluate("pssr", dataset="digits")                              # trains, attacks, stores
    result = benchbox.evaluate(my_module, dataset="cifar10", attacks=["pgd", "aa"])   # any module on [0, 1]
    x_adv = benchbox.attack("pgd", my_module, x, y, epsilon=8 / 255)
    benchbox.compare("trades", "pgd-at", dataset="mnist")
    benchbox.load("results/benchbox.sqlite")

The keywords of `evaluate` are the fields of `benchbox.engine.request.Grid`: the options of the command line and
the keys of grid files. Everything a user can mend is raised as a `BenchboxError`.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchbox.engine.request import Grid
from benchbox.errors import RequestError
from benchbox.result import Compared, Result, known_of

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor, nn

    from benchbox.contract.attack import Attack
    from benchbox.contract.defense import Defense
    from benchbox.domain import Evidence
    from benchbox.engine.observer import Report
    from benchbox.engine.plan import Plan
    from benchbox.engine.session import Session
    from benchbox.store import Store

STORE = "results/benchbox.sqlite"
#: How a request of one says the fields of a grid.
SINGULAR = {"datasets": "dataset", "accesses": "access", "sources": "source", "overrides": "set"}
_LOG = logging.getLogger("benchbox")


def evaluate(
    *defenses: str | nn.Module | type[Defense],
    store: str | Path = STORE,
    data_dir: str | Path | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    secret: str | None = None,
    download: bool = True,
    workers: int | None = None,
    ray: str | None = None,
    isolate: bool = False,
    progress: bool | None = None,
    name: str | None = None,
    randomized: bool = False,
    **options: Any,
) -> Result:
    """Attack defences, store what happened to each image, and return the result.

    Defences that are not trained yet are trained first. What is in the store is not run again.

    Args:
        defenses: Names as on the command line, defence classes, or objects: defences, and any torch module that
            takes images (N, C, H, W) float32 in [0, 1] to logits (N, K). A module comes back as it went in: mode,
            device, dtype, gradients. It is attacked under white-box access; it has no transfer attack, since
            nobody can train its like.
        store: SQLite file or database URL; trained weights lie beside it.
        data_dir: Where data sets lie.
        device: As torch names it; a GPU if there is one.
        batch_size: Images attacked at once.
        precision: Of training.
        secret: What the draws of randomised defences are named under, hexadecimal, to repeat a run.
        download: Whether data sets and weights may be fetched.
        workers: Processes that share the work; this one alone by default.
        ray: Address of a Ray cluster whose machines share it; "local" for one of this machine.
        isolate: Ask each defence in a process of its own; no object that is handed over can be.
        progress: Draw bars; None for "in a notebook".
        name: Of a module, in tables; the name of its class by default.
        randomized: Of a module: two calls on one image may differ.
        options: Fields of a request, say `dataset="mnist"`, `attacks=["pgd", "aa"]`, `samples=200`,
            `epsilon="8/255"`, `norm="l2"`, `seeds=[0, 1]`, `set={"pgd": {"steps": 100}}`.

    Raises:
        BenchboxError: What was asked for does not exist or does not fit.
    """
    from benchbox.engine import lent
    from benchbox.engine import secret as secrets
    from benchbox.engine.lent import borrowed
    from benchbox.engine.session import Session, Settings, artifacts_folder

    named = [item for item in defenses if isinstance(item, str)]
    asked = Grid().with_options({**options, "defenses": [*named, *options.pop("defenses", ())]})
    console = console_for(progress)
    place, folder = str(store), Path(data_dir).expanduser() if data_dir else None
    if secret is not None:
        secrets.check(secret)
    where = Settings(place, artifacts_folder(place), folder, device, batch_size, precision, download, secret)
    settings = replace(where, workers=workers, ray=ray, isolate=isolate)
    session = Session(*_registries(isolate=isolate), settings, announce=_LOG.info)
    with ExitStack() as loans:
        for item in defenses:
            if not isinstance(item, str):
                if not isinstance(item, type):
                    loans.enter_context(borrowed(lent.require_module(item), _device(session)))
                asked = _lend(session, asked, item, name, randomized=randomized)
        result = carry_out(session, plans(session, asked), console)
    for error in dict.fromkeys(result.failed.values()):
        warnings.warn(f"a cell failed: {error}", RuntimeWarning, stacklevel=2)
    return result


def plans(session: Session, asked: Grid) -> list[Plan]:
    """The cells of each request of a grid.

    Raises:
        BenchboxError: What was asked for does not exist or does not fit.
    """
    return [session.plan(one) for one in asked.requests()]


@dataclass(frozen=True)
class Progress:
    """How far plans are.

    Attributes:
        cells: All of them.
        done: Those that are stored whole.
        images: Stored images of the others.
    """

    cells: int
    done: int
    images: int


def standing(planned: Sequence[Plan], store: Store) -> Progress:
    """What of some plans is stored."""
    counts = [(len(store.positions(cell)), len(cell.samples)) for plan in planned for cell in plan.cells]
    unfinished = [stored for stored, total in counts if stored < total]
    return Progress(len(counts), len(counts) - len(unfinished), sum(unfinished))


def carry_out(
    session: Session,
    planned: Sequence[Plan],
    console: Console | None = None,
    finished: Callable[[Sequence[Report]], None] = lambda reports: None,
) -> Result:
    """Run plans and read what came of them: what `evaluate` and `benchbox run` do.

    Args:
        session: Plug-ins, settings, data.
        planned: What to run.
        console: Where progress is drawn.
        finished: Told what each run did.
    """
    from benchbox.progress import watcher
    from benchbox.store import Store

    with Store.open(session.settings.store) as store:
        before = standing(planned, store)
        with watcher(console, before.cells - before.done) as observer:
            try:
                reports = [session.run(plan, store, observer) for plan in planned]
            finally:
                session.close()
        finished(reports)
        evidence = store.evidence(keys=[cell.key for plan in planned for cell in plan.cells])
        known = known_of(evidence, store)
    failed = {key: error for report in reports for key, error in report.failed.items()}
    return Result(tuple(evidence), known, session.settings.store, failed)


def attack(
    attack: str | Attack,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float | str,
    norm: str = "linf",
    seed: int = 0,
    randomized: bool = False,
    eot: int = 20,
    **hyper: Any,
) -> Tensor:
    """Adversarial images, checked: inside the ball and the box, finite, one for each image.

    Args:
        attack: Name of a registered attack, `torchattacks:NAME`, or an attack.
        model: Images (N, C, H, W) float32 in [0, 1] -> logits (N, K), or a defence. It comes back as it went in.
        x: (N, C, H, W) float32 in [0, 1].
        y: (N,) int64, true classes.
        epsilon: Radius, as a number or as "8/255".
        norm: `linf` or `l2`.
        seed: Of everything the attack draws; image i draws the same numbers whatever the batch.
        randomized: Two calls of the model on one image may differ; a defence says so itself.
        eot: Draws a gradient is averaged over then.
        hyper: Hyper-parameters of the attack, say `steps=100`.

    Returns:
        (N, C, H, W) float32, on the device of `x`.

    Raises:
        RequestError: A name or a value does not fit.
        DataError: The images are none.
        AttackError: The attack broke its contract.
    """
    from benchbox.engine.once import craft

    asked = Grid().with_options({"epsilon": epsilon, "norm": norm})
    made: Attack
    if isinstance(attack, str):
        plugin = _registries()[1].get(attack)
        made = plugin.cls.configure(**{**plugin.preset, **hyper})
    elif hyper:
        raise RequestError(f"{', '.join(hyper)}: {attack.card.name} is made already; give its settings there")
    else:
        made = attack
    (radius,) = asked.epsilon
    return craft(made, model, x, y, asked.norm, radius, seed=seed, randomized=randomized, eot=eot)


def compare(
    a: str,
    b: str,
    *,
    dataset: str | Sequence[str] = (),
    attacks: str | Sequence[str] = (),
    weights: Sequence[str | Path] = (),
    store: str | Path = STORE,
) -> Compared:
    """Compare two defences image by image: differences, intervals, tests, and what could have been found.

    Args:
        a: A defence, or the first characters of the digest of its weights.
        b: Another.
        dataset: Names; all by default.
        attacks: Names; all that both have by default.
        weights: Files that say which weights of a `file.py:factory` are meant, one for each side that is one;
            those of `a` first.
        store: SQLite file or database URL.

    Raises:
        StoreError: There is no store.
        RequestError: It does not hold what was asked for.
    """
    from benchbox.analysis import compare as comparing

    found = _of_both(a, b, dataset, store)
    names = (attacks,) if isinstance(attacks, str) else tuple(attacks)
    a, b = _by_weights((a, b), weights, found.evidence)
    return Compared(tuple(comparing.compare(found.evidence, a, b, attacks=names, known=found.known)))


def _of_both(a: str, b: str, dataset: str | Sequence[str], store: str | Path) -> Result:
    """What a store holds of two defences; of all, where one is called by the digest of its weights."""
    with suppress(RequestError):
        found = load(store, dataset=dataset, defense=(a, b))
        if {a, b} <= {item.cell.defense.name for item in found.evidence}:
            return found
    return load(store, dataset=dataset)


def _by_weights(sides: Sequence[str], files: Sequence[str | Path], evidence: Sequence[Evidence]) -> list[str]:
    """Two defences, those with weights from a file by the digest of what was scored.

    Raises:
        RequestError: A file belongs to neither, or nothing was scored with it.
        ArtifactError: It is not there.
    """
    from benchbox.analysis.selection import with_weights

    given = [side for side in sides if ".py:" in side]
    if not files:
        return list(sides)
    if len(files) != len(given):
        raise RequestError(
            f"{len(files)} --weights and {len(given)} of the two defences made by a file.py:FACTORY; give each of "
            "these its own, in their order"
        )
    from benchbox.contract import checkpoint
    from benchbox.contract.pretrained import Shelf, weights_file

    shelf = Shelf(Path(), download=False)
    digests = iter([checkpoint.sha256(weights_file(Path(file).expanduser(), shelf)) for file in files])
    return [with_weights(evidence, side, next(digests)) if side in given else side for side in sides]


def load(
    store: str | Path = STORE,
    *,
    dataset: str | Sequence[str] = (),
    defense: str | Sequence[str] = (),
    **words: Any,
) -> Result:
    """What a store holds; cells of another training than the rest of their row are left out with a warning.

    Args:
        store: SQLite file, database URL, a published file, or `published` for those that come with benchbox.
        dataset: Names; all by default.
        defense: Names; all by default.
        words: `attacks`, `access`, `samples`, `sample_seed`, `seeds`, `epsilon`, `norm` and the like, as in a
            request: the cells that fit (`Result.only`).

    Raises:
        StoreError: There is no store.
        RequestError: It holds no such cell, or a word chooses none.
    """
    from benchbox.store import left_out, open_records

    datasets = (dataset,) if isinstance(dataset, str) else tuple(dataset)
    defenses = (defense,) if isinstance(defense, str) else tuple(defense)
    found: list[Evidence] = []
    with open_records(str(store)) as opened:
        for one in datasets or (None,):
            found += opened.evidence(dataset=one, defenses=defenses or None)
        known = known_of(found, opened)
        for line in left_out(opened, lambda item: item.is_of(datasets, defenses)):
            _LOG.warning(line)
    if not found:
        asked = ", ".join((*datasets, *defenses))
        remedy = "`benchbox list runs` says what was run" if asked else "fill it with `benchbox run`"
        raise RequestError(f"{store} holds nothing{f' of {asked}' if asked else ''}; {remedy}")
    everything = Result(tuple(found), known, str(store))
    return everything.only(**words) if words else everything


def console_for(progress: bool | None) -> Console | None:
    """Where progress is drawn: a notebook's output, the standard error, or nowhere."""
    if progress is False:
        return None
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    return console if progress or console.is_jupyter else None


def _registries(*, isolate: bool = False) -> tuple[Any, Any]:
    from benchbox.contract import registry
    from benchbox.engine.isolation import strangers

    return strangers.defenses(announce=_LOG.info, isolate=isolate), registry.attacks(announce=_LOG.info)


def _device(session: Session) -> Any:
    from benchbox.engine import device

    return device.choose(session.settings.device)


def _lend(
    session: Session, asked: Grid, item: nn.Module | type[Defense], name: str | None, *, randomized: bool
) -> Grid:
    """The request with one more defence, that is there as an object."""
    from benchbox.contract.defense import Defense
    from benchbox.engine import lent

    if isinstance(item, type):
        if not issubclass(item, Defense):
            raise RequestError(f"{item.__name__} is no benchbox.Defense; give a module that is built and trained")
        own = lent.of_class(item)
        if own.name not in session.defenses.names() or session.defenses.get(own.name).cls is not item:
            session.defenses.lend(own)
        found = own.name
    else:
        if len(asked.datasets) != 1:
            raise RequestError(
                f"a module is about one data set, and {len(asked.datasets)} are named; name its own"
            )
        images = session.dataset(asked.datasets[0]).spec
        plugin = lent.lent(item, images, name, randomized=randomized)
        session.lend(plugin)
        found = plugin.name
    return asked.with_options({"defenses": [*asked.defenses, found]})


def _documented() -> inspect.Signature:
    """The signature of `evaluate` with every option by name, for completion and help."""
    own = inspect.signature(evaluate)
    (defenses, *rest) = (p for p in own.parameters.values() if p.name != "options")
    fields = [
        inspect.Parameter(
            SINGULAR.get(name, name),
            inspect.Parameter.KEYWORD_ONLY,
            default=field.get_default(call_default_factory=True),
        )
        for name, field in Grid.model_fields.items()
        if name != "defenses"
    ]
    return own.replace(parameters=[defenses, *fields, *rest])


evaluate.__signature__ = _documented()  # type: ignore[attr-defined]
