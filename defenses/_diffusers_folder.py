"""Score models as the library diffusers keeps them: folders with `config.json`, safetensors and a scheduler.

FOLDER/config.json  FOLDER/diffusion_pytorch_model.safetensors  FOLDER/scheduler_config.json     (a model alone)
FOLDER/unet/…       FOLDER/scheduler/scheduler_config.json                                       (a pipeline)
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from benchbox import ArtifactError, uninstalled

PREDICTIONS = ("epsilon", "v_prediction", "sample")
#: What says the noise of each step, where it is not listed.
BETAS = {"beta_start", "beta_end", "beta_schedule", "num_train_timesteps"}


def library() -> ModuleType:
    """`diffusers`.

    Raises:
        RequestError: It is not installed.
    """
    if importlib.util.find_spec("diffusers") is None:
        raise uninstalled("diffusion purifiers need the library diffusers", "diffusion")
    return importlib.import_module("diffusers")


def read(path: str) -> tuple[Any, list[float], str]:
    """A UNet2DModel, ᾱ at its times 1 … T, and what it predicts, one of `PREDICTIONS`.

    Raises:
        RequestError: Diffusers is not installed.
        ArtifactError: The folder holds no such model, or something else.
    """
    model, scheduler = _places(path)
    return _unet(model), *_schedule(scheduler)


def _unet(model: Path) -> Any:
    """The model, every weight of it from the folder."""
    diffusers = library()
    kind = _json(model / "config.json").get("_class_name")
    if kind != "UNet2DModel":
        raise ArtifactError(f"{model} holds a {kind}; a score model is an unconditional UNet2DModel")
    try:
        # Plainly, without the library that loads by parts; and never a pickle.
        unet, loaded = diffusers.UNet2DModel.from_pretrained(
            str(model),
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    except Exception as error:  # whatever it stumbles over in a folder is the folder's fault
        raise ArtifactError(
            f"the weights in {model} cannot be read: {said(error)}; save the model again"
        ) from error
    # Diffusers draws what is missing at random, and says so in a warning.
    for fault, words in (
        ("missing_keys", "lack"),
        ("unexpected_keys", "have, which its config.json does not know,"),
    ):
        if names := sorted(loaded[fault]):
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ArtifactError(f"the weights in {model} {words} {names[0]}{more}; save the model again")
    return unet.float()


def _schedule(scheduler: Path) -> tuple[list[float], str]:
    """ᾱ at the times 1 … T, and what is predicted."""
    config = _json(scheduler)
    predicts = config.get("prediction_type", "epsilon")
    if predicts not in PREDICTIONS:
        raise ArtifactError(f"{scheduler} predicts {predicts!r}; it has to be one of {', '.join(PREDICTIONS)}")
    remedy = "take a model that was trained with one"
    # What is not there diffusers fills in, of a variance-exploding model or a flow as well.
    if config.get("trained_betas") is None and not config.keys() >= BETAS:
        kind = config.get("_class_name", "of no name")
        raise ArtifactError(f"{scheduler} ({kind}) is no schedule of a DDPM: it has no β; {remedy}")
    known = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        alphas = library().DDPMScheduler.from_config(known).alphas_cumprod.double().tolist()
    except Exception as error:
        raise ArtifactError(f"{scheduler} is no schedule of a DDPM: {said(error)}; {remedy}") from error
    # 0 at the very end is one that leads to noise alone.
    if not alphas or not all(before > after >= 0 for before, after in pairwise([1.0, *alphas])):
        raise ArtifactError(f"{scheduler} is no schedule of a DDPM: its ᾱ do not fall from 1 towards 0; {remedy}")
    return alphas, predicts


def said(error: Exception) -> str:
    """What a library said, in a line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def digest(path: str) -> str:
    """SHA-256 of what is in a folder: the weights, the model's configuration, and the scheduler's.

    Raises:
        ArtifactError: The folder holds no such model.
    """
    model, scheduler = _places(path)
    files = [model / "config.json", *sorted(model.glob("*.safetensors")), scheduler]
    stamps = tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return f"sha256:{_digest(stamps)}"


def sides(size: Any, shape: tuple[int, int, int]) -> tuple[int, int]:
    """Height and width of what a model is for: diffusers has a number, or two, or none: any (C, H, W)."""
    if size is None:
        return shape[1:]
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return height, width


@lru_cache
def _digest(stamps: tuple[tuple[str, int, int], ...]) -> str:
    total = hashlib.sha256()
    for name, _, _ in stamps:
        with open(name, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _places(path: str) -> tuple[Path, Path]:
    """The folder of the model and the file of its scheduler.

    Raises:
        ArtifactError: One is missing, or the weights are no safetensors.
    """
    home = Path(path).expanduser()
    model = home / "unet" if (home / "unet").is_dir() else home
    if not (model / "config.json").is_file():
        raise ArtifactError(f"{home} is no folder of a diffusers model: it has no config.json; name one that is")
    if not any(model.glob("*.safetensors")):
        raise ArtifactError(
            f"{model} has no .safetensors, which alone are read, for they cannot hold code; save the model with "
            "save_pretrained(folder, safe_serialization=True)"
        )
    places = (home / "scheduler" / "scheduler_config.json", model / "scheduler_config.json")
    for place in (*places, model.parent / "scheduler" / "scheduler_config.json"):
        if place.is_file():
            return model, place
    raise ArtifactError(
        f"{home} says nothing of the noise it was trained with; put its scheduler_config.json there"
    )


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{file} is no JSON ({error}); copy or download it again") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{file} holds no settings by name; copy or download it again")
    return found
