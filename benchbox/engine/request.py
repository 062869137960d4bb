"""A grid of experiments as data: a TOML file, the options of the command line, or both.

Standard library and pydantic only, so that a mistake in a file is found before torch is loaded.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, ValidationError

from benchbox.domain import Access, Norm
from benchbox.errors import RequestError, unknown

if TYPE_CHECKING:
    from benchbox.engine.plan import Request


def _listed(value: Any) -> Any:
    """`"fgsm,pgd"` or `["fgsm", "pgd"]`, each name once, as a tuple."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        return (parts,)
    return tuple(dict.fromkeys(part.strip() if isinstance(part, str) else part for part in parts if part != ""))


def _access(value: Any) -> Any:
    # Images made elsewhere come in through `benchbox import-adversarials`; nobody can ask for them to be made.
    known = [access for access in Access if access is not Access.IMPORTED]
    if value not in known:
        raise unknown("access", str(value), known, f"known: {', '.join(known)}")
    return value


def radius(value: Any) -> Any:
    """A number, also written as a fraction: `0.3`, `"8/255"`.

    Raises:
        RequestError: It is neither.
    """
    if not isinstance(value, str):
        return value
    try:
        return float(Fraction("".join(value.split())))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise RequestError(f"epsilon {value!r} is no number; write it as 0.3 or 8/255") from None


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Seeds = Annotated[tuple[int, ...], BeforeValidator(_listed), Field(min_length=1)]
Accesses = Annotated[tuple[Annotated[Access, BeforeValidator(_access)], ...], BeforeValidator(_listed)]


class Grid(BaseModel):
    """What is asked for, over one or several data sets; the keys are those of `benchbox.engine.plan.Request`.

    Attributes:
        defenses: Names.
        datasets: Names; each becomes a request of its own.
        attacks: Names, or `all`.
        accesses: Restricts where attacks are run; empty for each attack's own choice.
        samples: First n of the test split; None for the data set's default.
        seeds: Training seeds.
        attack_seed: Seed of everything an attack draws.
        epsilon: Radius, as a number or as a fraction in quotes; None for the data set's usual one.
        norm: `linf` or `l2`.
        overrides: Settings by plug-in and field; `[set.pssr]` in a file.
        axes: Values to run through, by "plug-in.field".
        scoring_draws: Fresh draws per image for randomised defences.
        eot: Draws a gradient is averaged over for randomised defences.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    defenses: Names = ()
    datasets: Names = ("digits",)
    attacks: Names = ("all",)
    accesses: Accesses = ()
    samples: PositiveInt | None = None
    seeds: Seeds = (0,)
    attack_seed: int = 0
    epsilon: Annotated[float | None, BeforeValidator(radius)] = None
    norm: Norm = "linf"
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict, alias="set")
    axes: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    scoring_draws: PositiveInt = 10
    eot: PositiveInt = 20

    def with_options(self, options: Mapping[str, Any]) -> Grid:
        """This grid with other values for some keys; settings (`set`) are added field by field.

        Raises:
            RequestError: A value does not fit.
        """
        settings = {name: dict(fields) for name, fields in self.overrides.items()}
        for name, fields in options.get("set", {}).items():
            settings[name] = settings.get(name, {}) | dict(fields)
        return validated({**self.model_dump(by_alias=True), **options, "set": settings})

    def requests(self) -> list[Request]:
        """One request a data set.

        Raises:
            RequestError: No defence, no data set or no attack is named.
        """
        from benchbox.engine.plan import Request

        remedies = {"defenses": "--defense pssr", "datasets": "--dataset digits", "attacks": "--attacks all"}
        for key, remedy in remedies.items():
            if not getattr(self, key):
                raise RequestError(f"no {key} are named; give {remedy}, or a --grid file with the key {key}")
        # Not model_dump: the names, settings and axes go on as they are.
        same = {key: getattr(self, key) for key in Grid.model_fields if key != "datasets"}
        return [Request(dataset=dataset, **same) for dataset in self.datasets]


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
            known = [field.alias or name for name, field in Grid.model_fields.items()]
            raise RequestError(f"{where}{unknown('key', key, known)}") from None
        raise RequestError(f"{where}{key} = {first['input']!r} does not fit: {first['msg']}") from None
    except RequestError as error:
        raise RequestError(f"{where}{error}") from None
