"""The ranges of hyper-parameters: what a field is annotated with, and how a value outside is refused.

    steps: Count = 40
    dropout: float = Field(0.5, ge=0, lt=1)

NaN and infinity are in no range, and a truth value is no number.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, get_args, get_origin

from pydantic import (
    ConfigDict,
    Field,
    PydanticUndefinedAnnotation,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)
from pydantic.fields import FieldInfo

from benchbox.errors import RequestError

#: How often, how many of anything: a million steps of a small network take minutes an image, so what is more is a
#: slip, and would not end. What several numbers come to together is the planner's to refuse.
MOST = 1_000_000
#: 1, 2, … a million.
Count = Annotated[int, Field(ge=1, le=MOST)]
#: As `Count`, or none.
Whole = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
#: In [0, 1].
Share = Annotated[float, Field(ge=0, le=1)]

#: Types that pydantic knows nothing of: values of such fields are the plug-in's own business.
_UNCHECKED = (PydanticUserError, PydanticUndefinedAnnotation)
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
    bounds = " and ".join(f"{sign} {_written(bound)}" for sign, bound in found if bound is not None)
    return f"{'a whole' if annotation is int else 'a finite'} number {bounds}".rstrip()


def fit(field: str, hint: Any, value: Any) -> Any:
    """A value as the type of its field, inside its range.

    Args:
        field: Its name in messages, `pgd.steps`.
        hint: Its type, with or without `Annotated`; what pydantic knows nothing of takes anything.
        value: What was given.

    Raises:
        RequestError: It does not fit.
    """
    try:
        refuse_truth(hint, value)
        return _adapter(hint).validate_python(value)
    except _UNCHECKED:
        return value
    except ValueError as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        range_ = allowed(hint)
        raise RequestError(
            f"{field} = {value!r} does not fit: {f'it has to be {range_}' if range_ else reason}"
        ) from None


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


def _written(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def _of(mark: Any, key: str) -> float | None:
    value = getattr(mark, key, None)
    return value if isinstance(value, int | float) else None


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False))
