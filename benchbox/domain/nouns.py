"""What an attacker knows, what an attack and a defence say of themselves, and what is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any, Literal, cast, get_args

from benchbox.canonical import canonical, digest
from benchbox.domain.threat import ThreatModel
from benchbox.errors import RequestError, unknown

#: The control: the attack that changes no image. A randomised defence is scored on it whatever is asked for.
NULL_ATTACK = "null"
#: Fields of a cell on which its number does not hang, or that follow from the attack's code, which its key has.
DECLARED = ("averaging", "nature", "early_stop")
#: Fields of a cell that its adversarial images hang on.
CRAFTED = ("attack", "view", "threat", "samples", "attack_seed", "eot", "search_precision", "early_stop")

Precision = Literal["float32", "bfloat16"]


def known_precision(name: str) -> Precision:
    """A precision by its name.

    Raises:
        RequestError: There is none of that name.
    """
    if name not in get_args(Precision):
        raise unknown("precision", name, get_args(Precision))
    return cast(Precision, name)


class Access(StrEnum):
    """What the attacker knows, that is, which model the attack is given."""

    GRAY_BOX = "gray-box"  # the bare target classifier; scored on the full defence
    WHITE_BOX = "white-box"  # the whole defence as deployed, plain autograd
    BPDA = "bpda"  # the whole defence through each of its stand-ins
    TRANSFER = "transfer"  # a substitute trained with the same loss on the same data
    IMPORTED = "imported"  # images made elsewhere: whatever their maker knew


@dataclass(frozen=True)
class Card:
    """What `list` and the reports print of a plug-in.

    Attributes:
        name: What it is asked for by.
        summary: A few words.
        paper: Its paper in short: authors, venue.
        year: Of the paper.
        kind: Such as training, purifier, ablation; gradient, score-based.
        bibtex: The paper's BibTeX entry; that of a built-in lies in results/paper/references.bib.
    """

    name: str
    summary: str
    paper: str = ""
    year: int | None = None
    kind: str = ""
    bibtex: str = ""


#: How an attack looks for its images: an `ensemble` runs attacks of several kinds, a `control` searches nothing.
AttackKind = Literal["one-step", "iterative", "score-based", "decision-based", "random", "ensemble", "control"]


@dataclass(frozen=True)
class Nature:
    """What an attack says it is, for the checks: they read this and never a name.

    Attributes:
        kind: How it looks for its images.
        climbs: What it optimises: `cross-entropy`, `margin`, `dlr`, or its author's own word; several for an
            ensemble.
        families: Families of attacks (Carlini et al. 2019) beside the one that its kind and what it climbs make:
            `targeted`, `minimum norm`. All of them for an ensemble.
        steps: Gradient steps from one start; 0 where it takes none.
        step: Length of the first step as a share of epsilon; None where that is not said.
        restarts: Starting points.
        targets: Other classes it aims at in turn; 0 where it aims at none.
        queries: Queries of scores or labels a sample; 0 where it makes none.
        stands_for: The published evaluation it claims to be, by the name its authors gave it (`AutoAttack`).
    """

    kind: AttackKind
    climbs: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    steps: int = 0
    step: float | None = None
    restarts: int = 1
    targets: int = 0
    queries: int = 0
    stands_for: str = ""

    def __post_init__(self) -> None:
        """Refuse what no check could read.

        Raises:
            RequestError: The kind is none, words are no tuple of words, or a number is no count.
        """
        if self.kind not in get_args(AttackKind):
            raise unknown("kind of attack", str(self.kind), get_args(AttackKind))
        for name in ("climbs", "families"):
            words = getattr(self, name)
            if not (isinstance(words, tuple) and all(isinstance(word, str) for word in words)):
                raise RequestError(f"Nature.{name} is {words!r}; write a tuple of words, ('margin',)")
        for name in ("steps", "restarts", "targets", "queries"):
            count = getattr(self, name)
            if not isinstance(count, int) or count < 0:
                raise RequestError(f"Nature.{name} is {count!r}; write a whole number from 0 on")
        if self.step is not None and not (isinstance(self.step, int | float) and self.step > 0):
            raise RequestError(f"Nature.step is {self.step!r}; write a share of epsilon above 0, or None")

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Nature:
        """Inverse of `dataclasses.asdict`, also after a way through JSON."""
        return cls(**{**record, "climbs": tuple(record["climbs"]), "families": tuple(record["families"])})


@dataclass(frozen=True)
class ImageSpec:
    """The images a model is built for.

    Attributes:
        channels: 1 or 3.
        size: Height in pixels, and width unless it is given.
        classes: Number of classes K.
        mean: Per channel, over the training images; what a network normalises with.
        std: Likewise.
        width: Width in pixels where it is not the height.
    """

    channels: int
    size: int
    classes: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    width: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.size, self.width or self.size


@dataclass(frozen=True)
class Spec:
    """A plug-in and everything needed to rebuild it.

    Attributes:
        name: The registered name, or `path/to/file.py:Class`.
        arguments: Every hyper-parameter with its default filled in.
        code: Which code stands behind the name: the version a built-in declares, or the digest of a local file.
    """

    name: str
    arguments: Mapping[str, Any]
    code: str

    @cached_property
    def identity(self) -> str:
        """Equal for equal recipes, whatever the order of their arguments."""
        return canonical(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"name": self.name, "arguments": dict(self.arguments), "code": self.code}


@lru_cache(maxsize=8)
def _first(n: int) -> tuple[int, ...]:
    """The first n whole numbers, once for the thousands of cells that share them."""
    return tuple(range(n))


@dataclass(frozen=True)
class SampleList:
    """Which images a number is about. Cells on different lists are never compared.

    Attributes:
        dataset: Name of the data set.
        split: Always `test` for published numbers; `validation` while tuning.
        indices: Positions in that split, in the order they are scored.
        digest: SHA-256 of the images and labels themselves.
        seed: What the indices were drawn with at random; None for the first n, or a choice of somebody's.
    """

    dataset: str
    split: str
    indices: tuple[int, ...]
    digest: str
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __reduce__(self) -> tuple[Any, ...]:  # ten thousand numbers go from process to process as one
        return SampleList.from_dict, (self.as_dict(),)

    @property
    def said(self) -> str:
        """As in "the first 360 test images"."""
        n = len(self)
        if self.seed is not None:
            return f"{n} random {self.split} images (seed {self.seed})"
        which = "the first" if self._are_first else "a choice of"
        return f"{which} {n} {self.split} images"

    @cached_property
    def _are_first(self) -> bool:  # asked for every unit that is sent to a worker
        return self.indices == _first(len(self.indices))

    @cached_property
    def clean_key(self) -> str:
        """Under what name a store keeps the images themselves, beside those that attacks made of them."""
        return f"clean/{digest(self.as_dict())[:58]}"

    def as_dict(self) -> dict[str, Any]:
        """JSON form; the indices shrink to a count when they are simply the first n."""
        which: Any = {"first": len(self.indices)} if self._are_first else list(self.indices)
        record = {"dataset": self.dataset, "split": self.split, "indices": which, "digest": self.digest}
        return record if self.seed is None else {**record, "seed": self.seed}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SampleList:
        """Inverse of `as_dict`."""
        which = record["indices"]
        indices = _first(which["first"]) if isinstance(which, dict) else tuple(which)
        return cls(record["dataset"], record["split"], indices, record["digest"], record.get("seed"))


@dataclass(frozen=True)
class ViewSpec:
    """The model an attack is given: a trained artifact, as deployed or through one of its stand-ins."""

    artifact: str
    stand_in: str | None = None


@dataclass(frozen=True)
class Cell:
    """One number of the table, before it is known. The digest of its canonical JSON is its identity.

    Attributes:
        defense: The defence with its full recipe.
        artifact: Digest of the trained defence that is scored.
        attack: The attack with its full settings.
        access: What the attacker knows.
        view: The model the attack is given under that access.
        threat: The ball.
        samples: The images.
        training_seed: Seed of the defence's training.
        attack_seed: Seed of every draw the attack makes or sees.
        scoring_draws: Fresh draws per image when the defence is randomised, else 1.
        eot: Draws a gradient is averaged over when the view is randomised, else 1.
        averaging: What the attack averages over them, as it declares (`Attack.averaging`); empty for one draw, and
            in cells stored before it was recorded.
        nature: What the attack declares of itself (`Attack.declare`); None if nothing, and in cells stored before.
        search_precision: What the attack asks its view in; what it breaks is confirmed in float32.
        early_stop: Whether a sample may leave the search at the image that breaks it, because nobody but the model
            that is searched will be asked about it. The same samples are broken either way.
    """

    defense: Spec
    artifact: str
    attack: Spec
    access: Access
    view: ViewSpec
    threat: ThreatModel
    samples: SampleList
    training_seed: int = 0
    attack_seed: int = 0
    scoring_draws: int = 1
    eot: int = 1
    averaging: str = ""
    nature: Nature | None = None
    search_precision: Precision = "float32"
    early_stop: bool = False

    @cached_property
    def key(self) -> str:
        """SHA-256 of the canonical JSON: primary key, resume key and cache key at once."""
        return digest({k: v for k, v in self.as_dict().items() if k not in DECLARED})

    @cached_property
    def craft_key(self) -> str:
        """Identity of the adversarial images alone: cells that share it share the crafting."""
        return digest({k: v for k, v in self.as_dict().items() if k in CRAFTED})

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        # Not `asdict`: it copies the indices of all samples and the settings, one by one.
        record: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        record |= {"defense": self.defense.as_dict(), "attack": self.attack.as_dict()}
        record |= {"view": {**vars(self.view)}, "threat": {**vars(self.threat)}}
        record["nature"] = asdict(self.nature) if self.nature else None
        if self.search_precision == "float32":
            del record["search_precision"]  # cells were stored, and named, before there was a choice
        if not self.early_stop:
            del record["early_stop"]
        return {**record, "access": str(self.access), "samples": self.samples.as_dict()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], samples: SampleList | None = None) -> Cell:
        """Inverse of `as_dict`; a sample list that is at hand is shared instead of built again."""
        return cls(
            **{
                **record,
                "defense": Spec(**record["defense"]),
                "attack": Spec(**record["attack"]),
                "access": Access(record["access"]),
                "view": ViewSpec(**record["view"]),
                "threat": ThreatModel(**record["threat"]),
                "samples": samples or SampleList.from_dict(record["samples"]),
                "nature": Nature.from_dict(record["nature"]) if record.get("nature") else None,
            }
        )
