"""What is asked for, as data: each option once, for Python, for grid files and for the command line.

A field of `Grid` carries its type, its default, its check and, in `Field`, the words of the help and the flags. A
new option is a new field. Standard library and pydantic only, so that a mistake is found before torch is loaded.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Collection, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from benchbox.contract.misnamed import misnamed
from benchbox.domain import NAMED, SIGNS, Access, Norm, Precision
from benchbox.engine import protocols
from benchbox.errors import RequestError, unknown
from benchbox.training.lesson import LESSONS

if TYPE_CHECKING:
    from benchbox.contract.attack import Attack
    from benchbox.contract.defense import Defense
    from benchbox.contract.registry import Registry

#: How the field writes the norms: AutoAttack, RobustBench, papers.
NORMS: Mapping[str, Norm] = {
    **{"linf": "linf", "l∞": "linf", "inf": "linf", "l2": "l2", "l₂": "l2", "2": "l2"},
    **{"l1": "l1", "l₁": "l1", "1": "l1"},
    **{"flow": "flow", "stadv": "flow", "recolor": "recolor", "recoloradv": "recolor"},
}
#: Norms of other threat models: known, and not searched by any attack here.
OTHER_NORMS = ("l0", "0", "lpips")


def _listed(value: Any) -> Any:
    """`"fgsm,pgd"` or `["fgsm", "pgd"]`, each name once, as a tuple."""
    parts = value.split(",") if isinstance(value, str) else value
    if parts is None:
        return ()
    if not isinstance(parts, list | tuple):
        return (parts,)
    parts = [part.strip() if isinstance(part, str) else part for part in parts]
    return tuple(dict.fromkeys(part for part in parts if part != ""))


def _access(value: Any) -> Any:
    # Images made elsewhere come in through `benchbox import-adversarials`; nobody can ask for them to be made.
    known = [access for access in Access if access is not Access.IMPORTED]
    if value not in known:
        raise unknown("access", str(value), known, f"known: {', '.join(known)}")
    return value


def _norm(value: Any) -> Any:
    name = str(value).strip().lower()
    if name in OTHER_NORMS:
        raise RequestError(f"norm {value!r}: no attack here searches such a ball; use {NAMED}")
    if name not in NORMS:
        raise unknown("norm", str(value), tuple(SIGNS), f"use {NAMED}")
    return NORMS[name]


def radius(value: Any) -> Any:
    """A number, also written as a fraction: `0.3`, `"8/255"`.

    Raises:
        RequestError: It is neither, not finite, or below 0.
    """
    read = value
    if isinstance(value, str):
        try:
            read = float(Fraction("".join(value.split())))
        except (ValueError, ZeroDivisionError, OverflowError):
            if value.strip().lower().lstrip("+-") not in ("nan", "inf", "infinity"):
                raise RequestError(f"epsilon {value!r} is no number; write it as 0.3 or 8/255") from None
            read = float(value)
    if isinstance(read, int | float) and not (math.isfinite(read) and read >= 0):
        raise RequestError(f"epsilon must be a finite number of at least 0, got {value}")
    return read


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Seed = Annotated[int, Field(ge=0, le=2**62)]  # what generators take, with room for substitutes
Draws = Annotated[int, Field(ge=1, le=100_000)]  # what memory holds
Seeds = Annotated[tuple[Seed, ...], BeforeValidator(_listed), Field(min_length=1)]
Accesses = Annotated[tuple[Annotated[Access, BeforeValidator(_access)], ...], BeforeValidator(_listed)]
Radii = Annotated[tuple[Annotated[float, BeforeValidator(radius)], ...], BeforeValidator(_listed)]


def _says(metavar: str, *flags: str) -> dict[str, Any]:
    """How a field is written on the command line; without flags it is not."""
    return {"metavar": metavar, "flags": flags}


def says(field: FieldInfo) -> Mapping[str, Any]:
    """`metavar` and `flags` of a field."""
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else _says("")


class Grid(BaseModel):
    """What is asked for, over one or several data sets and radii. `description` is the help of each field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    defenses: Names = Field(
        default=(),
        validation_alias=AliasChoices("defenses", "defense"),
        description="Defences, repeated or with commas; also file.py:Class or file.py:FACTORY.",
        json_schema_extra=_says("NAMES", "--defense", "-d"),
    )
    datasets: Names = Field(
        default=("digits",),
        validation_alias=AliasChoices("datasets", "dataset"),
        description="Data sets, repeated or with commas.  (default: digits)",
        json_schema_extra=_says("NAMES", "--dataset"),
    )
    attacks: Names = Field(
        default=("all",),
        description="Attacks, or all.  (default: all)",
        json_schema_extra=_says("NAMES", "--attacks", "-a"),
    )
    accesses: Accesses = Field(
        default=(),
        validation_alias=AliasChoices("accesses", "access"),
        description="gray-box, white-box, bpda, transfer: what the attacker knows.  (default: each attack's own)",
        json_schema_extra=_says("NAMES", "--access"),
    )
    sources: Names = Field(
        default=("classifier",),
        validation_alias=AliasChoices("sources", "source"),
        description="What transfer attacks are crafted on: classifier or defense, as the target's, trained with "
        "another seed; query-labels or query-scores, a network that learns from the target's answers; or any "
        "defence, say pgd-at.  (default: classifier)",
        json_schema_extra=_says("NAMES", "--source"),
    )
    samples: PositiveInt | None = Field(
        default=None,
        description="Score the first N test images.  (default: all of digits, else 1000)",
        json_schema_extra=_says("N", "--samples"),
    )
    sample_seed: Seed | None = Field(
        default=None,
        description="Draw the test images at random with this seed.  (default: the first N)",
        json_schema_extra=_says("N", "--sample-seed"),
    )
    seeds: Seeds = Field(
        default=(0,),
        description="Training seeds; each is a row of its own.  (default: 0)",
        json_schema_extra=_says("0,1,2", "--seeds"),
    )
    attack_seed: Seed = Field(
        default=0,
        description="Seed of everything an attack draws.  (default: 0)",
        json_schema_extra=_says("N", "--attack-seed"),
    )
    epsilon: Radii = Field(
        default=(),
        description="0.3 or 8/255, for images in [0, 1]; several with commas make a curve.  "
        "(default: the data set's)",
        json_schema_extra=_says("RADIUS", "--epsilon"),
    )
    norm: Annotated[Norm, BeforeValidator(_norm)] = Field(
        default="linf",
        description=f"{NAMED}.  (default: linf)",
        json_schema_extra=_says("NORM", "--norm"),
    )
    scoring_draws: Draws = Field(
        default=10,
        description="Fresh draws that score each image of a randomised defence.  (default: 10)",
        json_schema_extra=_says("N", "--scoring-draws"),
    )
    eot: Draws = Field(
        default=20,
        description="Draws a gradient of a randomised defence is averaged over.  (default: 20)",
        json_schema_extra=_says("N", "--eot"),
    )
    search_precision: Precision = Field(
        default="float32",
        description="float32 or bfloat16: what attacks ask in; what they break is confirmed in float32.  "
        "(default: float32)",
        json_schema_extra=_says("NAME", "--search-precision"),
    )
    overrides: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        validation_alias=AliasChoices("set", "overrides"),
        description="Change a setting of a defence or an attack; repeatable.",
        json_schema_extra=_says("PLUG-IN.FIELD=VALUE", "--set"),
    )
    axes: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="Values to run through, by plug-in.field; the grid is their product.",
        json_schema_extra=_says(""),
    )
    protocol: str | None = Field(
        default=None,
        description="Evaluate as a paper's authors did: carso, atop, pssr, robustbench, …; fills in attacks, "
        "access, radius and images where they are not given.",
        json_schema_extra=_says("NAME", "--protocol"),
    )
    weights: str | None = Field(
        default=None,
        description="The weights of --defense file.py:FACTORY, a function or class that makes a torch module.",
        json_schema_extra=_says("FILE.safetensors", "--weights"),
    )

    @model_validator(mode="before")
    @classmethod
    def _by_protocol(cls, record: dict[str, Any]) -> dict[str, Any]:
        name = record.get("protocol")
        return protocols.of(name).fill(record, _spellings()) if isinstance(name, str) else record

    @model_validator(mode="after")
    def _inside_the_box(self) -> Self:
        for epsilon in self.epsilon:
            if self.norm == "linf" and epsilon > 1:
                meant = f"{epsilon:g}/255" if epsilon <= 255 else "8/255"
                raise RequestError(
                    f"epsilon {epsilon:g} is more than any pixel of an image in [0, 1] can change; "
                    f"did you mean {meant}?"
                )
        return self

    def with_options(self, options: Mapping[str, Any]) -> Grid:
        """This grid with other values for some keys; settings (`set`) are added field by field.

        Raises:
            RequestError: A value does not fit.
        """
        settings = {name: dict(fields) for name, fields in self.overrides.items()}
        for name, fields in (options.get("set") or options.get("overrides") or {}).items():
            settings[name] = settings.get(name, {}) | dict(fields)
        words = {_key(ALIASES.get(key, key)): value for key, value in options.items()}
        # What nobody has said stays open, for a protocol to say.
        said = {_key(name): getattr(self, name) for name in self.model_fields_set}
        return validated({**said, **words, **({"set": settings} if settings else {})})

    def requests(self) -> list[Request]:
        """One request for each data set and radius.

        Raises:
            RequestError: No defence, no data set or no attack is named, or weights are given to several defences.
        """
        remedies = {"defenses": "--defense pssr", "datasets": "--dataset digits", "attacks": "--attacks all"}
        for key, remedy in remedies.items():
            if not getattr(self, key):
                raise RequestError(f"no {key} are named; give {remedy}, or a --grid file with the key {key}")
        same = {**self._fields(), "set": self._settings(), "weights": None}
        return [
            Request.model_validate({**same, "datasets": (dataset,), "epsilon": epsilon})
            for dataset in self.datasets
            for epsilon in self.epsilon or ((),)
        ]

    def only(self) -> Request:
        """The request of a grid that is one.

        Raises:
            RequestError: It names several data sets or radii.
        """
        first, *more = self.requests()
        if more:
            raise RequestError(f"{len(more) + 1} data sets or radii are named; this takes one of each")
        return first

    def _settings(self) -> dict[str, dict[str, Any]]:
        """With the weights where they belong: a setting of the one defence, like any other."""
        if self.weights is None:
            return self.overrides
        if len(self.defenses) != 1:
            raise RequestError(
                f"--weights {self.weights} belongs to one defence and {len(self.defenses)} are named; "
                "give each its own: --set model.py:net.weights=FILE"
            )
        (name,) = self.defenses
        return {**self.overrides, name: {**self.overrides.get(name, {}), "weights": self.weights}}

    def _fields(self) -> dict[str, Any]:
        """The values by key, as they are: `model_dump` would copy names, settings and axes."""
        return {_key(name): getattr(self, name) for name in Grid.model_fields}


class Request(Grid):
    """What is asked for on one data set, in one ball: a grid of one."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.datasets) != 1 or len(self.epsilon) > 1:
            raise RequestError("a request is about one data set and one radius; make a Grid of several")
        return self

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.datasets[0]

    @property
    def radius(self) -> float | None:
        """Of the ball; None for the customary one of the data set."""
        return self.epsilon[0] if self.epsilon else None

    def as_dict(self) -> dict[str, Any]:
        """JSON form, for the record of the run."""
        record = {name: getattr(self, name) for name in Grid.model_fields if name not in ("datasets", "weights")}
        return {**record, "dataset": self.dataset, "epsilon": self.radius}


#: The singular of a field, as a request of one is written.
ALIASES = {
    **{"defense": "defenses", "dataset": "datasets", "access": "accesses", "source": "sources"},
    "overrides": "set",
}


def _spellings() -> Mapping[str, frozenset[str]]:
    """The keys under which each field may be given, by the one that grid files call it."""
    aliases = {
        name: field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else ()
        for name, field in Grid.model_fields.items()
    }
    return {_key(name): frozenset((name, *map(str, choices))) for name, choices in aliases.items()}


def _key(name: str) -> str:
    """A field as grid files and messages call it."""
    return "set" if name == "overrides" else name


def check_names(
    asked: Grid, defenses: Registry[Defense], attacks: Registry[Attack], datasets: Collection[str]
) -> None:
    """Look every name of a request up without loading what it names; files and members of families are left.

    Raises:
        RequestError: Nobody claims one, with the closest that somebody does.
    """
    everything = [*defenses.names(), *attacks.names()]
    for kind, names, known in (
        ("defence", asked.defenses, defenses.names()),
        ("attack", asked.attacks, ["all", *attacks.names()]),
        ("source", asked.sources, ["classifier", "defense", *LESSONS, *defenses.names()]),
        ("data set", asked.datasets, datasets),
        ("plug-in in --set", asked.overrides, [*everything, *asked.defenses, *asked.attacks]),
    ):
        for name in names:
            given = kind == "data set" and (name.endswith(".npz") or Path(name).is_dir())
            if name not in known and not given and not {":", "/", "\\"} & set(name):
                raise misnamed(kind, name, known)


def read(path: Path) -> Grid:
    """The grid in a TOML file.

    Raises:
        RequestError: The file is missing, no TOML, has an unknown key or a value that does not fit.
    """
    try:
        record = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise RequestError(f"cannot read the grid file {path} ({reason}); give the path of a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"{path} is no TOML: {error}; mend that place") from None
    return validated(record, f"{path}: ")


def validated(record: Mapping[str, Any], where: str = "") -> Grid:
    """A grid from its keys and values.

    Args:
        record: As in a TOML file.
        where: What an error begins with, say the name of the file.

    Raises:
        RequestError: An unknown key, with the closest known one, or a value that does not fit.
    """
    try:
        return Grid.model_validate(dict(record))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise RequestError(f"{where}{unknown('key', key, map(_key, Grid.model_fields))}") from None
        value = record.get(key, first["input"])  # as it was given: pydantic's versions differ in what they show
        raise RequestError(f"{where}{key} = {value!r} does not fit: {first['msg']}") from None
    except RequestError as error:
        raise RequestError(f"{where}{error}") from None
