"""What follows the attempt of a run: another one later, or the end. Pure."""

from __future__ import annotations

from enum import StrEnum

from pandastack.store.functions import RunStatus

MOST_RETRIES = 5
JITTER = 0.2
_FACTOR = 4
LONGEST_PAUSE = 3600.0


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCESS = "success"
    ERROR = "error"
    """The function failed, or its process ended."""
    TIMEOUT = "timeout"
    REFUSED = "refused"
    """There was no machine for it: the function has not begun."""
    INTERRUPTED = "interrupted"
    """The server ended during the attempt."""


def outcome_of(status: RunStatus, *, is_refused: bool) -> Outcome:
    """How an attempt with such a status has ended."""
    if is_refused:
        return Outcome.REFUSED
    return Outcome.ERROR if status is RunStatus.RUNNING else Outcome(status)


def is_repeated(outcome: Outcome, attempt: int, retries: int) -> bool:
    """Whether another attempt follows the one with the number ``attempt``, which counts from 1."""
    return outcome is not Outcome.SUCCESS and attempt <= retries


def plan_pause(attempt: int, first: float, chance: float) -> float:
    """Seconds until the attempt after ``attempt``. ``chance`` (0 to 1) spreads runs that failed together."""
    pause = min(first * _FACTOR ** (attempt - 1), LONGEST_PAUSE)
    return float(pause * (1 - JITTER + 2 * JITTER * chance))
