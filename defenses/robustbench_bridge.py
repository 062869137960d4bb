"""Any single model of RobustBench's zoo, by its name there: `robustbench:Carmon2019Unlabeled`, …

F. Croce et al. RobustBench: a standardized adversarial robustness benchmark. NeurIPS 2021 (datasets and
benchmarks track); arXiv 2010.09670. Each model's own paper stands on its leaderboard.

The library builds the network and reads the checkpoint; robustbench 1.1.1 does so once `supplied` has given it
two modules that it imports and nobody installs.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from benchbox import (
    ArtifactError,
    Card,
    ImageSpec,
    Pretrained,
    PretrainedRecipe,
    RequestError,
    Shelf,
    read_weights,
    supplied,
    uninstalled,
    unknown,
    weights_file,
)

#: Folder below the data folder; below it the library's own order, DATASET/THREAT/MODEL.pt.
FOLDER = "robustbench"
Threat = Literal["Linf", "L2", "corruptions"]


class ZooRecipe(PretrainedRecipe):
    """Which model it is.

    Attributes:
        model: Its name in the zoo.
        dataset: What it was trained on: the data set of the request, if the zoo has it.
        threat: What it was trained against. By default the norm of the request.
        weights: Another file than the zoo's, for the same network.
    """

    model: str = ""
    dataset: str = ""
    threat: Threat = "Linf"


class RobustBench(Pretrained[ZooRecipe]):
    """A classifier of the zoo."""

    card = Card(
        "robustbench",
        "any model of RobustBench, as robustbench:NAME",
        paper="Croce et al., arXiv 2010.09670",
        year=2021,
        kind="library",
    )
    family_field: ClassVar[str] = "model"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar10": {"dataset": "cifar10"},
        "cifar100": {"dataset": "cifar100"},
        "l2": {"threat": "L2"},
    }

    def __init__(self, recipe: ZooRecipe, images: ImageSpec, classifier: nn.Module | None = None) -> None:
        super().__init__(recipe, images)
        self.classifier = _network(recipe)

    @classmethod
    def file(cls, recipe: PretrainedRecipe, shelf: Shelf) -> Path:
        """Its checkpoint in the data folder, downloaded if it is not there.

        Raises:
            RequestError: The library is not installed, or has no such model for this data set and threat.
            ArtifactError: The checkpoint is not there and cannot be downloaded.
        """
        assert isinstance(recipe, ZooRecipe)
        drive = _entry(recipe)["gdrive_id"]
        if isinstance(drive, list):
            raise RequestError(
                f"robustbench:{recipe.model} is an ensemble of {len(drive)} files; only single models are loaded"
            )
        if recipe.weights:
            return weights_file(Path(recipe.weights).expanduser(), shelf)
        place = shelf.folder / FOLDER / recipe.dataset / recipe.threat / f"{recipe.model}.pt"
        if not place.is_file():
            _download(recipe, drive, place, shelf)
        return weights_file(place, shelf)

    def adopt(self, file: Path) -> None:
        """Take the weights of a checkpoint as the library takes them.

        Raises:
            ArtifactError: They are unreadable or do not fit the network.
        """
        if file.suffix == ".safetensors" or _entry(self.recipe)["gdrive_id"] is None:
            super().adopt(file)
            return
        # A pickle that holds code is refused here, whatever the library would do with it.
        content = self.content(file)
        read_weights(file, content)
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / self.recipe.dataset / self.recipe.threat / f"{self.recipe.model}.pt"
            place.parent.mkdir(parents=True)
            place.write_bytes(content)
            try:
                with _silence():
                    self.classifier = _library("utils").load_model(
                        self.recipe.model, folder, self.recipe.dataset, self.recipe.threat
                    )
            except (RuntimeError, KeyError, AttributeError, TypeError) as error:
                raise ArtifactError(
                    f"{file} does not fit robustbench:{self.recipe.model}: {_first_key(error)}; place the zoo's "
                    "checkpoint of that model there"
                ) from error
        self.probe()


def _entry(recipe: ZooRecipe) -> Mapping[str, Any]:
    """What the zoo knows of a model.

    Raises:
        RequestError: Nothing.
    """
    zoos = {(d.value, t.value): zoo for d, by_threat in _library("model_zoo").model_dicts.items()
            for t, zoo in by_threat.items()}  # fmt: skip
    here = recipe.dataset, recipe.threat
    if not recipe.dataset:
        raise RequestError(
            f"robustbench:{recipe.model} has no model for this data set; use --dataset cifar10 or cifar100"
        )
    found: Mapping[str, Mapping[str, Any]] = zoos[here]
    if recipe.model in found:
        return found[recipe.model]
    others = [" ".join(place) for place, zoo in zoos.items() if recipe.model in zoo and place[0] != "imagenet"]
    kind = f"model of RobustBench for {' '.join(here)}"
    if others:
        raise RequestError(f"unknown {kind} {recipe.model!r}; the zoo has it for {' and '.join(others)}")
    raise unknown(kind, recipe.model, found, "the names are those of https://robustbench.github.io")


def _network(recipe: ZooRecipe) -> nn.Module:
    """Its architecture with random weights."""
    entry = _entry(recipe)
    with _silence():
        if entry["gdrive_id"] is None:
            # The library's own way to these asks timm for the weights as well, by a name that timm does not know.
            classes = {"cifar10": 10, "cifar100": 100}[recipe.dataset]
            timm = importlib.import_module("timm")
            network: nn.Module = timm.create_model(_timm_name(recipe), num_classes=classes)
        else:
            network = entry["model"]()
    return network


def _timm_name(recipe: ZooRecipe) -> str:
    return f"{recipe.model}_{recipe.dataset}_{recipe.threat}".lower().replace("-", "_")


def _download(recipe: ZooRecipe, drive: str | None, place: Path, shelf: Shelf) -> None:
    """Fetch a checkpoint from the drive it lies on, or from where timm looks for it.

    Raises:
        ArtifactError: It cannot be had; the error says what to place where.
    """
    timm = importlib.import_module("timm")
    url = f"https://drive.google.com/uc?id={drive}" if drive else timm.get_pretrained_cfg(_timm_name(recipe)).url
    reason = "downloads are off"
    if shelf.download:
        shelf.announce(f"downloading {recipe.model} of RobustBench from {url}")
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f"{place.stem}.part.pt")
        try:
            with _silence():
                if drive:
                    _library("utils").download_gdrive_new(drive, part)
                else:
                    torch.hub.download_url_to_file(url, str(part), progress=False)
            # The drive answers with a page of HTML when a file was asked for too often.
            read_weights(part)
            part.replace(place)
        except Exception as error:  # whatever a network, a proxy or a drive makes of it
            reason = f"the download failed ({type(error).__name__})"
        else:
            return
        finally:
            part.unlink(missing_ok=True)
    raise ArtifactError(
        f"no weights of robustbench:{recipe.model} for {recipe.dataset} {recipe.threat}: {reason}; place the "
        f"checkpoint {url} at {place}"
    )


def _first_key(error: Exception) -> str:
    """The first key in the many lines of `load_state_dict`."""
    kind = next((k for k in ("Missing key", "Unexpected key", "size mismatch") if k in str(error)), "")
    key = re.search(r'"([^"]+)"|size mismatch for ([^:]+):', str(error))
    return f"{kind.lower()} {key[1] or key[2]!r}" if kind and key else f"{type(error).__name__}: {error}"


def _library(module: str) -> ModuleType:
    """`robustbench.MODULE`.

    Raises:
        RequestError: The library is not installed.
    """
    if importlib.util.find_spec("robustbench") is None:
        raise uninstalled("robustbench:NAME needs the library", "robustbench")
    with supplied(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and timm, about the library
        return importlib.import_module(f"robustbench.{module}")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
