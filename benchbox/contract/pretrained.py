"""The base of the defences whose weights come from a file: a checkpoint of one's own, or a model of a zoo.

    def network() -> nn.Module:          # in model.py; images in [0, 1] -> logits
        return MyNet(depth=28)

    benchbox run --defense model.py:network --weights net.safetensors

The SHA-256 of the weights and of the Python file stand in the place of a recipe, so results follow the weights
wherever the file lies. Nothing here unpickles: a `.pt` goes through `torch.load(weights_only=True)`.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import Parameter
from typing_extensions import TypeVar

from benchbox.contract.defense import Batch, Defense, Losses, Recipe
from benchbox.domain import Card, ImageSpec
from benchbox.errors import ArtifactError, DefenseError, RequestError

#: What wrappers of torch put before every name.
WRAPPERS = ("module.", "_orig_mod.")
PICKLES = (".pt", ".pth")


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
        weights: Path of a `.safetensors`, or of a `.pt` or `.pth` that holds nothing but tensors.
    """

    weights: str = ""


#: The recipe of a defence whose weights come from a file.
P = TypeVar("P", bound=PretrainedRecipe, default=PretrainedRecipe)


class Pretrained(Defense[P]):
    """A classifier that is not trained here. It has no substitute, since none can be trained the way it was."""

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
            RequestError: None is named, or of no kind that is read.
            ArtifactError: It is not there.
        """
        if not recipe.weights:
            raise RequestError(
                f"{cls.card.name} builds a network without weights; add --weights FILE.safetensors, or derive it "
                "from benchbox.Defense to have it trained here"
            )
        return weights_file(Path(recipe.weights).expanduser(), shelf)

    @classmethod
    def identity(cls, recipe: PretrainedRecipe, file: Path) -> dict[str, Any]:
        """What stands for the recipe in the identity of results: what the weights are, not where they lie."""
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        return {**recipe.model_dump(exclude=set(Recipe.model_fields)), "weights": digest}

    def adopt(self, file: Path) -> None:
        """Take the weights of a file.

        Raises:
            ArtifactError: They are unreadable or do not fit the network.
            DefenseError: The network does not fit the images.
        """
        fill(self.classifier, file)
        self.probe()

    def probe(self) -> None:
        """Ask for the logits of two images, before anything expensive begins.

        Raises:
            DefenseError: There are none, or not one for each class.
        """
        spec, name = self.images, self.card.name
        shape = (spec.channels, spec.size, spec.size)
        try:
            with torch.no_grad():
                logits = self.classifier.eval()(torch.zeros(2, *shape))
        except Exception as error:
            raise DefenseError(
                f"{name} does not take images of {'×'.join(map(str, shape))} ({type(error).__name__}: {error}); "
                "name the data set it was trained on with --dataset"
            ) from error
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        if found != (2, spec.classes):
            raise DefenseError(
                f"{name} returns {found} for 2 images, expected logits (2, {spec.classes}); name the data set it "
                "was trained on with --dataset, or return the logits alone"
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

    def __init__(self, recipe: PretrainedRecipe, images: ImageSpec, classifier: nn.Module | None = None) -> None:
        super().__init__(recipe, images)
        name = self.card.name
        try:
            built = type(self).factory()
        except Exception as error:
            raise DefenseError(
                f"{name}() failed: {type(error).__name__}: {error}; it is called without arguments"
            ) from error
        if not isinstance(built, nn.Module):
            raise DefenseError(f"{name}() returned a {type(built).__name__}; return a torch.nn.Module")
        self.classifier = built


@cache
def from_factory(factory: Callable[[], nn.Module], name: str) -> type[Checkpoint]:
    """The defence that a function or a class returning a module stands for.

    Args:
        factory: Called without arguments.
        name: What it is asked for by, `path/to/file.py:factory`.
    """

    class FromFactory(Checkpoint):
        card = Card(name, "a checkpoint of your own", kind="checkpoint")

    FromFactory.factory = staticmethod(factory)
    return FromFactory


def weights_file(file: Path, shelf: Shelf) -> Path:
    """The path of weights that can be read; a pickle is named to the user.

    Raises:
        RequestError: Its ending is none of those that are read.
        ArtifactError: It is not there.
    """
    if file.suffix not in (".safetensors", *PICKLES):
        raise RequestError(f"{file} is no weights file; save a state_dict as .safetensors (or as .pt)")
    if not file.is_file():
        raise ArtifactError(f"no weights at {file}; give the path of a .safetensors file")
    if file.suffix in PICKLES:
        shelf.announce(f"{file} is a pickle, read with weights_only=True; .safetensors cannot hold code at all")
    return file


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, without the prefix that wrappers of torch add.

    Raises:
        ArtifactError: It is damaged, or holds anything but tensors.
    """
    try:
        if file.suffix == ".safetensors":
            found: Any = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ArtifactError(f"{file} is no safetensors file ({error}); save it anew") from error
    except Exception as error:  # the unpickler raises whatever the bytes make of it
        raise ArtifactError(
            f"{file} is damaged or holds more than tensors, which would have to be unpickled "
            f"({type(error).__name__}); save its state_dict as .safetensors where you trust it"
        ) from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not (isinstance(found, dict) and all(isinstance(value, Tensor) for value in found.values())):
        raise ArtifactError(f"{file} is no state_dict; save module.state_dict() and nothing else")
    for prefix in WRAPPERS:
        if found and all(key.startswith(prefix) for key in found):
            found = {key.removeprefix(prefix): value for key, value in found.items()}
    return dict(found)


def fill(module: nn.Module, file: Path) -> None:
    """Load weights into a module, every key and no other.

    Raises:
        ArtifactError: The first key that is missing, that has another shape, or that nobody wants.
    """
    found, wanted = read_weights(file), module.state_dict()
    remedy = "build the network the weights were saved from"
    for key, value in wanted.items():
        if key not in found:
            # Checkpoints from before torch 0.4.1 do not count batches; nothing depends on the count.
            if key.endswith("num_batches_tracked"):
                continue
            near = difflib.get_close_matches(key, sorted(found.keys() - wanted.keys()), n=1)
            raise ArtifactError(f"{file} has no {key!r}{f' but {near[0]!r}' if near else ''}; {remedy}")
        if found[key].shape != value.shape:
            raise ArtifactError(
                f"{file}: {key!r} is {tuple(found[key].shape)} where the network has {tuple(value.shape)}; "
                f"{remedy}"
            )
    extra = next((key for key in found if key not in wanted), None)
    if extra is not None:
        raise ArtifactError(f"{file} has {extra!r}, which the network has not; {remedy}")
    module.load_state_dict(found, strict=False)
