"""What is done about a schedule that is due, and what a request may say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.errors import BadRequestError
from pandastack.products.schedules import checked_new, checked_patch
from pandastack.products.schedules.plan import (
    MOST_QUEUED,
    ON_TIME_S,
    Due,
    delay_of,
    due_at,
    plan_due,
    plan_overlap,
)
from pandastack.store.schedules import MOVES, UNENDED, Catchup, Overlap, RunStatus, ScheduleRecord

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
BEGIN = 20_000 * DAY

HOURLY = ScheduleRecord(
    "s", "w", "n", "f", "0 * * * *", "UTC", False, Overlap.SKIP, Catchup.NONE, 0, BEGIN, BEGIN, None, BEGIN
)
MADE_UP = replace(HOURLY, catchup=Catchup.ONE)


@pytest.mark.parametrize(
    ("schedule", "late", "expected"),
    [
        (HOURLY, 0, Due(BEGIN, None, BEGIN + HOUR)),
        (HOURLY, ON_TIME_S, Due(BEGIN, None, BEGIN + HOUR)),
        (HOURLY, ON_TIME_S + 1, Due(None, BEGIN, BEGIN + HOUR)),
        (MADE_UP, ON_TIME_S + 1, Due(BEGIN, None, BEGIN + HOUR)),
        (HOURLY, 5 * HOUR + 1, Due(BEGIN + 5 * HOUR, BEGIN, BEGIN + 6 * HOUR)),
        (HOURLY, 5.5 * HOUR, Due(None, BEGIN, BEGIN + 6 * HOUR)),
        (MADE_UP, 5.5 * HOUR, Due(BEGIN + 5 * HOUR, BEGIN, BEGIN + 6 * HOUR)),
        (MADE_UP, 1000 * DAY + 1, Due(BEGIN + 1000 * DAY, BEGIN, BEGIN + 1000 * DAY + HOUR)),
    ],
)
def test_times_that_were_missed(schedule: ScheduleRecord, late: float, expected: Due) -> None:
    assert plan_due(schedule, BEGIN + late) == expected


CRONS = st.sampled_from(["* * * * *", "*/7 * * * *", "0 0 * * *", "30 2 * * 1", "0 0 1 * *", "0 0 29 2 *"])


@given(CRONS, st.floats(0, 2000 * DAY), st.sampled_from(Catchup), st.integers(0, 3600), st.text(max_size=9))
def test_a_schedule_always_goes_on(cron: str, late: float, catchup: Catchup, jitter: int, name: str) -> None:
    schedule = replace(HOURLY, id=name, cron=cron, catchup=catchup, jitter_seconds=jitter)
    at = due_at(schedule)
    assert at is not None and 0 <= at - BEGIN <= jitter and delay_of(schedule) == delay_of(schedule)
    now = at + late
    due = plan_due(schedule, now)
    assert due.following is not None and due.following + delay_of(schedule) > now, "it is not due twice"
    assert due.fire is not None or due.missed == BEGIN
    if due.fire is not None:
        assert BEGIN <= due.fire <= now
        assert catchup is Catchup.ONE or now - due.fire - delay_of(schedule) <= ON_TIME_S + 1e-3
    assert due.missed != due.fire


def test_runs_that_would_overlap() -> None:
    running, pending, skipped = RunStatus.RUNNING, RunStatus.PENDING, RunStatus.SKIPPED
    assert {plan_overlap(each, 0, 0) for each in Overlap} == {(running, None)}
    assert plan_overlap(Overlap.ALLOW, 7, 0) == (running, None)
    assert plan_overlap(Overlap.SKIP, 1, 0)[0] is skipped
    assert plan_overlap(Overlap.QUEUE, 1, 0) == (pending, None)
    assert plan_overlap(Overlap.QUEUE, 0, 1) == (pending, None)
    assert plan_overlap(Overlap.QUEUE, 1, MOST_QUEUED)[0] is skipped


def test_every_status_is_reached_and_those_that_end_stay() -> None:
    assert set(MOVES) == set(RunStatus)
    assert set().union(*MOVES.values()) | {RunStatus.PENDING} == set(RunStatus)
    assert {RunStatus.PENDING, RunStatus.RUNNING} == UNENDED


def test_the_defaults() -> None:
    made = checked_new("n", "f", "* * * * *")
    assert (made.timezone, made.overlap, made.catchup, made.jitter_seconds, made.paused) == (
        "UTC",
        Overlap.SKIP,
        Catchup.NONE,
        0,
        False,
    )
    assert checked_new("n", "f", "* * * * *", True, "Asia/Tokyo", "queue", "one", 5).catchup is Catchup.ONE


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("name", each) for each in ("", "x" * 129, "two\nlines")),
        *(("overlap", each) for each in ("", "SKIP", "replace")),
        *(("catchup", each) for each in ("all", "none ")),
        *(("jitter_seconds", each) for each in (-1, 3601)),
        *(("timezone", each) for each in ("", "Nowhere")),
        ("cron", "never"),
    ],
)
def test_what_makes_no_sense_names_the_field(field: str, value: object) -> None:
    with pytest.raises(BadRequestError) as refused:
        checked_patch(**{field: value})  # type: ignore[arg-type]
    assert refused.value.field == field
    with pytest.raises(BadRequestError) as refused:
        checked_new("n", "x" * 65, "* * * * *")
    assert refused.value.field == "function_id"
