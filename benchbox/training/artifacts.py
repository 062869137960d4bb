"""Trained weights on disk: a safetensors file and its JSON card, named by the digest of their recipe.

A file is written whole or not at all and carries its card and the SHA-256 of its tensors, so a damaged file
is an error and never a silently different defence. The card lies beside it once more, for people. Nothing
here unpickles.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from benchbox.canonical import digest
from benchbox.domain import Spec, ThreatModel
from benchbox.errors import ArtifactError
from benchbox.training.lesson import Lesson


@dataclass(frozen=True)
class Training:
    """Everything that determines a trained defence.

    Attributes:
        defense: Name and full recipe.
        dataset: Name of the data set.
        images: SHA-256 of its training images and labels.
        seed: Of initial weights, order, augmentation, attacks and dropout.
        threat: The ball that training attacks keep to.
        base: The training of the frozen classifier it builds on, if any.
        source: File whose weights take the place of a training. No part of the identity: the recipe holds their
            SHA-256.
        trained_as: What of all this the training reads, where that is less: defences of which this is the same
            share their weights. No part of the identity: it follows from the rest.
        teacher: Whose answers it is taught by in the place of labels, if it is a substitute made of queries.
        lesson: How it is taught then.
    """

    defense: Spec
    dataset: str
    images: str
    seed: int
    threat: ThreatModel
    base: Training | None = None
    source: Path | None = field(default=None, compare=False)
    trained_as: Training | None = field(default=None, compare=False)
    teacher: Training | None = None
    lesson: Lesson | None = None

    @cached_property
    def digest(self) -> str:
        """Name of the trained defence."""
        return digest(self._identity())

    @property
    def weights(self) -> str:
        """Name of its weights."""
        return (self.trained_as or self).digest

    @property
    def root(self) -> Training:
        """The training of the target classifier at the bottom of the chain."""
        return self.base.root if self.base else self

    @property
    def chain(self) -> tuple[Training, ...]:
        """It and all that have to be trained before it, the lowest first."""
        below = (step for one in (self.base, self.teacher) if one is not None for step in one.chain)
        return (*{step.digest: step for step in below}.values(), self)

    def as_dict(self) -> dict[str, Any]:
        """JSON form; a base is recorded in full, and so is a teacher."""
        record = self._identity() | {"base": self.base.as_dict() if self.base else None}
        record |= {"teacher": self.teacher.as_dict()} if self.teacher else {}
        return record | ({"trained_as": self.trained_as.as_dict()} if self.trained_as else {})

    def of_seed(self, seed: int) -> Training:
        """The same, of another seed."""
        return replace(self, seed=seed, trained_as=self.trained_as and self.trained_as.of_seed(seed))

    def _identity(self) -> dict[str, Any]:
        record = asdict(replace(self, base=None, source=None, trained_as=None, teacher=None))
        del record["source"], record["trained_as"], record["teacher"]
        if self.teacher is None:
            del record["lesson"]
        else:
            record["teacher"] = self.teacher._identity()
        return record | {"base": self.base._identity() if self.base else None}


class Artifacts:
    """A folder of trained weights."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """Where the weights of a digest are, or will be."""
        return self.folder / f"{key}.safetensors"

    def checkpoint(self, key: str) -> Path:
        """Where an unfinished training keeps its state."""
        return self.folder / f"{key}.partial.safetensors"

    def __contains__(self, key: str) -> bool:
        return self.path(key).exists()

    def save(self, training: Training, module: nn.Module, card: Mapping[str, Any]) -> None:
        """Write the weights of a trained module and its card.

        Raises:
            ArtifactError: The folder cannot be written, or the disk is full.
        """
        # The frozen classifier of a base is an artifact of its own.
        own = {k: v for k, v in module.state_dict().items() if not (training.base and k.startswith("classifier."))}
        self.keep(training, own, card)

    def keep(self, training: Training, own: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
        """Write weights, by name, and their card.

        Raises:
            ArtifactError: The folder cannot be written, or the disk is full.
        """
        record = {"training": (training.trained_as or training).as_dict(), **card}
        save_tensors(self.path(training.weights), own, record)
        _write(self.path(training.weights).with_suffix(".json"), json.dumps(record, indent=1).encode())
        self.checkpoint(training.weights).unlink(missing_ok=True)

    def keep_unfinished(self, file: Path, key: str) -> None:
        """Keep the state of an unfinished training that goes on elsewhere; nothing if it is no newer.

        Raises:
            ArtifactError: The folder cannot be written.
        """
        kept = self.checkpoint(key)
        if file.exists() and (not kept.exists() or file.stat().st_mtime_ns > kept.stat().st_mtime_ns):
            _write(kept, file.read_bytes())

    def receive(self, key: str, content: bytes) -> None:
        """Keep the weights of a digest that were trained on another machine, as the file was there.

        Raises:
            ArtifactError: They are damaged, or the folder cannot be written.
        """
        _write(self.path(key), content)
        card = load_tensors(self.path(key))[1]
        _write(self.path(key).with_suffix(".json"), json.dumps(card, indent=1).encode())

    def card(self, key: str) -> dict[str, Any] | None:
        """How the weights of a digest were trained; None if they are not here.

        Raises:
            ArtifactError: The file is damaged.
        """
        if key not in self:
            return None
        try:
            with safe_open(self.path(key), framework="pt") as file:
                return _card(file.metadata(), self.path(key))
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"cannot read {self.path(key)}: {error}; delete it to train again") from error

    def card_of(self, training: Training) -> dict[str, Any] | None:
        """The card of a trained defence, which may share its weights with others; None if they are not here.

        Raises:
            ArtifactError: The file is damaged.
        """
        card = self.card(training.weights)
        return card | {"training": training.as_dict()} if card and training.trained_as else card

    def load_into(self, training: Training, module: nn.Module) -> dict[str, Any]:
        """Fill a module with the weights of its training, strictly, and return their card.

        Raises:
            ArtifactError: The file is damaged or belongs to another architecture.
        """
        path = self.path(training.weights)
        tensors, card = load_tensors(path)
        missing, unexpected = module.load_state_dict(tensors, strict=False)
        absent = [k for k in missing if not (training.base and k.startswith("classifier."))]
        if absent or unexpected:
            raise ArtifactError(
                f"weights {path} do not fit the defence (first mismatch: {(absent or unexpected)[0]}); "
                "delete the file to train again"
            )
        return card


def save_tensors(path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write tensors and a JSON-able card to one safetensors file, whole or not at all.

    Raises:
        ArtifactError: The folder cannot be written, or the disk is full.
    """
    own = separate(tensors)
    text = json.dumps(card)
    _write(path, save(own, {"card": text, "sha256": _sha256(own), "card_sha256": _digest(text)}))


def separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors takes them: on the CPU, contiguous, and no two in one piece of memory.

    A module may be known by two names, and tensors may be tied.
    """
    own: dict[str, Tensor] = {}
    taken: set[int] = set()
    for key, value in tensors.items():
        value = value.detach().cpu().contiguous()
        place = value.untyped_storage().data_ptr()
        own[key] = value.clone() if place in taken else value
        taken.add(place)
    return own


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote, checking the digest.

    Raises:
        ArtifactError: The file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            card = _card(file.metadata(), path)
            found = (file.metadata() or {}).get("sha256")
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"cannot read {path}: {error}; delete it to train again") from error
    if found != _sha256(tensors):
        raise ArtifactError(f"{path} is corrupt: its SHA-256 does not match; delete it to train again")
    return tensors, card


def gather(source: Path, target: Path) -> int:
    """Copy the weights of a folder that another one lacks; how many.

    Raises:
        ArtifactError: A file is damaged, or both have weights of one digest that are not the same.
    """
    copied = 0
    for file in sorted(source.glob("*.safetensors")):
        if file.name.endswith(".partial.safetensors"):
            continue
        other = target / file.name
        tensors, card = load_tensors(file)
        if other.exists():
            if _sha256(load_tensors(other)[0]) != _sha256(tensors):
                raise ArtifactError(
                    f"{file} and {other} are two trainings of one recipe that came out differently; train once, "
                    "and copy the weights to every machine before it runs its shard"
                )
            continue
        save_tensors(other, tensors, card)
        _write(other.with_suffix(".json"), json.dumps(card, indent=1).encode())
        copied += 1
    return copied


def _card(metadata: Mapping[str, str] | None, path: Path) -> dict[str, Any]:
    """The card of a file, if it is what was written; files of before cards had a digest are believed."""
    try:
        text = (metadata or {})["card"]
        card = json.loads(text)
    except (KeyError, ValueError):
        text, card = "", None
    if not isinstance(card, dict) or (metadata or {}).get("card_sha256", _digest(text)) != _digest(text):
        raise ArtifactError(f"{path} is corrupt: its card is not what was written; delete it to train again")
    return card


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for key in sorted(tensors):
        total.update(key.encode())
        total.update(tensors[key].contiguous().numpy().tobytes())
    return total.hexdigest()


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error.strerror}; make room or name another --store") from error
