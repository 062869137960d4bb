"""What a stranger's plug-in declares, as words that its own process sends: nothing of it is executed here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from benchbox.contract import declaration
from benchbox.domain import Card
from benchbox.errors import RequestError


class Declaration(BaseModel):
    """What the class of a defence says of itself, and every part of benchbox reads there.

    Attributes:
        files: Those that its code is in, the plug-in's own among them; none for a package that is installed.
        weights: Whether they are `trained` here, `given` in a file, or may be `held` by a factory.
        advice: What its author does so that answers which differ are taken for what they are.
        defaults: Of its recipe, by field.
        family_field: The field that `family:member` sets.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    summary: str
    paper: str
    year: int | None
    kind: str
    bibtex: str
    doc: str
    randomized: bool
    base: str | None
    stand_ins: dict[str, str]
    exact: str | None
    ablations: list[str]
    version: int
    deployable: bool
    learns: str
    square: bool
    family_field: str | None
    advice: str
    defaults: dict[str, Any]
    forward_only: list[str]
    weights: Literal["trained", "given", "held"]
    files: list[str]

    @property
    def card(self) -> Card:
        """Its card."""
        return Card(self.name, self.summary, self.paper, self.year, self.kind, self.bibtex)

    @property
    def paths(self) -> list[Path]:
        """Its files that are there."""
        return [path for path in map(Path, self.files) if path.is_absolute() and path.is_file()]


def heard(words: object, where: str) -> Declaration:
    """A declaration as its process sends it.

    Args:
        words: JSON.
        where: The plug-in.

    Raises:
        RequestError: It is none, or its card is none.
    """
    try:
        found = Declaration.model_validate(words)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise RequestError(f"{where} declares {field} = {first['input']!r}: {first['msg']}; mend it") from None
    # A factory has no name of its own, and goes by what it is asked for by.
    of_file = found.weights == "held"
    declaration.check_card(replace(found.card, name="factory") if of_file else found.card, "defence", where)
    return found.model_copy(update={"name": where}) if of_file else found
