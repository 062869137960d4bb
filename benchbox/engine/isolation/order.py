"""Which defence a process of its own shall hold, as words that can be sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchbox.domain import ImageSpec, Spec, ThreatModel
from benchbox.training.artifacts import Training
from benchbox.training.lesson import Lesson
from benchbox.training.precision import Precision

#: Fields that are paths.
PATHS = ("workspace", "artifacts", "lessons")


@dataclass(frozen=True)
class Order:
    """Which defence a cell holds.

    Attributes:
        training: The defence.
        images: What it is built for.
        workspace: Whose plug-ins count.
        local: Whether the files in its folders are plug-ins.
        artifacts: Folder of the weights.
        device: Where it runs.
        threads: How many it may use.
        lessons: File of the images it is trained on, where it is not trained yet.
        precision: What it is trained in.
        trained: Whether it is; for the time that a pass takes, weights do not matter.
    """

    training: Training
    images: ImageSpec
    workspace: Path
    local: bool
    artifacts: Path
    device: str
    threads: int
    lessons: Path | None = None
    precision: Precision = "float32"
    trained: bool = True

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        paths = {name: str(found) for name in PATHS if (found := getattr(self, name)) is not None}
        return {**vars(self), **paths, "training": _words(self.training), "images": asdict(self.images)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Order:
        """Inverse of `as_dict`."""
        paths = {name: Path(record[name]) for name in PATHS if record[name] is not None}
        return cls(
            **{**record, **paths, "training": _training(record["training"]), "images": _spec(record["images"])}
        )


def _words(training: Training) -> dict[str, Any]:
    below = {name: _words(one) for name in ("base", "teacher") if (one := getattr(training, name)) is not None}
    return {**training.as_dict(), **below, "source": str(training.source) if training.source else None}


def _training(record: Mapping[str, Any]) -> Training:
    return Training(
        Spec(**record["defense"]),
        record["dataset"],
        record["images"],
        record["seed"],
        ThreatModel(**record["threat"]),
        _training(record["base"]) if record["base"] else None,
        Path(record["source"]) if record.get("source") else None,
        _training(record["trained_as"]) if record.get("trained_as") else None,
        _training(record["teacher"]) if record.get("teacher") else None,
        Lesson(**record["lesson"]) if record.get("lesson") else None,
    )


def _spec(record: Mapping[str, Any]) -> ImageSpec:
    return ImageSpec(**{**record, "mean": tuple(record["mean"]), "std": tuple(record["std"])})
