"""From a request to frozen cells: what has to be trained, what is crafted, what is scored on what.

Planning touches no device and no image. The plan is data; running it is `benchbox.engine.runner`'s business.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchbox.contract.pretrained import Pretrained, PretrainedRecipe, Shelf
from benchbox.contract.registry import undefended
from benchbox.data.catalogue import RADIUS
from benchbox.domain import NULL_ATTACK, Access, Cell, Nature, Norm, SampleList, Spec, ThreatModel, ViewSpec
from benchbox.engine.lent import Lent
from benchbox.engine.passes import refuse_endless
from benchbox.engine.request import Request as Request
from benchbox.errors import RequestError, unknown
from benchbox.training.artifacts import Training
from benchbox.training.lesson import LESSONS, Lesson

if TYPE_CHECKING:
    from benchbox.contract.attack import Attack
    from benchbox.contract.defense import Defense, Recipe
    from benchbox.contract.registry import Plugin, Registry
    from benchbox.data.dataset import Dataset

#: A substitute differs from the target in its seed alone: same loss, same network, same data.
SUBSTITUTE_SEED = 1000
#: Sources of transfer attacks that are no names of defences: the like of the target's classifier, or of all of it.
CLASSIFIER, DEFENSE = LIKE = ("classifier", "defense")
#: The kinds of attacks in the order they are run; the control last, to see what others may have left behind.
TURNS = ("random", "one-step", "iterative", "score-based", "decision-based", "ensemble", "control")
#: A field of recipes: the length of a step of a training attack, for the radius of the data set's own ball.
STEP = "attack_step_size"
#: Fields of recipes that name the base and the ball.
AROUND = ("base", "training_norm", "training_epsilon")
#: Accesses of an attack that declares none, when it is asked for by name.
EVERY_ACCESS = (Access.GRAY_BOX, Access.TRANSFER, Access.WHITE_BOX, Access.BPDA)

#: Settings of plug-ins, by their names.
Overrides = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Plan:
    """Cells in the order they are run, and how every artifact they name is trained."""

    request: Request
    cells: tuple[Cell, ...]
    trainings: Mapping[str, Training]


class Planner:
    """Turns requests into plans with the plug-ins at hand."""

    def __init__(self, defenses: Registry[Defense], attacks: Registry[Attack], shelf: Shelf) -> None:
        self.defenses = defenses
        self.attacks = attacks
        self.shelf = shelf
        self._files: dict[tuple[str, Recipe], tuple[Path, Spec]] = {}

    def plan(self, request: Request, dataset: Dataset, samples: SampleList) -> Plan:
        """Every cell of a request, and for a randomised defence the null attack whether it was asked for or not.

        Args:
            request: What was asked for.
            dataset: The data set it names.
            samples: The test images to score.

        Raises:
            RequestError: A name, a field or a value does not fit.
        """
        self._check_overrides(request, dataset)
        threat = ball(request, dataset)
        if threat.deforms and request.search_precision != "float32":
            raise RequestError(f"{threat} is searched in float32 alone; leave --search-precision out")
        cells: dict[str, Cell] = {}
        trainings: dict[str, Training] = {}
        for overrides in _grid(request):
            attacks = [(asked, self._attack(asked, dataset, overrides, threat)) for asked in self._asked(request)]
            for asked, _ in attacks:
                asked.cls.require(threat)
            control = self._attack(self.attacks.get(NULL_ATTACK), dataset, overrides, threat)
            plugins = {plugin.name: plugin.cls for plugin, _ in attacks}
            plugins[control.name] = self.attacks.get(NULL_ATTACK).cls
            natures = {spec.name: plugins[spec.name](**spec.arguments).declare() for _, spec in attacks}
            natures[control.name] = plugins[control.name](**control.arguments).declare()
            attacks.sort(key=lambda pair: _turn(natures[pair[1].name]))
            for name, seed in itertools.product(request.defenses, request.seeds):
                training = self.training(name, dataset, seed, overrides, request.norm)
                sources = list(self._sources(request, name, training, dataset, overrides))
                for step in (training, *sources):
                    trainings |= _chain(step)
                plugin = self.defenses.get(name)
                randomized = plugin.cls.is_randomized(training.defense.arguments)
                pairs = list(self._pairs(request, plugin, training, sources, attacks))
                # Of the usual substitute's gradients, that of one draw, as ever.
                own = [training, *(source for source in sources if source != substitute_of(training))]
                averaged = {step.digest for step in own if self._is_randomized(step)}
                if randomized:
                    # After every attack, so that it sees what they may have left behind in the defence.
                    pairs.append((control, Access.WHITE_BOX, ViewSpec(training.digest)))
                for attack, access, view in pairs:
                    needs = plugins[attack.name].needs
                    eot = request.eot if view.artifact in averaged else 1
                    cell = Cell(
                        defense=training.defense,
                        artifact=training.digest,
                        attack=attack,
                        access=access,
                        view=view,
                        threat=threat,
                        samples=samples,
                        training_seed=training.seed,
                        attack_seed=request.attack_seed,
                        scoring_draws=request.scoring_draws if randomized else 1,
                        eot=eot,
                        averaging=plugins[attack.name].averaging if eot > 1 else "",
                        nature=(plugins[attack.name].drawing if view.artifact in averaged else None)
                        or natures[attack.name],
                        # Where nothing is searched there is nothing to be coarse about.
                        search_precision="float32" if needs == "nothing" else request.search_precision,
                        # What is made on a bare classifier is scored on the purifiers before it too.
                        early_stop=bool(training.base) and view.artifact == training.digest and not randomized,
                    )
                    cells[cell.key] = cell
        needed = {key for cell in cells.values() for key in (cell.artifact, cell.view.artifact)}
        chains = [_chain(trainings[key]) for key in needed]
        plan = Plan(request, tuple(cells.values()), {k: t for chain in chains for k, t in chain.items()})
        refuse_endless(plan.cells, plan.trainings.values(), len(dataset.train))
        return plan

    def training(
        self,
        name: str,
        dataset: Dataset,
        seed: int,
        overrides: Overrides,
        norm: Norm = "linf",
    ) -> Training:
        """How a defence is trained on a data set, its base included; the norm is that of the request."""
        plugin = self.defenses.get(name)
        if isinstance(plugin, Lent):
            return plugin.training(dataset)
        own = overrides.get(name, {})
        recipe = plugin.cls.configure(dataset.family, dataset.name, norm, **plugin.preset, **own)
        if isinstance(recipe, PretrainedRecipe):
            return self._given(plugin, recipe, dataset)
        if recipe.base and plugin.cls.base is None:
            raise RequestError(
                f"{name}.base = {recipe.base!r}: {name} trains a classifier of its own; leave it out"
            )
        if not len(dataset.train):
            raise RequestError(
                f"{name} is trained here, and {dataset.name} has no training images; add x_train and y_train (in "
                "a folder: train/CLASS), or bring a trained network: --defense model.py:FACTORY --weights FILE"
            )
        base_name = recipe.base or plugin.cls.base
        threat = training_ball(recipe, dataset)
        length = getattr(recipe, STEP, None)
        if length is not None and STEP not in own and threat.epsilon != dataset.epsilon:
            recipe = recipe.model_copy(update={STEP: length * threat.epsilon / dataset.epsilon})
        whole = Training(
            defense=Spec(name, recipe.identity(), plugin.code),
            dataset=dataset.name,
            images=dataset.train.digest,
            seed=seed,
            threat=threat,
            base=self.training(base_name, dataset, seed, overrides, norm) if base_name else None,
        )
        return replace(whole, trained_as=_trained_as(plugin.cls, recipe, whole, dataset))

    def _given(self, plugin: Plugin[Defense], recipe: PretrainedRecipe, dataset: Dataset) -> Training:
        """Weights from a file, whatever the seed and the training images are."""
        assert issubclass(plugin.cls, Pretrained)
        key = plugin.name, recipe
        if key not in self._files:
            # Looked for, announced and hashed once, however many rows it has.
            file = plugin.cls.file(recipe, self.shelf)
            self._files[key] = file, Spec(plugin.name, plugin.cls.identity(recipe, file), plugin.code)
        file, spec = self._files[key]
        return Training(spec, dataset.name, "", 0, ThreatModel(dataset.norm, dataset.epsilon), source=file)

    def trainings(self, request: Request, dataset: Dataset) -> dict[str, Training]:
        """Every training the defences of a request need, the lowest first, whatever attacks them.

        Raises:
            RequestError: A name, a field or a value does not fit.
        """
        self._check_overrides(request, dataset)
        wanted: dict[str, Training] = {}
        for overrides in _grid(request):
            for attack in self._asked(request):
                if attack.name in overrides:
                    # Means nothing here, and has to be right all the same.
                    self._attack(attack, dataset, overrides, ThreatModel(request.norm, 0.0))
            for name, seed in itertools.product(request.defenses, request.seeds):
                wanted |= _chain(self.training(name, dataset, seed, overrides, request.norm))
        refuse_endless((), wanted.values(), len(dataset.train))
        return wanted

    def _asked(self, request: Request) -> list[Plugin[Attack]]:
        if request.attacks == ("all",):
            every = [self.attacks.get(name) for name in self.attacks.names()]
            searched = ThreatModel(request.norm, 0.0).searched
            return [plugin for plugin in every if plugin.cls.standard and searched in plugin.cls.balls]
        return [self.attacks.get(name) for name in request.attacks]

    def _attack(self, plugin: Plugin[Attack], dataset: Dataset, overrides: Overrides, threat: ThreatModel) -> Spec:
        settings = {**plugin.preset, **overrides.get(plugin.name, {})}
        attack = plugin.cls.configure(dataset.family, dataset.name, **settings)
        return Spec(plugin.name, attack.identity(), threat.code(plugin.code))

    def _is_randomized(self, training: Training) -> bool:
        return self.defenses.get(training.defense.name).cls.is_randomized(training.defense.arguments)

    def _sources(
        self,
        request: Request,
        name: str,
        target: Training,
        dataset: Dataset,
        overrides: Overrides,
    ) -> Iterator[Training]:
        """What transfer attacks are crafted on: each is trained with another seed than the target's."""
        for source in request.sources:
            like = substitute_of(target)
            if source in LESSONS:
                yield self._pupil(target, LESSONS[source], dataset, overrides, request.norm)
            elif source not in LIKE:
                yield self.training(source, dataset, target.seed + SUBSTITUTE_SEED, overrides, request.norm)
            elif like and source == CLASSIFIER:
                yield like
            elif like:
                yield self.training(name, dataset, target.seed + SUBSTITUTE_SEED, overrides, request.norm)

    def _pupil(
        self,
        target: Training,
        lesson: Lesson,
        dataset: Dataset,
        overrides: Overrides,
        norm: Norm,
    ) -> Training:
        """A substitute that learns from the target's answers: an undefended network, of another seed."""
        own = self.training(undefended(), dataset, target.seed + SUBSTITUTE_SEED, overrides, norm)
        return replace(own, trained_as=None, teacher=target, lesson=lesson)

    def _pairs(
        self,
        request: Request,
        plugin: Plugin[Defense],
        training: Training,
        sources: Sequence[Training],
        attacks: Sequence[tuple[Plugin[Attack], Spec]],
    ) -> Iterator[tuple[Spec, Access, ViewSpec]]:
        """Each attack with the model it is given under each access."""
        for attack, spec in attacks:
            accesses = attack.cls.standard
            if request.attacks != ("all",) and (request.accesses or not accesses):
                accesses = EVERY_ACCESS if attack.cls.needs == "gradient" else (Access.WHITE_BOX,)
            if request.accesses:
                accesses = tuple(a for a in accesses if a in request.accesses)
            for access in accesses:
                if access is Access.TRANSFER:
                    for source in sources:
                        yield spec, access, ViewSpec(source.digest)
                elif access is Access.WHITE_BOX or training.base is None:
                    # Without a purifier the bare classifier and the deployed defence are one model.
                    yield spec, Access.WHITE_BOX, ViewSpec(training.digest)
                elif access is Access.GRAY_BOX:
                    yield spec, access, ViewSpec(training.root.digest)
                else:
                    for stand_in in plugin.cls.stand_ins:
                        # Autograd through the deployed defence is what white-box attacks already do.
                        exact = stand_in == plugin.cls.exact
                        yield spec, access, ViewSpec(training.digest, None if exact else stand_in)

    def _check_overrides(self, request: Request, dataset: Dataset) -> None:
        """Every setting is one of a plug-in that the request asks for, or that one of its defences builds on."""
        changed = [*request.overrides, *(axis.rpartition(".")[0] for axis in request.axes)]
        if not changed:
            return
        known = self.defenses.names() + self.attacks.names()
        # A checkpoint below a purifier is named there alone.
        bases = {fields.get("base") for overrides in _grid(request) for fields in overrides.values()}
        for name in changed:
            if name and name not in known and name not in (*request.defenses, *request.attacks, *bases):
                raise unknown("plug-in in --set", name, known)
        used = {plugin.name for plugin in self._asked(request)}
        for overrides, name in itertools.product(_grid(request), request.defenses):
            named = {undefended() if s in LESSONS else s: None for s in request.sources if s not in LIKE}
            for one in (name, *named):
                chain = _chain(self.training(one, dataset, 0, overrides, request.norm))
                used |= {step.defense.name for step in chain.values()}
        for name in changed:
            if name not in used:
                raise RequestError(
                    f"--set {name}: the request does not use {name}; it uses {', '.join(sorted(used))}"
                )


def _turn(nature: Nature | None) -> int:
    """When an attack is run: the cheap ones first, so that a mistake shows early."""
    return TURNS.index(nature.kind) if nature else TURNS.index("iterative")


def ball(request: Request, dataset: Dataset) -> ThreatModel:
    """The ball a request is about: its own radius, else the customary one of the data set in that norm.

    Raises:
        RequestError: There is no customary one, or the radius is longer than the box of all images.
    """
    epsilon = customary(request.norm, dataset) if request.radius is None else request.radius
    if epsilon is None:
        raise RequestError(f"{dataset.name} has no customary radius in {request.norm}; name one with --epsilon")
    pixels = math.prod(dataset.spec.shape)
    sides = float(max(dataset.spec.shape[1:]))
    longest = {"l2": pixels**0.5, "l1": float(pixels), "flow": sides}.get(request.norm, 1.0)
    if epsilon > longest:
        raise RequestError(
            f"epsilon {epsilon:g} is longer than any change of an image of {dataset.name} ({longest:.3g}); "
            f"did you mean {epsilon:g}/255?"
        )
    return ThreatModel(request.norm, epsilon)


def customary(norm: Norm, dataset: Dataset) -> float | None:
    """The radius that a data set is usually attacked in, if there is one."""
    return dataset.epsilon if norm == dataset.norm else RADIUS.get(norm, {}).get(dataset.name)


def training_ball(recipe: Recipe, dataset: Dataset) -> ThreatModel:
    """The ball that training attacks keep to: the data set's own unless the recipe names another.

    Raises:
        RequestError: There is no customary radius in the norm that it names, and it names none.
    """
    norm: Norm = recipe.training_norm or dataset.norm
    epsilon = recipe.training_epsilon or customary(norm, dataset)
    if epsilon is None:
        raise RequestError(f"{dataset.name} has no customary radius in {norm}; set training_epsilon as well")
    return ThreatModel(norm, epsilon)


def _grid(request: Request) -> Iterator[Overrides]:
    """The overrides of every point of the grid; one point when there are no axes."""
    for values in itertools.product(*request.axes.values()):
        point = {name: dict(settings) for name, settings in request.overrides.items()}
        for axis, value in zip(request.axes, values, strict=True):
            name, _, setting = axis.rpartition(".")
            if not name:
                raise RequestError(f"axis {axis!r} names no plug-in; write it as plug-in.field, e.g. pssr.alpha")
            point.setdefault(name, {})[setting] = value
        yield point


def substitute_of(training: Training) -> Training | None:
    """Another training of the target classifier; None where it was not trained here: nobody can train its like."""
    root = training.root
    if root.source is not None:
        return None
    return root.of_seed(root.seed + SUBSTITUTE_SEED)


def _trained_as(cls: type[Defense], recipe: Recipe, whole: Training, dataset: Dataset) -> Training | None:
    """What of a training its weights hang on; None if it is all of it."""
    if not cls.learns and not recipe.forward_only:
        return None
    unread = {*recipe.forward_only, *(AROUND if cls.learns else ())}
    read = {name: value for name, value in whole.defense.arguments.items() if name not in unread}
    spec = replace(whole.defense, name=cls.learns or whole.defense.name, arguments=read)
    if not cls.learns:
        return replace(whole, defense=spec)
    return replace(whole, defense=spec, threat=ThreatModel(dataset.norm, dataset.epsilon), base=None)


def kind(cls: type[Defense], training: Training) -> dict[str, Any]:
    """What a report has to know of a defence: reports are made without loading plug-ins."""
    return {
        "purifies": training.base is not None,
        "deployable": cls.deployable,
        "randomized": cls.is_randomized(training.defense.arguments),
        "stand_ins": list(cls.stand_ins),
        "exact": cls.exact,
        "substitute": substitute_of(training) is not None,
        **({"bibtex": cls.card.bibtex} if cls.card.bibtex else {}),
    }


def _chain(training: Training) -> dict[str, Training]:
    """A training and those below it, the lowest first."""
    return {step.digest: step for step in training.chain}
