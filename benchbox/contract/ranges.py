"""The ranges of hyper-parameters: what a field is annotated with, and how a value outside is refused.

    steps: Count = 40
    dropout: float = Field(0.5, ge=0, lt=1)

NaN and infinity are in no range, and a truth value is no number.
"""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin

from pydantic import Field
from pydantic.fields import FieldInfo

#: How often, how many: 1, 2, …
Count = Annotated[int, Field(ge=1)]
#: As `Count`, or none.
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
#: In [0, 1].
Share = Annotated[float, Field(ge=0, le=1)]

_SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "multiple_of": "a multiple of"}


def allowed(annotation: Any, metadata: tuple[Any, ...] | list[Any] = ()) -> str:
    """The range of a field in words: "a whole number ≥ 1"; empty for what has none.

    Args:
        annotation: Its type, with or without `Annotated`.
        metadata: What pydantic has taken out of the annotation.
    """
    if get_origin(annotation) is Annotated:
        annotation, *inside = get_args(annotation)
        metadata = [*metadata, *inside]
    marks = [one for found in metadata for one in (found.metadata if isinstance(found, FieldInfo) else [found])]
    if not is_number(annotation):
        return ""
    found = [(sign, _of(mark, key)) for key, sign in _SIGNS.items() for mark in marks]
    bounds = " and ".join(f"{sign} {bound:g}" for sign, bound in found if bound is not None)
    return f"{'a whole' if annotation is int else 'a finite'} number {bounds}".rstrip()


def is_number(annotation: Any) -> bool:
    """Whether a field is a plain number, with a range or without."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation in (int, float)


def refuse_truth(annotation: Any, value: Any) -> None:
    """A truth value in place of a number.

    Raises:
        ValueError: It is one.
    """
    if isinstance(value, bool) and is_number(annotation):
        raise ValueError("a truth value is no number")


def _of(mark: Any, key: str) -> float | None:
    value = getattr(mark, key, None)
    return value if isinstance(value, int | float) else None
