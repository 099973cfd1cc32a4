"""When something that recurs is due: cron expressions of five fields in a time zone. Pure.

Rules of summer time are those of Debian's cron: what names an hour and a minute fires once on each day, at the end of
the gap if its hour is left out and the first time if its hour comes twice; what has ``*`` in one of them follows
elapsed time.
"""

from __future__ import annotations

import math
import re
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cache

from cronsim import CronSim, CronSimError

from pandastack.errors import BadRequestError

_LONGEST = 256
_DAY = 86400.0
_FIELDS = re.compile(r"[0-9A-Za-z*,/-]+( [0-9A-Za-z*,/-]+){4}", re.ASCII)
_HINT = "minute hour day month weekday, for example */15 9-17 * * MON-FRI"


@cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def checked_zone(name: str) -> str:
    """A time zone's name. Raises :class:`BadRequestError`."""
    if name not in _zones():
        hint = "a name of the time zone database, such as UTC or Europe/Berlin"
        raise BadRequestError(f"timezone: unknown time zone {name[:64]!r}", field="timezone", hint=hint)
    return name


def checked_cron(text: str, field: str = "cron") -> str:
    """An expression with one space between its fields. Raises :class:`BadRequestError` that names ``field``, also for
    one that no date matches."""
    expression = " ".join(text.split()) if len(text) <= _LONGEST else ""
    if not _FIELDS.fullmatch(expression):
        raise BadRequestError(f"{field}: must be five fields", field=field, hint=_HINT)
    try:
        CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC))
    except (CronSimError, ValueError) as error:
        raise BadRequestError(f"{field}: {error}", field=field, hint=_HINT) from error
    if find_next(expression, "UTC", datetime(2000, 1, 1, tzinfo=UTC).timestamp()) is None:
        raise BadRequestError(f"{field}: no date matches it", field=field, hint=_HINT)
    return expression


def find_next(cron: str, zone: str, after: float) -> float | None:
    """The first time after ``after`` (epoch seconds); None where there is none in fifty years."""
    return next(times_after(cron, zone, after), None)


def times_after(cron: str, zone: str, after: float) -> Iterator[float]:
    """All times after ``after``, each once."""
    where: tzinfo = UTC if zone == "UTC" else zoneinfo.ZoneInfo(zone)
    minute, hour, *_ = cron.split()
    elapsing = where is not UTC and (minute.startswith("*") or hour.startswith("*"))
    former = after
    try:
        for found in _elapsing(cron, where, after) if elapsing else _named(cron, where, after):
            if found > former:  # two that fall into a gap are one, and what comes twice has been
                yield found
                former = found
    except OverflowError:  # the end of all dates
        return


def _named(cron: str, where: tzinfo, after: float) -> Iterator[float]:
    return (each.timestamp() for each in CronSim(cron, datetime.fromtimestamp(after, where)))


def _elapsing(cron: str, where: tzinfo, after: float) -> Iterator[float]:
    """The times of what follows elapsed time, found between one change of the clock and the next: across a change that
    is not of whole hours, the library misses some."""
    begin, at = after, after
    while True:
        offset = timezone(_offset(where, at))
        for each in CronSim(cron, datetime.fromtimestamp(begin, offset)):
            found = each.timestamp()
            if (change := _first_change(where, at, found)) is not None:
                begin, at = change - 1, change
                break
            yield found
            at = found
        else:
            return


def _first_change(where: tzinfo, begin: float, end: float) -> float | None:
    """The first whole second after ``begin``, until ``end``, with another offset from UTC; no two changes are within a
    day of each other."""
    offset, before = _offset(where, begin), begin
    while before < end:
        after = min(before + _DAY, end)
        if _offset(where, after) != offset:
            low, high = math.floor(before), math.ceil(after)
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if _offset(where, middle) != offset else (middle, high)
            return high
        before = after
    return None


def _offset(where: tzinfo, at: float) -> timedelta:
    found = datetime.fromtimestamp(at, where).utcoffset()
    assert found is not None
    return found
