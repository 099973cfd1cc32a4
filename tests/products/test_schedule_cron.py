"""When schedules are due: summer time in every zone, against an oracle that looks at every minute."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.errors import BadRequestError
from pandastack.services.cron import checked_cron, checked_zone, find_next, times_after

ZONES = sorted(zoneinfo.available_timezones())
HOUR = timedelta(hours=1)


@cache
def changes(zone: str) -> tuple[datetime, ...]:
    """The hours of 2025 and 2026 in which the zone's offset changes (UTC)."""
    where = zoneinfo.ZoneInfo(zone)
    begin, found = datetime(2025, 1, 1, tzinfo=UTC), []
    hours = [begin + number * HOUR for number in range(0, 2 * 365 * 24, 24)]
    for day in hours:
        if day.astimezone(where).utcoffset() != (day + 24 * HOUR).astimezone(where).utcoffset():
            found += [
                hour
                for hour in (day + number * HOUR for number in range(24))
                if hour.astimezone(where).utcoffset() != (hour + HOUR).astimezone(where).utcoffset()
            ]
    return tuple(found)


def oracle(
    minutes: list[int] | None, hours: list[int] | None, zone: str, begin: datetime, end: datetime
) -> list[float]:
    """Every time after ``begin`` and until ``end``, found by looking at each minute. None: ``*``."""
    where, count = zoneinfo.ZoneInfo(zone), int((end - begin).total_seconds() // 60)
    real = [begin + timedelta(minutes=number) for number in range(1, count + 1)]
    if minutes is None or hours is None:
        local = ((each, each.astimezone(where)) for each in real)
        return [
            each.timestamp()
            for each, there in local
            if (minutes is None or there.minute in minutes) and (hours is None or there.hour in hours)
        ]
    due, seen = set(), {}
    for each in [begin - timedelta(minutes=number) for number in range(24 * 60)][::-1] + real:
        seen.setdefault(each.astimezone(where).replace(tzinfo=None, fold=0), each)
    wall, last = min(seen), max(seen)
    gap: list[datetime] = []
    while wall <= last:
        wanted = wall.hour in hours and wall.minute in minutes
        if wall not in seen:
            gap += [wall] if wanted else []
        else:
            due |= {seen[wall].timestamp()} if wanted or gap else set()
            gap = []
        wall += timedelta(minutes=1)
    return sorted(each for each in due if begin.timestamp() < each <= end.timestamp())


def field(values: list[int] | None) -> str:
    return "*" if values is None else ",".join(map(str, values))


def found(minutes: list[int] | None, hours: list[int] | None, zone: str, begin: datetime, end: datetime) -> list[float]:
    times = times_after(f"{field(minutes)} {field(hours)} * * *", zone, begin.timestamp())
    return list(takewhile(lambda each: each <= end.timestamp(), times))


@pytest.mark.parametrize(
    ("minutes", "hours"),
    [([30], [1, 2, 3]), ([0, 30], None), ([0, 15, 30, 45], [0, 2, 23]), (None, [0, 2]), (None, [1, 3])],
)
def test_summer_time_in_every_zone(minutes: list[int], hours: list[int] | None) -> None:
    """Those with the same changes are one: their rules are."""
    tried = set()
    for zone in ZONES:
        for change in changes(zone):
            there = change.astimezone(zoneinfo.ZoneInfo(zone))
            key = change, there.utcoffset(), (there + HOUR).utcoffset()
            if key in tried:
                continue
            tried.add(key)
            begin, end = change - 5 * HOUR, change + 30 * HOUR
            assert found(minutes, hours, zone, begin, end) == oracle(minutes, hours, zone, begin, end), (zone, change)
    assert len(tried) > 50


CHANGING = st.sampled_from(ZONES).filter(lambda zone: bool(changes(zone)))
SOME = st.none() | st.lists(st.integers(0, 59), min_size=1, max_size=4, unique=True).map(sorted)


@given(CHANGING, st.integers(0, 10), SOME, SOME, st.integers(-300, 300))
def test_any_expression_at_any_change(
    zone: str, which: int, minutes: list[int] | None, hours: list[int] | None, shift: int
) -> None:
    hours = None if hours is None else sorted({each % 24 for each in hours})
    change = changes(zone)[which % len(changes(zone))]
    begin = change + timedelta(minutes=shift)
    end = begin + 10 * HOUR
    assert found(minutes, hours, zone, begin, end) == oracle(minutes, hours, zone, begin, end)


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zoneinfo.ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        ("0 0 1 * *", "UTC", "2026-01-15", "2026-02-01"),
        ("0 0 29 2 *", "UTC", "2026-01-01", "2028-02-29"),
        ("0 12 13 * 5", "UTC", "2026-01-01", "2026-01-02 12:00"),
        ("0 0 * * 7", "UTC", "2026-01-01", "2026-01-04"),
        ("0 0 * * SUN", "UTC", "2026-01-01", "2026-01-04"),
        ("30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", "2026-03-29 03:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", "2026-10-25 02:30"),
        ("0 9 * * *", "Asia/Kathmandu", "2026-01-01 10:00", "2026-01-02 09:00"),
    ],
)
def test_the_next_time(cron: str, zone: str, after: str, expected: str) -> None:
    assert find_next(cron, zone, at(after, zone)) == at(expected, zone)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "0 0 31 2 *",
        "0 0 30 2 *",
        "@daily",
        "a b c d e",
        "* " * 500,
        "1-0 * * * *",
        "*/0 * * * *",
        "0 0 * * 5#9",
        "0 0 0 * *",
        "٣ * * * *",
        "* * * * *\0",
    ],
)
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        checked_cron(text)
    assert refused.value.field == "cron" and refused.value.hint


def test_expressions_are_kept_in_one_spelling() -> None:
    assert checked_cron("  0   9 * *\tmon-FRI ") == "0 9 * * mon-FRI"


@given(st.text(max_size=300))
def test_no_text_breaks_it(text: str) -> None:
    try:
        assert find_next(checked_cron(text), "UTC", 0.0) is not None
    except BadRequestError as error:
        assert error.field == "cron"


@pytest.mark.parametrize("name", ["", "Mars/Base", "../etc/passwd", "europe/berlin", "UTC\0", "x" * 1000])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(BadRequestError, match="timezone") as refused:
        checked_zone(name)
    assert refused.value.field == "timezone"
    assert checked_zone("Europe/Berlin") == "Europe/Berlin"
