"""Requests for schedules. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TypeVar

from pandastack.errors import BadRequestError
from pandastack.services.cron import checked_cron, checked_zone
from pandastack.store.schedules import Catchup, Overlap

LONGEST_NAME = 128
LONGEST_ID = 64
MOST_JITTER_S = 3600

_Choice = TypeVar("_Choice", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class NewSchedule:
    """A request for a schedule. ``id`` None: a new one."""

    name: str
    function_id: str
    cron: str
    timezone: str = "UTC"
    paused: bool = False
    overlap: Overlap = Overlap.SKIP
    catchup: Catchup = Catchup.NONE
    jitter_seconds: int = 0
    id: str | None = None


@dataclass(frozen=True, slots=True)
class SchedulePatch:
    """Changes of a schedule; None: as it is."""

    name: str | None = None
    cron: str | None = None
    timezone: str | None = None
    paused: bool | None = None
    overlap: Overlap | None = None
    catchup: Catchup | None = None
    jitter_seconds: int | None = None


def checked_new(
    name: str,
    function_id: str,
    cron: str,
    paused: bool | None = None,
    timezone: str | None = None,
    overlap: str | None = None,
    catchup: str | None = None,
    jitter_seconds: int | None = None,
) -> NewSchedule:
    """A request for a schedule; None: the default. Raises :class:`BadRequestError` with the field."""
    if not 0 < len(function_id) <= LONGEST_ID:
        raise BadRequestError("function_id: must be the id of a function", field="function_id")
    patch = checked_patch(name, cron, paused, timezone, overlap, catchup, jitter_seconds)
    chosen = {each: value for each, value in asdict(patch).items() if value is not None}
    return NewSchedule(function_id=function_id, **chosen)


def checked_patch(
    name: str | None = None,
    cron: str | None = None,
    paused: bool | None = None,
    timezone: str | None = None,
    overlap: str | None = None,
    catchup: str | None = None,
    jitter_seconds: int | None = None,
) -> SchedulePatch:
    """A request for changes. Raises :class:`BadRequestError` with the field."""
    if name is not None and not (0 < len(name) <= LONGEST_NAME and name.isprintable()):
        raise BadRequestError(f"name: must have 1 to {LONGEST_NAME} characters, of one line", field="name")
    if jitter_seconds is not None and not 0 <= jitter_seconds <= MOST_JITTER_S:
        raise BadRequestError(f"jitter_seconds: must be from 0 to {MOST_JITTER_S}", field="jitter_seconds")
    return SchedulePatch(
        name,
        None if cron is None else checked_cron(cron),
        None if timezone is None else checked_zone(timezone),
        paused,
        _choice("overlap", Overlap, overlap),
        _choice("catchup", Catchup, catchup),
        jitter_seconds,
    )


def _choice(field: str, kind: type[_Choice], text: str | None) -> _Choice | None:
    if text is None:
        return None
    try:
        return kind(text)
    except ValueError:
        names = ", ".join(kind)
        raise BadRequestError(f"{field}: must be one of {names}", field=field, hint=f"one of {names}") from None
