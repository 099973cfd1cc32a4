"""Base classes and fields of all models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Answer(BaseModel):
    """A JSON object in an answer."""

    model_config = ConfigDict(
        validate_by_name=True, validate_by_alias=False, serialize_by_alias=True, from_attributes=True
    )


class Body(BaseModel):
    """A JSON object in a request. Unknown fields are ignored: clients send some that mean nothing here."""

    model_config = ConfigDict(extra="ignore")


def omitted_if_none(description: str | None = None) -> Any:
    """The default of a field that is left out of an answer when its value is None."""
    return Field(None, description=description, exclude_if=_is_none)


def _is_none(value: object) -> bool:
    return value is None


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


WholeNumber = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool)]


def timestamp(seconds: float) -> str:
    """Epoch seconds as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def timestamp_or_none(seconds: float | None) -> str | None:
    """The same for a time that may be None, or beyond the range of dates."""
    if seconds is None:
        return None
    try:
        return timestamp(seconds)
    except (ValueError, OverflowError, OSError):
        return None
