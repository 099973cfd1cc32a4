"""What follows the attempt of a run."""

from __future__ import annotations

import pytest

from pandastack.errors import BadRequestError
from pandastack.products.functions import Background, checked_background
from pandastack.products.functions.retries import LONGEST_PAUSE, Outcome, is_repeated, outcome_of, plan_pause
from pandastack.store.functions import RunStatus


@pytest.mark.parametrize(
    ("status", "is_refused", "outcome"),
    [
        (RunStatus.SUCCESS, False, Outcome.SUCCESS),
        (RunStatus.ERROR, False, Outcome.ERROR),
        (RunStatus.ERROR, True, Outcome.REFUSED),
        (RunStatus.TIMEOUT, False, Outcome.TIMEOUT),
        (RunStatus.RUNNING, False, Outcome.ERROR),
    ],
)
def test_how_an_attempt_has_ended(status: RunStatus, is_refused: bool, outcome: Outcome) -> None:
    assert outcome_of(status, is_refused=is_refused) is outcome


@pytest.mark.parametrize("outcome", Outcome)
def test_what_is_repeated(outcome: Outcome) -> None:
    """Nothing unless it is asked for, and never after a success."""
    again = outcome is not Outcome.SUCCESS
    table = {(1, 0): False, (1, 1): again, (2, 1): False, (5, 5): again, (6, 5): False}
    assert {key: is_repeated(outcome, *key) for key in table} == table


def test_pauses_grow_up_to_an_hour() -> None:
    assert [plan_pause(attempt, 2.0, 0.5) for attempt in range(1, 6)] == [2.0, 8.0, 32.0, 128.0, 512.0]
    assert plan_pause(5, 3600.0, 0.5) == LONGEST_PAUSE
    assert [plan_pause(1, 10.0, chance) for chance in (0.0, 1.0)] == pytest.approx([8.0, 12.0])


def test_what_an_asynchronous_call_may_want() -> None:
    assert checked_background(None, None, is_async=False) == Background()
    assert checked_background(5, "https://a.test/", is_async=True) == Background(5, "https://a.test/")
    for retries, callback, is_async, field in (
        (0, None, False, "retries"),
        (None, "https://a.test/", False, "callback"),
        (6, None, True, "retries"),
        (-1, None, True, "retries"),
    ):
        with pytest.raises(BadRequestError) as refused:
            checked_background(retries, callback, is_async=is_async)
        assert refused.value.field == field
