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
from pathlib import Path
from types import ModuleType
from typing import Any

from benchbox import ArtifactError, RequestError

PREDICTIONS = ("epsilon", "v_prediction", "sample")


def library() -> ModuleType:
    """`diffusers`.

    Raises:
        RequestError: It is not installed.
    """
    if importlib.util.find_spec("diffusers") is None:
        raise RequestError("diffusion purifiers need the library diffusers; pip install 'benchbox[diffusion]'")
    return importlib.import_module("diffusers")


def read(path: str) -> tuple[Any, list[float], str]:
    """A UNet2DModel, ᾱ at its times 1 … T, and what it predicts, one of `PREDICTIONS`.

    Raises:
        RequestError: Diffusers is not installed.
        ArtifactError: The folder holds no such model, or something else.
    """
    model, scheduler = _places(path)
    diffusers = library()
    kind = _json(model / "config.json").get("_class_name")
    if kind != "UNet2DModel":
        raise ArtifactError(f"{model} holds a {kind}; a score model is an unconditional UNet2DModel")
    try:
        # Plainly, without the library that loads by parts; and never a pickle.
        unet = diffusers.UNet2DModel.from_pretrained(
            str(model), use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(f"the weights in {model} cannot be read: {reason}; save the model again") from error
    config = _json(scheduler)
    predicts = config.get("prediction_type", "epsilon")
    if predicts not in PREDICTIONS:
        raise ArtifactError(f"{scheduler} predicts {predicts!r}; it has to be one of {', '.join(PREDICTIONS)}")
    known = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        chain = diffusers.DDPMScheduler.from_config(known)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ArtifactError(f"{scheduler} is no schedule of a DDPM: {error}; take a model that has one") from error
    return unet.float(), chain.alphas_cumprod.double().tolist(), predicts


def digest(path: str) -> str:
    """SHA-256 of what is in a folder: the weights, the model's configuration, and the scheduler's.

    Raises:
        ArtifactError: The folder holds no such model.
    """
    model, scheduler = _places(path)
    files = [model / "config.json", *sorted(model.glob("*.safetensors")), scheduler]
    stamps = tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return f"sha256:{_digest(stamps)}"


def sides(size: Any) -> tuple[int, int]:
    """Height and width of what a model is for, which diffusers gives as one number or as two."""
    return (size, size) if isinstance(size, int) else tuple(size)


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
