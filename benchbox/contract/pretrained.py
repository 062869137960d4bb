"""The base of the defences whose weights come from a file: a checkpoint of one's own, or a model of a zoo.

    def network() -> nn.Module:          # in model.py; images in [0, 1] -> logits
        return MyNet(depth=28)

    benchbox run --defense model.py:network --weights net.safetensors

The SHA-256 of the weights and of the Python file stand in the place of a recipe, so results follow the weights
wherever the file lies. A factory that makes the same weights whatever the seed is taken to hold them.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from typing_extensions import TypeVar

from benchbox.contract import border, checkpoint, seeded, weightfile
from benchbox.contract.defense import Batch, Defense, Losses, Recipe
from benchbox.domain import Card, ImageSpec
from benchbox.draws import Draws, sample_draws
from benchbox.errors import ArtifactError, DefenseError, RequestError
from benchbox.text import a

_LOG = logging.getLogger("benchbox")


@dataclass(frozen=True)
class Shelf:
    """Where weights that are not given by path are looked for.

    Attributes:
        folder: The data folder.
        download: Whether they may be fetched.
        announce: Called with a sentence the user should know.
    """

    folder: Path
    download: bool = True
    announce: Callable[[str], None] = lambda sentence: None


class PretrainedRecipe(Recipe):
    """What takes the place of hyper-parameters. The inherited ones mean nothing here and cannot be set.

    Attributes:
        weights: Path of a `.safetensors`, or of a checkpoint of torch that holds nothing but tensors; `FILE#key`
            for one of several sets in it.
        randomized: Whether two calls on one image may differ: dropout that stays on, noise in the forward pass.
            Each image is then asked about alone, its draws the seed of all the network throws.
    """

    weights: str = ""
    randomized: bool = False


#: The recipe of a defence whose weights come from a file.
P = TypeVar("P", bound=PretrainedRecipe, default=PretrainedRecipe)


class Pretrained(Defense[P]):
    """A classifier that is not trained here. It has no substitute, since none can be trained the way it was."""

    square: ClassVar[bool] = False

    def __init__(self, recipe: P, images: ImageSpec, classifier: nn.Module | None = None) -> None:
        super().__init__(recipe, images, classifier)
        # Elsewhere a matter of the class; of a network from outside, who asks may say it.
        self.randomized = self.is_randomized(recipe.model_dump())  # type: ignore[misc]

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        """Logits (N, K)."""
        if not self.randomized:
            return self.classifier(x)  # type: ignore[no-any-return]
        draws = draws or sample_draws(len(x), device=x.device)
        return seeded.one_by_one(self.classifier, x, draws, f"defence {self.card.name}")

    @classmethod
    def is_randomized(cls, arguments: Mapping[str, Any]) -> bool:
        """Whether the class says so, or the recipe."""
        return cls.randomized or bool(arguments.get("randomized"))

    @classmethod
    def how_to_randomize(cls) -> str:
        """As a setting, for the class is not the user's."""
        return f"say that it is randomised: --set {cls.card.name}.randomized=true"

    @classmethod
    def configure(cls, *scopes: str, **overrides: Any) -> Recipe:
        """As every defence's, without what only a training needs.

        Raises:
            RequestError: An override names no field, one of a training, or its value does not fit.
        """
        for name in overrides:
            if name in Recipe.model_fields:
                raise RequestError(
                    f"{cls.card.name} is not trained here, so {name!r} changes nothing; leave it out"
                )
        return super().configure(*scopes, **overrides)

    @classmethod
    def file(cls, recipe: PretrainedRecipe, shelf: Shelf) -> Path:
        """The file of its weights.

        Raises:
            RequestError: None is named.
            ArtifactError: It is not there, or no weights file.
        """
        if not recipe.weights:
            raise RequestError(
                f"{cls.card.name} builds a network without weights; add --weights FILE.safetensors, or "
                f"--set {cls.card.name}.weights=FILE where it stands below another defence, or derive it from "
                "benchbox.Defense to have it trained here"
            )
        return weights_file(Path(recipe.weights).expanduser(), shelf)

    @classmethod
    def identity(cls, recipe: PretrainedRecipe, file: Path) -> dict[str, Any]:
        """What stands for the recipe in the identity of results: what the weights are, not where they lie."""
        # Not being randomised goes without saying, as in results of old.
        silent = set(Recipe.model_fields) | (set() if recipe.randomized else {"randomized"})
        return {**recipe.model_dump(exclude=silent), "weights": checkpoint.sha256(file)}

    def adopt(self, file: Path) -> None:
        """Take the weights of a file.

        Raises:
            ArtifactError: They are unreadable, do not fit the network, or are others than a moment ago.
            DefenseError: The network does not fit the images.
        """
        checkpoint.fill(self.classifier, file, self.content(file))
        self.probe()

    def content(self, file: Path) -> bytes:
        """What lies in a file, if it is the weights that results are stored under.

        Raises:
            ArtifactError: It is not.
        """
        return checkpoint.content(file, self.recipe.weights)

    def probe(self) -> None:
        """Ask for the logits of two images, before anything expensive begins.

        Raises:
            DefenseError: There are none, or not one for each class.
        """
        spec, name = self.images, self.card.name
        shape = spec.shape
        try:
            with torch.no_grad():
                logits = self.classifier.eval()(torch.zeros(2, *shape))
        except Exception as error:
            raise DefenseError(
                f"{name} does not take images of {'×'.join(map(str, shape))} ({border.reason(error)}); "
                f"let its forward take float32 (N, {', '.join(map(str, shape))}) in [0, 1] and resize, normalise, "
                "permute or cast there, or name the data set it was trained on with --dataset"
            ) from error
        logits = border.tensor(logits, name)
        if tuple(logits.shape) != (2, spec.classes):
            raise DefenseError(
                f"{name} returns {tuple(logits.shape)} for 2 images, expected logits (2, {spec.classes}); "
                f"{_remedy(tuple(logits.shape), spec.classes)}"
            )

    def players(self) -> Mapping[str, list[Parameter]]:
        """Nobody."""
        return {}

    def losses(self, batch: Batch) -> Losses:
        """None."""
        return {}


class Checkpoint(Pretrained):
    """A network that a function of the user's builds."""

    factory: ClassVar[Callable[[], nn.Module]]
    _held: ClassVar[str | None] = None

    def __init__(self, recipe: PretrainedRecipe, images: ImageSpec, classifier: nn.Module | None = None) -> None:
        super().__init__(recipe, images)
        self.classifier = self._network()
        if getattr(self.classifier, "randomized", False) is True and not self.randomized:
            raise DefenseError(
                f"{self.card.name}() builds a network that says randomized; {self.how_to_randomize()}"
            )

    @classmethod
    def file(cls, recipe: PretrainedRecipe, shelf: Shelf) -> Path:
        """The file of its weights; that of the factory if it holds them.

        Raises:
            RequestError: None is named, and the factory's weights are random.
            ArtifactError: It is not there, or no weights file.
            DefenseError: The factory failed.
        """
        if recipe.weights or cls.held() is None:
            return super().file(recipe, shelf)
        return Path(cls.card.name.rpartition(":")[0])

    @classmethod
    def identity(cls, recipe: PretrainedRecipe, file: Path) -> dict[str, Any]:
        """As of any; the digest of the network's own state if the factory holds the weights."""
        held = None if recipe.weights else cls.held()
        if held is None:
            return super().identity(recipe, file)
        return {"weights": held, **({"randomized": True} if recipe.randomized else {})}

    @classmethod
    def how_to_randomize(cls) -> str:
        """As a setting, or a line beside the factory."""
        file, _, factory = cls.card.name.rpartition(":")
        return f"{super().how_to_randomize()}, or {factory}.randomized = True in {file}"

    @classmethod
    def held(cls) -> str | None:
        """SHA-256 of the weights the factory makes, if they are the same whatever the seed; else None."""
        if cls._held is None:
            made = []
            with border.crossing(cls, DefenseError):
                for seed in (1, 2):
                    torch.manual_seed(seed)  # put back by the crossing
                    made.append(_digest(cls._network()))
            cls._held = made[0] if made[0] == made[1] else ""
        return cls._held or None

    def adopt(self, file: Path) -> None:
        """Take the weights of a file, or keep those the factory made.

        Raises:
            ArtifactError: They are unreadable, do not fit the network, or are others than a moment ago.
            DefenseError: The network does not fit the images.
        """
        if file != Path(self.card.name.rpartition(":")[0]):
            super().adopt(file)
            return
        assert isinstance(self.recipe, PretrainedRecipe)
        if _digest(self.classifier) != self.recipe.weights:
            raise ArtifactError(
                f"{self.card.name}() makes other weights than a moment ago; save them to a file and give it with "
                "--weights"
            )
        self.probe()

    @classmethod
    def _network(cls) -> nn.Module:
        """What the factory builds, on the CPU, in float32 and without its wrappers.

        Raises:
            DefenseError: It cannot be called without arguments, or makes no module.
        """
        name = cls.card.name
        needy = _needy(cls.factory)
        if needy:
            raise DefenseError(
                f"{name}() needs {', '.join(needy)}; it is called without arguments: give them defaults"
            )
        built: object = cls.factory()
        if not isinstance(built, nn.Module):
            what = f"the class {built.__name__}" if isinstance(built, type) else a(type(built).__name__)
            raise DefenseError(f"{name}() returned {what}; return a torch.nn.Module")
        bare = _unwrapped(built)
        if any(tensor.is_meta for tensor in bare.state_dict().values()):
            raise DefenseError(
                f"{name}() builds a network on the device 'meta', without numbers; build it on the CPU"
            )
        other = {t.dtype for t in bare.state_dict().values() if t.is_floating_point()} - {torch.float32}
        if other:
            _LOG.warning("%s() builds a network in %s; it is run in float32", name, _joined(other))
        return bare.cpu().float()


@cache
def from_factory(factory: Callable[[], nn.Module], name: str) -> type[Checkpoint]:
    """The defence that a function or a class returning a module, or a module itself, stands for.

    Args:
        factory: Called without arguments.
        name: What it is asked for by, `path/to/file.py:factory`.
    """

    class FromFactory(Checkpoint):
        card = Card(name, "a checkpoint of your own", kind="checkpoint")

    module = factory if isinstance(factory, nn.Module) else None
    FromFactory.randomized = getattr(factory, "randomized", False) is True
    FromFactory.factory = staticmethod((lambda: copy.deepcopy(module)) if module is not None else factory)
    return FromFactory


def weights_file(file: Path, shelf: Shelf) -> Path:
    """The path of weights that can be read; a pickle is named to the user.

    Raises:
        ArtifactError: It is not there, or no weights file.
    """
    path, _ = checkpoint.split(file)
    if weightfile.kind(path) == "torch":
        shelf.announce(f"{path} is a pickle, read with weights_only=True; .safetensors cannot hold code at all")
    return file


def _unwrapped(module: nn.Module) -> nn.Module:
    """The network inside DataParallel and `torch.compile`, which change where and how fast it runs alone."""
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module


def _remedy(shape: tuple[int, ...], classes: int) -> str:
    """What to do about logits of another shape, of 2 images."""
    if classes == 2 and shape in ((2,), (2, 1)):
        return "make two logits of its one, z = z.view(-1, 1); torch.cat([torch.zeros_like(z), z], 1)"
    if shape[:2] == (2, classes):
        return "return the logits alone, as in logits.flatten(1)"
    return "name the data set it was trained on with --dataset, or return the logits alone"


def _needy(factory: Callable[..., object]) -> list[str]:
    """The arguments without which a factory cannot be called."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # something built in, that tells nothing
        return []
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return [p.name for p in named if p.default is p.empty]


def _digest(module: nn.Module) -> str:
    """SHA-256 of the names, types, shapes and numbers of a module's state."""
    total = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        total.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _joined(types: set[torch.dtype]) -> str:
    return " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in types))
